//! Rule 1 of durable runs: an item that has succeeded does not run again.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::store::{MemoryStore, RunStatus, Store};
use async_map_task::{AsyncMapTask, Limiter, Origin, Recovery};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::rigged::Rigged;
use crate::support::{Calls, End, HOUR, NEVER, Plan, at_once, in_time, lenient, millis, secs, thrice};
use crate::warnings::Warnings;

#[tokio::test(start_paused = true)]
async fn durable_rule_1_successes_come_back_at_their_indices() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = lenient(4).build().unwrap();
        let first = thrice(&task, &store, &calls, 3).recover("nightly").run(1..21, end).await;
        assert_eq!((first.summary.successes, first.summary.recovered, calls.take().len()), (14, 0, 20));

        let second = thrice(&task, &store, &calls, NEVER).recover("nightly").run(1..21, end).await;
        assert_eq!(calls.take(), [3, 6, 9, 12, 15, 18], "{end:?}: only what had failed, in its order");
        let outputs: Vec<_> = (0..20).map(|index| (index, 3 * (index as u64 + 1))).collect();
        assert_eq!(second.outputs, outputs, "{end:?}");
        let counts = [second.summary.successes, second.summary.recovered, second.summary.changed];
        assert_eq!((counts, second.reason), ([20, 14, 0], None), "{end:?}");
        for (index, origin) in second.origins {
            let expected = if (index + 1) % 3 == 0 { Origin::Ran } else { Origin::Recovered };
            assert_eq!(origin, expected, "{end:?}: {index}");
        }
        let info = store.run("nightly").await.unwrap().unwrap();
        assert_eq!((info.status, info.succeeded, info.failed), (RunStatus::Succeeded, 20, 0));
        assert_eq!(info.lease, None, "{end:?}: a run that has ended is nobody's");
    }
}

/// More successes than one page, with gaps at the ends of the pages and in the middle.
#[tokio::test(start_paused = true)]
async fn durable_rule_1_long_runs_with_gaps_are_recovered() {
    let gaps: [&dyn Fn(u64) -> bool; 6] = [
        &|n| n % 97 == 0,
        &|n| matches!(n, 2_047..=2_049 | 4_095..=4_097),
        &|n| n < 3_000,
        &|n| n >= 5_900,
        &|n| n != 5_999,
        &|_| false,
    ];
    for (case, is_gap) in gaps.into_iter().enumerate() {
        for concurrency in [1, 64] {
            let (store, calls) = (MemoryStore::new(), Mutex::new(Vec::new()));
            let task = lenient(concurrency).build().unwrap();
            let run = |mended: bool| {
                let calls = &calls;
                let call = move |n: u64| async move {
                    calls.lock().unwrap().push(n);
                    if is_gap(n) && !mended { Err("a gap") } else { Ok(7 * n) }
                };
                task.over(0..6_000).map(call).recover(&store, "long")
            };
            let missing = run(false).await.unwrap().failures();
            calls.lock().unwrap().clear();
            let result = in_time(run(true)).await.unwrap();
            let expected: Vec<u64> = (0..6_000).filter(|n| is_gap(*n)).collect();
            assert_eq!(*calls.lock().unwrap(), expected, "case {case}");
            assert!((0..6_000).map(|n| Some(7 * n)).eq(result.results.iter().copied()), "case {case}");
            assert_eq!(result.summary.recovered, 6_000 - missing, "case {case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_a_changed_item_runs_again() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = lenient(4).build().unwrap();
        thrice(&task, &store, &calls, 5).recover("r").run(1..11, end).await;
        calls.take();
        // The fifth had failed, so it has not changed since it succeeded.
        let items = [1, 2, 33, 4, 55, 6, 7, 8, 99, 10];
        let changed = thrice(&task, &store, &calls, NEVER).recover("r").run(items, end).await;
        assert_eq!(calls.take(), [33, 55, 99, 10], "{end:?}");
        assert_eq!((changed.summary.changed, changed.summary.recovered), (2, 6), "{end:?}");
        assert_eq!(changed.outputs[2], (2, 99), "{end:?}: never the output of what was there before");
        // From now on, its present state is recorded.
        let again = thrice(&task, &store, &calls, NEVER).recover("r").run(items, end).await;
        assert_eq!((again.summary.changed, again.summary.recovered), (0, 10), "{end:?}");
        assert_eq!((again.outputs, calls.take()), (changed.outputs, vec![]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_a_list_may_grow_shrink_and_shift() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    let task = at_once(3).build().unwrap();
    let end = End::all().next().unwrap();
    let run = async |items: &[u64]| {
        let run = thrice(&task, &store, &calls, NEVER).recover("r").run(items.to_vec(), end).await;
        assert_eq!(run.outputs.len(), items.len());
        (run.summary.recovered, run.summary.changed, calls.take())
    };
    assert_eq!(run(&[1, 2, 3]).await, (0, 0, vec![1, 2, 3]));
    assert_eq!(run(&[1, 2, 3, 4, 5]).await, (3, 0, vec![4, 5]));
    assert_eq!(run(&[1, 2]).await, (2, 0, vec![]));
    assert_eq!(run(&[1, 2, 3, 4, 5]).await, (5, 0, vec![]), "what a shorter list left out is still known");
    assert_eq!(run(&[9, 1, 2, 3, 4, 5]).await, (0, 5, vec![9, 1, 2, 3, 4, 5]));
    assert_eq!(run(&[]).await, (0, 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_settings_do_not_affect_recovery() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    let task = lenient(1).build().unwrap();
    let ends: Vec<End> = End::all().collect();
    thrice(&task, &store, &calls, NEVER).recover("r").run(0..50, ends[0]).await;
    calls.take();
    let builders = [
        lenient(64),
        at_once(7).retries(5).retry_delay(millis(3)).timeout_per_item(secs(1)),
        at_once(1).max_failures(0).fail_fast(true),
        at_once(9).early_success(true).min_success_ratio(0.5).run_timeout(HOUR),
        at_once(9).limiter(&Limiter::new(1)).cancel_grace(secs(1)),
    ];
    for (builder, end) in builders.into_iter().zip(ends) {
        let task = builder.build().unwrap();
        let recovery = Recovery::run("r").lease(secs(5)).wait_for_holder(secs(5));
        let run = thrice(&task, &store, &calls, NEVER).recover(recovery).run(0..50, end).await;
        assert_eq!(calls.take(), Vec::<u64>::new(), "{task:?}");
        assert_eq!((run.reason, run.summary.recovered), (None, run.summary.successes), "{task:?}");
        assert!(run.summary.recovered >= 25, "{task:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_the_run_of_another_task_is_refused() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        thrice(&at_once(2).build().unwrap(), &store, &calls, NEVER).recover("r").run(0..3, end).await;
        calls.take();
        let other = at_once(2).name("resize").build().unwrap();
        let refused = thrice(&other, &store, &calls, NEVER).recover("r").run(0..3, end).await;
        let reason = refused.reason.unwrap();
        assert!(reason.contains("OtherTask"), "{reason}");
        assert!(reason.contains("\"test\"") && reason.contains("\"resize\""), "{end:?}: {reason}");
        assert_eq!((calls.take(), refused.summary.not_started), (vec![], 3), "{end:?}");
        // The original run is unchanged.
        let info = store.run("r").await.unwrap().unwrap();
        assert_eq!((info.task.as_str(), info.status, info.succeeded), ("test", RunStatus::Succeeded, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_cancelled_items_run_again() {
    for end in End::all() {
        let (store, calls, token) = (Rigged::willing(), Calls::default(), CancellationToken::new());
        let (noted, stop) = (calls.clone(), token.clone());
        let task = at_once(3).build().unwrap();
        let first = Plan::new(&task, &store, move |_, n| {
            noted.note(n);
            let stop = stop.clone();
            async move {
                sleep(secs(n)).await;
                if n == 4 {
                    stop.cancel();
                    std::future::pending::<()>().await;
                }
                Ok(n)
            }
        });
        let first = first.recover("r").token(&token).run(1..10, end).await;
        assert!(first.reason.is_some_and(|reason| reason.contains("Cancelled")), "{end:?}");
        assert!(first.summary.cancelled > 0 && first.summary.not_started > 0, "{}", first.summary);
        let settled: Vec<u64> = first.outputs.iter().map(|(_, n)| *n).collect();
        let begun = calls.take();
        let second = thrice(&task, &store, &calls, NEVER).recover("r").run(1..10, end).await;
        let expected: Vec<u64> = (1..10).filter(|n| !settled.contains(n)).collect();
        assert_eq!(calls.take(), expected, "{end:?}: of {begun:?}");
        assert_eq!(second.summary.recovered, settled.len(), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_recovered_items_count_for_the_verdict() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    for end in End::all() {
        store.forget("r").await.unwrap();
        let task = at_once(1).fail_fast(true).build().unwrap();
        let first = thrice(&task, &store, &calls, 8).recover("r").run(1..21, end).await;
        assert!(first.reason.unwrap().contains("FailFast"), "{end:?}");
        assert_eq!(calls.take().len(), 8, "{end:?}");
        // Seven of twenty are enough, and they are known.
        let task = at_once(4).early_success(true).min_successes(7).build().unwrap();
        let second = thrice(&task, &store, &calls, 1).recover("r").run(1..21, end).await;
        assert_eq!((second.reason, second.summary.recovered, calls.take()), (None, 7, vec![]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_1_every_form_of_the_function_is_recovered() {
    let store = MemoryStore::new();
    let calls = AtomicUsize::new(0);
    let task = |name| AsyncMapTask::builder().name(name).concurrency(3).build().unwrap();
    for expected in [10, 0] {
        let call = |text: String| {
            calls.fetch_add(1, SeqCst);
            async move { Ok::<_, String>(text.len()) }
        };
        let texts = || (0..10).map(|n| "x".repeat(n));
        let once = task("once").over(texts()).map_once(call).recover(&store, "once").await.unwrap();
        let weighed = task("weighed").over(texts()).map(call).weight(|text| 1 + text.len() as u32 % 3);
        let weighed = in_time(weighed.recover(&store, "weighed").ordered()).await.unwrap();
        assert_eq!(once.results, weighed.results);
        assert_eq!(calls.swap(0, SeqCst), 2 * expected);
        assert_eq!([once.summary.recovered, weighed.summary.recovered], [10 - expected; 2]);
    }
    let blocking_calls = Arc::new(AtomicUsize::new(0));
    for expected in [10, 0] {
        let count = Arc::clone(&blocking_calls);
        let run = task("blocking").over(0..10).map_blocking(move |n| {
            count.fetch_add(1, SeqCst);
            Ok::<_, String>(n)
        });
        let result = run.recover(&store, "blocking").await.unwrap();
        assert_eq!((result.into_successful_results(), 10), ((0..10).collect(), 10));
        assert_eq!(blocking_calls.swap(0, SeqCst), expected);
    }
}

/// Thirds have many decimals, and a careless parser is off by the last bit.
#[tokio::test(start_paused = true)]
async fn durable_rule_1_outputs_come_back_exactly() {
    let store = MemoryStore::new();
    let task = at_once(8).build().unwrap();
    let run = || {
        let third = |n: u64| async move { Ok::<_, String>(((n * 0x9E37_79B9) as f64).sqrt() / 3e7) };
        task.over(0..10_000_u64).map(third).recover(&store, "r")
    };
    let (first, second) = (run().await.unwrap(), run().await.unwrap());
    assert_eq!(second.summary.recovered, 10_000);
    let differ = first.results.iter().zip(&second.results).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 0);
}

/// An output that cannot be read any more, because its type has changed, runs again.
#[tokio::test(start_paused = true)]
async fn durable_rule_1_an_output_of_another_type_runs_again() {
    let (warnings, _listening) = Warnings::listen();
    let store = MemoryStore::new();
    let task = at_once(2).build().unwrap();
    task.over(0..9_u64).map(|n| async move { Ok::<_, String>(n) }).recover(&store, "r").await.unwrap();
    for (recovered, changed) in [(0, 9), (9, 0)] {
        let texts = task.over(0..9_u64).map(|n| async move { Ok::<_, String>(vec![n]) });
        let result = in_time(texts.recover(&store, "r")).await.unwrap();
        assert_eq!((result.summary.recovered, result.summary.changed), (recovered, changed));
        assert!(result.results.into_iter().eq((0..9).map(|n| Some(vec![n]))));
        assert_eq!(warnings.count(""), changed);
    }
}
