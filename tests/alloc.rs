//! The allocations of a run: once for each worker, for the results, and none for an item.
//!
//! The counts are those of the test's own thread, so the tests may run side by side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may")]

use std::cell::Cell;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, KeyedLimiter, Limiter};
use futures::future::join_all;
use futures::stream::{self, Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::{pause, resume};
use tokio_util::sync::CancellationToken;

/// Enough for most workers to be opened, although a poll opens only as many as its time allows.
const FEW: u64 = 20_000;
const MANY: u64 = 100_000;

/// The slots that are reserved ahead; beyond them the results grow by doubling.
const RESERVED: u64 = 1 << 16;

/// What the longer run may allocate more on a busy machine: workers that the shorter one had no time to open, and doublings
/// of Tokio's list of deferred wakers. It is one for 1,250 of the items that are more.
const LATE: u64 = 64;

/// A task with every setting.
fn everything() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder()
        .name("everything")
        .concurrency(64)
        .retries(3)
        .timeout_per_attempt(Duration::from_secs(5))
        .timeout_per_item(Duration::from_secs(30))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .cancel_grace(Duration::from_secs(2))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Measures a run over that many items, from its creation to its end, including its results.
fn measure_run<R>(items: u64, run: impl AsyncFn(u64) -> R) -> AllocationInfo {
    let runtime = runtime();
    // The first run of a thread initialises the thread's budget, clock and parker.
    runtime.block_on(run(10));
    let info = measure(|| {
        black_box(runtime.block_on(run(items)));
    });
    assert_eq!((info.count_current, info.bytes_current), (0, 0), "a run gives back what it took");
    info
}

/// Checks that a run over many items allocates as often as one over few, except for the doublings of the results
/// beyond the slots reserved ahead.
fn assert_nothing_for_an_item<R>(what: &str, run: impl AsyncFn(u64) -> R) {
    let few = measure_run(FEW, &run);
    let many = measure_run(MANY, &run);
    eprintln!("{what}: {} allocations for {FEW} items, {} for {MANY}", few.count_total, many.count_total);
    let doublings = u64::from(MANY.div_ceil(RESERVED).next_power_of_two().ilog2());
    assert!(many.count_total <= few.count_total + doublings + LATE, "{what}: {few:?} grew to {many:?}");
    assert!(few.count_total < 64 * 3 + 32, "{what}: a few for a lane and a few for the run: {few:?}");
}

/// The same for workers that are idle at times or are tasks. Tokio's own lists of wakers then grow a varying number
/// of times, but not with the number of items.
fn assert_a_few_for_a_worker<R>(what: &str, run: impl AsyncFn(u64) -> R) {
    let many = measure_run(MANY, &run);
    eprintln!("{what}: {} allocations for {MANY} items", many.count_total);
    assert!(many.count_total < 64 * 8 + 32, "{what}: {many:?}");
}

#[test]
fn items_that_are_ready_allocate_nothing() {
    let task = everything().build().unwrap();
    let token = CancellationToken::new();
    assert_nothing_for_an_item("ready", async |items| {
        let run = task.run(0..items, |n| async move { Ok::<_, u32>(black_box(n * 2)) });
        let result = run.retry_if(|error| *error < 500).cancellation_token(token.clone()).await.unwrap();
        assert_eq!(result.successes() as u64, items);
        result
    });
}

#[test]
fn items_that_yield_once_allocate_nothing() {
    let task = everything().build().unwrap();
    let token = CancellationToken::new();
    assert_nothing_for_an_item("yields once", async |items| {
        let run = task.run(0..items, |n| async move {
            yield_now().await;
            Ok::<_, u32>(black_box(n * 2))
        });
        let result = run.retry_if(|error| *error < 500).cancellation_token(token.clone()).await.unwrap();
        assert_eq!(result.successes() as u64, items);
        result
    });
}

#[test]
fn the_defaults_allocate_nothing_for_an_item() {
    let task = AsyncMapTask::default();
    assert_nothing_for_an_item("defaults", async |items| {
        task.run(0..items, |n| async move { Ok::<_, u32>(n) }).await.unwrap()
    });
}

#[test]
fn a_context_without_its_token_allocates_nothing() {
    let task = everything().build().unwrap();
    for yields in [false, true] {
        assert_nothing_for_an_item("with a context", async |items| {
            let run = task.over(0..items).map_with_context(|cx, n| async move {
                if yields {
                    yield_now().await;
                }
                black_box((cx.index(), cx.attempt(), cx.is_last_attempt(), cx.deadline()));
                Ok::<_, u32>(n)
            });
            run.await.unwrap()
        });
    }
}

#[test]
fn map_once_and_an_observer_allocate_nothing_for_an_item() {
    let task = everything().retries(0).build().unwrap();
    assert_nothing_for_an_item("map_once", async |items| {
        task.over(0..items).map_once(|n| async move { Ok::<_, u32>(n) }).await.unwrap()
    });
    let task = everything().build().unwrap();
    let settled = Cell::new(0);
    assert_nothing_for_an_item("observed", async |items| {
        let run = task.run(0..items, |n| async move { Ok::<_, u32>(n) });
        run.observe(|_: &Event<'_>| settled.set(settled.get() + 1)).await.unwrap()
    });
    assert!(settled.get() > MANY);
}

#[test]
fn without_a_subscriber_the_spans_allocate_nothing() {
    assert!(!tracing::dispatcher::has_been_set(), "no test of this binary sets a subscriber");
    let task = everything().build().unwrap();
    // Without a subscriber, no span of an item is created.
    assert_nothing_for_an_item("no subscriber", async |items| {
        task.run(0..items, |n| async move {
            tracing::trace!(n, "nobody hears this");
            Ok::<_, u32>(n)
        })
        .await
        .unwrap()
    });
}

/// A source of ten items with a size hint that is larger than the memory.
struct Boastful(u64, (usize, Option<usize>));

impl Iterator for Boastful {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.checked_sub(1)?;
        Some(self.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.1
    }
}

impl Stream for Boastful {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        Poll::Ready(Iterator::next(&mut *self))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.1
    }
}

#[test]
fn a_wrong_size_hint_reserves_little() {
    let task = everything().build().unwrap();
    for hint in
        [(usize::MAX, None), (usize::MAX, Some(usize::MAX)), (0, Some(usize::MAX)), (1 << 40, Some(1 << 40))]
    {
        let bytes = |info: AllocationInfo| {
            eprintln!("{hint:?}: {} bytes at most", info.bytes_max);
            assert!(info.bytes_max < 2 * RESERVED * size_of::<Option<u64>>() as u64, "{hint:?}: {info:?}");
        };
        bytes(measure_run(10, async |items| {
            let result = task.run(Boastful(items, hint), |n| async move { Ok::<_, u32>(n) }).await.unwrap();
            assert_eq!((result.total(), result.results.len()), (10, 10), "{hint:?}");
        }));
        bytes(measure_run(10, async |items| {
            let run = task.over_stream(Boastful(items, hint)).map(|n| async move { Ok::<_, u32>(n) });
            assert_eq!(run.await.unwrap().total(), 10, "{hint:?}");
        }));
        // A stopped run has slots for the items that were started, and few for those that were only promised.
        let bytes = |info: AllocationInfo| {
            eprintln!("{hint:?}, stopped: {} bytes at most", info.bytes_max);
            assert!(info.bytes_max < (4 << 20) * size_of::<Option<u64>>() as u64, "{hint:?}: {info:?}");
        };
        bytes(measure_run(10, async |items| {
            let token = CancellationToken::new();
            let stop = &token;
            let run = task.run(Boastful(items, hint), |n| async move {
                stop.cancel();
                Ok::<_, u32>(n)
            });
            let error = run.cancellation_token(token.clone()).await.unwrap_err();
            assert_eq!(error.partial().successes(), 1, "{hint:?}");
        }));
    }
}

#[test]
fn a_stream_allocates_nothing_for_an_item() {
    let task = everything().build().unwrap();
    // Its length is not known, so nothing is reserved and the results double from the start.
    let run = async |items| {
        task.over_stream(stream::iter((0..items).filter(|_| true)))
            .map(async |n| Ok::<_, u32>(n))
            .await
            .unwrap()
    };
    let (few, many) = (measure_run(FEW, run), measure_run(MANY, run));
    eprintln!("stream: {} allocations for {FEW} items, {} for {MANY}", few.count_total, many.count_total);
    let doublings = u64::from(MANY.div_ceil(FEW).next_power_of_two().ilog2());
    assert!(many.count_total <= few.count_total + doublings, "{few:?} grew to {many:?}");
}

#[test]
fn outcomes_given_one_by_one_allocate_nothing() {
    let task = everything().build().unwrap();
    for ordered in [false, true] {
        let run = |items| {
            let run = task.over(0..items).map(yield_once);
            if ordered { run.ordered() } else { run }
        };
        assert_a_few_for_a_worker("for_each", async |items| {
            let mut sum = 0;
            let summary = run(items).for_each(|outcome| {
                sum += outcome.result.unwrap();
                yield_now()
            });
            assert_eq!(summary.await.unwrap().successes as u64, items);
            assert_eq!(sum, items * (items - 1));
        });
        assert_a_few_for_a_worker("try_for_each", async |items| {
            let mut sum = 0;
            let summary = run(items).try_for_each(|outcome| {
                let double = outcome.result;
                sum += *double.as_ref().unwrap_or(&0);
                async move {
                    yield_now().await;
                    double.map(|_| ()).map_err(|code| format!("code {code}"))
                }
            });
            assert_eq!(summary.await.unwrap().successes as u64, items);
            assert_eq!(sum, items * (items - 1));
        });
        assert_a_few_for_a_worker("stream", async |items| {
            let outcomes = run(items).stream().map(|outcome| outcome.unwrap().result.unwrap());
            assert_eq!(outcomes.fold(0, async |sum, double| sum + double).await, items * (items - 1));
        });
    }
}

#[test]
fn elapsed_times_allocate_nothing() {
    let task = everything().build().unwrap();
    let longest = Cell::new(Duration::ZERO);
    assert_nothing_for_an_item("elapsed", async |items| {
        let run = task.over(0..items).map(yield_once).observe(|event: &Event<'_>| {
            if let Event::ItemSettled { elapsed, .. } = event {
                longest.set(longest.get().max(*elapsed));
            }
        });
        run.await.unwrap()
    });
    assert!(longest.get() > Duration::ZERO);
}

#[test]
fn retries_allocate_nothing() {
    let task = everything().build().unwrap();
    assert_a_few_for_a_worker("retries", async |items| {
        // The delays of the retries take no real time.
        pause();
        let run = task.over(0..items).map_with_context(async |cx, n| {
            yield_now().await;
            if n % 100 == 5 && cx.attempt() == 1 { Err(503) } else { Ok(n) }
        });
        let result = run.retry_if(|code| *code == 503).await.unwrap();
        assert_eq!((result.successes() as u64, result.summary.retries as u64), (items, items.div_ceil(100)));
        resume();
        result
    });
}

#[test]
fn a_shared_limit_allocates_nothing() {
    // Above the task's own concurrency, no item waits for the limit; below it, nearly all items do.
    for permits in [100, 16, 1] {
        assert_a_few_for_a_worker("a shared limit", async |items| {
            let limiter = Limiter::new(permits);
            let task = everything().limiter(&limiter).build().unwrap();
            let result = task.over(0..items).map(yield_once).await.unwrap();
            assert_eq!((result.successes() as u64, limiter.in_use()), (items, 0));
            result
        });
    }
}

#[test]
fn several_limiters_and_keys_allocate_a_few_for_an_item() {
    let joint = measure_run(FEW, async |items| {
        let task = everything().limiter(&Limiter::new(100)).limiter(&Limiter::new(100)).build().unwrap();
        task.over(0..items).map(yield_once).await.unwrap()
    });
    let keyed = measure_run(FEW, async |items| {
        let run = everything().build().unwrap().over(0..items).map(yield_once);
        run.limit_per(|n| n % 16, &KeyedLimiter::new(100)).await.unwrap()
    });
    eprintln!("two limiters: {joint:?}, keys: {keyed:?}");
    // Two limiters are locked together twice for an item. Keys allocate only if an item has to wait for its key.
    assert!(joint.count_total <= 2 * FEW + 500 && keyed.count_total <= FEW / 2, "{joint:?}, {keyed:?}");
}

#[test]
fn runs_that_share_one_permit_allocate_nothing() {
    // Nearly every item waits in the queue of the limiter.
    assert_a_few_for_a_worker("runs in turn", async |items| {
        let limiter = Limiter::new(1);
        let task = everything().concurrency(4).limiter(&limiter).build().unwrap();
        let runs = [(); 4].map(|()| task.over(0..items / 4).map(yield_once));
        let results = join_all(runs).await;
        assert!(results.into_iter().all(|result| result.unwrap().successes() as u64 == items / 4));
    });
}

#[test]
fn weights_allocate_nothing() {
    let limiter = Limiter::new(100);
    for task in [everything(), everything().limiter(&limiter)] {
        let task = task.build().unwrap();
        assert_a_few_for_a_worker("weights", async |items| {
            let run = task.over(0..items).map(yield_once).weight(|n| 1 + u32::try_from(n % 4).unwrap());
            let result = run.await.unwrap();
            assert_eq!((result.successes() as u64, limiter.in_use()), (items, 0));
            result
        });
    }
}

#[test]
fn parallel_items_allocate_nothing() {
    let task = everything().build().unwrap();
    assert_a_few_for_a_worker("parallel", async |items| {
        let result = task.over(0..items).map(yield_once).parallel().await.unwrap();
        assert_eq!(result.successes() as u64, items);
        result
    });
}

async fn yield_once(n: u64) -> Result<u64, u32> {
    yield_now().await;
    Ok(n * 2)
}
