//! The memory of held items: the bytes for each of 100,000 items that wait for their retries, or that have outcomes which
//! wait for an earlier one.
//!
//! The counts are those of the test's own thread, so the tests may run side by side.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::cell::Cell;
use std::time::Duration;

use allocation_counter::measure;
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, RunError, Summary};
use tokio::time::sleep;

const HELD: usize = 100_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// The maximum bytes that one held item may take at the peak, for an index and a `u64`. At the peak all delays end at once:
/// the items move from one queue to another, and a queue that doubles exists twice, half empty. So this is about four times
/// the size of an entry.
const MOST_BYTES: u64 = 640;

fn task() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(64).look_ahead(HELD).min_success_ratio(0.0)
}

/// Measures the peak of a run that holds `HELD` items and drops its outcomes as they come.
fn assert_bytes_per_held_item(what: &str, run: impl Future<Output = Result<Summary, RunError>>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let info = measure(|| {
        let summary = runtime.block_on(run).unwrap();
        assert_eq!(summary.successes, summary.total);
    });
    let bytes = info.bytes_max / HELD as u64;
    eprintln!("{what}: {bytes} bytes for each of {HELD} held items");
    assert!(bytes > 0, "{what}: nothing was counted: {info:?}");
    assert!(bytes <= MOST_BYTES, "{what}: {info:?}");
}

#[test]
fn rule_06_a_delayed_retry_takes_few_bytes() {
    let task = task().retries(1).retry_delay(HOUR).max_retry_delay(HOUR).retry_jitter(0.0).build().unwrap();
    let (first, late) = (Cell::new(0), Cell::new(0));
    let run = task.over(0..HELD as u64).map_with_context(|cx, n| {
        let counter = if cx.attempt() == 1 { &first } else { &late };
        counter.set(counter.get() + 1);
        assert!(late.get() == 0 || first.get() == HELD, "{} items wait at once", first.get());
        let is_first = cx.attempt() == 1;
        async move { if is_first { Err("down") } else { Ok(n) } }
    });
    assert_bytes_per_held_item("waiting for a retry", run.for_each(|_| async {}));
    assert_eq!((first.get(), late.get()), (HELD, HELD));
}

#[test]
fn rule_31_a_held_outcome_takes_few_bytes() {
    let task = task().build().unwrap();
    let (settled, taken) = (Cell::new(0), Cell::new(0));
    // Item 0 takes an hour, and all the others wait for it.
    let run = task.over(0..=HELD as u64).map(|n| {
        let settled = &settled;
        async move {
            if n == 0 {
                sleep(HOUR).await;
            } else {
                settled.set(settled.get() + 1);
            }
            Ok::<_, String>(n)
        }
    });
    let run = run.ordered().for_each(|outcome| {
        if outcome.index == 0 {
            assert_eq!(settled.get(), HELD, "all are held when the first is done");
        }
        taken.set(taken.get() + 1);
        async {}
    });
    assert_bytes_per_held_item("ordered", run);
    assert_eq!(taken.get(), HELD + 1);
}
