//! The parts that the benchmarks share: clocks, runtimes, rounds and tables.

#![allow(dead_code, unused_imports, reason = "no benchmark needs all of it")]

mod clock;
mod heap;
mod rounds;
mod runtime;
mod table;

use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder};

pub(crate) use clock::Cost;
pub(crate) use heap::without_memory_of_others;
pub(crate) use rounds::{interleaved, turns};
pub(crate) use runtime::{current_thread, current_thread_on, timed, timed_on_worker, two_workers};
pub(crate) use table::Table;

/// A task with every protection.
pub(crate) fn full(concurrency: usize) -> AsyncMapTask {
    full_builder(concurrency).build().expect("the configuration is valid")
}

/// The builder of a task with every protection.
pub(crate) fn full_builder(concurrency: usize) -> AsyncMapTaskBuilder {
    builder(concurrency)
        .retries(3)
        .retry_delay(Duration::from_millis(1))
        .timeout_per_attempt(Duration::from_secs(30))
        .timeout_per_item(Duration::from_secs(60))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .max_failures(1_000)
        .cancel_grace(Duration::from_secs(1))
}

/// A task with a bound on the concurrency, and nothing else.
pub(crate) fn bare(concurrency: usize) -> AsyncMapTask {
    builder(concurrency).build().expect("the configuration is valid")
}

fn builder(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().name("bench").concurrency(concurrency)
}

/// Returns the median of at least one figure.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
