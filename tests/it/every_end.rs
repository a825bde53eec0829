//! One interface to every end of a run, so that a test of all ends is written once: awaited, `for_each`,
//! `try_for_each`, `stream` and `spawn`, each in the task that polls it and `parallel()`, and in both orders if the
//! outcomes are given out.

use std::sync::Arc;
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, FailureReason, ItemContext, ItemError, ItemOutcome, KeyedLimiter, MapHandle, MapStream,
    MapTaskError, MapTaskResult, RunError, Summary,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{Alive, Gauge, Log, after, check_account};
pub(crate) use crate::support::{End, Terminal};

impl End {
    /// The ends that give out each outcome while the run continues.
    pub(crate) fn giving() -> impl Iterator<Item = Self> {
        Self::all().filter(|end| end.gives_outcomes())
    }
}

/// An item that a gauge counts.
#[derive(Debug, Clone)]
struct Item {
    n: u64,
    _alive: Arc<Alive>,
}

/// A result that a gauge counts.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) n: u64,
    _alive: Alive,
}

type Attempt = BoxFuture<'static, Result<u64, &'static str>>;
type Call = Arc<dyn Fn(ItemContext, u64) -> Attempt + Send + Sync>;
type Sink = Arc<dyn Fn(usize) -> BoxFuture<'static, Result<(), &'static str>> + Send + Sync>;

/// A run, up to its end. Its function boxes its futures, so that one driver is compiled for all tests.
pub(crate) struct Plan {
    task: AsyncMapTask,
    source: BoxStream<'static, u64>,
    call: Call,
    sink: Sink,
    weight: fn(u64) -> u32,
    token: CancellationToken,
    /// The items that are alive after they were pulled.
    pub(crate) items: Gauge,
    /// The results that are alive.
    pub(crate) results: Gauge,
}

impl Given {
    pub(crate) fn new(n: u64, results: &Gauge) -> Self {
        Self { n, _alive: results.enter() }
    }
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) summary: Summary,
    /// The reason of its failure, as `{:?}` shows it.
    pub(crate) reason: Option<String>,
    /// The index and the result of each item that settled, in the order in which they were given out, or by index.
    pub(crate) outcomes: Vec<Outcome>,
}

type Outcome = (usize, Result<u64, ItemError<&'static str>>);

/// Keeps the index of an outcome and its number. The result itself is dropped.
pub(crate) fn remember(outcome: ItemOutcome<Given, &'static str>) -> Outcome {
    let ItemOutcome { index, attempts, result, .. } = outcome;
    let result = result.map(|given| given.n);
    assert_eq!(attempts, result.as_ref().err().map_or(attempts, ItemError::attempts));
    (index, result)
}

impl Report {
    pub(crate) fn indices(&self) -> Vec<usize> {
        self.outcomes.iter().map(|(index, _)| *index).collect()
    }

    pub(crate) fn sorted_indices(&self) -> Vec<usize> {
        let mut indices = self.indices();
        indices.sort_unstable();
        indices
    }

    pub(crate) fn of_results(
        result: Result<MapTaskResult<Given, &'static str>, MapTaskError<Given, &'static str>>,
    ) -> Self {
        let (result, reason) = match result {
            Ok(result) => (result, None),
            Err(error) => {
                let reason = reason(error.reason());
                (error.into_partial(), Some(reason))
            }
        };
        check_account(&result);
        let MapTaskResult { results, errors, summary, .. } = result;
        let successes = results.into_iter().enumerate().filter_map(|(at, given)| Some((at, Ok(given?.n))));
        let mut outcomes: Vec<_> = successes.collect();
        outcomes.extend(errors.into_iter().map(|(at, error)| (at, Err(error))));
        outcomes.sort_by_key(|(index, _)| *index);
        Self { summary, reason, outcomes }
    }

    pub(crate) fn of_outcomes(ending: Result<Summary, RunError>, outcomes: Vec<Outcome>) -> Self {
        let (summary, reason) = match ending {
            Ok(summary) => (summary, None),
            Err(error) => (error.summary().clone(), Some(reason(error.reason()))),
        };
        Self { summary, reason, outcomes }
    }
}

fn reason(reason: &FailureReason) -> String {
    format!("{reason:?}")
}

/// Ends a run in one of the ways.
macro_rules! finish {
    ($run:expr, $end:expr, $sink:expr) => {{
        let (run, sink) = ($run, $sink);
        let mut outcomes = Vec::new();
        match $end.terminal {
            Terminal::Await => Report::of_results(run.await),
            Terminal::Spawn => Report::of_results(run.spawn().await),
            Terminal::ForEach => {
                let give = |outcome: ItemOutcome<Given, &'static str>| {
                    let call = sink(outcome.index);
                    outcomes.push(remember(outcome));
                    async move { call.await.unwrap() }
                };
                let ending = run.for_each(give).await;
                Report::of_outcomes(ending, outcomes)
            }
            Terminal::TryForEach => {
                let give = |outcome: ItemOutcome<Given, &'static str>| {
                    let call = sink(outcome.index);
                    outcomes.push(remember(outcome));
                    call
                };
                let ending = run.try_for_each(give).await;
                Report::of_outcomes(ending, outcomes)
            }
            Terminal::Stream => {
                let mut stream = run.stream();
                let mut error = None;
                while let Some(outcome) = stream.next().await {
                    assert!(error.is_none(), "something came after the error");
                    match outcome {
                        Ok(outcome) => {
                            let call = sink(outcome.index);
                            outcomes.push(remember(outcome));
                            assert!(stream.summary().is_none(), "there was an account before the end");
                            call.await.unwrap();
                        }
                        Err(failed) => error = Some(failed),
                    }
                }
                assert!(stream.next().await.is_none(), "something came after the end");
                let summary = stream.summary().expect("it has ended").clone();
                if let Some(error) = &error {
                    assert_eq!(error.summary(), &summary);
                }
                Report::of_outcomes(error.map_or(Ok(summary), Err), outcomes)
            }
        }
    }};
}

pub(crate) use finish;

/// Builds the run of a plan, in both of its types.
macro_rules! with_run {
    ($plan:expr, $end:expr, $run:ident => $then:expr) => {{
        let Plan { task, source, call, weight, token, items, results, .. } = $plan;
        let source = source.map(move |n| Item { n, _alive: Arc::new(items.enter()) });
        let call = move |cx: ItemContext, item: Item| {
            let (attempt, results) = (call(cx, item.n), results.clone());
            async move {
                let _item = item;
                attempt.await.map(|n| Given::new(n, &results))
            }
        };
        let run = task
            .over_stream(source)
            .map_with_context(call)
            .weight(move |item| weight(item.n))
            .cancellation_token(token);
        let run = if $end.ordered { run.ordered() } else { run };
        if $end.parallel {
            let $run = run.parallel();
            $then
        } else {
            let $run = run;
            $then
        }
    }};
}

impl Plan {
    pub(crate) fn new<Fut>(
        task: &AsyncMapTask,
        source: impl Stream<Item = u64> + Send + 'static,
        call: impl Fn(ItemContext, u64) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<u64, &'static str>> + Send + 'static,
    {
        Self {
            task: task.clone(),
            source: source.boxed(),
            call: Arc::new(move |cx, n| Box::pin(call(cx, n))),
            sink: Arc::new(|_| Box::pin(async { Ok(()) })),
            weight: |_| 1,
            token: CancellationToken::new(),
            items: Gauge::default(),
            results: Gauge::default(),
        }
    }

    /// Items that end when the latch is opened for one of them. The gauge counts the running ones.
    pub(crate) fn behind_a_latch(task: &AsyncMapTask, items: u64) -> (Self, Gauge, Arc<Semaphore>) {
        let (running, latch) = (Gauge::default(), Arc::new(Semaphore::new(0)));
        let (gauge, opened) = (running.clone(), Arc::clone(&latch));
        let call = move |_, n| {
            let (gauge, opened) = (gauge.clone(), Arc::clone(&opened));
            async move {
                let _alive = gauge.enter();
                opened.acquire().await.unwrap().forget();
                Ok(n)
            }
        };
        (Self::new(task, stream::iter(0..items), call), running, latch)
    }

    /// Items with their weights as values, which take this long each. The log has their starts.
    pub(crate) fn of_weights(task: &AsyncMapTask, items: &[u64], wait: Duration) -> (Self, Log<u64>) {
        let log = Log::open();
        let notes = log.clone();
        let call = move |_, n| {
            notes.note(n);
            after(wait, Ok(n))
        };
        (Self::new(task, stream::iter(items.to_vec()), call).weight(|n| n as u32), log)
    }

    /// Calls this with the index of each outcome: in the run's own sink, or between two outcomes of its stream.
    pub(crate) fn sink<Fut>(mut self, sink: impl Fn(usize) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<(), &'static str>> + Send + 'static,
    {
        self.sink = Arc::new(move |index| Box::pin(sink(index)));
        self
    }

    pub(crate) fn weight(self, weight: fn(u64) -> u32) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn token(self, token: &CancellationToken) -> Self {
        Self { token: token.clone(), ..self }
    }

    /// Executes the run to its end. If this future is dropped, so is the run.
    pub(crate) async fn run(self, end: End) -> Report {
        let sink = Arc::clone(&self.sink);
        with_run!(self, end, run => finish!(run, end, sink))
    }

    /// As [`run`](Self::run), with a limit for each key.
    pub(crate) async fn run_per(self, end: End, key: fn(u64) -> u64, limiter: &KeyedLimiter<u64>) -> Report {
        let (sink, limiter) = (Arc::clone(&self.sink), limiter.clone());
        with_run!(self, end, run => {
            finish!(run.limit_per(move |item: &Item| key(item.n), &limiter), end, sink)
        })
    }

    /// Returns the run as a stream. The end's terminal is ignored.
    pub(crate) fn stream(self, end: End) -> MapStream<Given, &'static str> {
        with_run!(self, end, run => run.stream())
    }

    /// Starts the run in the background. The end's terminal is ignored.
    pub(crate) fn spawn(self, end: End) -> MapHandle<Given, &'static str> {
        with_run!(self, end, run => run.spawn())
    }
}
