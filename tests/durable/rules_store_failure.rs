//! Rule 3 of durable runs: a store that fails stops the run, and no finished outcome is lost or given twice.

use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use async_map_task::store::{
    Checksummed, DEFAULT_LEASE, DEFAULT_TIME_LIMIT, MemoryStore, Recorded, RunStatus, Store, StoreError,
};
use async_map_task::{FailureReason, Recovery};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, HOUR, NEVER, Plan, at_once, ended_by_store, in_time, lenient, millis, secs, store_error,
    thrice,
};
use crate::warnings::Warnings;

#[tokio::test(start_paused = true)]
async fn durable_rule_3_an_unreadable_store_fails_the_run_first() {
    for end in End::all() {
        for call in [Call::OpenRun, Call::Successes] {
            let (store, calls) = (Rigged::on(call, Step::Fail), Calls::default());
            let task = lenient(2).build().unwrap();
            let report = thrice(&task, &store, &calls, NEVER).recover("r").run(0..9, end).await;
            assert!(report.reason.unwrap().contains("disk full"), "{end:?}, {call:?}");
            assert_eq!((report.summary.not_started, calls.take()), (9, Vec::new()), "{end:?}, {call:?}");
            if let Some(info) = store.run("r").await.unwrap() {
                assert_eq!(info.lease, None, "{end:?}: it is given back all the same");
            }
        }
    }
}

/// The second page of an earlier run cannot be read: the items on the first have come back, and items that ran are
/// durable.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_an_unreadable_page_stops_the_run() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = lenient(8).build().unwrap();
        thrice(&task, &store, &calls, 100).recover("r").run(0..3_000, end).await;
        calls.take();
        let again = Rigged::over(&store.memory, {
            let mut pages = 0;
            move |call| {
                pages += usize::from(call == Call::Successes);
                if call == Call::Successes && pages == 2 { Step::Fail } else { Step::Go }
            }
        });
        let report = thrice(&task, &again, &calls, NEVER).recover("r").run(0..3_000, end).await;
        let called = calls.take();
        assert!(report.reason.unwrap().contains("disk full"), "{end:?}");
        assert!(report.summary.recovered >= 1_900 && report.summary.not_started >= 700, "{}", report.summary);
        assert!(called.iter().all(|n| n % 100 == 0 && *n < 2_200), "{end:?}: {called:?}");
        let third = thrice(&task, &store, &calls, NEVER).recover("r").run(0..3_000, end).await;
        assert_eq!((third.reason, third.summary.successes), (None, 3_000), "{end:?}");
        let ran = calls.take();
        assert!(again.durable().iter().all(|n| !ran.contains(n)), "{end:?}: what was durable ran again");
        if end.gives_outcomes() {
            let given = report.outputs.iter().filter(|(index, _)| called.contains(&(*index as u64)));
            assert!(given.clone().all(|(index, _)| again.durable().contains(&(*index as u64))), "{end:?}");
            assert_eq!(given.count(), again.durable().len(), "{end:?}: all that is durable was given");
        }
    }
}

/// The item that ends is the first to detect that the next page cannot be read, and the store's error is still the reason.
/// Durable outcomes are given out, although their commit and the failure are detected at the same time.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_an_item_that_fails_first_has_the_stores_error() {
    for end in End::all().filter(|end| !end.ordered) {
        for yields in 0..4 {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let task = lenient(8).build().unwrap();
            Plan::new(&task, &store, |_, n| async move { if n < 2 { Err("no") } else { Ok(n) } })
                .recover("r")
                .run(0..2_100, end)
                .await;
            let latch = Arc::new(Semaphore::new(0));
            let (page, mut pages) = (Arc::clone(&latch), 0);
            store.rig(move |call| {
                pages += usize::from(call == Call::Successes);
                if call == Call::Successes && pages == 2 {
                    Step::FailAfter(Arc::clone(&page))
                } else {
                    Step::Go
                }
            });
            let noted = calls.clone();
            let plan = Plan::new(&task, &store, move |_, n| {
                noted.note(n);
                let latch = Arc::clone(&latch);
                async move {
                    sleep(secs(1)).await;
                    if n == 1 {
                        latch.add_permits(1);
                        for _ in 0..yields {
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok(n)
                }
            });
            let report = plan.recover("r").run(0..2_100, end).await;
            let reason = report.reason.unwrap();
            assert!(reason.contains("disk full"), "{end:?}, {yields}: {reason}");
            let ran: Vec<u64> = report.outputs.iter().map(|(_, n)| *n).filter(|n| *n < 2).collect();
            if end.gives_outcomes() {
                let mut durable: Vec<u64> = store.durable().into_iter().filter(|n| *n < 2).collect();
                durable.sort_unstable();
                assert_eq!(ran, durable, "{end:?}, {yields}: what is durable is given, and nothing else");
            }
        }
    }
}

/// The nth commit fails. Only durable outcomes are given out. If all results are kept, the partial result also has
/// the finished ones.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_failed_commit_keeps_finished_outcomes() {
    for end in End::all() {
        for nth in 1..6 {
            let (store, calls) = (Rigged::failing_from(Call::Commit, nth), Calls::default());
            let noted = calls.clone();
            let task = at_once(3).cancel_grace(secs(5)).build().unwrap();
            let plan = Plan::new(&task, &store, move |_, n| {
                noted.note(n);
                async move { sleep(secs(1 + n % 4)).map(|()| Ok(n)).await }
            });
            let report = plan.clone().recover("r").run(0..30, end).await;
            let reason = report.reason.unwrap();
            assert!(reason.contains("disk full"), "{end:?}, {nth}: {reason}");
            let durable = store.durable();
            let given: Vec<u64> = report.outputs.iter().map(|(index, _)| *index as u64).collect();
            assert!(durable.iter().all(|index| given.contains(index)), "{end:?}, {nth}: one was lost");
            if end.gives_outcomes() {
                assert_eq!(given.len(), durable.len(), "{end:?}, {nth}: {given:?}, durable {durable:?}");
                assert!(
                    report.summary.cancelled > 0,
                    "{end:?}: what was finished is not, for whoever takes it"
                );
            } else {
                // Items that ran when the store failed had their grace, and ended in it.
                assert_eq!(given.len(), calls.take().len(), "{end:?}, {nth}");
            }
            // The next run has the durable ones, and runs all others.
            calls.take();
            store.rig(|_| Step::Go);
            let next = plan.recover("r").run(0..30, end).await;
            assert_eq!((next.summary.successes, next.summary.recovered), (30, durable.len()), "{end:?}");
            assert_eq!(calls.take().len(), 30 - durable.len(), "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_3_the_reason_is_the_error_of_the_store() {
    let store = Rigged::failing_from(Call::Commit, 2);
    let task = at_once(1).build().unwrap();
    let run = task.over(0..3_u64).map(|n| async move { Ok::<_, String>(sleep(secs(1)).map(|()| n).await) });
    let error = in_time(run.recover(&store, "r")).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Store(_)), "{:?}", error.reason());
    let source = error.source().unwrap().downcast_ref::<StoreError>().expect("it is an error of the store");
    let StoreError::Database { error: cause, .. } = source else { panic!("{source:?}") };
    assert_eq!(cause.to_string(), "disk full");
    assert_eq!(error.to_string(), "test: the store failed after 2 items");
    let partial = error.into_partial();
    assert_eq!((partial.results[0], partial.successes()), (Some(0), 2), "{}", partial.summary);
    // The status of the run in the store has the error, too.
    let info = store.run("r").await.unwrap().unwrap();
    assert!(matches!(&info.status, RunStatus::Failed { reason } if reason.contains("disk full")), "{info:?}");
    assert_eq!(info.lease, None);
    // The same holds if the outcomes are taken as they come.
    let store = Rigged::failing_from(Call::Commit, 1);
    let run = task.over(0..3_u64).map(|n| async move { Ok::<_, String>(n) });
    let error = in_time(run.recover(&store, "r").for_each(|_| async {})).await.unwrap_err();
    store_error(error.reason());
    assert!(error.source().unwrap().is::<StoreError>(), "{error:?}");
}

/// Enough successes are not enough if they are not durable.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_failed_store_prevents_an_early_success() {
    for end in End::all() {
        for nth in [1, 2] {
            let store = Rigged::failing_from(Call::Commit, nth);
            let task = at_once(4).early_success(true).min_successes(2).cancel_grace(secs(9)).build().unwrap();
            let call = |_, n| async move { sleep(secs(1 + 3 * (n / 2))).map(|()| Ok(n)).await };
            let report = Plan::new(&task, &store, call).recover("r").run(0..9, end).await;
            let reason = report.reason.expect("it is no success");
            assert!(reason.contains("disk full"), "{end:?}, {nth}: {reason}");
        }
    }
}

/// The last commit fails when all items have run: the run has not succeeded.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_failed_last_commit_fails_the_run() {
    for end in End::all() {
        let (store, calls) = (Rigged::on(Call::Commit, Step::Fail), Calls::default());
        let task = lenient(9).build().unwrap();
        let report = thrice(&task, &store, &calls, NEVER).recover("r").run(0..9, end).await;
        assert!(report.reason.unwrap().contains("disk full"), "{end:?}");
        assert_eq!(calls.take().len(), 9, "{end:?}");
        let (successes, cancelled) = (report.summary.successes, report.summary.cancelled);
        assert_eq!(successes + cancelled, 9, "{end:?}");
        // With `parallel()`, an attempt that has begun may not have been polled when the commit fails.
        let is_whole = if end.gives_outcomes() { successes == 0 } else { successes == 9 || end.parallel };
        assert!(is_whole, "{end:?}: {}", report.summary);
    }
}

/// A store that fails only to record a failure has failed as well.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_an_unrecorded_failure_stops_the_run() {
    for end in End::all() {
        let (store, calls) = (Rigged::on(Call::Commit, Step::Fail), Calls::default());
        let task = lenient(2).build().unwrap();
        let report = thrice(&task, &store, &calls, 1).recover("r").run(0..30, end).await;
        assert!(report.reason.unwrap().contains("disk full"), "{end:?}");
        assert!(report.summary.successes == 0 && report.summary.failures > 0, "{end:?}: {}", report.summary);
    }
}

/// A store that answers late has not failed: there is no effect.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_slow_store_has_no_effect() {
    for end in End::all() {
        let latch = Arc::new(Semaphore::new(0));
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let task = at_once(2).build().unwrap();
        let run = tokio::spawn(thrice(&task, &store, &Calls::default(), NEVER).recover("r").run(0..50, end));
        sleep(DEFAULT_TIME_LIMIT - secs(1)).await;
        latch.add_permits(50);
        let report = run.await.unwrap();
        assert_eq!((report.reason, report.outputs.len()), (None, 50), "{end:?}");
    }
}

/// Everything is durable, and only giving the run back fails: that is not a failure, and the log has a warning.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_failed_release_is_only_a_warning() {
    let (warnings, _listening) = Warnings::listen();
    for end in End::all() {
        let (store, calls) = (Rigged::on(Call::CloseRun, Step::Fail), Calls::default());
        let task = at_once(2).build().unwrap();
        let plan = thrice(&task, &store, &calls, NEVER);
        let report = plan.clone().recover("r").run(0..9, end).await;
        assert_eq!((report.reason, report.summary.successes), (None, 9), "{end:?}");
        assert_eq!(warnings.count("failed to release the run"), 1, "{end:?}");
        let begun = Instant::now();
        let next =
            plan.recover(Recovery::run("r").wait_for_holder(DEFAULT_LEASE + secs(1))).run(0..9, end).await;
        assert_eq!((next.reason, next.summary.recovered), (None, 9), "{end:?}");
        assert!(
            (DEFAULT_LEASE..=DEFAULT_LEASE + secs(1)).contains(&begun.elapsed()),
            "{end:?}: its lease was over first"
        );
        warnings.count("failed to release the run");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_3_an_item_that_is_not_json_stops_the_run() {
    let store = MemoryStore::new();
    let task = at_once(2).build().unwrap();
    // Serde refuses to serialize a `SystemTime` before 1970.
    let items = [0, 1, 0].map(|seconds| SystemTime::UNIX_EPOCH - secs(seconds));
    let run = task.over(items).map(|_| async move {
        sleep(millis(1)).await;
        Ok::<_, String>(0)
    });
    let (partial, why) = ended_by_store(in_time(run.recover(&store, "r")).await);
    assert!(why.starts_with("item 1: the item cannot be serialized: "), "{why}");
    assert!(partial.results[1].is_none() && partial.not_started() >= 2, "{}", partial.summary);
}

/// A stored output is damaged: it is neither given out nor overwritten.
#[tokio::test(start_paused = true)]
async fn durable_rule_3_a_damaged_output_stops_the_run() {
    let store = MemoryStore::new();
    let task = at_once(2).build().unwrap();
    let numbers = |store| task.over(0..9_u64).map(|n| async move { Ok::<_, String>(n) }).recover(store, "r");
    numbers(&store).await.unwrap();
    let mut record = store.successes("r", 4, 1).await.unwrap().remove(0);
    let Recorded::Succeeded { output } = record.recorded else { panic!("{record:?}") };
    let damaged = Checksummed { json: "5".to_owned(), ..output };
    record.recorded = Recorded::Succeeded { output: damaged };
    store.open_run("r", "test", "vandal", HOUR).await.unwrap();
    store.commit("r", "vandal", &[record]).await.unwrap();
    store.close_run("r", "vandal", &RunStatus::Succeeded).await.unwrap();
    let (partial, why) = ended_by_store(in_time(numbers(&store)).await);
    assert!(why.contains("damaged") && why.contains(" 4 "), "{why}");
    assert_eq!(partial.successes() + partial.not_started(), 9, "nothing ran: {}", partial.summary);
}
