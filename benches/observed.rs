//! The cost of observers in nanoseconds per attempt. `cargo bench -p benches --bench observed`
//!
//! Each round measures all contenders, one after another, so that a change of the machine's load meets all of them. The table
//! has the medians of the rounds, and how much each contender adds to the run without an observer.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark may")]

mod frame;

use std::hint::black_box;
use std::time::Instant;

use async_map_task::{Event, RunReport};
use tokio::runtime::Builder;
use tokio::task::yield_now;

use self::frame::{Table, bare, median};

const ITEMS: u64 = 1_000_000;
const ROUNDS: usize = 11;
const CONCURRENCY: usize = 64;
const OBSERVERS: [&str; 3] = ["none", "one that does nothing", "RunReport"];

/// Runs all items. Each of them is ready, or yields once.
async fn run(observer: usize, yields: bool) {
    let task = bare(CONCURRENCY);
    let run = task.over(0..ITEMS).map(|n| async move {
        if yields {
            yield_now().await;
        }
        Ok::<_, u32>(n)
    });
    let ignore = |event: &Event<'_>| {
        black_box(event);
    };
    let result = match observer {
        0 => run.await,
        1 => run.observe(ignore).await,
        _ => run.observe(RunReport::new().observer()).await,
    };
    assert_eq!(result.expect("no item fails").successes() as u64, ITEMS);
}

fn main() {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut figures = vec![Vec::new(); 2 * OBSERVERS.len()];
    for _ in 0..ROUNDS {
        for (n, figures) in figures.iter_mut().enumerate() {
            let begun = Instant::now();
            runtime.block_on(run(n % OBSERVERS.len(), n >= OBSERVERS.len()));
            figures.push(begun.elapsed().as_secs_f64() * 1e9 / ITEMS as f64);
        }
    }
    let medians: Vec<_> = figures.into_iter().map(median).collect();
    let mut table = Table::new(["ns per attempt", "observer", "median", "more"]);
    for (work, medians) in ["ready", "yields once"].iter().zip(medians.chunks(OBSERVERS.len())) {
        for (observer, figure) in OBSERVERS.iter().zip(medians) {
            let more = format!("{:.0}", figure - medians[0]);
            table.row([(*work).to_owned(), (*observer).to_owned(), format!("{figure:.0}"), more]);
        }
    }
    println!("{table}");
}
