//! Helpers for the tests of the rules: runs with every end, their reports, and a limit for calls that must not hang.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::store::{CacheKey, Checksummed, Record, Recorded, StoreError};
use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, Cache, FailureReason, ItemContext, ItemOutcome, MapHandle,
    MapTaskError, MapTaskResult, Origin, Recovery, RunError, Summary,
};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::rigged::Rigged;
pub(crate) use crate::shared::*;

/// A task with this concurrency and the other defaults. Its name is set, because items are found by it.
pub(crate) fn at_once(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().name("test").concurrency(concurrency)
}

/// Any number of failures is fine.
pub(crate) fn lenient(concurrency: usize) -> AsyncMapTaskBuilder {
    at_once(concurrency).min_success_ratio(0.0)
}

/// Waits until something has happened in another thread, runtime or process. This blocks the thread of the test, so
/// that its own paused clock does not advance.
pub(crate) fn in_another_process(has_happened: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !has_happened() {
        assert!(begun.elapsed() < secs(60), "it does not happen");
        std::thread::yield_now();
    }
}

/// Lets time pass on the real clock, while nothing in this thread is polled.
pub(crate) fn pass(time: Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        std::thread::yield_now();
    }
}

/// Returns the store's error in the reason of a failed run.
pub(crate) fn store_error(reason: &FailureReason) -> &StoreError {
    let FailureReason::Store(error) = reason else { panic!("it is not the store: {reason:?}") };
    error.downcast_ref().expect("it is an error of the store")
}

/// Returns a value with a fixed checksum.
pub(crate) fn checksummed(json: &str) -> Checksummed {
    Checksummed { json: json.to_owned(), checksum: "0123456789abcdef".to_owned() }
}

pub(crate) fn key(item: impl Display) -> CacheKey {
    CacheKey { task: "embed".to_owned(), version: "3".to_owned(), item_hash: item.to_string() }
}

/// Returns a success with its index as its output.
pub(crate) fn record(index: u64) -> Record {
    Record {
        index,
        item_hash: "hash".to_owned(),
        attempts: 1,
        elapsed: Duration::ZERO,
        recorded: Recorded::Succeeded { output: checksummed(&index.to_string()) },
    }
}

fn why(reason: &FailureReason) -> String {
    if matches!(reason, FailureReason::Store(_)) {
        store_error(reason);
    }
    format!("{reason:?}")
}

type Attempt = BoxFuture<'static, Result<u64, &'static str>>;
type Function = Arc<dyn Fn(ItemContext, u64) -> Attempt + Send + Sync>;
type Watch = Arc<dyn Fn(usize) + Send + Sync>;

/// A run over numbers, up to its end.
#[derive(Clone)]
pub(crate) struct Plan {
    task: AsyncMapTask,
    call: Function,
    store: Rigged,
    recovery: Option<Recovery>,
    cache: Option<Cache>,
    token: CancellationToken,
    watch: Watch,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) summary: Summary,
    /// The reason of its failure, as `{:?}` shows it.
    pub(crate) reason: Option<String>,
    /// The successes that were given out, by index. If all are given out at the end, their origins are not known.
    pub(crate) outputs: Vec<(usize, u64)>,
    pub(crate) origins: Vec<(usize, Origin)>,
}

impl Report {
    fn of_results(ended: Result<MapTaskResult<u64, &'static str>, MapTaskError<u64, &'static str>>) -> Self {
        let (result, reason) = match ended {
            Ok(result) => (result, None),
            Err(error) => {
                let why = why(error.reason());
                (error.into_partial(), Some(why))
            }
        };
        check_account(&result);
        let outputs = result.results.iter().enumerate().filter_map(|(at, output)| Some((at, (*output)?)));
        Self { outputs: outputs.collect(), summary: result.summary, reason, origins: Vec::new() }
    }

    fn of_outcomes(ended: Result<Summary, RunError>, mut given: Vec<ItemOutcome<u64, &'static str>>) -> Self {
        let (summary, reason) = match ended {
            Ok(summary) => (summary, None),
            Err(error) => (error.summary().clone(), Some(why(error.reason()))),
        };
        check_summary(&summary);
        assert_eq!(given.len(), summary.successes + summary.failures, "each is given once: {summary}");
        given.sort_by_key(|outcome| outcome.index);
        let succeeded = given.iter().filter_map(|outcome| Some((outcome, outcome.result.as_ref().ok()?)));
        let (outputs, origins) = succeeded
            .map(|(outcome, output)| ((outcome.index, *output), (outcome.index, outcome.origin)))
            .unzip();
        Self { summary, reason, outputs, origins }
    }
}

/// Makes the run of a plan, in all of its types.
macro_rules! with_run {
    ($plan:expr, $items:expr, $end:expr, $run:ident => $then:expr) => {{
        let Plan { task, call, store, recovery, cache, token, .. } = $plan;
        let run = task.over_stream($items).map_with_context(move |cx, n| call(cx, n)).cancellation_token(token);
        let run = if $end.ordered { run.ordered() } else { run };
        match (recovery, cache) {
            (Some(recovery), Some(cache)) => {
                with_run!(@mode run.cache(&store, cache).recover(&store, recovery), $end, $run => $then)
            }
            (Some(recovery), None) => with_run!(@mode run.recover(&store, recovery), $end, $run => $then),
            (None, Some(cache)) => with_run!(@mode run.cache(&store, cache), $end, $run => $then),
            (None, None) => panic!("it is not durable"),
        }
    }};
    (@mode $durable:expr, $end:expr, $run:ident => $then:expr) => {
        if $end.parallel {
            let $run = $durable.parallel();
            $then
        } else {
            let $run = $durable;
            $then
        }
    };
}

impl Plan {
    pub(crate) fn new<Fut>(
        task: &AsyncMapTask,
        store: &Rigged,
        call: impl Fn(ItemContext, u64) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<u64, &'static str>> + Send + 'static,
    {
        Self {
            task: task.clone(),
            call: Arc::new(move |cx, n| Box::pin(call(cx, n))),
            store: store.clone(),
            recovery: None,
            cache: None,
            token: CancellationToken::new(),
            watch: Arc::new(|_| {}),
        }
    }

    pub(crate) fn recover(self, recovery: impl Into<Recovery>) -> Self {
        Self { recovery: Some(recovery.into()), ..self }
    }

    pub(crate) fn cache(self, cache: Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    pub(crate) fn token(self, token: &CancellationToken) -> Self {
        Self { token: token.clone(), ..self }
    }

    /// Calls this with the index of each success that is given out.
    pub(crate) fn watch(self, watch: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { watch: Arc::new(watch), ..self }
    }

    /// Executes the run to its end. If this future is dropped, so is the run.
    pub(crate) async fn run(
        self,
        items: impl IntoIterator<Item = u64, IntoIter: Send + 'static>,
        end: End,
    ) -> Report {
        in_time(self.finish(stream::iter(items).boxed(), end)).await
    }

    /// Starts the run in the background. The end's terminal is ignored.
    pub(crate) fn spawn(
        self,
        items: impl IntoIterator<Item = u64, IntoIter: Send + 'static>,
        end: End,
    ) -> MapHandle<u64, &'static str> {
        let items = stream::iter(items).boxed();
        with_run!(self, items, end, run => run.spawn())
    }

    async fn finish(self, items: BoxStream<'static, u64>, end: End) -> Report {
        let (mut given, watch) = (Vec::new(), Arc::clone(&self.watch));
        let mut take = |outcome: ItemOutcome<u64, &'static str>| {
            if outcome.result.is_ok() {
                watch(outcome.index);
            }
            given.push(outcome);
            std::future::ready(Ok::<(), &str>(()))
        };
        let ended = match end.terminal {
            Terminal::Await => return Report::of_results(with_run!(self, items, end, run => run.await)),
            Terminal::Spawn => {
                return Report::of_results(with_run!(self, items, end, run => run.spawn().await));
            }
            Terminal::ForEach => {
                let take = |outcome| take(outcome).map(|_| ());
                with_run!(self, items, end, run => run.for_each(take).await)
            }
            Terminal::TryForEach => with_run!(self, items, end, run => run.try_for_each(&mut take).await),
            Terminal::Stream => {
                let mut stream = with_run!(self, items, end, run => run.stream());
                let mut failed = None;
                while let Some(outcome) = stream.next().await {
                    match outcome {
                        Ok(outcome) => take(outcome).await.unwrap(),
                        Err(error) => failed = Some(error),
                    }
                }
                failed.map_or_else(|| Ok(stream.summary().unwrap().clone()), Err)
            }
        };
        Report::of_outcomes(ended, given)
    }
}

/// Returns the partial result of a run that its store has ended, and the store's error.
pub(crate) fn ended_by_store<T, E>(
    ended: Result<MapTaskResult<T, E>, MapTaskError<T, E>>,
) -> (MapTaskResult<T, E>, String) {
    let error = ended.err().expect("the store has failed");
    let why = store_error(error.reason()).to_string();
    let result = error.into_partial();
    check_account(&result);
    (result, why)
}

/// The numbers that a function was called with, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<u64>>>);

impl Calls {
    pub(crate) fn note(&self, n: u64) {
        self.0.lock().unwrap().push(n);
    }

    /// Takes the numbers since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Multiplies each number by three, but fails for those that are divisible by another.
pub(crate) fn thrice(task: &AsyncMapTask, store: &Rigged, calls: &Calls, fails_at: u64) -> Plan {
    let calls = calls.clone();
    Plan::new(task, store, move |_, n| {
        calls.note(n);
        async move { if n.checked_rem(fails_at) == Some(0) { Err("no") } else { Ok(3 * n) } }
    })
}

/// No number can be divided by it.
pub(crate) const NEVER: u64 = 0;
