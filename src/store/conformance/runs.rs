//! Runs: their holders, and their descriptions.

use std::time::{Duration, Instant, SystemTime};

use crate::store::{RunStatus, Store, StoreError};

use super::{
    Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, fail, failed, info, lease, list_cases,
    lost, open, some, succeeded, successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        a_new_run_is_the_holders,
        a_held_run_is_refused_with_its_holder,
        a_run_of_another_task_is_refused,
        a_run_without_a_holder_is_taken,
        a_holder_that_opens_again_renews,
        a_lease_ends_when_it_should,
        a_lease_that_is_over_and_not_taken_is_renewed,
        a_lost_lease_cannot_be_renewed,
        closing_ends_the_lease_and_notes_the_end,
        closing_does_nothing_if_another_has_the_run,
        runs_are_listed_newest_first,
        a_run_has_its_counts_and_first_failures,
        a_forgotten_run_is_gone_with_all_that_was_kept,
        the_holder_of_a_forgotten_run_loses_it,
    ]
}

/// Times are rounded to whole milliseconds, and a server's clock may differ a little.
const ABOUT: Duration = Duration::from_secs(60);

#[track_caller]
fn about(found: SystemTime, expected: SystemTime) -> Checked {
    let apart = found.duration_since(expected).unwrap_or_else(|error| error.duration());
    ensure!(apart < ABOUT, "found {found:?}, expected about {expected:?}");
    Ok(())
}

async fn a_new_run_is_the_holders<S: Store>(store: S) -> Checked {
    let now = SystemTime::now();
    open(&store, "a").await?;
    let run = info(&store, "nightly").await?;
    ensure_eq!(
        (run.run_id.as_str(), run.task.as_str(), run.status),
        ("nightly", "resize", RunStatus::Running)
    );
    ensure_eq!((run.succeeded, run.failed, run.failures), (0, 0, Vec::new()));
    let lease = some(run.lease, "the lease")?;
    ensure_eq!(lease.holder, "a");
    about(lease.since, now)?;
    about(lease.expires, now + HOUR)?;
    about(run.started, now)?;
    about(run.updated, now)?;
    Ok(())
}

async fn a_held_run_is_refused_with_its_holder<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let before = lease(&store, "nightly").await?;
    match open(&store, "b").await {
        Err(StoreError::Held { run_id, holder, since, expires }) => {
            ensure_eq!((run_id.as_str(), holder.as_str()), ("nightly", "a"));
            ensure_eq!((since, expires), (before.since, before.expires));
        }
        other => fail!("found {other:?}, expected StoreError::Held"),
    }
    ensure_eq!(lease(&store, "nightly").await?, before);
    // Another run is independent.
    store.open_run("weekly", "resize", "b", HOUR).await?;
    Ok(())
}

async fn a_run_of_another_task_is_refused<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    // In turn: while it is held, for its own holder, and after it has ended.
    for (holder, close) in [("b", false), ("a", false), ("b", true)] {
        if close {
            store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
        }
        match store.open_run("nightly", "embed", holder, HOUR).await {
            Err(StoreError::OtherTask { run_id, found, task }) => {
                let names = (run_id.as_str(), found.as_str(), task.as_str());
                ensure_eq!(names, ("nightly", "resize", "embed"));
            }
            other => fail!("found {other:?}, expected StoreError::OtherTask"),
        }
    }
    Ok(())
}

async fn a_run_without_a_holder_is_taken<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    store.commit("nightly", "a", &[succeeded(0, "0")]).await?;
    let before = info(&store, "nightly").await?;
    ensure_eq!(some(before.lease.as_ref(), "the lease")?.holder, "a", "an expired lease is shown, too");

    open(&store, "b").await?;
    let run = info(&store, "nightly").await?;
    ensure_eq!(some(run.lease.as_ref(), "the lease")?.holder, "b");
    ensure_eq!(run.started, before.started);
    ensure_eq!(successes(&store, "nightly").await?, [succeeded(0, "0")], "stored outcomes are not deleted");
    lost(store.commit("nightly", "a", &[]).await, "nightly", "a")?;

    let ended = RunStatus::Failed { reason: "2 of 3 items failed".to_owned() };
    store.close_run("nightly", "b", &ended).await?;
    open(&store, "c").await?;
    let run = info(&store, "nightly").await?;
    ensure_eq!((run.status, some(run.lease, "the lease")?.holder.as_str()), (RunStatus::Running, "c"));
    Ok(())
}

async fn a_holder_that_opens_again_renews<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    let before = lease(&store, "nightly").await?;
    open(&store, "a").await?;
    open(&store, "a").await?;
    let after = lease(&store, "nightly").await?;
    ensure_eq!((after.holder.as_str(), after.since), ("a", before.since));
    about(after.expires, before.expires + HOUR)?;
    ensure!(matches!(open(&store, "b").await, Err(StoreError::Held { .. })));
    Ok(())
}

async fn a_lease_ends_when_it_should<S: Store>(store: S) -> Checked {
    let lease = Duration::from_millis(300);
    let opened = Instant::now();
    store.open_run("nightly", "resize", "a", lease).await?;
    while let Err(error) = open(&store, "b").await {
        ensure!(matches!(error, StoreError::Held { .. }), "{error}");
        ensure!(opened.elapsed() < Duration::from_secs(30), "the lease does not expire within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A store may count whole milliseconds.
    ensure!(
        opened.elapsed() + Duration::from_millis(2) > lease,
        "the lease ended after {:?}",
        opened.elapsed()
    );

    // The longest possible lease does not overflow.
    store.renew_run("nightly", "b", Duration::MAX).await?;
    ensure!(matches!(open(&store, "c").await, Err(StoreError::Held { .. })));
    Ok(())
}

async fn a_lease_that_is_over_and_not_taken_is_renewed<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    store.renew_run("nightly", "a", HOUR).await?;
    ensure!(matches!(open(&store, "b").await, Err(StoreError::Held { .. })));
    store.renew_run("nightly", "a", EXPIRED).await?;
    open(&store, "b").await?;
    Ok(())
}

async fn a_lost_lease_cannot_be_renewed<S: Store>(store: S) -> Checked {
    lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a")?;
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    open(&store, "b").await?;
    lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a")?;
    store.close_run("nightly", "b", &RunStatus::Succeeded).await?;
    lost(store.renew_run("nightly", "b", HOUR).await, "nightly", "b")?;
    Ok(())
}

async fn closing_ends_the_lease_and_notes_the_end<S: Store>(store: S) -> Checked {
    let failed = RunStatus::Failed { reason: "cancelled".to_owned() };
    for (number, status) in [RunStatus::Succeeded, failed, RunStatus::Running].iter().enumerate() {
        let holder = format!("holder {number}");
        open(&store, &holder).await?;
        // Closing twice has the effect of closing once.
        store.close_run("nightly", &holder, status).await?;
        store.close_run("nightly", &holder, status).await?;
        let run = info(&store, "nightly").await?;
        ensure_eq!((&run.status, run.lease), (status, None));
        lost(store.commit("nightly", &holder, &[]).await, "nightly", &holder)?;
    }
    Ok(())
}

async fn closing_does_nothing_if_another_has_the_run<S: Store>(store: S) -> Checked {
    store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
    ensure_eq!(store.run("nightly").await?, None);
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    open(&store, "b").await?;
    let before = store.run("nightly").await?;
    store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
    ensure_eq!(store.run("nightly").await?, before);
    Ok(())
}

async fn runs_are_listed_newest_first<S: Store>(store: S) -> Checked {
    ensure_eq!(store.runs().await?, []);
    for run_id in ["b", "c", "a"] {
        store.open_run(run_id, "resize", "holder", HOUR).await?;
    }
    // Opening a run again does not change the order.
    store.open_run("b", "resize", "holder", HOUR).await?;
    store.commit("c", "holder", &[succeeded(0, "0"), failed(1, "no")]).await?;
    let runs = store.runs().await?;
    let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
    ensure_eq!(ids, ["a", "c", "b"]);
    for run in runs {
        ensure_eq!(info(&store, &run.run_id).await?, run);
    }
    ensure_eq!(store.run("d").await?, None);
    Ok(())
}

async fn a_run_has_its_counts_and_first_failures<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.open_run("other", "resize", "a", HOUR).await?;
    store.commit("other", "a", &[failed(0, "of another run")]).await?;
    let records: Vec<_> = (0..100)
        .rev()
        .map(
            |index| {
                if index % 4 == 1 { failed(index, &format!("no {index}")) } else { succeeded(index, "1") }
            },
        )
        .collect();
    let opened = info(&store, "nightly").await?;
    store.commit("nightly", "a", &records).await?;
    let run = info(&store, "nightly").await?;
    ensure_eq!((run.succeeded, run.failed), (75, 25));
    let first: Vec<_> = (0..10).map(|place| (4 * place + 1, format!("no {}", 4 * place + 1))).collect();
    ensure_eq!(run.failures, first);
    ensure!(run.updated >= opened.updated && run.started == opened.started);
    Ok(())
}

async fn a_forgotten_run_is_gone_with_all_that_was_kept<S: Store>(store: S) -> Checked {
    ensure!(!store.forget("nightly").await?);
    for run_id in ["nightly", "weekly"] {
        store.open_run(run_id, "resize", "a", HOUR).await?;
        store.commit(run_id, "a", &[succeeded(0, "0"), failed(1, "no")]).await?;
        store.save_checkpoint(run_id, "a", 1, "hash", &checksummed("1")).await?;
    }
    store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
    ensure!(store.forget("nightly").await?);
    ensure!(!store.forget("nightly").await?);
    ensure_eq!(store.run("nightly").await?, None);

    // A new run of that id starts empty, even for another task.
    store.open_run("nightly", "embed", "b", HOUR).await?;
    ensure_eq!(successes(&store, "nightly").await?, []);
    ensure_eq!(store.checkpoint("nightly", 1, "hash").await?, None);
    ensure_eq!(info(&store, "nightly").await?.failed, 0);
    ensure_eq!(successes(&store, "weekly").await?, [succeeded(0, "0")]);
    ensure_eq!(store.checkpoint("weekly", 1, "hash").await?, Some(checksummed("1")));
    Ok(())
}

async fn the_holder_of_a_forgotten_run_loses_it<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    ensure!(store.forget("nightly").await?);
    lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a")?;
    lost(store.commit("nightly", "a", &[succeeded(0, "0")]).await, "nightly", "a")?;
    lost(store.save_checkpoint("nightly", "a", 0, "hash", &checksummed("1")).await, "nightly", "a")?;
    store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
    ensure_eq!(store.run("nightly").await?, None);
    Ok(())
}
