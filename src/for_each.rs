//! The ends of a run that deliver each outcome as soon as it is available, in the task that awaits them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::engine::mode::PollWorkers;
use crate::engine::output::outcome_queue::OutcomeQueue;
use crate::engine::output::sink::{Deliver, Sink};
use crate::engine::running::{Parts, Running};
use crate::engine::wraps::wraps;
use crate::engine::{Mode, Plan, Work};
use crate::error::{BoxError, RunError};
use crate::outcome::ItemOutcome;
use crate::result::Summary;
use crate::run::MapRun;

/// # The ends
///
/// A run is either awaited, which returns all its results at once, or finished by one of these methods.
impl<W: Plan> MapRun<W> {
    /// Passes each outcome to an async function, one after another, and keeps none. An outcome is available when its
    /// item has *settled*: it has succeeded, or failed for good. The memory is bounded by
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) and
    /// [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead), and does not depend on the number of items.
    ///
    /// The function is polled together with the items. So the items make progress while it waits, and a slow function
    /// causes no timeout. With a concurrency of `c`, no attempt starts while `c` outcomes wait for the function.
    /// Running attempts can still join them, so at most `2c - 1` outcomes wait.
    ///
    /// The outcomes come in the order of completion. With [`ordered`](Self::ordered) they come in input order, and
    /// `look_ahead` is the bound instead. Each settled item is delivered once, also after the run has been stopped.
    /// Cancelled items are only counted.
    ///
    /// No time limit of the task applies to the function. The run ends when the function has received every outcome,
    /// however long that takes. The futures of the function cannot borrow from the captures of a closure. Put a value
    /// that they need by `&mut`, such as a writer, into a
    /// [`Mutex`](https://docs.rs/tokio/1/tokio/sync/struct.Mutex.html). It has no contention, because calls never
    /// overlap. The example of [`try_for_each`](Self::try_for_each) shows it.
    ///
    /// Awaiting it returns the [`Summary`].
    ///
    /// # Cancel safety
    ///
    /// The same as that of the [run](MapRun#cancel-safety). Dropping the future also drops the call of the function
    /// that is in progress, and the outcomes that were not delivered yet.
    ///
    /// # Errors
    ///
    /// Returns a [`RunError`] if the run did not succeed. The outcomes are delivered first.
    ///
    /// # Panics
    ///
    /// Panics as the [run](MapRun#panics) does, and if the function panics.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let (mut sum, mut failed) = (0, Vec::new());
    /// let summary = AsyncMapTask::builder()
    ///     .min_success_ratio(0.5)
    ///     .build()?
    ///     .over(["1", "2", "three", "4"])
    ///     .map(|text| async move { text.parse::<u32>() })
    ///     .for_each(|outcome| {
    ///         match outcome.result {
    ///             Ok(n) => sum += n,
    ///             Err(_) => failed.push(outcome.index),
    ///         }
    ///         async {}
    ///     })
    ///     .await?;
    /// assert_eq!((sum, failed, summary.successes), (7, vec![2], 3));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("for_each_concurrent", "sink", "backpressure"))]
    pub fn for_each<G, Fut>(self, function: G) -> ForEach<W, G, Fut>
    where
        W: Work,
        G: FnMut(ItemOutcome<W::Output, W::Error>) -> Fut,
        Fut: Future<Output = ()>,
    {
        ForEach::new(self, function)
    }

    /// Like [`for_each`](Self::for_each), with a function that can fail. The first error stops the run, and the
    /// function is not called again. Items that settle after the error are counted, and not delivered.
    ///
    /// # Cancel safety
    ///
    /// The same as that of [`for_each`](Self::for_each).
    ///
    /// # Errors
    ///
    /// Returns a [`RunError`] if the run did not succeed. The reason is
    /// [`FailureReason::Sink`](crate::FailureReason::Sink) if the function returned an error and the run had no other
    /// reason before.
    ///
    /// # Panics
    ///
    /// Panics as [`for_each`](Self::for_each) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, FailureReason};
    /// use tokio::io::AsyncWriteExt;
    /// use tokio::sync::Mutex;
    ///
    /// let (writer, reader) = tokio::io::duplex(64);
    /// drop(reader);
    /// let writer = Mutex::new(writer);
    /// let error = AsyncMapTask::default()
    ///     .over(0..1_000)
    ///     .map(|n| async move { Ok::<_, String>(format!("{n}\n")) })
    ///     .ordered()
    ///     .try_for_each(async |outcome| match outcome.result {
    ///         Ok(line) => writer.lock().await.write_all(line.as_bytes()).await,
    ///         Err(_) => Ok(()),
    ///     })
    ///     .await
    ///     .unwrap_err();
    /// assert!(matches!(error.reason(), FailureReason::Sink(_)));
    /// assert!(error.summary().not_started > 900);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("try_for_each_concurrent", "sink"))]
    pub fn try_for_each<G, Fut, X>(self, function: G) -> ForEach<W, G, Fut>
    where
        W: Work,
        G: FnMut(ItemOutcome<W::Output, W::Error>) -> Fut,
        Fut: Future<Output = Result<(), X>>,
        X: Into<BoxError>,
    {
        ForEach::new(self, function)
    }
}

/// The future of [`for_each`](MapRun::for_each) and [`try_for_each`](MapRun::try_for_each). Its output is
/// `Result<Summary, RunError>`. These methods document its cancel safety and its panics.
#[must_use = "a run does nothing until it is awaited"]
pub struct ForEach<W: Plan, G, Fut> {
    running: Running<Handing<W, G, Fut>, <W::Mode as Mode>::InDriver<Sink<G, Fut>>>,
}

wraps! {
    /// A run that delivers its outcomes to a sink.
    Delivering<W, K> {
        Call: W::Call,
        Hooks: W::Hooks,
        Mode: W::Mode,
        Sink: K,
        Outcomes: OutcomeQueue<W::Output, W::Error>,
        Store: W::Store,
    }
}

/// A run with a function that receives its outcomes.
pub(crate) type Handing<W, G, Fut> = Delivering<W, <<W as Plan>::Mode as Mode>::InWorker<Sink<G, Fut>>>;

impl<W: Plan, G, Fut> ForEach<W, G, Fut> {
    fn new(run: MapRun<W>, function: G) -> Self {
        let (sink, in_driver) = <W::Mode as Mode>::split_sink(Sink::new(function));
        let run = run.change(|Parts { call, hooks, store, .. }, options| Parts {
            call,
            hooks,
            sink,
            outcomes: OutcomeQueue::new(options.ordered),
            store,
        });
        Self { running: Running::new(run.into_setup(), in_driver) }
    }
}

impl<W, G, Fut> Future for ForEach<W, G, Fut>
where
    W: Work,
    W::Mode: PollWorkers<Handing<W, G, Fut>>,
    <W::Mode as Mode>::InWorker<Sink<G, Fut>>: Deliver<W::Output, W::Error>,
    <W::Mode as Mode>::InDriver<Sink<G, Fut>>: Deliver<W::Output, W::Error>,
{
    type Output = Result<Summary, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.running).poll(cx).map(|ending| ending.into_summary())
    }
}

impl<W: Plan, G, Fut> fmt::Debug for ForEach<W, G, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEach").field("state", &self.running).finish_non_exhaustive()
    }
}
