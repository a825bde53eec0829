//! A worker, which processes one item after another.

pub(super) mod attempt;
pub(super) mod attempt_control;
pub(super) mod attempt_slot;
pub(crate) mod blocking;
mod call_of_several;
mod next_step;
pub(super) mod start_at_once;
pub(super) mod time_slice;

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use self::attempt_control::AttemptControl;
use self::attempt_slot::{AttemptSlot, SlotProjection};
use self::next_step::Step;
use self::start_at_once::start_at_once;
use self::time_slice::TimeSlice;
use super::batch::{Member, take_members};
use super::items::{Items, ItemsOf};
use super::job::Job;
use super::output::outcomes::Outcomes;
use super::state::State;
use super::state_guard::StateGuard;
use super::user::call::Call;
use super::user::leftovers::Leftovers;
use super::{Mode, Plan, Work};
use crate::config::Config;
use crate::lock::lock;
use crate::outcome::{ItemError, LeftOver};
use crate::rt::{AtomicBool, Instant, Mutex, coop};

pin_project! {
    /// Takes an item, makes one attempt at it, emits the result and takes the next item. It holds its permits for as long as
    /// there is work. Between two items it allocates nothing.
    #[project = WorkerProjection]
    pub struct Worker<W: Plan> {
        state: Arc<Mutex<State<ItemsOf<W>>>>,
        config: Arc<Config>,
        id: usize,
        // Only for parallel workers.
        parallel: Option<ParallelParts<W::Call>>,
        #[pin]
        slot: AttemptSlot<W>,
    }

    impl<W: Plan> PinnedDrop for Worker<W> {
        fn drop(this: Pin<&mut Self>) {
            if W::Hooks::GIVES_BACK || W::Hooks::LABELS {
                this.project().leave_item();
            }
        }
    }
}

impl<W: Plan> WorkerProjection<'_, W> {
    /// Drops an attempt that is running. Keeps the labels, and leaves the items to be given back.
    fn leave_item(&mut self) {
        let mut slot = self.slot.as_mut().project();
        slot.clear();
        for Member { job, item } in take_members(slot.control.jobs(), slot.kept, slot.others) {
            let Job { index, attempt: attempts, label, .. } = job;
            if let Some(label) = label.filter(|_| W::Hooks::LABELS) {
                lock(self.state).items.outcomes.keep_label(index, Some(&label));
            }
            if let Some(item) = item.filter(|_| W::Hooks::GIVES_BACK) {
                lock(self.state).items.hooks.leave(LeftOver { item, index, attempts });
            }
        }
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

impl<C> ParallelParts<C> {
    /// Returns the parts for another worker. `None` if workers cannot share the map function.
    pub(super) fn new<W>(State { scheduler, items }: &State<ItemsOf<W>>) -> Option<Self>
    where
        W: Work<Call = C>,
        C: Call<W::Item>,
    {
        let (call, alarm) = (items.call.clone_fn()?, Arc::clone(scheduler.alarm.as_ref()?));
        Some(Self { call, alarm, run_deadline: scheduler.run_deadline, timed: scheduler.timed })
    }
}

impl<W: Work> Worker<W> {
    pub(super) fn new(
        state: Arc<Mutex<State<ItemsOf<W>>>>,
        config: Arc<Config>,
        id: usize,
        parallel: Option<ParallelParts<W::Call>>,
    ) -> Self {
        Self { state, config, id, parallel, slot: AttemptSlot::new() }
    }

    /// Makes the worker check the limit of a running attempt from now on. It must be polled after that.
    pub(super) fn watch_limit(self: Pin<&mut Self>) {
        let this = self.project();
        this.slot.project().control.work_out_limit(this.config);
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
        let WorkerProjection { state, config, id, parallel, slot } = self.project();
        let (config, id) = (&**config, *id);
        let mut slot = slot.project();
        if let (true, Some(parallel)) = (W::Mode::PARALLEL, &*parallel) {
            if parallel.alarm.load(Ordering::Acquire) {
                slot.stop();
            }
        }
        ready!(slot.poll_lingering(cx));
        let mut slice = W::Mode::PARALLEL.then(TimeSlice::default);
        let mut guard = StateGuard::new(state);
        if !slot.is_taken() {
            let state: &mut State<dyn Items + '_> = guard.get();
            let step = state.step_without_attempt(id, slot.control, cx.waker());
            let parallel = parts::<W>(parallel, &mut slice);
            if let Break(rested) = begin_waiting(step, id, parallel, config, &mut guard, &mut slot, cx) {
                return rested;
            }
        }
        loop {
            let (error, slice_is_over) = match slot.poll(cx, config, &mut guard) {
                Poll::Pending => {
                    // A worker that has locked the state has started an attempt, which was counted. Two workers that have
                    // woken themselves end the poll of all.
                    if !W::Mode::PARALLEL {
                        if guard.is_held() {
                            guard.get().scheduler.ensure_sweep();
                        } else {
                            count_poll(guard.get(), cx);
                        }
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(answer)) => {
                    let slice_is_over = end_attempt(&mut slice, &mut guard);
                    let State { scheduler, items } = &mut *guard.get();
                    scheduler.apply_alarm_and_signals(W::Mode::PARALLEL);
                    if W::Call::BATCHES {
                        let results = W::Call::results(answer);
                        items.settle_batch(scheduler, slot.control.jobs(), slot.kept, slot.others, results);
                        (None, slice_is_over)
                    } else if let Some(output) = W::Call::output(answer) {
                        let item = slot.take_copy();
                        items.succeed(scheduler, &mut slot.control.job, item, output);
                        match start_at_once(scheduler, items, &mut slot, slice_is_over) {
                            None => (None, slice_is_over),
                            Some(item) => {
                                let parallel = parts::<W>(parallel, &mut slice);
                                match begin(parallel, config, &mut guard, &mut slot, item) {
                                    Ok(()) => continue,
                                    Err(error) => (Some(error), slice_is_over),
                                }
                            }
                        }
                    } else {
                        (None, slice_is_over)
                    }
                }
                Poll::Ready(Err(error)) => (Some(error), end_attempt(&mut slice, &mut guard)),
            };
            let step = step_after_attempt(error, id, slice_is_over, &mut guard, &mut slot, cx);
            let parallel = parts::<W>(parallel, &mut slice);
            if let Break(rested) = begin_waiting(step, id, parallel, config, &mut guard, &mut slot, cx) {
                return rested;
            }
        }
    }
}

/// Returns the parts that only a parallel worker needs.
#[inline(always)]
fn parts<'a, W: Work>(
    parallel: &'a Option<ParallelParts<W::Call>>,
    slice: &'a mut Option<TimeSlice>,
) -> Option<(&'a ParallelParts<W::Call>, &'a mut TimeSlice)> {
    if !W::Mode::PARALLEL {
        return None;
    }
    Some((parallel.as_ref()?, slice.as_mut()?))
}

/// Takes the error of an ended attempt, if it has failed, and returns the next step of the worker.
#[inline(never)]
fn step_after_attempt<W: Work>(
    error: Option<ItemError<W::Error>>,
    id: usize,
    slice_is_over: bool,
    guard: &mut StateGuard<'_, ItemsOf<W>>,
    slot: &mut SlotProjection<'_, W>,
    cx: &Context<'_>,
) -> Step {
    if let Some(error) = error {
        let State { scheduler, items } = &mut *guard.get();
        scheduler.apply_alarm_and_signals(W::Mode::PARALLEL);
        let AttemptControl { job, others, held, .. } = &mut *slot.control;
        if W::Call::BATCHES && !others.is_empty() {
            let members = take_members(slot.control.jobs(), slot.kept, slot.others);
            items.fail_batch(scheduler, members, error);
        } else {
            items.fail_attempt(scheduler, job, slot.kept, held.shared.key(), error);
        }
    }
    release_shared_permit(guard, slot);
    let state: &mut State<dyn Items + '_> = guard.get();
    state.step_after_attempt(id, slice_is_over, slot.control, cx.waker())
}

/// Begins an attempt at a waiting item. Breaks with the end of the worker's poll, if no attempt is to be polled now.
#[inline(never)]
fn begin_waiting<W: Work>(
    mut step: Step,
    id: usize,
    mut parallel: Option<(&ParallelParts<W::Call>, &mut TimeSlice)>,
    config: &Config,
    guard: &mut StateGuard<'_, ItemsOf<W>>,
    slot: &mut SlotProjection<'_, W>,
    cx: &Context<'_>,
) -> ControlFlow<Poll<()>> {
    while let Step::Begin { slot: from, after_yield } = step {
        let items = &mut guard.get().items;
        let Some(item) = items.waiting.take_item(from) else { break };
        items.set_label(&mut slot.control.job, &item);
        if W::Call::BATCHES {
            items.take_others(&mut slot.control.others, slot.others);
        }
        let parallel = parallel.as_mut().map(|(parallel, slice)| (&**parallel, &mut **slice));
        match begin(parallel, config, guard, slot, item) {
            Ok(()) if after_yield => {
                slot.control.is_unpolled = true;
                cx.waker().wake_by_ref();
                return Break(Poll::Pending);
            }
            Ok(()) => return Continue(()),
            Err(error) => {
                step = step_after_attempt(Some(error), id, false, guard, slot, cx);
            }
        }
    }
    guard.release(W::Mode::PARALLEL);
    *slot.kept = None;
    if W::Call::BATCHES {
        slot.others.clear();
    }
    Break(rest(&step, slot.control, cx))
}

/// Ends the poll of a worker without an attempt.
fn rest(step: &Step, control: &mut AttemptControl, cx: &Context<'_>) -> Poll<()> {
    control.job = Job::none();
    control.others.clear();
    match step {
        Step::Retire => return Poll::Ready(()),
        Step::Yield => cx.waker().wake_by_ref(),
        Step::Begin { .. } | Step::Idle | Step::Linger => {}
    }
    Poll::Pending
}

/// Begins an attempt. A parallel worker begins it outside the lock.
#[inline(always)]
fn begin<W: Work>(
    parallel: Option<(&ParallelParts<W::Call>, &mut TimeSlice)>,
    config: &Config,
    guard: &mut StateGuard<'_, ItemsOf<W>>,
    slot: &mut SlotProjection<'_, W>,
    item: W::Item,
) -> Result<(), ItemError<W::Error>> {
    match parallel {
        Some((parallel, slice)) if W::Mode::PARALLEL => {
            guard.unlock();
            slot.control.record_start(config, slice.start_attempt(parallel.timed));
            slot.begin(&parallel.call, config, parallel.run_deadline, item)
        }
        _ => {
            let state = guard.get();
            slot.begin(&state.items.call, config, state.scheduler.run_deadline, item)
        }
    }
}

/// Counts the poll of a worker with a pending attempt.
fn count_poll(state: &mut State<dyn Items + '_>, cx: &Context<'_>) {
    if !state.may_poll_worker() {
        cx.waker().wake_by_ref();
    }
}

/// Prepares the access to the state after an attempt has ended. Returns `true` if the time slice of the worker is over.
#[inline(always)]
fn end_attempt<W: Work>(slice: &mut Option<TimeSlice>, guard: &mut StateGuard<'_, ItemsOf<W>>) -> bool {
    let Some(slice) = slice else { return false };
    let slice_is_over = slice.is_over();
    guard.set_back_off(slice.back_off());
    slice_is_over
}

/// Releases the permits of the shared limit that an ended attempt held. This wakes other tasks, so the state is not locked
/// then. The task that waits for the outcome of the attempt is woken before them.
#[inline]
fn release_shared_permit<W: Work>(guard: &mut StateGuard<'_, ItemsOf<W>>, slot: &mut SlotProjection<'_, W>) {
    if W::Mode::PARALLEL && !slot.control.held.shared.is_empty() {
        let was_overload = guard.get().scheduler.permits.take_overload();
        guard.unlock();
        slot.control.release_shared(was_overload);
        guard.get().scheduler.has_notified = true;
    }
}
