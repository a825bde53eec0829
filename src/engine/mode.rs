//! The ways to poll the workers of a run: in the task that polls the run, or in tasks of their own.

use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::rt::JoinError;
use futures::Stream;
use futures::stream::FuturesUnordered;
use tracing::Span;

use super::in_context::{InContext, current_dispatch};
use super::output::sink::NoSink;
use super::shutdown::ShutDown;
use super::user::bounds::Transferable;
use super::worker::Worker;
use super::{Mode, Plan, Work};
use crate::panic_payload::{Payload, discard};
use crate::rt::JoinSet;

/// A [`Mode`] that can poll the workers of a run of these types.
pub trait PollWorkers<W: Plan>: Mode {
    /// Opens a worker.
    fn open(workers: &mut Self::Workers<W>, worker: Worker<W>, span: &Span);

    /// Polls the workers that were woken. Ready with a worker that has ended or that its runtime has dropped.
    fn poll_next(workers: &mut Self::Workers<W>, cx: &mut Context<'_>) -> Poll<Option<Result<(), ShutDown>>>;

    /// Returns how many workers there are.
    fn count(workers: &Self::Workers<W>) -> usize;

    /// Calls a function with every worker, if the driver polls the workers.
    fn for_each(workers: &mut Self::Workers<W>, f: impl FnMut(Pin<&mut Worker<W>>));

    /// Drops all workers. Ready once nothing of them is left, with the first panic of the caller's code on the way.
    fn poll_clear(workers: &mut Self::Workers<W>, cx: &mut Context<'_>) -> Poll<Option<Payload>>;
}

/// The driver polls the workers. They may borrow, and need not be `Send`.
#[derive(Debug)]
pub struct InTask;

impl Mode for InTask {
    const PARALLEL: bool = false;

    type Workers<W: Plan> = FuturesUnordered<Worker<W>>;
    type InWorker<D> = D;
    type InDriver<D> = NoSink;

    fn split_sink<D>(sink: D) -> (D, NoSink) {
        (sink, NoSink)
    }
}

impl<W: Work> PollWorkers<W> for InTask {
    fn open(workers: &mut FuturesUnordered<Worker<W>>, worker: Worker<W>, _span: &Span) {
        workers.push(worker);
    }

    #[inline]
    fn poll_next(
        workers: &mut FuturesUnordered<Worker<W>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), ShutDown>>> {
        Pin::new(workers).poll_next(cx).map(|ended| ended.map(Ok))
    }

    fn count(workers: &FuturesUnordered<Worker<W>>) -> usize {
        workers.len()
    }

    fn for_each(workers: &mut FuturesUnordered<Worker<W>>, f: impl FnMut(Pin<&mut Worker<W>>)) {
        Pin::new(workers).iter_pin_mut().for_each(f);
    }

    fn poll_clear(workers: &mut FuturesUnordered<Worker<W>>, _cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        // `clear` allocates, and this is called in each poll while a sink takes the last outcomes.
        if !workers.is_empty() {
            workers.clear();
        }
        Poll::Ready(None)
    }
}

/// The tasks of the workers.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    are_aborted: bool,
    /// The first panic of the caller's code after that.
    panic: Option<Payload>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.panic.take().into_iter().for_each(discard);
    }
}

/// Each worker is a Tokio task, so that the workers use every core that the runtime has.
#[derive(Debug)]
pub struct OwnTasks;

impl Mode for OwnTasks {
    const PARALLEL: bool = true;

    type Workers<W: Plan> = Tasks;
    type InWorker<D> = NoSink;
    type InDriver<D> = D;

    fn split_sink<D>(sink: D) -> (NoSink, D) {
        (NoSink, sink)
    }
}

impl<W> PollWorkers<W> for OwnTasks
where
    W: Work + Plan<Item: Transferable, Output: Transferable, Error: Transferable>,
    Worker<W>: Send + 'static,
{
    fn open(workers: &mut Tasks, worker: Worker<W>, span: &Span) {
        // Behind a pointer, so that the code of a Tokio task is compiled once for all runs.
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(worker);
        workers.set.spawn(InContext { span: span.clone(), dispatch: current_dispatch(), future });
    }

    fn poll_next(workers: &mut Tasks, cx: &mut Context<'_>) -> Poll<Option<Result<(), ShutDown>>> {
        Poll::Ready(ready!(workers.set.poll_join_next(cx)).map(|ended| {
            ended.map_err(|error| match error.try_into_panic() {
                // A panic of the caller's code.
                Ok(payload) => resume_unwind(payload),
                // Aborted by its runtime, not by the run.
                Err(_) => ShutDown,
            })
        }))
    }

    fn count(workers: &Tasks) -> usize {
        workers.set.len()
    }

    fn for_each(_workers: &mut Tasks, _f: impl FnMut(Pin<&mut Worker<W>>)) {
        // The alarm tells these workers to end, and each of them checks its own limit.
    }

    fn poll_clear(workers: &mut Tasks, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        // `abort_all` visits every task, so it is called once.
        if !mem::replace(&mut workers.are_aborted, true) {
            workers.set.abort_all();
        }
        while let Some(ended) = ready!(workers.set.poll_join_next(cx)) {
            match (ended.map_err(JoinError::try_into_panic), &workers.panic) {
                (Err(Ok(payload)), None) => workers.panic = Some(payload),
                (Err(Ok(payload)), Some(_)) => discard(payload),
                (Ok(()) | Err(Err(_)), _) => {}
            }
        }
        Poll::Ready(workers.panic.take())
    }
}
