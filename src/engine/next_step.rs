//! What a worker does next.

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

/// What a worker does next.
pub(super) enum Step<I> {
    /// It makes the attempt that is on its attempt slot.
    Attempt,
    /// It begins the attempt that is on its attempt slot, with this item. It yields before it polls it where it has woken
    /// the driver, which may have to wait for it.
    Begin { item: I, after_yield: bool },
    /// It lets others have their turn, and comes back at once.
    Yield,
    /// It waits until it is woken.
    Idle,
    /// It waits until the attempt that has ended for its item has ended in truth.
    Linger,
    /// It ends: there will be no more work.
    Retire,
}

impl<W: Work> State<W> {
    /// Gives a worker that has come without an attempt its next one.
    #[inline(never)]
    pub(super) fn arrive(
        &mut self,
        id: usize,
        slot: Pin<&mut AttemptSlot<W>>,
        waker: &Waker,
    ) -> Step<W::Item> {
        let slot = &mut slot.project();
        self.look_around();
        if !self.scheduler.workers.contains(id) {
            return Step::Retire;
        }
        // A worker that is idle until it is notified may be woken by what an earlier attempt left behind.
        if self.scheduler.workers.is_idle(id) {
            return Step::Idle;
        }
        if !W::Mode::PARALLEL {
            self.scheduler.workers.introduce(id, waker);
        }
        if !*slot.lingers {
            self.give_back(slot);
        }
        let step = self.next_step(id, slot, waker);
        self.look_after(step)
    }

    /// Takes back what an attempt held that has ended, except for what the next one may have at once.
    fn give_back(&mut self, slot: &mut SlotProjection<'_, W>) {
        self.scheduler.permits.give_back(slot.held);
        self.scheduler.has_notified |= slot.release_shared();
    }

    /// Takes what a worker's attempt has given.
    #[inline(always)]
    pub(super) fn take_success(&mut self, output: W::Output, slot: &mut SlotProjection<'_, W>) {
        self.look_around();
        self.succeed(slot.job, output);
    }

    /// Takes why a worker's attempt has failed.
    // The rare ways of a worker take its attempt slot as a whole: the compiler would keep the places of all its parts at hand for them
    // in each poll.
    #[cold]
    pub(super) fn take_failure(&mut self, error: ItemError<W::Error>, slot: Pin<&mut AttemptSlot<W>>) {
        self.look_around();
        self.fail_attempt(slot.project().job, error);
    }

    /// Begins the next new item, where nothing has happened or was asked for that could come before it: the way of
    /// most items, without a look at what is rare.
    #[inline(always)]
    pub(super) fn begin_at_once(
        &mut self,
        slot: &mut SlotProjection<'_, W>,
        is_tired: bool,
    ) -> Option<Step<W::Item>> {
        if !self.is_way_clear() || (W::Mode::PARALLEL && (is_tired || self.is_driver_wanted())) {
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

    /// What a worker does next whose attempt has ended.
    #[inline(never)]
    pub(super) fn go_on(
        &mut self,
        id: usize,
        is_tired: bool,
        slot: Pin<&mut AttemptSlot<W>>,
        waker: &Waker,
    ) -> Step<W::Item> {
        let slot = &mut slot.project();
        if !*slot.lingers {
            self.give_back(slot);
        }
        let step = if W::Mode::PARALLEL && self.is_to_yield(is_tired, *slot.lingers) {
            *slot.job = Job::none();
            Step::Yield
        } else {
            self.next_step(id, slot, waker)
        };
        self.look_after(step)
    }

    /// Whether somebody has been woken who may have to wait for this worker, or the driver is asleep while there are
    /// places for others.
    #[inline]
    fn is_driver_wanted(&self) -> bool {
        self.scheduler.has_notified || !(self.scheduler.permits.is_full() || self.scheduler.driver_is_woken)
    }

    /// Learns what has happened outside since the last turn.
    #[inline]
    fn look_around(&mut self) {
        if W::Mode::PARALLEL
            && self.scheduler.alarm.as_ref().is_some_and(|alarm| alarm.load(Ordering::Acquire))
        {
            // The driver may be gone, and what it left is no longer anybody's.
            self.halt(FailureReason::Cancelled);
        }
        self.apply_signals();
    }

    /// Tells those who have to know what a turn has changed.
    #[inline]
    fn look_after(&mut self, mut step: Step<W::Item>) -> Step<W::Item> {
        if W::Mode::PARALLEL {
            let has_notified = self.notify_driver_for_others();
            if let Step::Begin { after_yield, .. } = &mut step {
                *after_yield = has_notified;
            }
        }
        self.report_at_once();
        step
    }

    /// Whether a parallel worker is to rest a moment before its next item: because it has had its share,
    /// or because whoever it has woken may have to wait for it, in a place where no other thread can fetch him.
    fn is_to_yield(&mut self, is_tired: bool, lingers: bool) -> bool {
        self.notify_driver_for_others();
        let has_notified = mem::take(&mut self.scheduler.has_notified);
        (has_notified || is_tired) && !lingers && self.scheduler.stop.is_none()
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
                    // It may have been the last.
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
                self.scheduler.workers.introduce(id, waker);
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
