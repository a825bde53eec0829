//! Rule 43: a call that fails as a whole is made again, and then split.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_map_task::{ItemError, RetryBudget};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::every_batch::{Batched, REFUSED, all_well, failed, fails_with};
use crate::every_end::End;
use crate::support::{at_once, in_time, lenient, retrying, secs};

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
                assert_eq!(report.summary.calls, calls.lines().len(), "{end:?}");
                let extra = report.summary.calls - 3;
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
