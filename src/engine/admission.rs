//! Which attempt begins next, and where.

use std::task::{Context, Poll, Waker};

use super::attempt::Watch;
use super::collector::Collector;
use super::core::{Core, Seat, SourceState, Stop};
use super::gate::Place;
use super::hooks::Hooks;
use super::job::{Desk, Job, Pulled, Retry};
use super::source::Source;
use super::{Mode, Work, trace};
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
        let may_have_ended =
            self.total == Some(self.pulled) || (!self.is_paused() && self.admits_new_items());
        if self.running == 0 && may_have_ended && self.handed.is_empty() && self.waiting.is_empty() {
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
        if !self.admits_new_items() {
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

    fn take_anew(&mut self, place: &mut Place, weight: u32) -> bool {
        match self.gate.take(place, weight, &self.driver) {
            Ok(taken) => taken,
            Err(error) => {
                self.stop(Stop::Failed(FailureReason::Config(error)));
                false
            }
        }
    }

    /// The item that starts next: one that is ready for its retry before one that is new.
    pub(super) fn next_item(&mut self, desk: &mut Desk<'_, W>) -> Option<W::Item> {
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
        if !self.admits_new_items() {
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
        let span = trace::item_span(index);
        *desk.job = Some(Job { index, attempt: 1, weight, kept: None, started: None, span });
        self.collector.start();
        Some(item)
    }

    #[cold]
    fn next_retry(&mut self, desk: &mut Desk<'_, W>) -> Option<W::Item> {
        let weight = self.waiting.peek_due(0)?.job.weight;
        if !self.take(desk.place, weight) {
            return None;
        }
        let Retry { mut job, item, .. } = self.waiting.pop_due()?;
        job.attempt = job.attempt.saturating_add(1);
        *desk.job = Some(job);
        Some(item)
    }

    /// Notes that an attempt begins, and when, where a limit or somebody else needs to know.
    #[inline]
    pub(super) fn begin_attempt(&mut self, desk: &mut Desk<'_, W>) {
        let Some(job) = desk.job else { return };
        self.running += 1;
        if job.attempt == 1 {
            self.tally.started += 1;
            if let Some(observer) = self.hooks.observer() {
                observer.on_event(&Event::ItemStarted { index: job.index });
            }
        } else {
            self.tally.retries += 1;
        }
        *desk.watch = Watch::Unlimited;
        // A lane that runs by itself looks at the clock by itself.
        if W::Mode::SPAWNED {
            return;
        }
        self.starts_left -= 1;
        if self.timed {
            let now = self.clock.read();
            job.started.get_or_insert(now);
        }
        if self.config.first_limit.is_some() {
            let now = self.clock.coarse();
            job.started.get_or_insert(now);
            *desk.watch = Watch::Begun(now);
        }
    }

    /// Whether no item will ever start again.
    pub(super) fn is_exhausted(&self) -> bool {
        self.source_state == SourceState::Ended && self.handed.is_empty() && self.waiting.is_empty()
    }

    /// Whether every item has settled.
    pub(super) fn is_finished(&self) -> bool {
        self.running == 0 && self.is_exhausted()
    }

    /// Whether so few items wait for their retry, and so few outcomes for somebody to take them, that another
    /// item may be started.
    fn admits_new_items(&self) -> bool {
        let capacity = self.gate.capacity();
        let has_room = match &self.collector {
            Collector::Results { .. } => true,
            Collector::Outbox(outbox) => outbox.has_room(capacity, &self.driver),
        };
        has_room && self.waiting.len() < capacity
    }

    fn pull(&mut self) -> Option<Pulled<W::Item>> {
        if self.source_state != SourceState::Open {
            return None;
        }
        match self.source.poll_pull(&mut Context::from_waker(&self.driver)) {
            Poll::Ready(Some(Ok(item))) => {
                let (index, weight) = (self.pulled, self.hooks.weight(&item));
                self.pulled += 1;
                if self.total.is_some_and(|total| total < self.pulled) {
                    self.total = None;
                }
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
            return self.running == 0 && self.call_driver();
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
