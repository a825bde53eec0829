//! Decides which attempt starts next, and in which worker.

use std::task::{Context, Poll};

use super::attempt::AttemptDeadline;
use super::attempt_slot::SlotProjection;
use super::call::Call;
use super::hooks::Hooks;
use super::job::{Next, Pulled};
use super::retry_slots::Due;
use super::scheduler::permits::HeldPermits;
use super::scheduler::retries::Ticket;
use super::scheduler::{Admission, Queue, SourceState, Stop, Tally};
use super::source::Source;
use super::state::{Assignment, State};
use super::{Mode, Work};
use crate::error::FailureReason;
use crate::observe::Event;

impl<W: Work> State<W> {
    /// Assigns the attempt that starts next to a worker, or returns the reason why nothing starts.
    pub(super) fn admit(&mut self) -> Admission {
        if self.is_finished() {
            return Admission::Finish;
        }
        if self.scheduler.permits.is_full() || self.scheduler.is_paused() {
            self.scheduler.permits.leave_queue();
            self.check_source_end();
            return self.admit_nothing();
        }
        if !self.may_start() {
            return Admission::Yield;
        }
        let mut held = HeldPermits::default();
        let Some(next) = self.next_start(&mut held) else { return self.admit_nothing() };
        if W::Mode::PARALLEL {
            self.scheduler.starts_left -= 1;
        }
        self.scheduler.assigned_new += usize::from(matches!(next, Next::New(_)));
        self.assigned.push_back(Assignment { held, next });
        self.scheduler.workers.find()
    }

    /// Returns the action of the driver if nothing starts. The end of the source may have been the end of the run.
    fn admit_nothing(&self) -> Admission {
        match self.scheduler.stop {
            Some(_) => Admission::Stop,
            None if self.is_finished() => Admission::Finish,
            None => Admission::Wait,
        }
    }

    /// Asks the source for its end while nothing may start. All pulled items may have settled already. The permits in use
    /// may belong to blocking functions of items that settled long ago.
    fn check_source_end(&mut self) {
        let nothing_is_left = self.running() == 0 && self.not_started() == 0 && self.waiting_for_retry() == 0;
        let may_ask = self.scheduler.total() == Some(self.scheduler.pulled) || !self.scheduler.is_paused();
        if nothing_is_left && may_ask && self.has_room_for_outcomes() && self.admits_new_items() {
            if let Some(pulled) = self.pull() {
                self.backlog.push_back(pulled);
            }
        }
    }

    /// Takes the attempt that starts next out of its queue, and its permits into `held`. Returns `None` if no attempt may
    /// start now, or if the permits of the next one are not available.
    fn next_start(&mut self, held: &mut HeldPermits) -> Option<Next<W::Item, W::Error>> {
        let queue = loop {
            let Some((queue, weight)) = self.choose() else {
                // A run that has nothing to start does not block other runs.
                self.scheduler.permits.leave_queue();
                return None;
            };
            let was_in_queue = self.scheduler.permits.is_in_queue();
            if self.take(held, weight) {
                break queue;
            }
            // The limit of the run was lowered and has no room for this attempt, so it has left the queue of the shared
            // limit. Its position there had put it before other attempts, so another attempt may be next now.
            if !was_in_queue || self.scheduler.permits.is_in_queue() {
                return None;
            }
        };
        match queue {
            Queue::Due => self.scheduler.retries.pop_due().and_then(|ticket| self.take_retry(ticket)),
            Queue::Immediate => {
                let admitted = self.admitted();
                let ticket = self.scheduler.retries.pop_immediate(admitted);
                ticket.and_then(|ticket| self.take_retry(ticket))
            }
            Queue::New => self.backlog.pop_front().map(Next::New),
        }
    }

    fn take_retry(&mut self, ticket: Ticket) -> Option<Next<W::Item, W::Error>> {
        let job = self.waiting.take(ticket.slot)?;
        Some(Next::Retry(Due { job, ticket }))
    }

    /// Returns the queue and the weight of the attempt that starts next. Pulls the next item if necessary.
    fn choose(&mut self) -> Option<(Queue, u32)> {
        match self.head()? {
            (queue, Some(weight)) => Some((queue, weight)),
            (_, None) => {
                self.apply_signals();
                let pulled = if self.scheduler.stop.is_none() { self.pull() } else { None };
                let head = if let Some(pulled) = pulled {
                    let weight = pulled.weight;
                    self.backlog.push_back(pulled);
                    Some((Queue::New, weight))
                } else {
                    self.scheduler.retries.immediate().map(|weight| (Queue::Immediate, weight))
                };
                head.filter(|_| self.scheduler.stop.is_none())
            }
        }
    }

    /// Returns the queue and the weight of the attempt that starts next. The weight is `None` if the next item must be
    /// pulled first.
    fn head(&self) -> Option<(Queue, Option<u32>)> {
        if self.scheduler.stop.is_some() || !self.has_room_for_outcomes() {
            return None;
        }
        let backlog = self.backlog.front().map(|pulled| pulled.weight);
        // An item that was looked up must start even if the window is full. Later items with known outputs may have settled
        // and filled the window.
        let is_late = W::Call::KEEPS && backlog.is_some();
        self.scheduler.next_queue(backlog, self.admitted(), &|| is_late || self.admits_new_items())
    }

    /// Makes `held` fit for an attempt. Returns `false` if the permits are not available now. A weight that can never be
    /// satisfied stops the run.
    #[inline]
    fn take(&mut self, held: &mut HeldPermits, weight: u32) -> bool {
        self.scheduler.permits.is_reusable(held, weight) || self.take_slow(held, weight)
    }

    #[cold]
    fn take_slow(&mut self, held: &mut HeldPermits, weight: u32) -> bool {
        match self.scheduler.permits.take(held, weight, &self.scheduler.driver) {
            Ok(taken) => taken,
            Err(error) => {
                self.stop(Stop::Failed(FailureReason::Config(error)));
                false
            }
        }
    }

    /// Returns `true` if free permits may go to a new item directly. Then there is no signal, no stop, no waiting attempt
    /// and no full window that [`next_item`](Self::next_item) has to handle.
    #[inline(always)]
    pub(super) fn can_start_directly(&self) -> bool {
        self.scheduler.signals.raised().is_none()
            && self.scheduler.stop.is_none()
            && (W::Mode::PARALLEL || self.scheduler.budget.is_left())
            && (self.scheduler.retries.ready() | self.backlog.len() | self.assigned.len()) == 0
            && self.scheduler.permits.is_simple()
            && self.collector.admits(
                self.scheduler.permits.capacity(),
                self.scheduler.look_ahead,
                self.scheduler.retries.len(),
                &self.scheduler.driver,
            )
    }

    /// Returns the attempt that starts next in a worker that asks for one.
    pub(super) fn next_item(&mut self, slot: &mut SlotProjection<'_, W>) -> Option<Next<W::Item, W::Error>> {
        if self.scheduler.is_paused() || !self.has_room_for_outcomes() {
            self.take_back_assigned();
            return None;
        }
        if let Some(Assignment { held, next }) = self.assigned.pop_front() {
            self.scheduler.assigned_new -= usize::from(matches!(next, Next::New(_)));
            *slot.held = held;
            return Some(next);
        }
        // Its permits have paid the debt of a lowered limit.
        if slot.held.own_permits() == 0 && self.scheduler.permits.is_full() {
            return None;
        }
        self.next_start(slot.held)
    }

    /// Records the start of an attempt. Records the time as well if a limit or the elapsed time of the item needs it.
    /// `is_at_once` is `true` if the attempt directly follows another one in the same worker.
    #[inline(always)]
    pub(super) fn begin_attempt(&mut self, slot: &mut SlotProjection<'_, W>, is_at_once: bool) {
        let job = &mut *slot.job;
        // An attempt that starts at once is the first of its item.
        let is_first = is_at_once || job.attempt == 1;
        if !is_first {
            self.scheduler.tally.retries += 1;
        } else if self.scheduler.timed {
            self.emit_started(job.index);
        }
        *slot.attempt_deadline = AttemptDeadline::Unlimited;
        // A parallel worker reads the clock itself.
        if W::Mode::PARALLEL {
            return;
        }
        self.scheduler.budget.spend();
        let is_limited = self.scheduler.config.first_limit.is_some();
        let now = match (self.scheduler.timed, is_limited) {
            // The last reading is the time at which the previous item settled. An observer may have taken time since then.
            (true, _) if is_at_once && self.hooks.observer().is_none() => self.scheduler.clock.last(),
            (true, _) => self.scheduler.clock.read(),
            (false, true) => self.scheduler.clock.coarse(),
            (false, false) => return,
        };
        if is_first {
            job.started = Some(now);
        }
        if is_limited {
            *slot.attempt_deadline = AttemptDeadline::Begun(now);
        }
    }

    fn emit_started(&self, index: usize) {
        if let Some(observer) = self.hooks.observer() {
            observer.on_event(&Event::ItemStarted { index });
        }
    }

    /// Returns how many items have started and wait for their next attempt, or for the worker that makes it.
    pub(super) fn waiting_for_retry(&self) -> usize {
        self.scheduler.retries.len() + self.assigned.len() - self.scheduler.assigned_new
    }

    /// Returns how many items have started.
    pub(super) fn started(&self) -> usize {
        self.scheduler.pulled - self.not_started()
    }

    /// Returns how many items have started or are assigned to a worker.
    pub(super) fn admitted(&self) -> usize {
        self.started() + self.scheduler.assigned_new
    }

    /// Returns how many attempts are running.
    pub(super) fn running(&self) -> usize {
        let Tally { retries, successes, failed_attempts, .. } = self.scheduler.tally;
        self.started() + retries - successes - failed_attempts
    }

    /// Returns `true` if no item will ever start again.
    pub(super) fn is_exhausted(&self) -> bool {
        self.scheduler.source_state == SourceState::Ended
            && self.not_started() == 0
            && self.waiting_for_retry() == 0
    }

    /// Returns `true` if every item has settled.
    pub(super) fn is_finished(&self) -> bool {
        self.running() == 0 && self.is_exhausted()
    }

    /// Returns `true` if so few items are held that another may be admitted. Held items are those that wait for a retry and,
    /// in the order of the input, settled items with outcomes that were not taken. If they fill the window, the driver is
    /// woken when an outcome is taken.
    #[inline(always)]
    pub(super) fn admits_new_items(&self) -> bool {
        let retries = self.scheduler.retries.len();
        retries < self.scheduler.look_ahead
            && self.collector.is_within_window(self.scheduler.look_ahead - retries, &self.scheduler.driver)
    }

    /// Returns `true` if so few outcomes wait to be taken that an attempt may start. If not, the driver is woken when one is
    /// taken. In the order of the input it is always `true`, because the next outcome may need a retry.
    #[inline(always)]
    pub(super) fn has_room_for_outcomes(&self) -> bool {
        self.collector.has_room(self.scheduler.permits.capacity(), &self.scheduler.driver)
    }

    /// Pulls the next item that is to run.
    #[inline]
    pub(super) fn pull(&mut self) -> Option<Pulled<W::Item>> {
        if W::Call::KEEPS { self.pull_unknown() } else { self.pull_any() }
    }

    #[inline]
    pub(super) fn pull_any(&mut self) -> Option<Pulled<W::Item>> {
        if self.scheduler.source_state != SourceState::Open {
            return None;
        }
        match self.source.poll_pull(&mut Context::from_waker(&self.scheduler.driver)) {
            Poll::Ready(Some(Ok(item))) => {
                let (index, weight) = (self.scheduler.pulled, self.hooks.weight(&item));
                self.scheduler.pulled += 1;
                Some(Pulled { index, item, weight })
            }
            Poll::Ready(Some(Err(error))) => {
                self.scheduler.source_state = SourceState::Ended;
                self.stop(Stop::Failed(FailureReason::Source(error)));
                None
            }
            Poll::Ready(None) => {
                self.scheduler.source_state = SourceState::Ended;
                None
            }
            Poll::Pending => {
                self.scheduler.source_state = SourceState::Stalled;
                None
            }
        }
    }

    /// Makes the driver assign work to other workers, if an attempt can start and nothing else wakes the driver. Returns
    /// `true` if the driver is woken for that.
    pub(super) fn notify_driver_for_others(&mut self) -> bool {
        if !W::Mode::PARALLEL {
            return false;
        }
        if self.scheduler.is_paused() {
            // The last running attempt may have ended.
            return self.running() == 0 && self.scheduler.notify_driver();
        }
        // If the run waits for the shared limit, that limit wakes the driver.
        if self.scheduler.permits.is_in_queue()
            || self.scheduler.permits.is_full()
            || self.scheduler.stop.is_some()
        {
            return false;
        }
        let has_room =
            |(_, weight): (Queue, Option<u32>)| self.scheduler.permits.has_room(weight.unwrap_or(1));
        self.head().is_some_and(has_room) && self.scheduler.notify_driver()
    }
}
