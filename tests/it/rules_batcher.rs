//! Rule 43: calls for the items of many callers.

use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, Batcher, ItemError};
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::support::{Gauge, Log, SECOND, at_once, in_time, lenient, let_others_run, millis, paused, secs};

type Words = Batcher<u64, u64, &'static str>;

/// A batcher with a log of its calls, which take a second, and a gauge of the running ones.
fn batcher(task: &AsyncMapTask, size: usize) -> (Words, Log<Vec<u64>>, Gauge) {
    let (log, running) = (Log::open(), Gauge::default());
    let (calls, gauge) = (log.clone(), running.clone());
    let batcher = Batcher::with_task(task, size, move |items: Vec<u64>| {
        calls.note(items.clone());
        let alive = gauge.enter();
        async move {
            let _alive = alive;
            sleep(SECOND).await;
            match items.contains(&666) {
                true => Err("poison"),
                false => Ok(items.into_iter().map(|n| if n == 13 { Err("bad") } else { Ok(n) }).collect()),
            }
        }
    });
    (batcher, log, running)
}

fn failed(error: &'static str, attempts: u32) -> Result<u64, ItemError<&'static str>> {
    Err(ItemError::Failed { error, attempts })
}

#[tokio::test(start_paused = true)]
async fn rule_43_callers_share_a_call_and_each_has_its_own_result() {
    let (batcher, log, running) = batcher(&at_once(2).build().unwrap(), 10);
    let batcher = batcher.batch_wait(millis(5));
    let calls = (0..25).map(|n| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.call(n).await })
    });
    let results: Vec<_> = in_time(join_all(calls)).await.into_iter().map(Result::unwrap).collect();
    for (n, result) in results.into_iter().enumerate() {
        let expected = if n == 13 { failed("bad", 1) } else { Ok(n as u64) };
        assert_eq!(result, expected);
    }
    let sizes: Vec<usize> = log.lines().iter().map(Vec::len).collect();
    assert_eq!((sizes, running.peak()), (vec![10, 10, 5], 2));
}

#[tokio::test(start_paused = true)]
async fn rule_43_while_all_calls_are_in_use_items_gather() {
    let (batcher, log, _) = batcher(&at_once(1).build().unwrap(), 10);
    let first = batcher.call(1);
    let rest = async {
        sleep(millis(100)).await;
        join_all((2..8).map(|n| batcher.call(n))).await
    };
    let (first, rest) = in_time(async { tokio::join!(first, rest) }).await;
    assert_eq!((first, rest.len()), (Ok(1), 6));
    assert_eq!(log.timed(), [(0, vec![1]), (1_000, vec![2, 3, 4, 5, 6, 7])]);
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_bad_item_of_one_caller_does_not_fail_the_others() {
    let task = lenient().concurrency(1).retries(1).retry_delay(SECOND).build().unwrap();
    let (batcher, log, _) = batcher(&task, 10);
    let batcher = batcher.batch_wait(millis(5));
    let results = in_time(join_all([1, 2, 666, 4].map(|n| batcher.call(n)))).await;
    assert_eq!(results, [Ok(1), Ok(2), failed("poison", 2), Ok(4)]);
    let calls: [Vec<u64>; 6] =
        [vec![1, 2, 666, 4], vec![1, 2, 666, 4], vec![1, 2], vec![666, 4], vec![666], vec![4]];
    assert_eq!(log.lines(), calls);
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_caller_that_leaves_does_not_cancel_the_others() {
    let (batcher, log, running) = batcher(&at_once(1).build().unwrap(), 10);
    let batcher = batcher.batch_wait(millis(5));
    let leaves = timeout(millis(500), batcher.call(1));
    let (left, stayed) = in_time(async { tokio::join!(leaves, batcher.call(2)) }).await;
    assert!(left.is_err());
    assert_eq!((stayed, log.lines()), (Ok(2), vec![vec![1, 2]]));
    // A call without callers is dropped, and its permit is free at once.
    let leaves = [timeout(millis(500), batcher.call(3)), timeout(millis(300), batcher.call(4))];
    assert!(in_time(join_all(leaves)).await.iter().all(Result::is_err));
    let_others_run().await;
    assert_eq!((running.now(), log.lines().len()), (0, 2));
    // An item whose caller has left before its call is not in it.
    let first = batcher.call(5);
    let leaves = timeout(millis(500), batcher.call(6));
    let waits = async {
        sleep(millis(100)).await;
        tokio::join!(leaves, batcher.call(7))
    };
    let (first, (left, last)) = in_time(async { tokio::join!(first, waits) }).await;
    assert_eq!((first, left.is_err(), last), (Ok(5), true, Ok(7)));
    assert_eq!(log.lines()[2..], [vec![5], vec![7]]);
}

#[tokio::test(start_paused = true)]
async fn rule_43_the_calls_end_with_the_last_clone() {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let (batcher, ..) = batcher(&at_once(1).build().unwrap(), 10);
    let other = batcher.clone();
    assert_eq!(alive(), 0, "nothing starts before the first call");
    assert_eq!(in_time(batcher.call(1)).await, Ok(1));
    drop(batcher);
    assert_eq!((in_time(other.call(2)).await, alive()), (Ok(2), 1));
    drop(other);
    let_others_run().await;
    assert_eq!(alive(), 0);
}

#[test]
fn rule_43_the_next_call_after_a_shutdown_starts_on_its_own_runtime() {
    let (batcher, ..) = batcher(&at_once(1).build().unwrap(), 10);
    let (first, second) = (paused(), paused());
    assert_eq!(first.block_on(in_time(batcher.call(1))), Ok(1));
    let mut waiting = Box::pin(batcher.call(2));
    first.block_on(async {
        assert!(timeout(millis(500), &mut waiting).await.is_err());
    });
    drop(first);
    let Err(ItemError::Faulted { message, attempts: 0 }) = second.block_on(in_time(waiting)) else {
        panic!("its runtime is gone");
    };
    assert!(message.contains("shut down"), "{message}");
    assert_eq!(second.block_on(in_time(batcher.call(3))), Ok(3));
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_run_and_handlers_share_a_batcher() {
    let (batcher, log, _) = batcher(&at_once(1).build().unwrap(), 8);
    let batcher = batcher.batch_wait(millis(5));
    let task = at_once(5).build().unwrap();
    let run = task.run(0..5_u64, |n| batcher.call(n));
    let handlers = join_all((100..103).map(|n| batcher.call(n)));
    let (result, handled) = in_time(async { tokio::join!(run, handlers) }).await;
    assert_eq!(result.unwrap().successes(), 5);
    assert_eq!(handled, [Ok(100), Ok(101), Ok(102)]);
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn rule_43_the_criteria_of_the_task_do_not_end_the_calls() {
    let task = at_once(1).fail_fast(true).run_timeout(secs(5)).max_failures(0).build().unwrap();
    let (batcher, ..) = batcher(&task, 1);
    for _ in 0..3 {
        assert_eq!(in_time(batcher.call(13)).await, failed("bad", 1));
        sleep(secs(5)).await;
        assert_eq!(in_time(batcher.call(1)).await, Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_wrong_number_of_results_is_a_fault_of_each_caller() {
    let batcher = Batcher::new(4, async |_: Vec<u64>| Ok::<Vec<Result<u64, &str>>, _>(vec![Ok(1)]));
    let batcher = batcher.batch_wait(millis(5));
    let results = in_time(join_all([1, 2, 3].map(|n| batcher.call(n)))).await;
    for result in results {
        let Err(ItemError::Faulted { message, attempts: 1 }) = result else { panic!("{result:?}") };
        assert!(message.contains("3 items") && message.contains("1 result"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_a_weight_bounds_a_call_of_a_batcher() {
    let (batcher, log, _) = batcher(&at_once(9).build().unwrap(), 10);
    let batcher = batcher.batch_wait(millis(5)).batch_weight(|n| *n as u32, 10);
    let results = in_time(join_all([4, 6, 1, 20, 9].map(|n| batcher.call(n)))).await;
    assert_eq!(results.len(), 5);
    assert_eq!(log.lines(), [vec![4, 6], vec![1], vec![20], vec![9]]);
}

#[test]
fn rule_43_a_batcher_is_shared_by_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let (batcher, ..) = batcher(&AsyncMapTask::default(), 10);
    shared(&batcher);
    let shown = format!("{:?}", Arc::new(batcher.batch_wait(Duration::from_millis(7))));
    assert!(shown.contains("7ms"), "{shown}");
}
