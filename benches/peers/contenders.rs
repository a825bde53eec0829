//! Ways to map an async function over items with bounded concurrency: the common ones, and ours.

use std::cell::Cell;
use std::future::ready;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use async_map_task::{Event, MapTaskResult};
use future_queue::StreamExt as _;
use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use futures::stream::{self, StreamExt};
use futures_buffered::BufferedStreamExt;
use futures_concurrency::concurrent_stream::ConcurrentStream;
use futures_concurrency::stream::StreamExt as _;
use roughage::AsyncPipeline;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinQueue;

use crate::cell::Cores;
use crate::frame::{bare, full};

pub(crate) type ItemResult = Result<u64, u32>;

/// The map function: any contender can take it.
pub(crate) trait MapFn<Fut>: Fn(u64) -> Fut + Copy + Send + Sync + 'static {}
impl<F: Fn(u64) -> Fut + Copy + Send + Sync + 'static, Fut> MapFn<Fut> for F {}

pub(crate) trait ItemFuture: Future<Output = ItemResult> + Send + 'static {}
impl<Fut: Future<Output = ItemResult> + Send + 'static> ItemFuture for Fut {}

/// The result of a contender.
pub(crate) enum Output {
    Results(Vec<ItemResult>),
    Account(Box<MapTaskResult<u64, u32>>),
    Sum(u64),
}

impl Output {
    /// Checks that no item was left out or came twice.
    pub(crate) fn check(self, contender: &str, items: u64) {
        let sum = match self {
            Self::Results(results) => {
                assert_eq!(results.len() as u64, items, "{contender} lost an item");
                results.into_iter().map(|result| result.expect("no item fails")).sum()
            }
            Self::Account(account) => {
                assert!(
                    account.results.iter().copied().eq((0..items).map(|n| Some(n * 2))),
                    "{contender} returned different results"
                );
                account.into_successful_results().into_iter().sum()
            }
            Self::Sum(sum) => sum,
        };
        assert_eq!(sum, items * items.saturating_sub(1), "{contender} lost an item");
    }
}

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

/// Makes the future of a run over this many items, this many at once.
pub(crate) enum Run {
    /// It stays on its thread, so its items share state without atomics.
    Local(Box<dyn Fn(u64, usize) -> LocalBoxFuture<'static, Output>>),
    Send(Box<dyn Fn(u64, usize) -> BoxFuture<'static, Output>>),
}

impl Contender {
    pub(crate) fn runs_on(&self, cores: Cores) -> bool {
        cores == Cores::One || matches!(self.run, Run::Send(_))
    }

    fn local<Fut: Future<Output = Output> + 'static>(
        name: &'static str,
        run: impl Fn(u64, usize) -> Fut + 'static,
    ) -> Self {
        Self { name, run: Run::Local(Box::new(move |items, c| run(items, c).boxed_local())) }
    }

    fn send<Fut: Future<Output = Output> + Send + 'static>(
        name: &'static str,
        run: impl Fn(u64, usize) -> Fut + 'static,
    ) -> Self {
        Self { name, run: Run::Send(Box::new(move |items, c| run(items, c).boxed())) }
    }
}

/// All contenders. Peers take a function for the whole item. Ours take one for an attempt, unless they are bare, because
/// they retry in the run.
pub(crate) fn contenders<I: ItemFuture, A: ItemFuture>(
    item: impl MapFn<I>,
    attempt: impl MapFn<A>,
) -> Vec<Contender> {
    vec![
        Contender::send("sequential", move |items, _| sequential(items, item)),
        Contender::send("buffer_unordered", move |items, c| buffer_unordered(items, c, item)),
        Contender::send("buffered", move |items, c| buffered(items, c, item)),
        Contender::local("for_each_concurrent", move |items, c| for_each_concurrent(items, c, item)),
        Contender::send("JoinSet + Semaphore", move |items, c| join_set(items, c, item)),
        Contender::send("JoinQueue", move |items, c| join_queue(items, c, item)),
        Contender::send("spawn recipe", move |items, c| spawn_recipe(items, c, item)),
        Contender::send("two loops", move |items, _| two_loops(items, item)),
        Contender::send("futures-buffered", move |items, c| futures_buffered(items, c, item)),
        Contender::local("futures-concurrency", move |items, c| futures_concurrency(items, c, item)),
        Contender::send("future-queue", move |items, c| future_queue(items, c, item)),
        Contender::local("roughage", move |items, c| roughage(items, c, item)),
        Contender::send("ours, bare", move |items, c| ours_bare(items, c, item)),
        Contender::send("ours, full", move |items, c| ours_full(items, c, attempt)),
        Contender::send("ours, elapsed", move |items, c| ours_elapsed(items, c, attempt)),
        Contender::send("ours, for_each", move |items, c| ours_for_each(items, c, attempt)),
        Contender::send("ours, stream", move |items, c| ours_stream(items, c, attempt)),
        Contender::send("ours, parallel", move |items, c| ours_parallel(items, c, attempt)),
    ]
}

async fn sequential<Fut: ItemFuture>(items: u64, f: impl MapFn<Fut>) -> Output {
    let mut results = Vec::with_capacity(items as usize);
    for n in 0..items {
        results.push(f(n).await);
    }
    Output::Results(results)
}

async fn buffer_unordered<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Results(stream::iter(0..items).map(f).buffer_unordered(c).collect().await)
}

async fn buffered<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Results(stream::iter(0..items).map(f).buffered(c).collect().await)
}

async fn for_each_concurrent<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let sum = &Cell::new(0);
    let add = async |n| {
        let result = f(n).await;
        sum.set(sum.get() + result.expect("no item fails"));
    };
    StreamExt::for_each_concurrent(stream::iter(0..items), c, add).await;
    Output::Sum(sum.get())
}

/// Acquires a permit, then spawns a task for the item. All are joined at the end.
async fn join_set<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let permits = Arc::new(Semaphore::new(c));
    let mut tasks = JoinSet::new();
    for n in 0..items {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("it is never closed");
        let item = f(n);
        tasks.spawn(async move {
            let result = item.await;
            drop(permit);
            result
        });
    }
    Output::Results(tasks.join_all().await)
}

/// The length of the queue is the bound: when it is full, the task at its front is awaited first. The results come in the
/// order of the items, so a slow item keeps others from starting.
async fn join_queue<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let mut tasks = JoinQueue::with_capacity(c);
    let mut results = Vec::with_capacity(items as usize);
    for n in 0..items {
        if tasks.len() == c {
            let result = tasks.join_next().await.expect("the queue is full");
            results.push(result.expect("no task panics"));
        }
        tasks.spawn(f(n));
    }
    while let Some(result) = tasks.join_next().await {
        results.push(result.expect("no task panics"));
    }
    Output::Results(results)
}

/// Acquires a permit, then spawns a task for the item. All handles are awaited at the end.
async fn spawn_recipe<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let permits = Arc::new(Semaphore::new(c));
    let mut tasks = Vec::with_capacity(items as usize);
    for n in 0..items {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("it is never closed");
        let item = f(n);
        tasks.push(tokio::spawn(async move {
            let result = item.await;
            drop(permit);
            result
        }));
    }
    let mut results = Vec::with_capacity(items as usize);
    for task in tasks {
        results.push(task.await.expect("no task panics"));
    }
    Output::Results(results)
}

/// The minimum that two worker threads need to share items, each in order: a lock under which an item is fetched and the
/// result of the previous one is stored. Nothing is limited or protected, and only two items wait at a time.
async fn two_loops<Fut: ItemFuture>(items: u64, f: impl MapFn<Fut>) -> Output {
    let shared = Arc::new(Mutex::new((0..items, vec![None; items as usize])));
    let spawn = || {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut settled = None;
            loop {
                let fetched = {
                    let (items, results) = &mut *shared.lock().expect("no item panics");
                    if let Some((n, result)) = settled {
                        results[n as usize] = Some(result);
                    }
                    items.next()
                };
                let Some(n) = fetched else { return };
                settled = Some((n, f(n).await));
            }
        })
    };
    for task in [spawn(), spawn()] {
        task.await.expect("no task panics");
    }
    let (_, results) = mem::take(&mut *shared.lock().expect("no item panics"));
    Output::Results(results.into_iter().flatten().collect())
}

async fn futures_buffered<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let items = stream::iter(0..items).map(f);
    Output::Results(BufferedStreamExt::buffered_unordered(items, c).collect().await)
}

/// Its `collect` ignores the limit, as of 7.7.1, so the results are added up.
async fn futures_concurrency<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let sum = &Cell::new(0);
    let add = async |n| {
        let result = f(n).await;
        sum.set(sum.get() + result.expect("no item fails"));
    };
    let items = stream::iter(0..items).co().limit(NonZeroUsize::new(c));
    items.for_each(add).await;
    Output::Sum(sum.get())
}

async fn future_queue<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let weighted = stream::iter(0..items).map(move |n| (1, move |_| f(n)));
    Output::Results(weighted.future_queue(c).collect().await)
}

async fn roughage<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Results(AsyncPipeline::from_iter(0..items).map_unordered(f, c).collect().await)
}

async fn ours_bare<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Account(Box::new(bare(c).over(0..items).map(f).await.expect("no item fails")))
}

/// A run with every protection. It is a macro, because the type of a run cannot be named.
macro_rules! full_run {
    ($items:expr, $c:expr, $f:expr) => {
        full($c)
            .over(0..$items)
            .map($f)
            .retry_if(|error| *error != 0)
            .cancellation_token(CancellationToken::new())
    };
}

async fn ours_full<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Account(Box::new(full_run!(items, c, f).await.expect("no item fails")))
}

/// The duration of each item is received, so the clock is read for it.
async fn ours_elapsed<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let run = full_run!(items, c, f).observe(|_: &Event<'_>| ());
    Output::Account(Box::new(run.await.expect("no item fails")))
}

async fn ours_for_each<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let mut sum = 0;
    let run = full_run!(items, c, f).for_each(|outcome| {
        sum += outcome.result.expect("no item fails");
        ready(())
    });
    run.await.expect("no item fails");
    Output::Sum(sum)
}

async fn ours_stream<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    let mut outcomes = full_run!(items, c, f).stream();
    let mut sum = 0;
    while let Some(outcome) = outcomes.next().await {
        sum += outcome.expect("no item fails").result.expect("no item fails");
    }
    Output::Sum(sum)
}

async fn ours_parallel<Fut: ItemFuture>(items: u64, c: usize, f: impl MapFn<Fut>) -> Output {
    Output::Account(Box::new(full_run!(items, c, f).parallel().await.expect("no item fails")))
}
