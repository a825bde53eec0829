//! Runs: who holds them, and what is told of them.

use std::time::{Duration, Instant, SystemTime};

use async_map_task::store::{RunStatus, Store, StoreError};

use super::{HOUR, OVER_AT_ONCE, assert_lost, failed, open, sealed, succeeded, successes};

for_every_store![
    a_new_run_is_the_holders,
    a_held_run_is_refused_with_who_holds_it,
    a_run_of_another_task_is_refused,
    a_run_that_nobody_holds_any_more_is_taken,
    a_holder_that_opens_again_renews,
    a_lease_ends_when_it_should,
    a_lease_that_is_over_and_not_taken_is_renewed,
    a_lost_lease_cannot_be_renewed,
    closing_ends_the_lease_and_notes_the_end,
    closing_does_nothing_where_another_has_the_run,
    runs_are_told_from_the_last_to_the_first,
    a_run_is_told_with_its_counts_and_first_failures,
    a_forgotten_run_is_gone_with_all_that_was_kept,
    whoever_holds_a_forgotten_run_loses_it,
];

/// Times come back in whole milliseconds, and a server's clock may differ a little.
const ABOUT: Duration = Duration::from_secs(60);

#[track_caller]
fn assert_about(found: SystemTime, expected: SystemTime) {
    let apart = found.duration_since(expected).unwrap_or_else(|error| error.duration());
    assert!(apart < ABOUT, "{found:?} where it is about {expected:?}");
}

async fn a_new_run_is_the_holders<S: Store>(store: S) {
    let now = SystemTime::now();
    open(&store, "a").await.unwrap();
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!(
        (run.run_id.as_str(), run.task.as_str(), run.status),
        ("nightly", "resize", RunStatus::Running)
    );
    assert_eq!((run.succeeded, run.failed, run.failures), (0, 0, Vec::new()));
    let lease = run.lease.unwrap();
    assert_eq!(lease.holder, "a");
    assert_about(lease.since, now);
    assert_about(lease.expires, now + HOUR);
    assert_about(run.started, now);
    assert_about(run.updated, now);
}

async fn a_held_run_is_refused_with_who_holds_it<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let lease = store.run("nightly").await.unwrap().unwrap().lease.unwrap();
    match open(&store, "b").await {
        Err(StoreError::Held { run_id, holder, since, expires }) => {
            assert_eq!((run_id.as_str(), holder.as_str()), ("nightly", "a"));
            assert_eq!((since, expires), (lease.since, lease.expires));
        }
        other => panic!("{other:?} where the run is held"),
    }
    assert_eq!(store.run("nightly").await.unwrap().unwrap().lease.unwrap(), lease);
    // Another run is another matter.
    store.open_run("weekly", "resize", "b", HOUR).await.unwrap();
}

async fn a_run_of_another_task_is_refused<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    // While it is held, when it has ended, and for its own holder.
    for (holder, close) in [("b", false), ("a", false), ("b", true)] {
        if close {
            store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
        }
        match store.open_run("nightly", "embed", holder, HOUR).await {
            Err(StoreError::OtherTask { run_id, found, task }) => {
                let names = (run_id.as_str(), found.as_str(), task.as_str());
                assert_eq!(names, ("nightly", "resize", "embed"));
            }
            other => panic!("{other:?} where the run is of another task"),
        }
    }
}

async fn a_run_that_nobody_holds_any_more_is_taken<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    store.commit("nightly", "a", &[succeeded(0, "0")]).await.unwrap();
    let before = store.run("nightly").await.unwrap().unwrap();
    assert_eq!(before.lease.as_ref().unwrap().holder, "a", "told also where the lease is over");

    open(&store, "b").await.unwrap();
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!(run.lease.as_ref().unwrap().holder, "b");
    assert_eq!(run.started, before.started);
    assert_eq!(successes(&store, "nightly").await, [succeeded(0, "0")], "what was kept stays");
    assert_lost(store.commit("nightly", "a", &[]).await, "nightly", "a");

    let ended = RunStatus::Failed { reason: "2 of 3 items failed".to_owned() };
    store.close_run("nightly", "b", &ended).await.unwrap();
    open(&store, "c").await.unwrap();
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!((run.status, run.lease.unwrap().holder.as_str()), (RunStatus::Running, "c"));
}

async fn a_holder_that_opens_again_renews<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    let before = store.run("nightly").await.unwrap().unwrap().lease.unwrap();
    open(&store, "a").await.unwrap();
    open(&store, "a").await.unwrap();
    let after = store.run("nightly").await.unwrap().unwrap().lease.unwrap();
    assert_eq!((after.holder.as_str(), after.since), ("a", before.since));
    assert_about(after.expires, before.expires + HOUR);
    assert!(matches!(open(&store, "b").await, Err(StoreError::Held { .. })));
}

async fn a_lease_ends_when_it_should<S: Store>(store: S) {
    let lease = Duration::from_millis(300);
    let opened = Instant::now();
    store.open_run("nightly", "resize", "a", lease).await.unwrap();
    while let Err(error) = open(&store, "b").await {
        assert!(matches!(error, StoreError::Held { .. }), "{error}");
        assert!(opened.elapsed() < Duration::from_secs(30), "the lease does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A store may reckon in whole milliseconds.
    assert!(
        opened.elapsed() + Duration::from_millis(2) > lease,
        "the lease ended after {:?}",
        opened.elapsed()
    );

    // For as long as there are clocks.
    store.renew_run("nightly", "b", Duration::MAX).await.unwrap();
    assert!(matches!(open(&store, "c").await, Err(StoreError::Held { .. })));
}

async fn a_lease_that_is_over_and_not_taken_is_renewed<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    store.renew_run("nightly", "a", HOUR).await.unwrap();
    assert!(matches!(open(&store, "b").await, Err(StoreError::Held { .. })));
    store.renew_run("nightly", "a", OVER_AT_ONCE).await.unwrap();
    open(&store, "b").await.unwrap();
}

async fn a_lost_lease_cannot_be_renewed<S: Store>(store: S) {
    assert_lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a");
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    open(&store, "b").await.unwrap();
    assert_lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a");
    store.close_run("nightly", "b", &RunStatus::Succeeded).await.unwrap();
    assert_lost(store.renew_run("nightly", "b", HOUR).await, "nightly", "b");
}

async fn closing_ends_the_lease_and_notes_the_end<S: Store>(store: S) {
    let failed = RunStatus::Failed { reason: "cancelled".to_owned() };
    for (number, status) in [RunStatus::Succeeded, failed, RunStatus::Running].iter().enumerate() {
        let holder = format!("holder {number}");
        open(&store, &holder).await.unwrap();
        // Twice is once.
        store.close_run("nightly", &holder, status).await.unwrap();
        store.close_run("nightly", &holder, status).await.unwrap();
        let run = store.run("nightly").await.unwrap().unwrap();
        assert_eq!((&run.status, run.lease), (status, None));
        assert_lost(store.commit("nightly", &holder, &[]).await, "nightly", &holder);
    }
}

async fn closing_does_nothing_where_another_has_the_run<S: Store>(store: S) {
    store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
    assert_eq!(store.run("nightly").await.unwrap(), None);
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    open(&store, "b").await.unwrap();
    let before = store.run("nightly").await.unwrap();
    store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
    assert_eq!(store.run("nightly").await.unwrap(), before);
}

async fn runs_are_told_from_the_last_to_the_first<S: Store>(store: S) {
    assert_eq!(store.runs().await.unwrap(), []);
    for run_id in ["b", "c", "a"] {
        store.open_run(run_id, "resize", "holder", HOUR).await.unwrap();
    }
    // Which was opened again last does not matter.
    store.open_run("b", "resize", "holder", HOUR).await.unwrap();
    store.commit("c", "holder", &[succeeded(0, "0"), failed(1, "no")]).await.unwrap();
    let runs = store.runs().await.unwrap();
    let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
    assert_eq!(ids, ["a", "c", "b"]);
    for run in runs {
        assert_eq!(store.run(&run.run_id).await.unwrap().unwrap(), run);
    }
    assert_eq!(store.run("d").await.unwrap(), None);
}

async fn a_run_is_told_with_its_counts_and_first_failures<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.open_run("other", "resize", "a", HOUR).await.unwrap();
    store.commit("other", "a", &[failed(0, "of another run")]).await.unwrap();
    let records: Vec<_> = (0..100)
        .rev()
        .map(
            |index| {
                if index % 4 == 1 { failed(index, &format!("no {index}")) } else { succeeded(index, "1") }
            },
        )
        .collect();
    let opened = store.run("nightly").await.unwrap().unwrap();
    store.commit("nightly", "a", &records).await.unwrap();
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!((run.succeeded, run.failed), (75, 25));
    let first: Vec<_> = (0..10).map(|place| (4 * place + 1, format!("no {}", 4 * place + 1))).collect();
    assert_eq!(run.failures, first);
    assert!(run.updated >= opened.updated && run.started == opened.started);
}

async fn a_forgotten_run_is_gone_with_all_that_was_kept<S: Store>(store: S) {
    assert!(!store.forget("nightly").await.unwrap());
    for run_id in ["nightly", "weekly"] {
        store.open_run(run_id, "resize", "a", HOUR).await.unwrap();
        store.commit(run_id, "a", &[succeeded(0, "0"), failed(1, "no")]).await.unwrap();
        store.save_checkpoint(run_id, "a", 1, "hash", &sealed("1")).await.unwrap();
    }
    store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
    assert!(store.forget("nightly").await.unwrap());
    assert!(!store.forget("nightly").await.unwrap());
    assert_eq!(store.run("nightly").await.unwrap(), None);

    // Nothing of it comes back with a new run of that name, be it of another task.
    store.open_run("nightly", "embed", "b", HOUR).await.unwrap();
    assert_eq!(successes(&store, "nightly").await, []);
    assert_eq!(store.checkpoint("nightly", 1, "hash").await.unwrap(), None);
    assert_eq!(store.run("nightly").await.unwrap().unwrap().failed, 0);
    assert_eq!(successes(&store, "weekly").await, [succeeded(0, "0")]);
    assert_eq!(store.checkpoint("weekly", 1, "hash").await.unwrap(), Some(sealed("1")));
}

async fn whoever_holds_a_forgotten_run_loses_it<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    assert!(store.forget("nightly").await.unwrap());
    assert_lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a");
    assert_lost(store.commit("nightly", "a", &[succeeded(0, "0")]).await, "nightly", "a");
    assert_lost(store.save_checkpoint("nightly", "a", 0, "hash", &sealed("1")).await, "nightly", "a");
    store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
    assert_eq!(store.run("nightly").await.unwrap(), None);
}
