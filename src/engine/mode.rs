//! Where the lanes of a run are polled: in the task that polls the run, or on tasks of their own.

use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::rt::JoinError;
use futures::Stream;
use futures::stream::FuturesUnordered;
use tracing::Span;

use super::in_context::{InContext, current_dispatch};
use super::lane::Lane;
use super::shutdown::ShutDown;
use super::sink::NoSink;
use super::{Mode, Types, Work};
use crate::panic_payload::{Payload, discard};
use crate::rt::JoinSet;

/// A [`Mode`] that can poll the lanes of a run of these types.
pub trait PollLanes<W: Types>: Mode {
    /// Opens a lane.
    fn open(lanes: &mut Self::Lanes<W>, lane: Lane<W>, span: &Span);

    /// Polls the lanes that were woken, or learns of one that has ended or was dropped by its runtime.
    fn poll_next(lanes: &mut Self::Lanes<W>, cx: &mut Context<'_>) -> Poll<Option<Result<(), ShutDown>>>;

    /// How many lanes there are.
    fn count(lanes: &Self::Lanes<W>) -> usize;

    /// Has every lane do something, where they are the driver's.
    fn for_each(lanes: &mut Self::Lanes<W>, f: impl FnMut(Pin<&mut Lane<W>>));

    /// Drops all lanes. Ready once nothing of them is left, with the first panic of the caller's on the way.
    fn poll_clear(lanes: &mut Self::Lanes<W>, cx: &mut Context<'_>) -> Poll<Option<Payload>>;
}

/// Lanes are polled by the driver. They may borrow, and need not be `Send`.
#[derive(Debug)]
pub struct InTask;

impl Mode for InTask {
    const SPAWNED: bool = false;

    type Lanes<W: Types> = FuturesUnordered<Lane<W>>;
    type Near<D> = D;
    type Far<D> = NoSink;

    fn place<D>(sink: D) -> (D, NoSink) {
        (sink, NoSink)
    }
}

impl<W: Work> PollLanes<W> for InTask {
    fn open(lanes: &mut FuturesUnordered<Lane<W>>, lane: Lane<W>, _span: &Span) {
        lanes.push(lane);
    }

    #[inline]
    fn poll_next(
        lanes: &mut FuturesUnordered<Lane<W>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), ShutDown>>> {
        Pin::new(lanes).poll_next(cx).map(|ended| ended.map(Ok))
    }

    fn count(lanes: &FuturesUnordered<Lane<W>>) -> usize {
        lanes.len()
    }

    fn for_each(lanes: &mut FuturesUnordered<Lane<W>>, f: impl FnMut(Pin<&mut Lane<W>>)) {
        Pin::new(lanes).iter_pin_mut().for_each(f);
    }

    fn poll_clear(lanes: &mut FuturesUnordered<Lane<W>>, _cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        // It allocates, and is called in each poll while a sink takes the last outcomes.
        if !lanes.is_empty() {
            lanes.clear();
        }
        Poll::Ready(None)
    }
}

/// The tasks of the lanes.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    are_aborted: bool,
    /// The first panic of the caller's after that.
    panic: Option<Payload>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.panic.take().into_iter().for_each(discard);
    }
}

/// Each lane is a Tokio task, so that they use every core that the runtime has.
#[derive(Debug)]
pub struct Spawned;

impl Mode for Spawned {
    const SPAWNED: bool = true;

    type Lanes<W: Types> = Tasks;
    type Near<D> = NoSink;
    type Far<D> = D;

    fn place<D>(sink: D) -> (NoSink, D) {
        (NoSink, sink)
    }
}

impl<W: Work> PollLanes<W> for Spawned
where
    Lane<W>: Send + 'static,
{
    fn open(lanes: &mut Tasks, lane: Lane<W>, span: &Span) {
        lanes.set.spawn(InContext { span: span.clone(), dispatch: current_dispatch(), future: lane });
    }

    fn poll_next(lanes: &mut Tasks, cx: &mut Context<'_>) -> Poll<Option<Result<(), ShutDown>>> {
        Poll::Ready(ready!(lanes.set.poll_join_next(cx)).map(|ended| {
            ended.map_err(|error| match error.try_into_panic() {
                // A panic of the caller's.
                Ok(payload) => resume_unwind(payload),
                // The run has not aborted it.
                Err(_) => ShutDown,
            })
        }))
    }

    fn count(lanes: &Tasks) -> usize {
        lanes.set.len()
    }

    fn for_each(_lanes: &mut Tasks, _f: impl FnMut(Pin<&mut Lane<W>>)) {
        // They hear of their end by their alarm, and each looks after its limits.
    }

    fn poll_clear(lanes: &mut Tasks, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        // It looks at every task.
        if !mem::replace(&mut lanes.are_aborted, true) {
            lanes.set.abort_all();
        }
        while let Some(ended) = ready!(lanes.set.poll_join_next(cx)) {
            match (ended.map_err(JoinError::try_into_panic), &lanes.panic) {
                (Err(Ok(payload)), None) => lanes.panic = Some(payload),
                (Err(Ok(payload)), Some(_)) => discard(payload),
                (Ok(()) | Err(Err(_)), _) => {}
            }
        }
        Poll::Ready(lanes.panic.take())
    }
}
