//! The outcomes of a run as a stream.

use std::fmt;
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;

use crate::engine::collector::Collector;
use crate::engine::in_context::in_current_context;
use crate::engine::outbox::{Inlet, Outbox};
use crate::engine::running::{Running, Setup};
use crate::engine::sink::NoSink;
use crate::engine::{Drive, Types};
use crate::error::{FailureReason, RunError};
use crate::outcome::ItemOutcome;
use crate::progress::{Control, Progress};
use crate::result::Summary;
use crate::rt::{JoinHandle, spawn};
use crate::run::MapRun;

impl<W: Types> MapRun<W> {
    /// Gives the outcomes as a stream: `Result<ItemOutcome<T, E>, RunError>`, as the items settle, or in the
    /// order of the input with [`ordered`](Self::ordered). Where the run fails, its error is the stream's last item.
    ///
    /// The run goes on in a Tokio task of its own, from the first poll of the stream, so the items are not held
    /// up while the consumer is busy with something else, and no time limit runs out because of it. While
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) outcomes, `c`, wait to be taken, no attempt starts.
    /// Those that run go on, so that at most 2c - 1 wait. A slow consumer slows the run down and does not fill the
    /// memory. With [`ordered`](Self::ordered), [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead) is the bound
    /// instead.
    ///
    /// Because of that task, everything of the run must be `Send + 'static`. A run that borrows can be consumed
    /// with [`for_each`](Self::for_each).
    ///
    /// # Cancel safety
    ///
    /// Waiting for the next outcome is cancel safe: none is lost. Dropping the stream stops the run; see
    /// [`MapStream`].
    ///
    /// # Panics
    ///
    /// Polling the stream panics as the [run](MapRun#panics) does, and where it is first polled outside a Tokio
    /// runtime.
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
    pub fn stream(self) -> MapStream<W::Output, W::Error>
    where
        W: Drive,
        Running<W, NoSink>: Send + 'static,
        W::Output: Send + 'static,
        W::Error: Send + 'static,
    {
        let (control, reporter) = Control::new();
        let setup = self.into_setup();
        let name = setup.as_ref().map_or_else(String::new, |setup| setup.name().to_owned());
        let outbox = Outbox::new(setup.as_ref().is_some_and(|setup| setup.ordered));
        let collector = Collector::Outbox(Inlet::new(outbox.clone()));
        let setup = setup.map(|setup| Setup { collector, reporter: Some(reporter), ..setup });
        let running = Running::new(setup, NoSink);
        let start = move || {
            let end = async move { running.await.into_summary() };
            spawn(in_current_context(end))
        };
        MapStream { name, outbox, control, state: State::Ready(Box::new(start)), summary: None }
    }
}

/// The outcomes of a run, as they come: a stream of `Result<ItemOutcome<T, E>, RunError>`. Made by
/// [`MapRun::stream`].
///
/// Each item that settles is given once. Where the run fails, the last item of the stream is its [`RunError`];
/// outcomes from before come first. Nothing comes after the end.
///
/// # Cancel safety
///
/// Dropping the stream aborts the run's task. Its items are dropped, without
/// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace), as soon as the runtime gets to it; on a runtime with
/// several threads an item may be in the middle of a poll, which it ends first.
#[must_use = "a run does nothing until its stream is polled"]
pub struct MapStream<T, E> {
    name: String,
    outbox: Outbox<T, E>,
    control: Arc<Control>,
    state: State,
    summary: Option<Summary>,
}

type Ending = Result<Summary, RunError>;

enum State {
    Ready(Box<dyn FnOnce() -> JoinHandle<Ending> + Send>),
    Running(JoinHandle<Ending>),
    /// What is still to be given is in the outbox; then comes this.
    Ended(Ending),
    Over,
}

impl<T, E> MapStream<T, E> {
    /// How far the run has come, at any time.
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }

    /// The account of the run, once the stream has ended: after it gave `None` or its error.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// The end of a run whose runtime was shut down.
    fn lost(&self) -> RunError {
        let summary = self.control.progress().into_summary();
        RunError::new(self.name.clone(), FailureReason::Cancelled, None, None, summary)
    }
}

impl<T, E> Stream for MapStream<T, E> {
    type Item = Result<ItemOutcome<T, E>, RunError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Ready(_) => {
                    if let State::Ready(start) = mem::replace(&mut this.state, State::Over) {
                        this.state = State::Running(start());
                    }
                }
                State::Running(task) => {
                    if let Some(outcome) = this.outbox.take_or_wake(cx) {
                        return Poll::Ready(Some(Ok(outcome)));
                    }
                    let ending = match ready!(Pin::new(task).poll(cx)) {
                        Ok(ending) => ending,
                        Err(error) => {
                            this.state = State::Over;
                            match error.try_into_panic() {
                                Ok(payload) => resume_unwind(payload),
                                Err(_) => Err(this.lost()),
                            }
                        }
                    };
                    this.state = State::Ended(ending);
                }
                State::Ended(_) => {
                    if let Some(outcome) = this.outbox.take() {
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
        if let State::Running(task) = &self.state {
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
