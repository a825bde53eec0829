//! The allocations of a run on several threads: a few for each worker, and none for an item.
//!
//! The counts are those of the whole process, so that no thread is left out. So the binary has only one test. `alloc.rs`
//! counts one thread, and is more precise.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::alloc::System;
use std::time::Duration;

use async_map_task::AsyncMapTask;
use futures::StreamExt;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ITEMS: u64 = 100_000;
const CONCURRENCY: usize = 64;

/// Checks that a run in a spawned task allocates a few times for each worker, regardless of the number of items.
fn assert_a_few_for_a_worker(what: &str, runtime: &Runtime, run: impl Future<Output = u64> + Send + 'static) {
    let region = Region::new(ALLOCATOR);
    let sum = runtime.block_on(runtime.spawn(run)).unwrap();
    let change = region.change();
    assert_eq!(sum, ITEMS * (ITEMS - 1), "{what}");
    let count = change.allocations + change.reallocations;
    eprintln!("{what}: {count} allocations for {ITEMS} items");
    assert!(count > CONCURRENCY, "{what}: not all was counted: {change:?}");
    // The queues of outcomes grow as the threads happen to run. One allocation for each item would be far above this.
    assert!(count < CONCURRENCY * 20, "{what}: {change:?}");
}

#[test]
fn items_on_several_threads_allocate_nothing() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let task = AsyncMapTask::builder()
        .concurrency(CONCURRENCY)
        .retries(3)
        .timeout_per_attempt(Duration::from_secs(30))
        .run_timeout(Duration::from_secs(600))
        .build()
        .unwrap();
    let run = || {
        let double = async |n| {
            yield_now().await;
            Ok::<_, u32>(n * 2)
        };
        task.over(0..ITEMS).map(double).parallel()
    };
    let awaited = run();
    assert_a_few_for_a_worker("parallel", &runtime, async {
        awaited.await.unwrap().into_successful_results().into_iter().sum()
    });
    let handled = run();
    assert_a_few_for_a_worker("parallel, with a handle", &runtime, async {
        handled.spawn().await.unwrap().into_successful_results().into_iter().sum()
    });
    let for_each = run();
    assert_a_few_for_a_worker("parallel, for_each", &runtime, async {
        let mut sum = 0;
        let taken = for_each.for_each(|outcome| {
            sum += outcome.result.unwrap();
            async {}
        });
        taken.await.unwrap();
        sum
    });
    let streamed = run();
    assert_a_few_for_a_worker("parallel, stream", &runtime, async {
        let doubles = streamed.stream().map(|outcome| outcome.unwrap().result.unwrap());
        doubles.fold(0, async |sum, double| sum + double).await
    });
    let in_order = run();
    assert_a_few_for_a_worker("parallel, stream in order", &runtime, async {
        let doubles = in_order.ordered().stream().map(|outcome| outcome.unwrap().result.unwrap());
        doubles.fold(0, async |sum, double| sum + double).await
    });
}
