//! What a run costs an item, beside what people use today. `cargo bench --bench peers`
//!
//! All contenders do the same work, interleaved in one process on a current-thread runtime; the figure
//! is the median. Only ratios within one run mean anything: the machine has its moods.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may"
)]

use std::fmt;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_map_task::AsyncMapTask;
use futures::stream::{self, StreamExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;

const ITEMS: u64 = 100_000;
const ROUNDS: usize = 21;
const CONCURRENCY: [usize; 3] = [8, 64, 1024];

/// The contender that all others are compared with.
const BASELINE: usize = 1;

#[derive(Clone, Copy)]
enum Workload {
    /// The item is ready at once.
    Ready,
    /// The item yields once.
    Yields,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "W0, ready",
            Self::Yields => "W1, yields once",
        })
    }
}

type Sum = Pin<Box<dyn Future<Output = u64>>>;

/// A contender: adds up `double(0) + double(1) + ...`, so that nobody can leave an item out.
struct Contender {
    name: &'static str,
    run: fn(Workload, usize) -> Sum,
}

const CONTENDERS: [Contender; 4] = [
    Contender { name: "sequential", run: |work, _| pick(work, sequential(ready), sequential(yields)) },
    Contender {
        name: "buffer_unordered",
        run: |work, c| pick(work, buffer_unordered(c, ready), buffer_unordered(c, yields)),
    },
    Contender {
        name: "JoinSet + Semaphore",
        run: |work, c| pick(work, join_set(c, ready), join_set(c, yields)),
    },
    Contender {
        name: "AsyncMapTask, full",
        run: |work, c| pick(work, map_task(c, ready), map_task(c, yields)),
    },
];

fn pick(
    work: Workload,
    ready: impl Future<Output = u64> + 'static,
    yields: impl Future<Output = u64> + 'static,
) -> Sum {
    match work {
        Workload::Ready => Box::pin(ready),
        Workload::Yields => Box::pin(yields),
    }
}

async fn ready(n: u64) -> Result<u64, u32> {
    black_box(Ok(n * 2))
}

async fn yields(n: u64) -> Result<u64, u32> {
    yield_now().await;
    black_box(Ok(n * 2))
}

fn total(results: impl IntoIterator<Item = Result<u64, u32>>) -> u64 {
    results.into_iter().map(|result| result.expect("no item fails")).sum()
}

async fn sequential<F: Future<Output = Result<u64, u32>>>(f: impl Fn(u64) -> F + Copy) -> u64 {
    let mut results = Vec::with_capacity(ITEMS as usize);
    for n in 0..ITEMS {
        results.push(f(n).await);
    }
    total(results)
}

async fn buffer_unordered<F: Future<Output = Result<u64, u32>>>(
    c: usize,
    f: impl Fn(u64) -> F + Copy,
) -> u64 {
    let results: Vec<_> = stream::iter(0..ITEMS).map(f).buffer_unordered(c).collect().await;
    total(results)
}

async fn join_set<F>(c: usize, f: impl Fn(u64) -> F + Copy) -> u64
where
    F: Future<Output = Result<u64, u32>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(c));
    let mut set = JoinSet::new();
    for n in 0..ITEMS {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("it is never closed");
        let item = f(n);
        set.spawn(async move {
            let result = item.await;
            drop(permit);
            result
        });
    }
    total(set.join_all().await)
}

async fn map_task<F: Future<Output = Result<u64, u32>>>(c: usize, f: impl Fn(u64) -> F + Copy) -> u64 {
    let task = AsyncMapTask::builder()
        .name("bench")
        .concurrency(c)
        .retries(3)
        .timeout_per_attempt(Duration::from_secs(30))
        .timeout_per_item(Duration::from_secs(60))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .max_failures(1_000)
        .cancel_grace(Duration::from_secs(1))
        .build()
        .expect("the configuration is valid");
    let run =
        task.over(0..ITEMS).map(f).retry_if(|error| *error != 0).cancellation_token(CancellationToken::new());
    let result = run.await.unwrap_or_else(|error| panic!("no item fails: {}", error.reason()));
    result.into_successful_results().into_iter().sum()
}

fn nanos_per_item(runtime: &Runtime, contender: &Contender, work: Workload, c: usize) -> f64 {
    let start = Instant::now();
    let sum = runtime.block_on((contender.run)(work, c));
    let spent = start.elapsed();
    assert_eq!(sum, ITEMS * (ITEMS - 1), "{} has lost an item", contender.name);
    spent.as_nanos() as f64 / ITEMS as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{ITEMS} items, {ROUNDS} interleaved rounds, median ns an item (ratio to buffer_unordered)\n");
    print!("{:<28}", "");
    CONTENDERS.iter().for_each(|contender| print!("{:>24}", contender.name));
    println!();
    for work in [Workload::Ready, Workload::Yields] {
        for c in CONCURRENCY {
            let mut figures = CONTENDERS.map(|_| Vec::with_capacity(ROUNDS));
            for round in 0..=ROUNDS {
                for (contender, figures) in CONTENDERS.iter().zip(&mut figures) {
                    let figure = nanos_per_item(&runtime, contender, work, c);
                    // The first round warms up.
                    if round > 0 {
                        figures.push(figure);
                    }
                }
            }
            let medians = figures.map(median);
            print!("{work:<16} {:<11}", format!("{c} at once"));
            for nanos in medians {
                print!("{nanos:>15.1} ({:>5.2}x)", nanos / medians[BASELINE]);
            }
            println!();
        }
    }
}
