//! Rule 43: calls for batches of items, and the outcomes of the items.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::{AsyncMapTask, Event, FailureReason, ItemError, KeyedLimiter, TimeoutScope};
use futures::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::every_batch::{Batched, all_well, failed};
use crate::every_end::End;
use crate::support::{SECOND, at_once, in_time, lenient, millis, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_43_calls_take_items_in_their_order_and_are_full() {
    for end in End::all() {
        let plan = Batched::new(&at_once(3).build().unwrap(), 100, 8, async |items| {
            sleep(SECOND).await;
            all_well(items)
        });
        let (calls, running) = (plan.calls.clone(), plan.running.clone());
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, running.peak()), (100, 3), "{end:?}");
        assert_eq!(report.sorted_indices(), (0..100).collect::<Vec<_>>(), "{end:?}");
        let calls = calls.lines();
        assert_eq!((calls.len(), report.summary.calls), (13, 13), "{end:?}");
        assert_eq!(calls.concat(), (0..100).collect::<Vec<_>>(), "{end:?}");
        assert_eq!(report.summary.elapsed, secs(5), "{end:?}: 13 calls, 3 at once");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_each_item_has_its_own_outcome_and_retries() {
    for end in End::all() {
        // Every third item fails in its first two calls, and every item of value 7 always.
        let seen = Arc::new(Mutex::new(BTreeMap::<u64, u32>::new()));
        let calls_of = Arc::clone(&seen);
        let plan = Batched::new(
            &lenient().concurrency(2).retries(2).retry_delay(secs(1)).build().unwrap(),
            20,
            5,
            move |items| {
                let mut seen = calls_of.lock().unwrap();
                let results = items.into_iter().map(|n| {
                    let made = seen.entry(n).or_default();
                    *made += 1;
                    match n {
                        7 => Err("always"),
                        n if n % 3 == 0 && *made < 3 => Err("twice"),
                        n => Ok(n),
                    }
                });
                let answer = Ok(results.collect());
                async move { answer }
            },
        );
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.failures), (19, 1), "{end:?}");
        assert_eq!(report.summary.retries, 7 * 2 + 2, "{end:?}");
        assert_eq!(failed(&report), [7], "{end:?}");
        let seen = seen.lock().unwrap();
        for n in 0..20 {
            let expected = if n % 3 == 0 || n == 7 { 3 } else { 1 };
            assert_eq!(seen.get(&n), Some(&expected), "{end:?}: item {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_all_items_of_an_answered_call_settle_also_after_a_stop() {
    for end in End::all() {
        let task = at_once(1).fail_fast(true).build().unwrap();
        let plan = Batched::new(&task, 10, 5, async |items| {
            Ok(items.into_iter().map(|n| if n == 1 { Err("bad") } else { Ok(n) }).collect())
        });
        let left = plan.left();
        let report = in_time(plan.run(end)).await;
        let summary = &report.summary;
        assert_eq!((summary.successes, summary.failures, summary.cancelled), (4, 1, 0), "{end:?}");
        assert_eq!(report.sorted_indices(), [0, 1, 2, 3, 4], "{end:?}");
        assert!(left.lines().iter().all(|n| *n >= 5), "{end:?}: {:?}", left.lines());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_an_answer_of_the_wrong_length_names_both_numbers() {
    for end in End::all() {
        let task = lenient().retries(3).build().unwrap();
        for (given, shown) in [(3, "3 results"), (1, "1 result"), (0, "0 results")] {
            let plan = Batched::new(&task, 2, 2, move |_| async move { Ok((0..given).map(Ok).collect()) });
            let calls = plan.calls.clone();
            let report = in_time(plan.run(end)).await;
            assert_eq!((report.summary.failures, calls.lines().len()), (2, 1), "{end:?}");
            for (_, result) in &report.outcomes {
                let Err(ItemError::Faulted { message, attempts: 1 }) = result else {
                    panic!("{end:?}: {result:?}");
                };
                assert!(message.contains(shown) && message.contains("2 items"), "{end:?}: {message}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_the_time_limit_of_an_item_ends_only_that_item() {
    for end in End::all() {
        // Item 0 fails once, and is in a call with new items when its limit passes.
        let task = lenient()
            .concurrency(1)
            .retries(3)
            .retry_delay(secs(1))
            .timeout_per_item(secs(10))
            .build()
            .unwrap();
        let first = Arc::new(AtomicBool::new(true));
        let plan = Batched::new(&task, 0, 2, move |items| {
            let is_first = first.swap(false, SeqCst);
            async move {
                if is_first {
                    return Ok(vec![Err("once"), Ok(1)]);
                }
                let wait = if items.contains(&0) { 60 } else { 2 };
                sleep(secs(wait)).await;
                all_well(items)
            }
        })
        .source(stream::iter(0..2).chain(stream::once(async {
            sleep(millis(1_500)).await;
            2
        })));
        let report = in_time(plan.run(end)).await;
        let (_, error) = report.outcomes.iter().find(|(index, _)| *index == 0).unwrap();
        let expected = ItemError::TimedOut { limit: secs(10), scope: TimeoutScope::Item, attempts: 2 };
        assert_eq!(*error, Err(expected), "{end:?}");
        assert_eq!(report.summary.successes, 2, "{end:?}: {:?}", report.outcomes);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_cancelling_the_run_cancels_the_call() {
    for end in End::all() {
        let token = CancellationToken::new();
        let plan = Batched::new(&at_once(2).build().unwrap(), 20, 4, async |items| {
            if items.contains(&0) {
                return all_well(items);
            }
            sleep(secs(60)).await;
            all_well(items)
        })
        .token(&token);
        let (running, left) = (plan.running.clone(), plan.left());
        let run = tokio::spawn(plan.run(end));
        sleep(secs(1)).await;
        assert_eq!(running.now(), 2, "{end:?}");
        token.cancel();
        let report = in_time(run).await.unwrap();
        let summary = &report.summary;
        assert_eq!((summary.successes, summary.cancelled, running.now()), (4, 8, 0), "{end:?}");
        let settled: BTreeSet<u64> = report.indices().into_iter().map(|index| index as u64).collect();
        let given_back: BTreeSet<u64> = left.lines().into_iter().collect();
        assert!(given_back.is_superset(&(4..12).collect()), "{end:?}: {given_back:?}");
        assert!(settled.is_disjoint(&given_back), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_options_that_do_not_fit_are_refused() {
    let task = AsyncMapTask::default();
    let refusal = |reason: &FailureReason| match reason {
        FailureReason::Config(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let well = |items: Vec<u64>| async move { all_well(items) };
    let error = task.over(0..3).map_batches(0, well).await.unwrap_err();
    assert!(refusal(error.reason()).contains("map_batches"), "{error}");
    let error = task.over(0..3).map_batches(2, well).batch_weight(|_| 1, 0).await.unwrap_err();
    assert!(refusal(error.reason()).contains("batch_weight"), "{error}");
    let error = task.over(0..3).map_batches(2, well).weight(|_| 1).await.unwrap_err();
    assert!(refusal(error.reason()).contains("batch_weight"), "{error}");
    assert_eq!(error.summary().not_started, 3);
    let hosts = KeyedLimiter::new(1);
    let error = task.over(0..3).map_batches(2, well).limit_per(|n| *n, &hosts).await.unwrap_err();
    assert!(refusal(error.reason()).contains("limit_per"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_43_an_observer_sees_the_attempts_of_each_item() {
    let (seen, is_first) = (Arc::new(Mutex::new(Vec::new())), AtomicBool::new(true));
    let notes = Arc::clone(&seen);
    let observer = move |event: &Event<'_>| {
        let line = match event {
            Event::AttemptStarted { index, attempt, .. } => format!("{index}: attempt {attempt}"),
            Event::AttemptFailed { index, kind, retry_in, .. } => {
                format!("{index}: {} {}", kind.as_str(), retry_in.is_some())
            }
            Event::AttemptSucceeded { index, attempt, .. } => format!("{index}: ok {attempt}"),
            _ => return,
        };
        notes.lock().unwrap().push(line);
    };
    let call = async |items: Vec<u64>| {
        if is_first.swap(false, SeqCst) { Err("busy") } else { all_well(items) }
    };
    in_time(retrying(1).build().unwrap().over(0..2).map_batches(2, call).observe(observer)).await.unwrap();
    let expected = [
        "0: attempt 1",
        "1: attempt 1",
        "0: error true",
        "1: error true",
        "0: attempt 2",
        "1: attempt 2",
        "0: ok 2",
        "1: ok 2",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}
