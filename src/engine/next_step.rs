//! Decides the next step of a worker.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::attempt_slot::{AttemptSlot, SlotProjection};
use super::job::Job;
use super::scheduler::permits::HeldPermits;
use super::state::State;
use super::{Mode, Work};
use crate::error::FailureReason;
use crate::outcome::ItemError;

/// The next step of a worker.
pub(super) enum Step<I> {
    /// Polls the attempt in its slot.
    Attempt,
    /// Starts the attempt in its slot with this item. With `after_yield`, it yields before it polls the attempt: it has
    /// woken the driver, which may have to wait for this worker.
    Begin { item: I, after_yield: bool },
    /// Yields to other tasks, and is polled again.
    Yield,
    /// Is idle until it is notified.
    Idle,
    /// Waits until the function of an attempt that counts as ended has returned.
    Linger,
    /// Ends: there will be no more work.
    Retire,
}

impl<W: Work> State<W> {
    /// Returns the next step of a worker that is polled without an attempt.
    #[inline(never)]
    pub(super) fn step_without_attempt(
        &mut self,
        id: usize,
        slot: Pin<&mut AttemptSlot<W>>,
        waker: &Waker,
    ) -> Step<W::Item> {
        let slot = &mut slot.project();
        self.check_alarm_and_signals();
        if !self.scheduler.workers.contains(id) {
            return Step::Retire;
        }
        // A waker that an earlier attempt left behind may wake a worker that is idle until it is notified.
        if self.scheduler.workers.is_idle(id) {
            return Step::Idle;
        }
        if !W::Mode::PARALLEL {
            self.scheduler.workers.set_waker_if_missing(id, waker);
        }
        if !*slot.lingers {
            self.give_back(slot);
        }
        let step = self.next_step(id, slot, waker);
        self.finish_step(step)
    }

    /// Takes back the permits of an ended attempt, except those that the next attempt may reuse.
    fn give_back(&mut self, slot: &mut SlotProjection<'_, W>) {
        self.scheduler.permits.give_back(slot.held);
        self.scheduler.has_notified |= slot.release_shared();
    }

    /// Takes the output of a worker's attempt.
    #[inline(always)]
    pub(super) fn take_success(&mut self, output: W::Output, slot: &mut SlotProjection<'_, W>) {
        self.check_alarm_and_signals();
        self.succeed(slot.job, output);
    }

    /// Takes the error of a worker's attempt.
    // The rare paths of a worker take its attempt slot as a whole. Otherwise the compiler would keep the addresses of all
    // its parts at hand in each poll.
    #[cold]
    pub(super) fn take_failure(&mut self, error: ItemError<W::Error>, slot: Pin<&mut AttemptSlot<W>>) {
        self.check_alarm_and_signals();
        self.fail_attempt(slot.project().job, error);
    }

    /// Starts the next new item, if no event and no request has to be handled before it. Most items take this path, which
    /// skips the rare checks.
    #[inline(always)]
    pub(super) fn begin_at_once(
        &mut self,
        slot: &mut SlotProjection<'_, W>,
        slice_is_over: bool,
    ) -> Option<Step<W::Item>> {
        if !self.can_start_directly() || (W::Mode::PARALLEL && (slice_is_over || self.must_notify_or_yield()))
        {
            return None;
        }
        let pulled = self.pull()?;
        if slot.held.own_permits() != pulled.weight as usize {
            self.backlog.push_back(pulled);
            return None;
        }
        slot.job.renew(pulled.index, pulled.weight);
        self.begin_attempt(slot, true);
        let item = pulled.item;
        let step = if W::Mode::PARALLEL {
            Step::Begin { item, after_yield: false }
        } else if let Err(error) =
            slot.begin(&self.call, &self.scheduler.config, self.scheduler.run_deadline, item)
        {
            self.fail_attempt(slot.job, error);
            return None;
        } else {
            Step::Attempt
        };
        self.report_at_once();
        Some(step)
    }

    /// Returns the next step of a worker with an attempt that has ended.
    #[inline(never)]
    pub(super) fn step_after_attempt(
        &mut self,
        id: usize,
        slice_is_over: bool,
        slot: Pin<&mut AttemptSlot<W>>,
        waker: &Waker,
    ) -> Step<W::Item> {
        let slot = &mut slot.project();
        if !*slot.lingers {
            self.give_back(slot);
        }
        let step = if W::Mode::PARALLEL && self.must_yield(slice_is_over, *slot.lingers) {
            *slot.job = Job::none();
            Step::Yield
        } else {
            self.next_step(id, slot, waker)
        };
        self.finish_step(step)
    }

    /// Returns `true` if a woken task may have to wait for this worker, or if the driver sleeps while there are free
    /// permits.
    #[inline]
    fn must_notify_or_yield(&self) -> bool {
        self.scheduler.has_notified || !(self.scheduler.permits.is_full() || self.scheduler.driver_is_woken)
    }

    /// Checks the alarm and the signals.
    #[inline]
    fn check_alarm_and_signals(&mut self) {
        if W::Mode::PARALLEL
            && self.scheduler.alarm.as_ref().is_some_and(|alarm| alarm.load(Ordering::Acquire))
        {
            // The driver may be gone. This releases the permits that it has left behind.
            self.halt(FailureReason::Cancelled);
        }
        self.apply_signals();
    }

    /// Wakes the driver if a step has made work for it, and reports the progress.
    #[inline]
    fn finish_step(&mut self, mut step: Step<W::Item>) -> Step<W::Item> {
        if W::Mode::PARALLEL {
            let has_notified = self.notify_driver_for_others();
            if let Step::Begin { after_yield, .. } = &mut step {
                *after_yield = has_notified;
            }
        }
        self.report_at_once();
        step
    }

    /// Returns `true` if a parallel worker must yield before its next item. Either its time slice is over, or it has woken a
    /// task that may have to wait for it. Tokio may put such a task into the LIFO slot of this thread, where it cannot be
    /// stolen.
    fn must_yield(&mut self, slice_is_over: bool, lingers: bool) -> bool {
        self.notify_driver_for_others();
        let has_notified = mem::take(&mut self.scheduler.has_notified);
        (has_notified || slice_is_over) && !lingers && self.scheduler.stop.is_none()
    }

    fn next_step(&mut self, id: usize, slot: &mut SlotProjection<'_, W>, waker: &Waker) -> Step<W::Item> {
        loop {
            self.apply_signals();
            if self.scheduler.stop.is_some() {
                *slot.job = Job::none();
                return Step::Retire;
            }
            if *slot.lingers {
                if self.running() == 0 {
                    // The last running attempt may have ended.
                    self.scheduler.notify_driver();
                }
                return Step::Linger;
            }
            if !W::Mode::PARALLEL && !self.may_start() {
                *slot.job = Job::none();
                return Step::Yield;
            }
            let Some(next) = self.next_item(slot) else {
                *slot.job = Job::none();
                if self.scheduler.stop.is_some() || self.is_exhausted() {
                    return Step::Retire;
                }
                *slot.held = HeldPermits::default();
                self.scheduler.workers.go_idle(id, waker);
                return Step::Idle;
            };
            let item = next.prepare(slot.job);
            self.begin_attempt(slot, false);
            if W::Mode::PARALLEL {
                self.scheduler.workers.set_waker_if_missing(id, waker);
                return Step::Begin { item, after_yield: false };
            }
            match slot.begin(&self.call, &self.scheduler.config, self.scheduler.run_deadline, item) {
                Ok(()) => return Step::Attempt,
                Err(error) => {
                    self.fail_attempt(slot.job, error);
                    self.give_back(slot);
                }
            }
        }
    }
}
