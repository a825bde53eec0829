//! What a run on several cores costs an item, beside the usual recipe. `cargo bench --bench spawned`
//!
//! The runtime has two workers, each pinned to its core: some machines keep both on one core otherwise, and
//! then the figures say nothing. All contenders do the same work, interleaved in one process; the figure is the
//! median of the wall time. Only ratios within one run mean anything.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may"
)]

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_map_task::AsyncMapTask;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

const ROUNDS: usize = 11;
const CONCURRENCY: [usize; 3] = [8, 64, 1024];
const WORKERS: usize = 2;

#[derive(Clone, Copy)]
enum Workload {
    Ready,
    Yields,
    /// About two microseconds of one core.
    Computes,
}

impl Workload {
    fn items(self) -> u64 {
        match self {
            Self::Computes => 50_000,
            Self::Ready | Self::Yields => 100_000,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "W0, ready",
            Self::Yields => "W1, yields once",
            Self::Computes => "W5, 2 us of CPU",
        })
    }
}

async fn work(kind: Workload, n: u64) -> Result<u64, u32> {
    match kind {
        Workload::Ready => {}
        Workload::Yields => yield_now().await,
        Workload::Computes => {
            black_box(
                (0..1_500_u64).fold(n, |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7)),
            );
        }
    }
    black_box(Ok(n * 2))
}

async fn sequential(kind: Workload, _c: usize) -> u64 {
    let mut results = Vec::with_capacity(kind.items() as usize);
    for n in 0..kind.items() {
        results.push(work(kind, n).await);
    }
    results.into_iter().map(|result| result.expect("no item fails")).sum()
}

/// A permit, then a task for the item, all handles awaited at the end.
async fn spawn_recipe(kind: Workload, c: usize) -> u64 {
    let permits = Arc::new(Semaphore::new(c));
    let mut tasks = Vec::with_capacity(kind.items() as usize);
    for n in 0..kind.items() {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("it is never closed");
        tasks.push(tokio::spawn(async move {
            let result = work(kind, n).await;
            drop(permit);
            result
        }));
    }
    let mut sum = 0;
    for task in tasks {
        sum += task.await.expect("no task panics").expect("no item fails");
    }
    sum
}

fn full(c: usize) -> AsyncMapTask {
    AsyncMapTask::builder()
        .name("bench")
        .concurrency(c)
        .retries(3)
        .timeout_per_attempt(Duration::from_secs(30))
        .timeout_per_item(Duration::from_secs(60))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .cancel_grace(Duration::from_secs(1))
        .build()
        .expect("the configuration is valid")
}

async fn in_task(kind: Workload, c: usize) -> u64 {
    let run = full(c).over(0..kind.items()).map(move |n| work(kind, n));
    run.await.expect("no item fails").into_successful_results().into_iter().sum()
}

async fn spawned(kind: Workload, c: usize) -> u64 {
    let run = full(c).over(0..kind.items()).map(move |n| work(kind, n)).spawned();
    run.await.expect("no item fails").into_successful_results().into_iter().sum()
}

fn nanos_per_item(
    runtime: &Runtime,
    kind: Workload,
    contender: impl Future<Output = u64> + Send + 'static,
) -> f64 {
    // On a worker, as a service's handler is; `block_on` itself has no worker.
    let (nanos, sum) = runtime.block_on(async {
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let sum = contender.await;
            (start.elapsed().as_nanos() as f64, sum)
        });
        task.await.expect("no contender panics")
    });
    let items = kind.items();
    assert_eq!(sum, items * (items - 1), "an item was lost");
    nanos / items as f64
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn pinned_runtime() -> Runtime {
    let cores = core_affinity::get_core_ids().expect("the cores of this machine");
    assert!(cores.len() >= WORKERS, "{WORKERS} cores are needed, there are {}", cores.len());
    let next = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .on_thread_start(move || {
            let core = cores[next.fetch_add(1, Ordering::Relaxed) % WORKERS];
            assert!(core_affinity::set_for_current(core), "a worker cannot be pinned");
        })
        .build()
        .expect("a runtime")
}

fn main() {
    let runtime = pinned_runtime();
    println!(
        "{WORKERS} pinned workers, {ROUNDS} interleaved rounds, median ns an item (times the recipe's speed)\n"
    );
    println!(
        "{:<28}{:>22}{:>22}{:>22}{:>22}",
        "", "sequential", "spawn recipe", "full, in task", "full, spawned"
    );
    for kind in [Workload::Ready, Workload::Yields, Workload::Computes] {
        for c in CONCURRENCY {
            let mut figures: [Vec<f64>; 4] = Default::default();
            for round in 0..=ROUNDS {
                let now = [
                    nanos_per_item(&runtime, kind, sequential(kind, c)),
                    nanos_per_item(&runtime, kind, spawn_recipe(kind, c)),
                    nanos_per_item(&runtime, kind, in_task(kind, c)),
                    nanos_per_item(&runtime, kind, spawned(kind, c)),
                ];
                // The first round warms up.
                if round > 0 {
                    figures.iter_mut().zip(now).for_each(|(figures, now)| figures.push(now));
                }
            }
            let medians = figures.map(|mut figures| median(&mut figures));
            print!("{kind:<16} {:<11}", format!("{c} at once"));
            for nanos in medians {
                print!("{nanos:>13.1} ({:>5.2}x)", medians[1] / nanos);
            }
            println!("   {:.2}x the sequential loop", medians[0] / medians[3]);
        }
    }
}
