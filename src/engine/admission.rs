//! Decides which attempt starts next, and in which worker. Also the checks that begin a poll of the driver.

use std::mem;
use std::task::{Poll, Waker};

use super::items::Items;
use super::scheduler::permits::HeldPermits;
use super::scheduler::retries::GivenUp;
use super::scheduler::{
    Admission, Assignment, Next, Pulled, Queue, Refusal, Scheduler, SourceState, Start, Stop,
};
use super::state::State;
use super::worker::attempt_control::AttemptControl;
use crate::error::{BoxError, FailureReason};
use crate::outcome::NotRetried;
use crate::rt::Instant;

impl State<dyn Items + '_> {
    /// Assigns the attempt that starts next to a worker, or returns the reason why nothing starts.
    pub(super) fn admit(&mut self) -> Admission {
        if self.scheduler.is_finished() {
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
        let Some(start) = self.next_start(&mut held) else { return self.admit_nothing() };
        if self.scheduler.is_parallel() {
            self.scheduler.starts_left -= 1;
        }
        self.scheduler.assign(Assignment { held, start });
        self.scheduler.workers.find()
    }

    /// Returns the action of the driver if nothing starts. The end of the source may have been the end of the run.
    fn admit_nothing(&self) -> Admission {
        match self.scheduler.stop {
            Some(_) => Admission::Stop,
            None if self.scheduler.is_finished() => Admission::Finish,
            None => Admission::Wait,
        }
    }

    /// Asks the source for its end while nothing may start. All pulled items may have settled already. The permits in use
    /// may belong to blocking functions of items that settled long ago.
    fn check_source_end(&mut self) {
        let scheduler = &self.scheduler;
        let nothing_is_left =
            scheduler.running() == 0 && scheduler.not_started() == 0 && scheduler.waiting_for_retry() == 0;
        let may_ask = scheduler.total() == Some(scheduler.pulled) || !scheduler.is_paused();
        if nothing_is_left && may_ask && self.has_room_for_outcomes() && self.admits_new_items() {
            let pulled = self.pull();
            self.scheduler.backlog.extend(pulled);
        }
    }

    /// Takes the attempt that starts next out of its queue, and its permits into `held`. Returns `None` if no attempt may
    /// start now, or if the permits of the next one are not available.
    fn next_start(&mut self, held: &mut HeldPermits) -> Option<Start> {
        if self.scheduler.keys.is_some() {
            return self.next_keyed_start(held).map(Start::from);
        }
        if self.scheduler.batches.is_some() && !self.is_batch_ready() {
            self.scheduler.permits.leave_queue();
            return None;
        }
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
            if queue == Queue::New {
                let slot = self.scheduler.backlog.front().map(|pulled| pulled.slot);
                self.note_wait(slot);
            }
            // The limit of the run was lowered and has no room for this attempt, so it has left the queue of the shared
            // limit. Its position there had put it before other attempts, so another attempt may be next now.
            if !was_in_queue || self.scheduler.permits.is_in_queue() {
                return None;
            }
        };
        let first = self.scheduler.pop(queue)?;
        Some(if self.scheduler.batches.is_some() { self.gather(first) } else { first.into() })
    }

    /// As [`next_start`](Self::next_start), in a run with items that have keys. The attempt gets the permit of its key first.
    #[cold]
    fn next_keyed_start(&mut self, held: &mut HeldPermits) -> Option<Next> {
        let Some(weight) = self.make_ready() else {
            self.scheduler.permits.leave_queue();
            return None;
        };
        if !self.take(held, weight) {
            let keys = self.scheduler.keys.as_mut()?;
            keys.note_wait();
            let slot = keys.ready().map(Next::slot);
            self.note_wait(slot);
            return None;
        }
        let (next, permit) = self.scheduler.keys.as_mut()?.pop_ready()?;
        self.scheduler.uncount_keyed(&next);
        held.shared.of_key = Some(permit);
        Some(next)
    }

    /// Makes sure that the attempt that starts next has the permit of its key. Returns its weight, or `None` if no attempt can
    /// start.
    fn make_ready(&mut self) -> Option<u32> {
        loop {
            if self.scheduler.stop.is_some() || !self.has_room_for_outcomes() {
                return None;
            }
            let keys = self.scheduler.keys.as_mut()?;
            keys.serve_lines(self.scheduler.permits.later());
            if let Some(next) = keys.ready() {
                return Some(next.weight());
            }
            // The first one that had no room comes first. New keys do not pass it.
            let entering = keys.pop_outside();
            let may_add = entering.is_some() || !keys.has_outside();
            let next = match entering {
                Some(next) => next,
                None => {
                    let (queue, _) = self.choose()?;
                    let next = self.scheduler.pop(queue)?;
                    self.scheduler.count_keyed(&next);
                    next
                }
            };
            let limiters = self.items.key_limiters(next.slot(), may_add, self.scheduler.permits.later())?;
            let slot = next.slot();
            let keys = self.scheduler.keys.as_mut()?;
            match limiters {
                Ok(limiters) => keys.join(limiters, next),
                Err(room) => keys.wait_outside(next, room),
            }
            if keys.ready().is_none() {
                self.note_wait(Some(slot));
            }
        }
    }

    /// Notes that an attempt at a waiting item waits for permits, if the run has observers. A retry waits since the end of its
    /// delay.
    #[cold]
    fn note_wait(&mut self, slot: Option<usize>) {
        if let (Some(slot), true) = (slot, self.scheduler.observed) {
            self.scheduler.date_wait(self.items.job(slot));
        }
    }

    /// Returns the queue and the weight of the attempt that starts next. Pulls the next item if necessary.
    #[inline(always)]
    fn choose(&mut self) -> Option<(Queue, u32)> {
        match self.head()? {
            (queue, Some(weight)) => Some((queue, weight)),
            (_, None) => {
                self.scheduler.apply_signals();
                let pulled = if self.scheduler.stop.is_none() { self.pull() } else { None };
                let head = if let Some(pulled) = pulled {
                    self.scheduler.backlog.push_back(pulled);
                    Some((Queue::New, pulled.weight))
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
        let backlog = self.scheduler.backlog.front().map(|pulled| pulled.weight);
        // An item that was looked up must start even if the window is full. Later items with known outputs may have settled
        // and filled the window.
        let is_late = backlog.is_some() && self.scheduler.is_durable;
        self.scheduler.next_queue(backlog, self.scheduler.admitted(), &|| is_late || self.admits_new_items())
    }

    /// Makes `held` fit for an attempt. Returns `false` if the permits are not available now. A weight that can never be
    /// satisfied stops the run.
    #[inline(always)]
    fn take(&mut self, held: &mut HeldPermits, weight: u32) -> bool {
        if self.scheduler.permits.is_reusable(held, weight) {
            return true;
        }
        match self.scheduler.permits.take(held, weight, &self.scheduler.driver) {
            Ok(taken) => taken,
            Err(error) => {
                self.scheduler.stop(Stop::Failed(FailureReason::Config(error)));
                false
            }
        }
    }

    /// Returns the attempt that starts next in a worker that asks for one.
    pub(super) fn next_item(&mut self, control: &mut AttemptControl) -> Option<Start> {
        if self.scheduler.is_paused() || !self.has_room_for_outcomes() {
            self.scheduler.take_back_assigned();
            return None;
        }
        if let Some(Assignment { held, start }) = self.scheduler.pop_assigned() {
            let former = mem::replace(&mut control.held, held);
            self.scheduler.permits.abandon(former);
            return Some(start);
        }
        // Its permits have paid the debt of a lowered limit.
        if control.held.own_permits() == 0 && self.scheduler.permits.is_full() {
            return None;
        }
        // Only a worker in parallel gets here without the checks of the driver's poll.
        if self.scheduler.is_parallel() && self.scheduler.may_be_late() {
            let now = self.scheduler.clock.read();
            self.fail_given_up(now);
        }
        self.next_start(&mut control.held)
    }

    /// Returns `true` if so few items are held that another may be admitted. Held items are those that wait for a retry and,
    /// in the order of the input, settled items with outcomes that were not taken. If they fill the window, the driver is
    /// woken when an outcome is taken.
    pub(super) fn admits_new_items(&self) -> bool {
        let is_within = |window| self.items.is_within_window(window, &self.scheduler.driver);
        self.scheduler.window().is_some_and(is_within)
    }

    /// Returns `true` if so few outcomes wait to be taken that an attempt may start. If not, the driver is woken when one is
    /// taken. In the order of the input it is always `true`, because the next outcome may need a retry.
    fn has_room_for_outcomes(&self) -> bool {
        self.items.has_room(self.scheduler.item_capacity(), &self.scheduler.driver)
    }

    /// Pulls the next item that is to run.
    pub(super) fn pull(&mut self) -> Option<Pulled> {
        match self.items.durable() {
            Some(items) => items.pull_unknown(&mut self.scheduler),
            None => self.items.pull(&mut self.scheduler),
        }
    }

    /// Makes the driver assign work to other workers, if an attempt can start and nothing else wakes the driver. Returns
    /// `true` if the driver is woken for that.
    pub(super) fn notify_driver_for_others(&mut self) -> bool {
        if !self.scheduler.is_parallel() {
            return false;
        }
        if self.scheduler.keys.as_ref().is_some_and(|keys| keys.has_new_requests()) {
            return self.scheduler.notify_driver();
        }
        if self.scheduler.is_paused() {
            // The last running attempt may have ended.
            return self.scheduler.running() == 0 && self.scheduler.notify_driver();
        }
        // If the run waits for the shared limit, that limit wakes the driver.
        if self.scheduler.permits.is_in_queue()
            || self.scheduler.permits.is_full()
            || self.scheduler.stop.is_some()
        {
            return false;
        }
        let has_room = |weight| self.scheduler.permits.has_room(weight);
        let can_serve =
            self.scheduler.keys.as_ref().is_some_and(|keys| keys.can_serve_lines()) && has_room(1);
        let can_start = can_serve || self.head().is_some_and(|(_, weight)| has_room(weight.unwrap_or(1)));
        can_start && self.scheduler.notify_driver()
    }

    /// Returns `true` if this poll of the driver may start another attempt, or poll another worker.
    pub(super) fn may_start(&mut self) -> bool {
        let parallel = self.scheduler.is_parallel();
        self.scheduler.may_start(parallel) || (!parallel && self.renew_budget())
    }

    /// Counts the poll of a worker with a pending attempt. Returns `true` if this poll of the driver may poll another
    /// worker. If the run is stopping, every worker is polled.
    pub(super) fn may_poll_worker(&mut self) -> bool {
        let is_left = self.may_start();
        if is_left {
            self.scheduler.budget.spend();
        }
        is_left || self.scheduler.stop.is_some()
    }

    #[cold]
    fn renew_budget(&mut self) -> bool {
        self.publish();
        self.scheduler.renew_budget()
    }

    /// Reports the progress of the run and flushes the outcomes. Called at the end of the driver's poll, and in between when
    /// the driver reads the clock.
    pub(super) fn publish(&mut self) {
        self.scheduler.report();
        self.scheduler.wake_taker_later(self.items.flush());
    }

    /// Returns the permits of keys for attempts that cannot start now.
    pub(super) fn return_unused_keys(&mut self) {
        let has_room = self.has_room_for_outcomes();
        self.scheduler.return_unused_keys(has_room);
    }

    /// Begins a poll of the driver: checks the time, the caller's token and the signals. Returns `true` if these, or an
    /// earlier cause, have stopped the run.
    pub(super) fn begin_poll(&mut self) -> bool {
        self.scheduler.begin_poll();
        self.scheduler.apply_signals();
        if self.scheduler.permits.is_adaptive() {
            self.scheduler.emit_limit_changes(self.items.observer());
        }
        if self.scheduler.run_deadline.is_none() && !self.scheduler.has_retries() {
            return self.scheduler.stop.is_some();
        }
        let now = self.scheduler.clock.coarse();
        if let Some(limit) = self.scheduler.passed_limit(now) {
            self.scheduler.halt(FailureReason::TimedOut { limit });
        }
        let stopped = self.scheduler.stop.is_some();
        self.scheduler.retries.release(now);
        if self.scheduler.has_retries() {
            self.fail_given_up(now);
        }
        if self.scheduler.retries.has_refused() {
            self.scheduler.grant_retries(now);
        }
        stopped
    }

    /// Fails the items that have exceeded their time limits while they waited for the start of a retry.
    fn fail_given_up(&mut self, now: Instant) {
        while let Some(GivenUp { slot, is_refused }) = self.scheduler.retries.pop_given_up(now) {
            self.scheduler.tally.retries_refused += usize::from(is_refused);
            let (kind, why) = if is_refused {
                (NotRetried::RetryBudget, "the retry budget was spent until the item's time limit had passed")
            } else {
                (NotRetried::TimeLimit, "no permit was free before the item's time limit had passed")
            };
            self.items.fail_late(&mut self.scheduler, slot, Refusal::new(kind, why));
        }
        while let Some(slot) = self.scheduler.pop_keyed_given_up(now) {
            let why = "no permit of its key was free before the item's time limit had passed";
            self.items.fail_late(&mut self.scheduler, slot, Refusal::new(NotRetried::TimeLimit, why));
        }
    }
}

impl Scheduler {
    /// Takes the attempt that starts next out of its queue.
    #[inline(always)]
    fn pop(&mut self, queue: Queue) -> Option<Next> {
        let admitted = self.admitted();
        match queue {
            Queue::Part => self.retries.pop_part().map(Next::Retry),
            Queue::Due => self.retries.pop_due().map(Next::Retry),
            Queue::Immediate => self.retries.pop_immediate(admitted).map(Next::Retry),
            Queue::New => self.backlog.pop_front().map(Next::New),
        }
    }

    /// Records why the source has not given an item.
    #[cold]
    pub(super) fn count_no_item(&mut self, polled: Poll<Option<BoxError>>) {
        match polled {
            Poll::Ready(Some(error)) => {
                self.source_state = SourceState::Ended;
                self.stop(Stop::Failed(FailureReason::Source(error)));
            }
            Poll::Ready(None) => self.source_state = SourceState::Ended,
            Poll::Pending => self.source_state = SourceState::Stalled,
        }
    }

    /// Wakes the task that waits for an outcome, once the state is unlocked.
    #[inline]
    pub(super) fn wake_taker_later(&mut self, taker: Option<Waker>) {
        if taker.is_some() {
            self.wakes_taker = taker;
        }
    }
}
