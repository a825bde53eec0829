//! The state of a limiter: the requests that wait, the grants, and the time of the next one.

use std::mem;
use std::task::Waker;
use std::time::Duration;

use super::hold::Hold;
use super::numbered::Numbered;
use super::rate::Rate;
use crate::error::ConfigError;
use crate::rt::Instant;

/// A grant that was waited for is dated at the time at which it was due, at most this long ago. Timers are late by a
/// millisecond or two, which would slow down a rate.
const LATEST: Duration = Duration::from_millis(10);

/// No code of the caller's runs while this is locked: a waker is cloned, woken and dropped after the lock is released.
pub(super) struct State {
    pub(super) permits: usize,
    /// The largest number of permits so far.
    pub(super) most: usize,
    /// How the limiter was created, if it has never had a permit.
    pub(super) created: &'static str,
    /// The permits of running attempts, and of grants that were not taken. It is above `permits` after these were lowered,
    /// and while a heavier attempt runs alone.
    pub(super) in_use: usize,
    /// The number of the next request that has to wait.
    next_number: u64,
    /// The requests that wait, in the order in which they were made.
    pub(super) waiting: Numbered<Request>,
    /// The requests that were granted permits and have not taken them, in the same order.
    pub(super) granted: Numbered<()>,
    /// How many requests have left the queue without permits.
    pub(super) given_up: u64,
    /// The time from which `rate` and `hold` count.
    origin: Instant,
    rate: Option<Rate>,
    hold: Option<Hold>,
    pub(super) max_hold: Duration,
    /// How many attempts may start in the tenth of its length after a hold, if that is not the number of permits.
    pub(super) starts_after_hold: Option<usize>,
    /// The time of the last grant that was waited for.
    last_waited: Option<Duration>,
    /// The number of the first request, and the time at which it is due, if its task knows that time.
    told: Option<(u64, Duration)>,
}

/// A request for permits that has to wait.
pub(super) struct Request {
    pub(super) weight: u32,
    pub(super) waker: Waker,
}

impl State {
    pub(super) fn new(permits: usize, created: &'static str) -> Self {
        Self {
            permits,
            most: permits,
            created,
            in_use: 0,
            next_number: 0,
            waiting: Numbered::new(),
            granted: Numbered::new(),
            given_up: 0,
            origin: Instant::now(),
            rate: None,
            hold: None,
            max_hold: super::MAX_HOLD,
            starts_after_hold: None,
            last_waited: None,
            told: None,
        }
    }

    /// Sets the rate. Starts that the rate before it has counted are still counted.
    pub(super) fn set_rate(&mut self, rate: Rate) {
        let now = self.read_clock();
        let changed = match &self.rate {
            Some(before) => before.changed(rate, now),
            None => rate,
        };
        self.rate = Some(changed);
    }

    /// Returns how many attempts may start at once after a pause.
    pub(super) fn burst(&self) -> u32 {
        self.rate.as_ref().map_or(1, Rate::burst)
    }

    /// Begins or extends a hold. Returns its length if nothing was held before.
    pub(super) fn hold_back(&mut self, length: Duration) -> Option<Duration> {
        let now = self.read_clock();
        let length = length.min(self.max_hold);
        let before = self.hold.as_ref().map(Hold::end).filter(|end| *end > now);
        let hold = Hold::new(now, length);
        if before.is_none_or(|before| before < hold.end()) {
            if let Some(rate) = &mut self.rate {
                rate.forbid_burst(hold.end());
            }
            self.hold = Some(hold);
        }
        if before.is_none() { Some(length) } else { None }
    }

    fn read_clock(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    /// Returns the time, if a grant depends on it. All decisions under one lock use one reading: a request that was not due yet
    /// could otherwise count as due a moment later, and nobody would wait for its time.
    pub(super) fn now(&self) -> Duration {
        if self.rate.is_none() && self.hold.is_none() { Duration::ZERO } else { self.read_clock() }
    }

    /// Returns the earliest time of a grant of this weight, apart from the permits.
    fn due(&self, weight: u32) -> Duration {
        let rate = self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.due(weight));
        let starts = self.starts_after_hold.unwrap_or(self.permits);
        let hold = self.hold.as_ref().map_or(Duration::ZERO, |hold| hold.due(starts));
        rate.max(hold)
    }

    /// Returns the earliest time of a grant of one permit, if it is in the future.
    pub(super) fn next_grant(&self) -> Option<Instant> {
        let due = self.due(1);
        (due > self.now()).then(|| self.origin + due)
    }

    /// Returns `true` if there are enough permits now. A weight above the limit needs all permits to be free.
    fn fits(&self, weight: u32) -> bool {
        let is_free = self.in_use == 0 || self.in_use.saturating_add(weight as usize) <= self.permits;
        self.permits > 0 && is_free
    }

    /// Takes permits at once, if no other request waits.
    pub(super) fn take_at_once(&mut self, weight: u32, now: Duration) -> bool {
        let can_take = self.waiting.is_empty() && self.fits(weight) && self.due(weight) <= now;
        if can_take {
            // A limiter that was idle dates from now. One that has just granted what was due continues from there.
            let is_busy = self.last_waited.is_some_and(|last| now.saturating_sub(last) <= LATEST);
            self.count(weight, now, is_busy);
        }
        can_take
    }

    pub(super) fn join(&mut self, request: Request) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.push(number, request);
        number
    }

    /// Counts a grant at this time. One that was due before is dated then.
    fn count(&mut self, weight: u32, now: Duration, was_due: bool) {
        self.in_use += weight as usize;
        let due = self.due(weight);
        if let Some(rate) = &mut self.rate {
            rate.take(weight, if was_due { due.max(now.saturating_sub(LATEST)) } else { now });
        }
        match &mut self.hold {
            Some(hold) if hold.is_over(now) => self.hold = None,
            Some(hold) => hold.take(),
            None => {}
        }
    }

    /// Grants the first request its permits, if there are enough. Returns its waker.
    pub(super) fn grant_next(&mut self, now: Duration) -> Option<Waker> {
        let weight = self.waiting.first()?.weight;
        if !self.fits(weight) || self.due(weight) > now {
            return None;
        }
        let (number, request) = self.waiting.remove_first()?;
        self.count(weight, now, true);
        self.last_waited = Some(now);
        self.granted.push(number, ());
        Some(request.waker)
    }

    /// Returns the waker of the first request, if its task does not know when it is due. It learns that when it asks again.
    pub(super) fn untold(&mut self, now: Duration) -> Option<Waker> {
        let number = self.waiting.first_number()?;
        let due = self.due_after(now, number)?;
        if self.told.replace((number, due)) == Some((number, due)) {
            return None;
        }
        let request = self.waiting.get_mut(number)?;
        Some(mem::replace(&mut request.waker, Waker::noop().clone()))
    }

    fn due_after(&mut self, now: Duration, number: u64) -> Option<Duration> {
        let weight = self.waiting.get_mut(number)?.weight;
        Some(self.due(weight)).filter(|due| *due > now)
    }

    /// Tells the task of a request that is the first when it must ask again.
    pub(super) fn tell(&mut self, number: u64, now: Duration) {
        if self.waiting.first_number() == Some(number) {
            self.told = self.due_after(now, number).map(|due| (number, due));
        }
    }

    /// Returns the time at which the task of a request must ask again. `None` if it is woken, or is not the first.
    pub(super) fn told(&self, number: u64) -> Option<Instant> {
        let (_, due) = self.told.filter(|(told, _)| *told == number)?;
        Some(self.origin + due)
    }

    /// Takes permits that were granted.
    pub(super) fn take_granted(&mut self, number: u64) -> bool {
        self.granted.remove(number).is_some()
    }

    /// Removes a request, and returns permits that were granted to it. What leaves has consumed nothing.
    pub(super) fn leave(&mut self, number: u64, weight: u32) -> Option<Request> {
        if self.take_granted(number) {
            self.in_use -= weight as usize;
            if let Some(rate) = &mut self.rate {
                rate.untake(weight);
            }
            if let Some(hold) = &mut self.hold {
                hold.untake();
            }
        }
        let request = self.waiting.remove(number);
        self.given_up += u64::from(request.is_some());
        request
    }

    /// Returns an error if no attempt of this weight can ever start.
    pub(super) fn check(&self, weight: u32) -> Result<(), ConfigError> {
        if self.most == 0 {
            // The caller need not have weights, so the error does not name them.
            return Err(ConfigError::new("limiter", self.created, "created with at least 1 permit"));
        }
        if weight as usize > self.most {
            let allowed =
                format!("at most {}, the largest number of permits that the limiter has had", self.most);
            return Err(ConfigError::new("weight", weight, allowed));
        }
        Ok(())
    }
}
