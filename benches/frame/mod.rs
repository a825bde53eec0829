//! What the benchmarks have in common: clocks, runtimes, rounds and tables.

#![allow(dead_code, unused_imports, reason = "no benchmark needs all of it")]

mod clock;
mod runtime;
mod table;

use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder};

pub(crate) use clock::Cost;
pub(crate) use runtime::{current_thread, current_thread_on, timed, timed_on_worker, two_workers};
pub(crate) use table::Table;

/// Every protection that a task can be given.
pub(crate) fn full(concurrency: usize) -> AsyncMapTask {
    builder(concurrency)
        .retries(3)
        .retry_delay(Duration::from_millis(1))
        .timeout_per_attempt(Duration::from_secs(30))
        .timeout_per_item(Duration::from_secs(60))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .max_failures(1_000)
        .cancel_grace(Duration::from_secs(1))
        .build()
        .expect("the configuration is valid")
}

/// A bound on what runs at once, and nothing else.
pub(crate) fn bare(concurrency: usize) -> AsyncMapTask {
    builder(concurrency).build().expect("the configuration is valid")
}

fn builder(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().name("bench").concurrency(concurrency)
}

/// Measures the contenders by turns, so that a mood of the machine falls on all of them, and gives the medians. The
/// first round warms up; the order turns from round to round, so that nobody always comes after the same one.
pub(crate) fn interleaved<C>(
    rounds: usize,
    contenders: &[C],
    mut measure: impl FnMut(&C) -> Cost,
) -> Vec<Cost> {
    let mut costs = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        let mut turns: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            let cost = measure(&contenders[turn]);
            if round > 0 {
                costs[turn].push(cost);
            }
        }
    }
    costs.iter().map(|costs| Cost::median(costs)).collect()
}

/// The middle one of some figures, of which there is at least one.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
