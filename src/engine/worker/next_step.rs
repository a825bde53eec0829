//! Decides the next step of a worker.

use std::mem;
use std::task::Waker;

use super::super::items::Items;
use super::super::scheduler::Scheduler;
use super::super::state::State;
use super::attempt_control::AttemptControl;

/// The next step of a worker.
pub(in super::super) enum Step {
    /// Starts an attempt at the item in this slot of the waiting items. With `after_yield`, it yields before it polls the
    /// attempt: it has woken the driver, which may have to wait for this worker.
    Begin { slot: usize, after_yield: bool },
    /// Yields to other tasks, and is polled again.
    Yield,
    /// Is idle until it is notified.
    Idle,
    /// Waits until the function of an attempt that counts as ended has returned.
    Linger,
    /// Ends: there will be no more work.
    Retire,
}

impl State<dyn Items + '_> {
    /// Returns the next step of a worker that is polled without an attempt.
    pub(in super::super) fn step_without_attempt(
        &mut self,
        id: usize,
        control: &mut AttemptControl,
        waker: &Waker,
    ) -> Step {
        let parallel = self.scheduler.is_parallel();
        self.scheduler.apply_alarm_and_signals(parallel);
        if !self.scheduler.workers.contains(id) {
            return Step::Retire;
        }
        // A waker that an earlier attempt left behind may wake a worker that is idle until it is notified.
        if self.scheduler.workers.is_idle(id) {
            return Step::Idle;
        }
        if !parallel {
            self.scheduler.workers.set_waker_if_missing(id, waker);
        }
        self.scheduler.give_back(control);
        let step = self.next_step(id, control, waker);
        self.finish_step(step)
    }

    /// Returns the next step of a worker with an attempt that has ended.
    pub(in super::super) fn step_after_attempt(
        &mut self,
        id: usize,
        slice_is_over: bool,
        control: &mut AttemptControl,
        waker: &Waker,
    ) -> Step {
        self.scheduler.give_back(control);
        let step = if self.scheduler.is_parallel() && self.must_yield(slice_is_over, control.lingers) {
            Step::Yield
        } else {
            self.next_step(id, control, waker)
        };
        self.finish_step(step)
    }

    /// Wakes the driver if a step has made work for it, and reports the progress.
    fn finish_step(&mut self, mut step: Step) -> Step {
        if self.scheduler.is_parallel() {
            let has_notified = self.notify_driver_for_others();
            if let Step::Begin { after_yield, .. } = &mut step {
                *after_yield = has_notified;
            }
            self.scheduler.report();
        }
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

    fn next_step(&mut self, id: usize, control: &mut AttemptControl, waker: &Waker) -> Step {
        self.scheduler.apply_signals();
        if self.scheduler.stop.is_some() {
            return Step::Retire;
        }
        if control.lingers {
            if self.scheduler.running() == 0 {
                // The last running attempt may have ended.
                self.scheduler.notify_driver();
            }
            return Step::Linger;
        }
        let parallel = self.scheduler.is_parallel();
        if !parallel && !self.may_start() {
            return Step::Yield;
        }
        let Some(start) = self.next_item(control) else {
            if self.scheduler.stop.is_some() || self.scheduler.is_exhausted() {
                return Step::Retire;
            }
            self.scheduler.permits.abandon(mem::take(&mut control.held));
            if parallel && self.scheduler.waits_for_time() {
                // Its timer wakes the run at the time of the next start.
                self.scheduler.notify_driver();
            }
            self.scheduler.workers.go_idle(id, waker);
            return Step::Idle;
        };
        if parallel {
            self.scheduler.workers.set_waker_if_missing(id, waker);
        }
        let slot = start.first.slot();
        if self.scheduler.batches.is_some() {
            self.begin_call(control, &start);
            return Step::Begin { slot, after_yield: false };
        }
        control.job.resume(self.items.take_job(slot));
        // A run with a retry budget is never simple.
        if !self.scheduler.permits.is_simple() && control.job.attempt == 1 {
            self.scheduler.count_first_attempt();
        }
        let observer = if self.scheduler.observed { self.items.observer() } else { None };
        control.begin(&mut self.scheduler, observer, false, parallel);
        Step::Begin { slot, after_yield: false }
    }
}

impl Scheduler {
    /// Takes back the permits of an ended attempt, except those that the next attempt may reuse.
    fn give_back(&mut self, control: &mut AttemptControl) {
        if !control.lingers {
            self.permits.give_back(&mut control.held);
            self.has_notified |= control.release_shared(self.permits.take_overload());
        }
    }

    /// Returns `true` if a woken task may have to wait for this worker, or if the driver sleeps while there are free
    /// permits.
    #[inline]
    pub(in super::super) fn must_notify_or_yield(&self) -> bool {
        self.has_notified || !(self.permits.is_full() || self.driver_is_woken)
    }
}
