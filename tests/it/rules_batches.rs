//! Rule 43: calls for batches of items.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, Event, FailureReason, ItemError, KeyedLimiter, Limiter, RetryBudget, TimeoutScope,
};
use futures::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::every_batch::{Answer, Batched, REFUSED};
use crate::every_end::{End, Report, Terminal};
use crate::support::{SECOND, at_once, in_time, lenient, millis, retrying, secs};

/// Every item succeeds with its value.
fn all_well(items: Vec<u64>) -> Answer {
    Ok(items.into_iter().map(Ok).collect())
}

/// The call fails as a whole if it has an item that is bad.
fn fails_with(bad: &[u64], items: Vec<u64>) -> Answer {
    if items.iter().any(|n| bad.contains(n)) { Err("poison") } else { all_well(items) }
}

fn failed(report: &Report) -> Vec<usize> {
    report.outcomes.iter().filter(|(_, result)| result.is_err()).map(|(index, _)| *index).collect()
}

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
        assert_eq!(calls.len(), 13, "{end:?}");
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
async fn rule_43_a_failed_call_is_made_again_whole_and_then_split() {
    for end in End::all() {
        let task = lenient().concurrency(1).retries(1).retry_delay(secs(1)).build().unwrap();
        let plan = Batched::new(&task, 4, 4, async |items| fails_with(&[2], items));
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        let expected: [(u64, Vec<u64>); 6] = [
            (0, vec![0, 1, 2, 3]),
            (1_000, vec![0, 1, 2, 3]),
            (1_000, vec![0, 1]),
            (1_000, vec![2, 3]),
            (1_000, vec![2]),
            (1_000, vec![3]),
        ];
        assert_eq!(calls.timed(), expected, "{end:?}");
        assert_eq!((report.summary.successes, report.summary.retries), (3, 4), "{end:?}");
        assert_eq!(failed(&report), [2], "{end:?}");
        let (_, error) = report.outcomes.iter().find(|(index, _)| *index == 2).unwrap();
        assert_eq!(*error, Err(ItemError::Failed { error: "poison", attempts: 2 }), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_one_bad_item_costs_few_calls() {
    for end in End::all() {
        for (size, most) in [(1, 0), (2, 2), (3, 4), (8, 6), (96, 14), (100, 14)] {
            for bad in [0, size / 2, size - 1] {
                let task = lenient().concurrency(2).build().unwrap();
                let plan = Batched::new(&task, 3 * size, size as usize, move |items| async move {
                    fails_with(&[bad], items)
                });
                let calls = plan.calls.clone();
                let report = in_time(plan.run(end)).await;
                assert_eq!(failed(&report), [bad as usize], "{end:?}");
                assert_eq!(report.summary.retries, 0, "{end:?}");
                let extra = calls.lines().len() - 3;
                assert!(extra <= most, "{end:?}: {extra} extra calls for one bad item of {size}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_parts_come_before_other_calls() {
    for end in End::all() {
        let task = lenient().concurrency(1).build().unwrap();
        let plan = Batched::new(&task, 12, 4, async |items| fails_with(&[1, 3], items));
        let calls = plan.calls.clone();
        in_time(plan.run(end)).await;
        let order: Vec<Vec<u64>> = vec![
            vec![0, 1, 2, 3],
            vec![0, 1],
            vec![0],
            vec![1],
            vec![2, 3],
            vec![2],
            vec![3],
            vec![4, 5, 6, 7],
            vec![8, 9, 10, 11],
        ];
        assert_eq!(calls.lines(), order, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_panics_and_timeouts_of_a_call_are_split_too() {
    for end in End::all() {
        let task = lenient().concurrency(2).timeout_per_attempt(secs(5)).build().unwrap();
        let plan = Batched::new(&task, 16, 8, async |items| {
            assert!(!items.contains(&3), "a bad item");
            if items.contains(&12) {
                sleep(secs(60)).await;
            }
            all_well(items)
        });
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.failures), (14, 2), "{end:?}");
        assert_eq!((report.summary.panics, report.summary.timeouts), (1, 1), "{end:?}");
        let mut failed = failed(&report);
        failed.sort_unstable();
        assert_eq!(failed, [3, 12], "{end:?}");
        assert_eq!(report.summary.elapsed, secs(20), "{end:?}: four calls with item 12");
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
async fn rule_43_without_splitting_all_items_of_a_failed_call_fail() {
    for end in End::all() {
        let task = lenient().retries(1).retry_delay(secs(1)).build().unwrap();
        let plan = Batched::new(&task, 6, 3, async |items| fails_with(&[1], items)).unsplit();
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.failures), (3, 3), "{end:?}");
        assert_eq!(calls.lines().len(), 3, "{end:?}");
        let errors: Vec<_> = report.outcomes.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
        let own =
            errors.iter().filter(|error| matches!(error, ItemError::Failed { error: "poison", attempts: 2 }));
        let copies = errors.iter().filter(|error| matches!(error, ItemError::Faulted { attempts: 2, .. }));
        assert_eq!((own.count(), copies.count()), (1, 2), "{end:?}: {errors:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_call_waits_for_a_slow_stream_if_it_is_told_to() {
    for end in End::all() {
        let slow = || {
            stream::iter(0..25).then(|n| async move {
                sleep(millis(100)).await;
                n
            })
        };
        let task = at_once(4).build().unwrap();
        let plan = Batched::new(&task, 0, 10, async |items| all_well(items)).source(slow());
        let calls = plan.calls.clone();
        in_time(plan.run(end)).await;
        assert_eq!(calls.lines().len(), 25, "{end:?}: nothing waits by default");
        let plan = Batched::new(&task, 0, 10, async |items| all_well(items)).source(slow()).wait(millis(450));
        let calls = plan.calls.clone();
        in_time(plan.run(end)).await;
        // The first item comes at 100 ms, and its call waits until 550 ms.
        let sizes: Vec<(u64, usize)> =
            calls.timed().into_iter().map(|(at, items)| (at, items.len())).collect();
        assert_eq!(sizes, [(550, 5), (1_050, 5), (1_550, 5), (2_050, 5), (2_500, 5)], "{end:?}");
        let plan = Batched::new(&task, 0, 10, async |items| all_well(items)).source(slow()).wait(secs(60));
        let calls = plan.calls.clone();
        in_time(plan.run(end)).await;
        let sizes: Vec<(u64, usize)> =
            calls.timed().into_iter().map(|(at, items)| (at, items.len())).collect();
        assert_eq!(
            sizes,
            [(1_000, 10), (2_000, 10), (2_500, 5)],
            "{end:?}: a full call, and the last one, do not wait"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_weight_bounds_a_call() {
    for end in End::all() {
        for wait in [Duration::ZERO, SECOND] {
            let task = at_once(2).build().unwrap();
            let plan = Batched::new(&task, 0, 4, async |items| all_well(items))
                .source(stream::iter([3, 4, 4, 50, 1, 1, 1, 1, 1, 6, 5]))
                .most_weight(10)
                .wait(wait);
            let calls = plan.calls.clone();
            in_time(plan.run(end)).await;
            let expected: Vec<Vec<u64>> =
                vec![vec![3, 4], vec![4], vec![50], vec![1, 1, 1, 1], vec![1, 6], vec![5]];
            assert_eq!(calls.lines(), expected, "{end:?}, {wait:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_limiter_and_its_rate_count_calls() {
    for end in End::all() {
        let limiter = Limiter::builder().permits(2).rate(1, SECOND).build().unwrap();
        let task = lenient().concurrency(9).limiter(&limiter).build().unwrap();
        let plan = Batched::new(&task, 40, 10, async |items| fails_with(&[11], items));
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        assert_eq!(report.summary.successes, 39, "{end:?}");
        let times = calls.times();
        assert_eq!(times.len(), 4 + 8, "{end:?}: the parts of ten are 5 and 5, 3 and 2, 2 and 1, and so on");
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= 990, "{end:?}: {times:?}");
        }
        assert_eq!(limiter.in_use(), 0, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_each_part_withdraws_from_the_retry_budget() {
    for end in End::all() {
        let budget = RetryBudget::builder().ratio(0.0).min_per_second(1).window(secs(3)).build().unwrap();
        let task = lenient().concurrency(1).retry_budget(&budget).build().unwrap();
        // Three calls are granted: for both halves, and for the first quarter.
        let plan = Batched::new(&task, 8, 8, async |items| fails_with(&[0], items));
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        assert_eq!(calls.lines().len(), 4, "{end:?}: {:?}", calls.lines());
        assert!(report.summary.retries_refused >= 1, "{end:?}");
        let settled = report.summary.successes + report.summary.failures;
        assert_eq!(settled, 8, "{end:?}");
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
async fn rule_43_a_call_that_fails_while_the_run_stops_cancels_its_items() {
    for end in End::all() {
        let token = CancellationToken::new();
        let task = at_once(1).cancel_grace(secs(5)).build().unwrap();
        let plan = Batched::new(&task, 4, 4, async |_| {
            sleep(secs(2)).await;
            Err("poison")
        })
        .token(&token);
        let left = plan.left();
        let run = tokio::spawn(plan.run(end));
        sleep(secs(1)).await;
        token.cancel();
        let report = in_time(run).await.unwrap();
        assert_eq!((report.summary.failures, report.summary.cancelled), (0, 4), "{end:?}");
        assert_eq!(left.lines(), [0, 1, 2, 3], "{end:?}");
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
async fn rule_43_retries_lead_the_next_call() {
    for end in End::all() {
        if end.terminal == Terminal::Spawn {
            continue;
        }
        let task = retrying(1).build().unwrap();
        let first = Arc::new(AtomicBool::new(true));
        let plan = Batched::new(&task, 12, 4, move |items| {
            let is_first = first.swap(false, SeqCst);
            async move {
                if is_first {
                    return Ok(items
                        .into_iter()
                        .map(|n| if n % 2 == 1 { Err("once") } else { Ok(n) })
                        .collect());
                }
                sleep(secs(2)).await;
                all_well(items)
            }
        });
        let calls = plan.calls.clone();
        in_time(plan.run(end)).await;
        let expected: Vec<Vec<u64>> =
            vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![1, 3, 8, 9], vec![10, 11]];
        assert_eq!(calls.lines(), expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_part_that_fails_for_a_passing_reason_is_called_again_as_it_is() {
    for end in End::all() {
        let task = retrying(1).build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let plan = Batched::new(&task, 16, 8, move |items| {
            let number = calls.fetch_add(1, SeqCst);
            async move {
                match items.contains(&3) {
                    _ if number == 1 => Err("busy"),
                    true => Err(REFUSED),
                    false => all_well(items),
                }
            }
        });
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        let mut calls = calls.lines();
        // The calls for other items go on while the part waits for its retry.
        calls.sort_by_key(|items| items[0] >= 8);
        let expected: Vec<Vec<u64>> = vec![
            (0..8).collect(),
            (0..4).collect(),
            (4..8).collect(),
            (0..4).collect(),
            vec![0, 1],
            vec![2, 3],
            vec![2],
            vec![3],
            (8..16).collect(),
        ];
        assert_eq!(calls, expected, "{end:?}");
        assert_eq!((report.summary.retries, failed(&report)), (4, vec![3]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_batch_that_waits_for_its_retry_does_not_fill_the_window() {
    for end in End::all() {
        let task = lenient().concurrency(2).retries(1).retry_delay(secs(50)).build().unwrap();
        let is_first = Arc::new(AtomicBool::new(true));
        let plan = Batched::new(&task, 5_000, 500, move |items| {
            let fails = is_first.swap(false, SeqCst);
            async move {
                sleep(SECOND).await;
                if fails { Err("busy") } else { all_well(items) }
            }
        });
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        assert_eq!(report.summary.successes, 5_000, "{end:?}");
        let times = calls.times();
        // In the order of the input, all outcomes wait for those of the first batch, and fill the window.
        if !(end.ordered && end.gives_outcomes()) {
            assert_eq!((times[9], times[10]), (4_000, 51_000), "{end:?}: {times:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_the_outcomes_of_a_call_do_not_hold_up_the_next() {
    for end in End::giving() {
        let task = at_once(1).build().unwrap();
        let plan = Batched::new(&task, 5_000, 500, async |items| {
            sleep(millis(500)).await;
            all_well(items)
        })
        .slow_sink(millis(1));
        let report = in_time(plan.run(end)).await;
        let elapsed = report.summary.elapsed;
        assert!(
            elapsed < millis(6_500),
            "{end:?}: {elapsed:?} for 10 calls of 500 ms, beside 10 times 500 ms of the sink"
        );
    }
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

#[tokio::test(start_paused = true)]
async fn rule_43_items_that_a_service_did_not_process_are_sent_again() {
    for end in End::all() {
        // As the batch calls of a queue: it takes three items of each call, and returns the others.
        let task = retrying(1).retries(9).build().unwrap();
        let plan = Batched::new(&task, 10, 5, async |items| {
            let taken = items.into_iter().enumerate();
            Ok(taken.map(|(at, n)| if at < 3 { Ok(n) } else { Err("unprocessed") }).collect())
        });
        let calls = plan.calls.clone();
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.retries), (10, 4 + 1), "{end:?}");
        let calls: Vec<Vec<u64>> = calls.lines();
        assert_eq!(calls[2..], [vec![3, 4, 8, 9], vec![9]], "{end:?}");
    }
}
