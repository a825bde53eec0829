//! Which attempt begins next, and where.

use std::task::{Context, Poll, Waker};

use super::attempt::Watch;
use super::call::Call;
use super::core::{Core, Seat, SourceState, Stop, Tally};
use super::desk::DeskProjection;
use super::gate::Place;
use super::hooks::Hooks;
use super::job::{Pulled, Retry};
use super::source::Source;
use super::{Mode, Work};
use crate::error::FailureReason;
use crate::observe::Event;

/// What the driver does next.
pub(super) enum Admission {
    /// It wakes this resting lane, which has work now.
    Wake(Waker),
    /// It opens a new lane, which has work at once.
    Open { seat: usize, place: Place },
    /// It yields: this poll has begun enough attempts.
    Yield,
    /// It waits.
    Wait,
    /// It looks at the cause that has just stopped the run.
    Stop,
    /// It ends: every item has settled.
    Finish,
}

impl<W: Work> Core<W> {
    /// Finds a place for the next item that may start, or says why there is none.
    pub(super) fn admit(&mut self) -> Admission {
        if self.is_finished() {
            return Admission::Finish;
        }
        if self.gate.is_full() || self.is_paused() {
            self.gate.leave_queue();
            self.look_for_the_end();
            return match self.stop {
                Some(_) => Admission::Stop,
                None if self.is_finished() => Admission::Finish,
                None => Admission::Wait,
            };
        }
        if self.starts_left == 0 {
            return Admission::Yield;
        }
        let Some(weight) = self.next_weight() else {
            // Whoever has nothing to start does not keep others from it.
            self.gate.leave_queue();
            // The end of the source may have been the end of the run.
            return match self.stop {
                Some(_) => Admission::Stop,
                None if self.is_finished() => Admission::Finish,
                None => Admission::Wait,
            };
        };
        let mut place = Place::default();
        if !self.take(&mut place, weight) {
            return if self.stop.is_some() { Admission::Stop } else { Admission::Wait };
        }
        if W::Mode::SPAWNED {
            self.starts_left -= 1;
        }
        self.called += 1;
        if let Some(seat) = self.resting.pop().and_then(|seat| self.seats.get_mut(seat)) {
            (seat.resting, seat.called, seat.place) = (false, true, Some(place));
            return seat.waker.clone().map_or(Admission::Wait, Admission::Wake);
        }
        self.seats.push(Seat { called: true, ..Seat::default() });
        Admission::Open { seat: self.seats.len() - 1, place }
    }

    /// Asks the source for its end, where nothing may start: all that was pulled may have settled, and whoever takes
    /// the places may be blocking functions whose items have settled long ago.
    fn look_for_the_end(&mut self) {
        let nothing_is_left = self.running() == 0 && self.handed.is_empty() && self.waiting.is_empty();
        let may_ask = self.total() == Some(self.pulled) || !self.is_paused();
        if nothing_is_left && may_ask && self.admits_new_items() {
            if let Some(pulled) = self.pull() {
                self.handed.push_back(pulled);
            }
        }
    }

    /// The weight of the first item that may start and that no lane was called for. Pulls one, if it must.
    fn next_weight(&mut self) -> Option<u32> {
        let due = self.waiting.count_due();
        if let Some(retry) = self.waiting.peek_due(self.called) {
            return Some(retry.job.weight);
        }
        if !self.admits_the_next_item() {
            return None;
        }
        let spoken_for = self.called.saturating_sub(due);
        if self.handed.len() <= spoken_for {
            self.heed_orders();
            if self.stop.is_none() {
                let pulled = self.pull()?;
                self.handed.push_back(pulled);
            }
            if self.stop.is_some() {
                return None;
            }
        }
        self.handed.get(spoken_for).or(self.handed.back()).map(|pulled| pulled.weight)
    }

    /// Makes a place fit for an attempt, if it can be had now. A weight for which it never can stops the run.
    #[inline]
    fn take(&mut self, place: &mut Place, weight: u32) -> bool {
        self.gate.is_handed_over(place, weight) || self.take_anew(place, weight)
    }

    #[cold]
    fn take_anew(&mut self, place: &mut Place, weight: u32) -> bool {
        match self.gate.take(place, weight, &self.driver) {
            Ok(taken) => taken,
            Err(error) => {
                self.stop(Stop::Failed(FailureReason::Config(error)));
                false
            }
        }
    }

    /// Whether a place that has become free may go to a new item, and nothing has happened or was asked for that
    /// [`next_item`](Self::next_item) would have to look at.
    #[inline(always)]
    pub(super) fn is_way_clear(&self) -> bool {
        self.bell.orders().is_none()
            && self.stop.is_none()
            && (self.starts_left > 0 || W::Mode::SPAWNED)
            && !self.waiting.has_due()
            && self.handed.is_empty()
            && self.gate.is_simple()
            && self.admits_new_items()
    }

    /// The item that starts next: one that is ready for its retry before one that is new.
    pub(super) fn next_item(&mut self, desk: &mut DeskProjection<'_, W>) -> Option<W::Item> {
        if self.is_paused() || (self.starts_left == 0 && !W::Mode::SPAWNED) {
            return None;
        }
        // It has paid with its place for a limit that was lowered.
        if desk.place.own_permits() == 0 && self.gate.is_full() {
            return None;
        }
        if self.waiting.has_due() {
            return self.next_retry(desk);
        }
        if !self.admits_the_next_item() {
            return None;
        }
        let pulled = match self.handed.pop_front() {
            Some(handed) => handed,
            None => self.pull()?,
        };
        if !self.take(desk.place, pulled.weight) {
            self.handed.push_front(pulled);
            return None;
        }
        let Pulled { index, item, weight } = pulled;
        desk.job.renew(index, weight);
        Some(item)
    }

    #[cold]
    fn next_retry(&mut self, desk: &mut DeskProjection<'_, W>) -> Option<W::Item> {
        let weight = self.waiting.peek_due(0)?.job.weight;
        if !self.take(desk.place, weight) {
            return None;
        }
        let Retry { mut job, item, .. } = self.waiting.pop_due()?;
        job.attempt = job.attempt.saturating_add(1);
        *desk.job = job;
        Some(item)
    }

    /// Notes that an attempt begins, and when, where a limit or somebody else needs to know. It may begin at once where
    /// another has just ended.
    #[inline(always)]
    pub(super) fn begin_attempt(&mut self, desk: &mut DeskProjection<'_, W>, is_at_once: bool) {
        let job = &mut *desk.job;
        if job.attempt > 1 {
            self.tally.retries += 1;
        } else if self.timed {
            self.tell_started(job.index);
        }
        *desk.watch = Watch::Unlimited;
        // A lane that runs by itself looks at the clock by itself.
        if W::Mode::SPAWNED {
            return;
        }
        self.starts_left -= 1;
        let is_limited = self.config.first_limit.is_some();
        let now = match (self.timed, is_limited) {
            // It is the time at which the item before has settled, unless an observer was told of it.
            (true, _) if is_at_once && self.hooks.observer().is_none() => self.clock.last(),
            (true, _) => self.clock.read(),
            (false, true) => self.clock.coarse(),
            (false, false) => return,
        };
        if job.attempt == 1 {
            job.started = Some(now);
        }
        if is_limited {
            *desk.watch = Watch::Begun(now);
        }
    }

    fn tell_started(&self, index: usize) {
        if let Some(observer) = self.hooks.observer() {
            observer.on_event(&Event::ItemStarted { index });
        }
    }

    /// How many items have begun: all that were pulled, but for those that are looked up, or wait for a lane or for
    /// permits.
    pub(super) fn started(&self) -> usize {
        self.pulled - self.handed.len() - if W::Call::KEEPS { self.keeping.pending() } else { 0 }
    }

    /// How many attempts are under way.
    pub(super) fn running(&self) -> usize {
        let Tally { retries, successes, failed_attempts, .. } = self.tally;
        self.started() + retries - successes - failed_attempts
    }

    /// The number of items, while the source keeps what its exact size hint has promised.
    pub(super) fn total(&self) -> Option<usize> {
        self.promised.filter(|promised| *promised >= self.pulled)
    }

    /// Whether no item will ever start again.
    pub(super) fn is_exhausted(&self) -> bool {
        self.source_state == SourceState::Ended
            && self.handed.is_empty()
            && self.waiting.is_empty()
            && (!W::Call::KEEPS || self.keeping.pending() == 0)
    }

    /// Whether every item has settled.
    pub(super) fn is_finished(&self) -> bool {
        self.running() == 0 && self.is_exhausted()
    }

    /// Whether so few items wait for their retry, and so few outcomes for somebody to take them, that another
    /// item may be started.
    pub(super) fn admits_new_items(&self) -> bool {
        let capacity = self.gate.capacity();
        self.collector.has_room(capacity, &self.driver) && self.waiting.len() < capacity
    }

    /// Pulls the next item that is to run.
    #[inline]
    pub(super) fn pull(&mut self) -> Option<Pulled<W::Item>> {
        if W::Call::KEEPS { self.pull_unknown() } else { self.pull_any() }
    }

    /// Whether the item that is to start next may start. Where others that were pulled after it have settled before it
    /// did, because they were known, it must.
    fn admits_the_next_item(&self) -> bool {
        (W::Call::KEEPS && !self.handed.is_empty()) || self.admits_new_items()
    }

    #[inline]
    pub(super) fn pull_any(&mut self) -> Option<Pulled<W::Item>> {
        if self.source_state != SourceState::Open {
            return None;
        }
        match self.source.poll_pull(&mut Context::from_waker(&self.driver)) {
            Poll::Ready(Some(Ok(item))) => {
                let (index, weight) = (self.pulled, self.hooks.weight(&item));
                self.pulled += 1;
                Some(Pulled { index, item, weight })
            }
            Poll::Ready(Some(Err(error))) => {
                self.source_state = SourceState::Ended;
                self.stop(Stop::Failed(FailureReason::Source(error)));
                None
            }
            Poll::Ready(None) => {
                self.source_state = SourceState::Ended;
                None
            }
            Poll::Pending => {
                self.source_state = SourceState::Stalled;
                None
            }
        }
    }

    /// Has the driver call other lanes, where these could work and none comes for it of its own accord. Says whether
    /// it was woken for that.
    pub(super) fn call_driver_for_others(&mut self) -> bool {
        if !W::Mode::SPAWNED {
            return false;
        }
        if self.is_paused() {
            // It may have been the last.
            return self.running() == 0 && self.call_driver();
        }
        if self.gate.is_in_queue() {
            // The shared limit wakes the driver. But a lane may have asked for an item that another was called for,
            // and then nobody needs what was asked for.
            return self.called > 0 && self.call_driver();
        }
        if self.gate.is_full() {
            return false;
        }
        let handed = self.handed.front().map(|pulled| pulled.weight);
        let weight = self.waiting.peek_due(0).map(|retry| retry.job.weight).or(handed).unwrap_or(1);
        if !self.gate.has_room(weight) || self.stop.is_some() {
            return false;
        }
        let is_new = handed.is_some() || self.source_state == SourceState::Open;
        let is_work = self.waiting.has_due() || (is_new && self.admits_new_items());
        is_work && self.call_driver()
    }
}
