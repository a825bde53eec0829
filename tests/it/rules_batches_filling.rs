//! Rule 43: which items join a call, and when it starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_map_task::Limiter;
use futures::{StreamExt, stream};
use tokio::time::sleep;

use crate::every_batch::{Batched, all_well, fails_with};
use crate::every_end::{End, Terminal};
use crate::support::{SECOND, at_once, in_time, lenient, millis, retrying, secs};

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
