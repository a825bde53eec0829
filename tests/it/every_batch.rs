//! One interface to every end of a run of batches, as `every_end` is for other runs.

use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ItemOutcome};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::every_end::{Given, Report, Terminal, finish, remember};
use crate::support::{End, Gauge, Log};

/// The error that is not retried.
pub(crate) const REFUSED: &str = "refused";

/// The results of a call, or its error.
pub(crate) type Answer = Result<Vec<Result<u64, &'static str>>, &'static str>;

/// Every item succeeds with its value.
pub(crate) fn all_well(items: Vec<u64>) -> Answer {
    Ok(items.into_iter().map(Ok).collect())
}

/// The call fails as a whole if it has an item that is bad.
pub(crate) fn fails_with(bad: &[u64], items: Vec<u64>) -> Answer {
    if items.iter().any(|n| bad.contains(n)) { Err("poison") } else { all_well(items) }
}

/// The items that have failed.
pub(crate) fn failed(report: &Report) -> Vec<usize> {
    report.outcomes.iter().filter(|(_, result)| result.is_err()).map(|(index, _)| *index).collect()
}

type Call = Arc<dyn Fn(Vec<u64>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A run of batches, up to its end.
pub(crate) struct Batched {
    task: AsyncMapTask,
    source: BoxStream<'static, u64>,
    size: usize,
    call: Call,
    wait: Duration,
    most_weight: u32,
    splits: bool,
    sink: Duration,
    token: CancellationToken,
    left: Log<u64>,
    /// The calls, with their starts.
    pub(crate) calls: Log<Vec<u64>>,
    /// The calls that are running.
    pub(crate) running: Gauge,
}

impl Batched {
    pub(crate) fn new<Fut>(
        task: &AsyncMapTask,
        items: u64,
        size: usize,
        call: impl Fn(Vec<u64>) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Self {
            task: task.clone(),
            source: stream::iter(0..items).boxed(),
            size,
            call: Arc::new(move |items| Box::pin(call(items))),
            wait: Duration::ZERO,
            most_weight: u32::MAX,
            splits: true,
            sink: Duration::ZERO,
            token: CancellationToken::new(),
            left: Log::open(),
            calls: Log::open(),
            running: Gauge::default(),
        }
    }

    pub(crate) fn source(self, source: impl Stream<Item = u64> + Send + 'static) -> Self {
        Self { source: source.boxed(), ..self }
    }

    pub(crate) fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Lets each item weigh its value, at least 1.
    pub(crate) fn most_weight(self, most_weight: u32) -> Self {
        Self { most_weight, ..self }
    }

    pub(crate) fn unsplit(self) -> Self {
        Self { splits: false, ..self }
    }

    pub(crate) fn token(self, token: &CancellationToken) -> Self {
        Self { token: token.clone(), ..self }
    }

    /// Makes the sink wait this long for each outcome.
    pub(crate) fn slow_sink(self, sink: Duration) -> Self {
        Self { sink, ..self }
    }

    /// Returns the log of the items that are given back.
    pub(crate) fn left(&self) -> Log<u64> {
        self.left.clone()
    }

    /// Executes the run to its end. If this future is dropped, so is the run.
    pub(crate) async fn run(self, end: End) -> Report {
        let Self { task, source, size, call, wait, most_weight, splits, sink, token, left, calls, running } =
            self;
        let results = Gauge::default();
        let call = move |items: Vec<u64>| {
            calls.note(items.clone());
            let (attempt, alive, results) = (call(items), running.enter(), results.clone());
            async move {
                let _alive = alive;
                let answer = attempt.await?;
                let give = |n| Given::new(n, &results);
                Ok(answer.into_iter().map(|result| result.map(give)).collect::<Vec<_>>())
            }
        };
        let sink = move |_: usize| async move {
            if !sink.is_zero() {
                sleep(sink).await;
            }
            Ok::<(), &'static str>(())
        };
        let run = task
            .over_stream(source)
            .map_batches(size, call)
            .batch_weight(|n| u32::try_from(*n).unwrap_or(u32::MAX), most_weight)
            .batch_wait(wait)
            .split_failed(splits)
            .retry_if(|error: &&str| *error != REFUSED)
            .give_back(move |item| left.note(item.item))
            .cancellation_token(token);
        let run = if end.ordered { run.ordered() } else { run };
        if end.parallel { finish!(run.parallel(), end, sink) } else { finish!(run, end, sink) }
    }
}
