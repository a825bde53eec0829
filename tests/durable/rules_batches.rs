//! Batches in runs with a store: an item with a known output joins no call, and calls are full without it.

use std::sync::Mutex;

use async_map_task::store::MemoryStore;
use async_map_task::{AsyncMapTask, Cache, MapTaskResult};
use tokio::time::sleep;

use crate::support::{in_time, lenient, millis, secs};

/// The items of each call.
type Calls = Mutex<Vec<Vec<u64>>>;

/// One call, which fails the items of which this is true.
async fn double(
    calls: &Calls,
    fails: fn(u64) -> bool,
    items: Vec<u64>,
) -> Result<Vec<Result<u64, String>>, String> {
    calls.lock().unwrap().push(items.clone());
    sleep(millis(10)).await;
    Ok(items.into_iter().map(|n| if fails(n) { Err("down".to_owned()) } else { Ok(2 * n) }).collect())
}

fn task() -> AsyncMapTask {
    lenient(2).name("double").retry_delay(secs(1)).build().unwrap()
}

fn take(calls: &Calls) -> Vec<Vec<u64>> {
    std::mem::take(&mut *calls.lock().unwrap())
}

fn is_complete(result: &MapTaskResult<u64, String>) -> bool {
    result.results.iter().copied().eq((0..100).map(|n| Some(2 * n)))
}

#[tokio::test(start_paused = true)]
async fn rule_43_recovered_items_join_no_call() {
    let (store, calls) = (MemoryStore::new(), Calls::default());
    let run = |fails: fn(u64) -> bool| {
        let calls = &calls;
        let call = move |items| double(calls, fails, items);
        task().over(0..100).map_batches(10, call).recover(&store, "nightly")
    };
    let first = in_time(run(|n| n % 3 == 0)).await.unwrap();
    assert_eq!((first.failures(), take(&calls).len()), (34, 10));
    let second = in_time(run(|_| false)).await.unwrap();
    let calls = take(&calls);
    assert_eq!((second.summary.recovered, calls.len()), (66, 4), "{calls:?}");
    assert_eq!(calls.concat(), (0..100).step_by(3).collect::<Vec<_>>());
    assert!(is_complete(&second));
}

#[tokio::test(start_paused = true)]
async fn rule_43_cached_items_join_no_call_and_calls_are_full() {
    for cache in [Cache::version("1"), Cache::version("1").serialized()] {
        let (store, calls) = (MemoryStore::new(), Calls::default());
        let run = |items: Vec<u64>| {
            let calls = &calls;
            let call = move |items| double(calls, |_| false, items);
            task().over(items).map_batches(10, call).cache(&store, cache.clone())
        };
        in_time(run((0..100).step_by(2).collect())).await.unwrap();
        assert_eq!(take(&calls).len(), 5, "{cache:?}");
        let result = in_time(run((0..100).collect())).await.unwrap();
        let calls = take(&calls);
        assert_eq!(result.summary.cached, 50, "{cache:?}");
        let mut called = calls.concat();
        called.sort_unstable();
        assert_eq!(called, (1..100).step_by(2).collect::<Vec<_>>(), "{cache:?}");
        assert!(calls.len() <= 6, "{cache:?}: {calls:?}");
        assert!(is_complete(&result), "{cache:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_43_items_that_are_carried_join_no_call() {
    let calls = Calls::default();
    let run = |fails: fn(u64) -> bool| {
        let calls = &calls;
        let call = move |items| double(calls, fails, items);
        task().over(0..100).map_batches(10, call)
    };
    let first = in_time(run(|n| n >= 95)).await.unwrap();
    take(&calls);
    let second = in_time(run(|_| false).redo(first)).await.unwrap();
    assert_eq!((second.summary.carried, take(&calls)), (95, vec![(95..100).collect::<Vec<u64>>()]));
    assert!(is_complete(&second));
}

/// Two runs with the same items in opposite orders: each waits for claims of the other, and calls the items that it has.
#[tokio::test(start_paused = true)]
async fn rule_43_runs_that_wait_for_claims_of_each_other_call_what_they_have() {
    let (store, calls) = (MemoryStore::new(), Calls::default());
    let run = |items: Vec<u64>| {
        let calls = &calls;
        let call = move |items| double(calls, |_| false, items);
        task().over(items).map_batches(100, call).cache(&store, Cache::version("1").serialized())
    };
    let (one, other) =
        in_time(async { tokio::join!(run((0..60).collect()), run((0..60).rev().collect())) }).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.successes() + other.successes(), 120);
    let mut called = take(&calls).concat();
    called.sort_unstable();
    assert_eq!(called, (0..60).collect::<Vec<_>>(), "each item once");
}
