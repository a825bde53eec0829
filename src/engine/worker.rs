//! A worker, which processes one item after another.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::attempt_slot::AttemptSlot;
use super::next_step::Step;
use super::state::State;
use super::state_guard::StateGuard;
use super::time_slice::TimeSlice;
use super::{Mode, Types, Work};
use crate::config::Config;
use crate::outcome::ItemError;
use crate::rt::{AtomicBool, Instant, Mutex, coop};

pin_project! {
    /// Takes an item, makes one attempt at it, emits the result and takes the next item. It holds its permits for as long as
    /// there is work. Between two items it allocates nothing.
    #[project = WorkerProjection]
    pub struct Worker<W: Types> {
        state: Arc<Mutex<State<W>>>,
        config: Arc<Config>,
        id: usize,
        // Only for parallel workers.
        parallel: Option<ParallelParts<W::Call>>,
        #[pin]
        slot: AttemptSlot<W>,
    }
}

/// The parts that only a parallel worker needs.
pub(super) struct ParallelParts<C> {
    pub(super) call: C,
    pub(super) alarm: Arc<AtomicBool>,
    pub(super) run_deadline: Option<Instant>,
    /// `true` if the run reports how long each item took.
    pub(super) timed: bool,
}

impl<W: Work> Worker<W> {
    pub(super) fn new(
        state: Arc<Mutex<State<W>>>,
        config: Arc<Config>,
        id: usize,
        parallel: Option<ParallelParts<W::Call>>,
    ) -> Self {
        Self { state, config, id, parallel, slot: AttemptSlot::new() }
    }

    /// Makes the worker check the limit of a running attempt from now on. It must be polled after that.
    pub(super) fn watch_limit(self: Pin<&mut Self>) {
        let this = self.project();
        this.slot.project().work_out_limit(this.config);
    }

    /// Tells a running attempt to end. From now on, the grace of the run is its only limit.
    pub(super) fn stop(self: Pin<&mut Self>) {
        self.project().slot.project().stop();
    }
}

impl<W: Work> Future for Worker<W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Without budget, no Tokio resource would be ready here. A worker that is polled without a result would come after
        // those that have used up the budget, again and again.
        if !coop::has_budget_remaining() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let WorkerProjection { state, config, id, parallel, mut slot } = self.project();
        if let (true, Some(parallel)) = (W::Mode::PARALLEL, &*parallel) {
            if parallel.alarm.load(Ordering::Acquire) {
                slot.as_mut().project().stop();
            }
        }
        ready!(slot.as_mut().project().poll_lingering(cx));
        let mut slice = W::Mode::PARALLEL.then(TimeSlice::default);
        let mut guard = StateGuard::new(state);
        let mut begun = Ok(());
        if !slot.as_mut().project().is_taken() {
            let step = guard.get().step_without_attempt(*id, slot.as_mut(), cx.waker());
            guard.release();
            begun = match perform_step(step, parallel.as_ref().zip(slice.as_mut()), config, slot.as_mut(), cx)
            {
                ControlFlow::Continue(begun) => begun,
                ControlFlow::Break(polled) => return polled,
            };
        }
        loop {
            let mut slice_is_over = false;
            let direct_step = match begun {
                Ok(()) => loop {
                    match slot.as_mut().project().poll(cx, config, &mut guard) {
                        Poll::Pending => {
                            // A worker that has locked the state has started an attempt, which was counted. Two workers that
                            // have woken themselves end the poll of all.
                            if !W::Mode::PARALLEL {
                                if guard.is_held() {
                                    guard.get().scheduler.ensure_sweep();
                                } else {
                                    count_poll(&mut guard, cx);
                                }
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(output)) => {
                            if let Some(slice) = &mut slice {
                                slice_is_over = end_attempt(slice, &mut guard, slot.as_mut());
                            }
                            let (state, mut parts) = (guard.get(), slot.as_mut().project());
                            state.take_success(output, &mut parts);
                            let step = state.begin_at_once(&mut parts, slice_is_over);
                            match (step, parallel.as_ref().zip(slice.as_mut())) {
                                (Some(Step::Attempt), _) => {}
                                (Some(Step::Begin { item, .. }), Some((parallel, slice))) => {
                                    guard.release();
                                    let begun = begin_parallel(parallel, config, slice, slot.as_mut(), item);
                                    if let Err(error) = begun {
                                        guard.get().take_failure(error, slot.as_mut());
                                        break None;
                                    }
                                }
                                (step, _) => break step,
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            if let Some(slice) = &mut slice {
                                slice_is_over = end_attempt(slice, &mut guard, slot.as_mut());
                            }
                            guard.get().take_failure(error, slot.as_mut());
                            break None;
                        }
                    }
                },
                Err(error) => {
                    release_shared_permit(&mut guard, slot.as_mut());
                    guard.get().take_failure(error, slot.as_mut());
                    None
                }
            };
            let step = match direct_step {
                Some(step) => step,
                None => guard.get().step_after_attempt(*id, slice_is_over, slot.as_mut(), cx.waker()),
            };
            guard.release();
            begun = match perform_step(step, parallel.as_ref().zip(slice.as_mut()), config, slot.as_mut(), cx)
            {
                ControlFlow::Continue(begun) => begun,
                ControlFlow::Break(polled) => return polled,
            };
        }
    }
}

/// Performs a step of a worker. Breaks with the end of its poll, or continues with an attempt that is running or has failed
/// immediately.
fn perform_step<W: Work>(
    step: Step<W::Item>,
    parallel: Option<(&ParallelParts<W::Call>, &mut TimeSlice)>,
    config: &Config,
    slot: Pin<&mut AttemptSlot<W>>,
    cx: &Context<'_>,
) -> ControlFlow<Poll<()>, Result<(), ItemError<W::Error>>> {
    match (step, parallel) {
        (Step::Attempt, _) => ControlFlow::Continue(Ok(())),
        (Step::Begin { item, after_yield }, Some((parallel, slice))) => {
            let mut slot = slot;
            let begun = begin_parallel(parallel, config, slice, slot.as_mut(), item);
            if after_yield && begun.is_ok() {
                *slot.project().is_unpolled = true;
                cx.waker().wake_by_ref();
                return ControlFlow::Break(Poll::Pending);
            }
            ControlFlow::Continue(begun)
        }
        (Step::Yield, _) => {
            cx.waker().wake_by_ref();
            ControlFlow::Break(Poll::Pending)
        }
        (Step::Idle | Step::Linger | Step::Begin { .. }, _) => ControlFlow::Break(Poll::Pending),
        (Step::Retire, _) => ControlFlow::Break(Poll::Ready(())),
    }
}

/// Counts the poll of a worker with a pending attempt.
#[inline(never)]
fn count_poll<W: Work>(guard: &mut StateGuard<'_, W>, cx: &Context<'_>) {
    if !guard.get().may_poll_worker() {
        cx.waker().wake_by_ref();
    }
}

/// Prepares the access to the state after an attempt has ended. Returns `true` if the time slice of the worker is over.
#[inline(always)]
fn end_attempt<W: Work>(
    slice: &mut TimeSlice,
    guard: &mut StateGuard<'_, W>,
    slot: Pin<&mut AttemptSlot<W>>,
) -> bool {
    let slice_is_over = slice.is_over();
    guard.set_back_off(slice.back_off());
    release_shared_permit(guard, slot);
    slice_is_over
}

/// Releases the permits of the shared limit that an ended attempt held. This wakes other tasks, so the state is not locked
/// then.
#[inline]
fn release_shared_permit<W: Work>(guard: &mut StateGuard<'_, W>, slot: Pin<&mut AttemptSlot<W>>) {
    if W::Mode::PARALLEL && slot.project().release_shared() {
        guard.get().scheduler.has_notified = true;
    }
}

/// Begins an attempt outside the lock.
#[inline(always)]
fn begin_parallel<W: Work>(
    parallel: &ParallelParts<W::Call>,
    config: &Config,
    slice: &mut TimeSlice,
    slot: Pin<&mut AttemptSlot<W>>,
    item: W::Item,
) -> Result<(), ItemError<W::Error>> {
    let mut slot = slot.project();
    slot.record_start(config, slice.start_attempt(parallel.timed));
    slot.begin(&parallel.call, config, parallel.run_deadline, item)
}
