//! Rule 29: the position of the result of an item.

use std::cell::RefCell;

use async_map_task::AsyncMapTask;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::support::{Random, cancelled_after, check_account, lenient, millis, secs};

#[tokio::test(start_paused = true)]
async fn rule_29_each_result_has_the_index_of_its_input() {
    for concurrency in [1, 2, 7, 100] {
        let mut dice = Random(29);
        let items: Vec<_> = (0..100).map(|n| (n, dice.below(40), dice.below(5))).collect();
        let expected: Vec<_> = items.iter().map(|(n, _, kind)| (*kind > 1).then_some(*n)).collect();
        let task = lenient().concurrency(concurrency).retries(1).retry_delay(millis(15)).build().unwrap();
        let run = task.over(items).map_with_context(|cx, (n, duration, kind)| async move {
            assert_eq!(cx.index(), n);
            sleep(millis(duration)).await;
            match kind {
                0 => Err(n),
                1 => panic!("{n}"),
                2 if cx.attempt() == 1 => Err(n),
                _ => Ok(n),
            }
        });
        let result = run.await.unwrap();
        assert_eq!(result.results, expected, "concurrency {concurrency}");
        for (index, error) in &result.errors {
            assert!(error.to_string().ends_with(&format!(": {index}")), "{index}: {error}");
        }
        check_account(&result);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_29_results_are_in_input_order() {
    let completed = RefCell::new(Vec::new());
    let task = AsyncMapTask::builder().concurrency(50).build().unwrap();
    let run = task.run(0..50, |n| {
        let completed = &completed;
        async move {
            sleep(millis(100 - n)).await;
            completed.borrow_mut().push(n);
            Ok::<_, String>(n)
        }
    });
    assert_eq!(run.await.unwrap().into_successful_results(), (0..50).collect::<Vec<_>>());
    assert_eq!(completed.into_inner(), (0..50).rev().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rule_29_a_result_of_none_is_a_success() {
    let task = lenient().build().unwrap();
    let run = task.run(0..4, |n| async move {
        match n {
            0 => Ok(None),
            1 => Err("no"),
            _ => Ok(Some(n)),
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.results, [Some(None), None, Some(Some(2)), Some(Some(3))]);
    assert_eq!(result.successful_results().collect::<Vec<_>>(), [&None, &Some(2), &Some(3)]);
    assert_eq!((result.successes(), result.failures()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_29_a_cancelled_item_has_no_result_and_no_error() {
    let gate = Notify::new();
    let task = lenient().concurrency(3).build().unwrap();
    let run = task.run(0..6, |n| {
        let gate = &gate;
        async move {
            match n {
                0 => Ok(n),
                1 => Err("no"),
                _ => {
                    gate.notified().await;
                    Ok(n)
                }
            }
        }
    });
    let started = Instant::now();
    let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
    assert_eq!(started.elapsed(), secs(1));
    let result = error.into_partial();
    assert_eq!(result.results, [Some(0), None, None, None, None, None]);
    assert_eq!(result.errors.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!((result.cancelled(), result.not_started()), (3, 1));
}
