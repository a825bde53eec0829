//! Rule 4 of durable runs: a run has one holder at a time.

use std::sync::Arc;
use std::time::SystemTime;

use async_map_task::Recovery;
use async_map_task::store::{DEFAULT_LEASE, MemoryStore, RunStatus, Store, StoreError};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, HOUR, NEVER, Plan, at_once, ended_by_store, in_another_process, in_time, millis, secs,
    store_error, thrice, workers,
};

/// Returns a run with items that take an hour each.
fn slow(store: &Rigged) -> Plan {
    let task = at_once(2).build().unwrap();
    Plan::new(&task, store, |_, n| async move { Ok(sleep(HOUR).map(|()| n).await) })
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_second_run_gets_an_error_with_the_holder() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let before = SystemTime::now();
        let first = tokio::spawn(slow(&store).recover("r").run(0..4, end));
        // Its lease is renewed while it exists, so it is still held after many leases.
        for wait in [secs(1), 50 * DEFAULT_LEASE] {
            sleep(wait).await;
            let task = at_once(2).build().unwrap();
            let second = task.over(0..4_u64).map(|n| {
                calls.note(n);
                async move { Ok::<_, String>(n) }
            });
            let begun = Instant::now();
            let error = in_time(second.recover(&store, "r")).await.unwrap_err();
            let held = store.run("r").await.unwrap().unwrap().lease.unwrap();
            let StoreError::Held { run_id, holder, since, expires } = store_error(error.reason()) else {
                panic!("{error:?}")
            };
            assert_eq!(
                (run_id.as_str(), holder, since, expires),
                ("r", &held.holder, &held.since, &held.expires)
            );
            let pid = format!("/{}/", std::process::id());
            assert!(holder.contains(&pid), "{holder}: a person finds the process");
            let after = since.duration_since(before - secs(1)).unwrap();
            assert!((millis(900)..millis(1_900)).contains(&after), "{end:?}: held since {after:?}");
            let text = store_error(error.reason()).to_string();
            assert!(text.contains(holder) && text.contains("from 2"), "{text}");
            assert_eq!(error.summary().not_started, 4);
            assert!(begun.elapsed() <= millis(100), "{end:?}: after {:?}", begun.elapsed());
        }
        assert_eq!(calls.take(), Vec::<u64>::new());
        assert_eq!(first.await.unwrap().summary.successes, 4, "{end:?}: the first has noticed nothing");
        // It has given the run back.
        let third =
            thrice(&at_once(1).build().unwrap(), &store, &calls, NEVER).recover("r").run(0..4, end).await;
        assert_eq!(third.summary.recovered, 4, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_waiting_run_starts_when_the_holder_ends() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let first = Plan::new(&at_once(2).build().unwrap(), &store, |_, n| async move {
            Ok(sleep(secs(60)).map(|()| n).await)
        });
        let first = tokio::spawn(first.recover("r").run(0..4, end));
        sleep(secs(1)).await;
        let begun = Instant::now();
        let task = at_once(1).build().unwrap();
        let short = Recovery::run("r").wait_for_holder(secs(50));
        let refused = thrice(&task, &store, &calls, NEVER).recover(short).run(0..5, end).await;
        assert!(refused.reason.unwrap().contains("Held"), "{end:?}");
        assert_eq!(begun.elapsed(), secs(50), "{end:?}");
        let long = Recovery::run("r").wait_for_holder(HOUR);
        let second = thrice(&task, &store, &calls, NEVER).recover(long).run(0..5, end).await;
        assert!(first.is_finished() && begun.elapsed() < secs(120), "{:?}", begun.elapsed());
        assert_eq!((second.summary.recovered, calls.take()), (4, vec![4]), "{end:?}");
    }
}

/// A process that dies gives nothing back. Here it is a runtime that is shut down in the middle of a run.
#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_dead_holder_loses_the_run_with_its_lease() {
    let store = Rigged::willing();
    let calls = Calls::default();
    let process = workers(1);
    let held = store.clone();
    let first = process.spawn(async move {
        let end = End::all().next().unwrap();
        let call = |_, n| async move { if n < 2 { Ok(n) } else { std::future::pending().await } };
        Plan::new(&at_once(3).build().unwrap(), &held, call)
            .recover(Recovery::run("r").lease(secs(20)))
            .run(0..5, end)
            .await
    });
    in_another_process(|| store.durable().len() == 2);
    process.shutdown_background();
    assert!(first.await.is_err());
    let taken = store.run("r").await.unwrap().unwrap();
    let holder = taken.lease.expect("the dead give nothing back").holder;
    assert_eq!(taken.status, RunStatus::Running);

    let begun = Instant::now();
    let recovery = Recovery::run("r").lease(secs(20)).wait_for_holder(secs(21));
    let task = at_once(1).build().unwrap();
    let end = End::all().next().unwrap();
    let second = thrice(&task, &store, &calls, NEVER).recover(recovery).run(0..5, end).await;
    assert_eq!((second.reason, second.summary.recovered, calls.take()), (None, 2, vec![2, 3, 4]));
    assert!((secs(19)..=secs(21)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // A holder that was taken for dead can no longer change the run.
    let late = store.renew_run("r", &holder, HOUR).await.unwrap_err();
    assert!(matches!(late, StoreError::LeaseLost { .. }), "{late}");
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_holder_that_lost_the_run_stops() {
    for end in End::all() {
        for is_forgotten in [true, false] {
            let memory = MemoryStore::new();
            let thief = memory.clone();
            // Suspended until its lease is over, it resumes after another has taken the run.
            let store = Rigged::over(&memory, move |call| {
                if call == Call::RenewRun && !is_forgotten {
                    thief.open_run("r", "test", "thief", HOUR).now_or_never().unwrap().unwrap();
                }
                Step::Go
            });
            let run = tokio::spawn(slow(&store).recover(Recovery::run("r").lease(secs(30))).run(0..9, end));
            sleep(secs(1)).await;
            let begun = Instant::now();
            if is_forgotten {
                assert!(store.forget("r").await.unwrap());
            } else {
                advance(secs(31)).await;
            }
            let report = run.await.unwrap();
            let reason = report.reason.unwrap();
            let how = if is_forgotten { "Forgotten" } else { "Taken { by: \"thief\" }" };
            assert!(reason.contains("LeaseLost") && reason.contains(how), "{end:?}: {reason}");
            assert!(begun.elapsed() <= secs(31), "{end:?}: it has stopped at {:?}", begun.elapsed());
            assert_eq!((report.summary.cancelled, report.summary.not_started), (2, 7), "{end:?}");
            let info = memory.run("r").await.unwrap();
            assert_eq!(info.is_none(), is_forgotten, "{end:?}: it has not come back");
            if let Some(info) = info {
                assert_eq!((info.lease.unwrap().holder.as_str(), info.status), ("thief", RunStatus::Running));
            }
        }
    }
}

/// A lost lease is noticed at the next commit, too, and the finished outcomes do not count as durable.
#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_former_holder_writes_nothing() {
    let store = Rigged::on(Call::RenewRun, Step::Go);
    let task = at_once(1).build().unwrap();
    let memory = store.memory.clone();
    let run = task.over(0..3_u64).map(|n| {
        let memory = memory.clone();
        async move {
            if n == 1 {
                memory.forget("r").await.unwrap();
                memory.open_run("r", "test", "thief", HOUR).await.unwrap();
            }
            Ok::<_, String>(n)
        }
    });
    let (partial, why) = ended_by_store(in_time(run.recover(&store, "r")).await);
    assert!(why.contains("no longer held"), "{why}");
    assert!(partial.results[1].is_some() && partial.failures() == 0, "{}", partial.summary);
    assert_eq!(memory.run("r").await.unwrap().unwrap().succeeded, 0);
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_holder_with_an_expired_lease_stops() {
    let latch = Arc::new(Semaphore::new(0));
    for step in [Step::Fail, Step::Hang, Step::After(latch)] {
        for end in End::all() {
            let store = Rigged::on(Call::RenewRun, step.clone());
            let begun = Instant::now();
            let report = slow(&store).recover(Recovery::run("r").lease(secs(30))).run(0..9, end).await;
            let reason = report.reason.unwrap();
            let why = if matches!(step, Step::Fail) { "disk full" } else { "NotRenewed" };
            assert!(reason.starts_with("Store") && reason.contains(why), "{end:?}, {step:?}: {reason}");
            let stopped = begun.elapsed();
            assert!((secs(20)..=secs(31)).contains(&stopped), "{end:?}, {step:?}: at {stopped:?}");
        }
    }
}

/// After one failed renewal the next succeeds, without an effect on the run.
#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_failed_renewal_is_retried() {
    for end in End::all() {
        let mut asked = 0;
        let store = Rigged::new(move |call| {
            asked += usize::from(call == Call::RenewRun);
            if call == Call::RenewRun && asked % 3 != 0 { Step::Fail } else { Step::Go }
        });
        let report = slow(&store).recover("r").run(0..4, end).await;
        assert_eq!((report.reason, report.summary.successes), (None, 4), "{end:?}");
        let thirds = 2 * HOUR.as_secs() / (DEFAULT_LEASE.as_secs() / 3);
        assert_eq!(store.count(Call::RenewRun) as u64, thirds, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_waiting_run_can_be_stopped() {
    for end in End::all() {
        for has_timeout in [false, true] {
            let (store, token) = (Rigged::willing(), CancellationToken::new());
            store.open_run("r", "test", "other", 9 * HOUR).await.unwrap();
            let builder = if has_timeout { at_once(1).run_timeout(secs(1)) } else { at_once(1) };
            let recovery = Recovery::run("r").wait_for_holder(HOUR);
            let plan = thrice(&builder.build().unwrap(), &store, &Calls::default(), NEVER).recover(recovery);
            let begun = Instant::now();
            let stop = async {
                sleep(secs(1)).await;
                if !has_timeout {
                    token.cancel();
                }
            };
            let (report, ()) = tokio::join!(plan.token(&token).run(0..3, end), stop);
            let reason = report.reason.unwrap();
            assert!(reason.contains("Cancelled") || reason.contains("TimedOut"), "{end:?}: {reason}");
            assert!(begun.elapsed() < secs(2), "{end:?}: it has waited for {:?}", begun.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_run_dropped_while_waiting_takes_no_lease() {
    let store = Rigged::willing();
    store.open_run("r", "test", "other", secs(100)).await.unwrap();
    let task = at_once(1).build().unwrap();
    let run = task.over(0..3_u64).map(|n| async move { Ok::<_, String>(n) });
    let run = run.recover(&store, Recovery::run("r").wait_for_holder(HOUR));
    assert!(timeout(secs(1), run).await.is_err());
    sleep(secs(200)).await;
    let info = store.run("r").await.unwrap().unwrap();
    assert_eq!((info.status, info.lease.unwrap().holder.as_str()), (RunStatus::Running, "other"));
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    assert!(store.count(Call::OpenRun) < 30, "it asks no more: {}", store.count(Call::OpenRun));
}
