//! The outcomes of a run as a stream.

use std::fmt;
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;

use crate::engine::background::{Background, RunTask};
use crate::engine::mode::PollWorkers;
use crate::engine::output::outcome_channel::{Inlet, Outlet, outcome_channel};
use crate::engine::output::sink::NoSink;
use crate::engine::running::{Parts, Running};
use crate::engine::user::bounds::Transferable;
use crate::engine::wraps::wraps;
use crate::engine::{Plan, Work};
use crate::error::RunError;
use crate::outcome::ItemOutcome;
use crate::progress::{Control, Progress};
use crate::result::Summary;
use crate::run::MapRun;

impl<W: Plan> MapRun<W> {
    /// Returns the outcomes as a stream of `Result<ItemOutcome<T, E>, RunError>`. They come in the order of
    /// completion, or in input order with [`ordered`](Self::ordered).
    ///
    /// From the first poll of the stream, a Tokio task drives the run. So the items make progress while the consumer
    /// is busy, and a busy consumer causes no timeout.
    ///
    /// A slow consumer slows the run down and does not fill the memory. With a
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) of `c`, no attempt starts while `c` outcomes wait to
    /// be taken. Running attempts continue, so at most `2c - 1` outcomes wait. With [`ordered`](Self::ordered),
    /// [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead) is the bound instead.
    ///
    /// Because of that task, every part of the run must be `Send + 'static`. For a run that borrows, use
    /// [`for_each`](Self::for_each).
    ///
    /// # Cancel safety
    ///
    /// Waiting for the next outcome is cancel safe: no outcome is lost. Dropping the stream stops the run; see
    /// [`MapStream`].
    ///
    /// # Errors
    ///
    /// If the run did not succeed, the last item of the stream is its [`RunError`]. The error of an item is inside
    /// its outcome, which is an `Ok`.
    ///
    /// # Panics
    ///
    /// Polling the stream panics as the [run](MapRun#panics) does, and if the first poll is outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use futures::StreamExt;
    ///
    /// let mut squares = AsyncMapTask::default()
    ///     .over(1..=3_u32)
    ///     .map(|n| async move { Ok::<_, String>(n * n) })
    ///     .stream();
    /// let mut sum = 0;
    /// while let Some(outcome) = squares.next().await {
    ///     sum += outcome?.result?;
    /// }
    /// assert_eq!(sum, 14);
    /// assert_eq!(squares.summary().map(|summary| summary.successes), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("buffer_unordered", "async_stream", "backpressure"))]
    pub fn stream(self) -> MapStream<W::Output, W::Error>
    where
        W: StreamPlan, // Own all values, with `Arc` if they are shared; or use `for_each`, which may borrow.
    {
        W::stream(self)
    }
}

/// The plan of a run with outcomes that can be streamed; see [`stream`](MapRun::stream). Implemented for every plan with
/// parts that are `Send + 'static`.
pub trait StreamPlan: Plan + Sized {
    #[doc(hidden)]
    fn stream(run: MapRun<Self>) -> MapStream<Self::Output, Self::Error>;
}

// The values come first, so that their message is the one that is reported.
impl<W> StreamPlan for W
where
    W: Work + Plan<Mode: PollWorkers<Streaming<W>>>,
    W::Item: Transferable,
    W::Output: Transferable,
    W::Error: Transferable,
    Running<Streaming<W>, NoSink>: Send + 'static,
{
    fn stream(run: MapRun<W>) -> MapStream<W::Output, W::Error> {
        let setup = run.into_setup();
        let (outcomes, outlet) = outcome_channel(setup.as_ref().is_some_and(|setup| setup.options.ordered));
        let setup = setup.map(|setup| {
            setup.change::<Streaming<W>>(|Parts { call, hooks, sink, store, .. }, _| Parts {
                call,
                hooks,
                sink,
                outcomes,
                store,
            })
        });
        let (run, name, control) = Background::new(setup);
        let start = Box::new(|| run.spawn());
        MapStream { name, outlet, control, state: State::Ready(start), summary: None }
    }
}

wraps! {
    /// A run with outcomes that are taken from a stream.
    Streaming<W> {
        Call: W::Call,
        Hooks: W::Hooks,
        Mode: W::Mode,
        Sink: W::Sink,
        Outcomes: Inlet<W::Output, W::Error>,
        Store: W::Store,
    }
}

/// The outcomes of a run: a stream of `Result<ItemOutcome<T, E>, RunError>`. Created by [`MapRun::stream`].
///
/// Each item that settles is yielded once. If the run fails, the last item of the stream is its [`RunError`]; all
/// outcomes come before it. Nothing comes after the end. If the runtime of the run is shut down, that error is
/// [`Cancelled`](crate::FailureReason::Cancelled), with an exact account.
///
/// # Cancel safety
///
/// Dropping the stream aborts the run's task. Its items are dropped as soon as the runtime runs the abort, without
/// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace). On a runtime with several threads, a poll of an item
/// that is in progress finishes first.
///
/// # Panics
///
/// See [`MapRun::stream`].
#[must_use = "a run does nothing until its stream is polled"]
pub struct MapStream<T, E> {
    name: String,
    outlet: Outlet<T, E>,
    control: Arc<Control>,
    state: State,
    summary: Option<Summary>,
}

type Ending = Result<Summary, RunError>;

enum State {
    Ready(Box<dyn FnOnce() -> RunTask<()> + Send>),
    Running(RunTask<()>),
    /// The remaining outcomes are in the outlet. This ending comes after them.
    Ended(Ending),
    Over,
}

impl<T, E> MapStream<T, E> {
    /// Returns the current progress of the run. It is also available before the first poll and after the end.
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }

    /// Returns the account of the run after the stream has ended, by `None` or by its error.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }
}

// No outcome is pinned.
impl<T, E> Unpin for MapStream<T, E> {}

impl<T, E> Stream for MapStream<T, E> {
    type Item = Result<ItemOutcome<T, E>, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(outcome) = this.outlet.take_fetched() {
            return Poll::Ready(Some(Ok(outcome)));
        }
        loop {
            match &mut this.state {
                State::Ready(_) => {
                    if let State::Ready(start) = mem::replace(&mut this.state, State::Over) {
                        this.state = State::Running(start());
                    }
                }
                State::Running(task) => {
                    if let Some(outcome) = this.outlet.take_or_wake(cx) {
                        return Poll::Ready(Some(Ok(outcome)));
                    }
                    match ready!(Pin::new(task).poll(cx)) {
                        Ok(ending) => this.state = State::Ended(ending.into_summary()),
                        Err(payload) => {
                            this.state = State::Over;
                            resume_unwind(payload);
                        }
                    }
                }
                State::Ended(_) => {
                    if let Some(outcome) = this.outlet.take() {
                        return Poll::Ready(Some(Ok(outcome)));
                    }
                    let State::Ended(ending) = mem::replace(&mut this.state, State::Over) else { continue };
                    let summary = ending.as_ref().unwrap_or_else(|error| error.summary());
                    this.summary = Some(summary.clone());
                    return Poll::Ready(ending.err().map(Err));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl<T, E> Drop for MapStream<T, E> {
    fn drop(&mut self) {
        if let State::Running(task) = &mut self.state {
            task.abort();
        }
    }
}

impl<T, E> fmt::Debug for MapStream<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, progress) = (&self.name, self.progress());
        f.debug_struct("MapStream").field("name", name).field("progress", &progress).finish_non_exhaustive()
    }
}
