//! The state of a limiter: the requests that wait, the grants, and the time of the next one.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::adaptive::Adaptive;
use super::hold::Hold;
use super::numbered::Numbered;
use super::rate::Rate;
use super::request::{JointRequest, Request, Task};
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
    /// How many of these need permits of other limiters as well.
    joint: usize,
    /// The requests that were granted permits and have not taken them.
    pub(super) granted: BTreeSet<u64>,
    /// How many requests have left the queue without permits.
    pub(super) given_up: u64,
    /// The time from which `rate` and `hold` count.
    origin: Instant,
    rate: Option<Rate>,
    hold: Option<Hold>,
    pub(super) max_hold: Duration,
    /// The rule that sets `permits`, if there is one.
    pub(super) adaptive: Option<Box<Adaptive>>,
    /// How many attempts may start in the tenth of its length after a hold, if that is not the number of permits.
    pub(super) starts_after_hold: Option<usize>,
    /// The time of the last grant that was waited for.
    last_waited: Option<Duration>,
    /// The number of the head of the queue, and the time at which it is due, if its task knows that time.
    told: Option<(u64, Duration)>,
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
            joint: 0,
            granted: BTreeSet::new(),
            given_up: 0,
            origin: Instant::now(),
            rate: None,
            hold: None,
            max_hold: super::MAX_HOLD,
            adaptive: None,
            starts_after_hold: None,
            last_waited: None,
            told: None,
        }
    }

    /// Returns the state of a new limiter with the same settings, if this one was never used.
    pub(super) fn new_like_this(&self) -> Self {
        Self {
            max_hold: self.max_hold,
            rate: self.rate.clone(),
            starts_after_hold: self.starts_after_hold,
            ..Self::new(self.permits, self.created)
        }
    }

    /// Returns the time from which the rate and the hold are as in a new limiter. `None` if it has neither.
    pub(super) fn recovered_at(&self) -> Option<Instant> {
        let rate = self.rate.as_ref().map(Rate::recovered_at);
        let hold = self.hold.as_ref().map(Hold::over_at);
        rate.max(hold).map(|time| self.origin + time)
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

    /// Dates the last grant, which has waited for something else, at the start of its attempt.
    pub(super) fn date_start(&mut self) {
        let now = self.now();
        if let Some(rate) = &mut self.rate {
            rate.redate(now);
        }
    }

    /// Returns `true` if a hold is active.
    pub(super) fn is_held(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.end() > self.read_clock())
    }

    pub(super) fn read_clock(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    /// Returns the time, if a grant depends on it. All decisions under one lock use one reading: a request that was not due yet
    /// could otherwise count as due a moment later, and nobody would wait for its time.
    pub(super) fn now(&self) -> Duration {
        if self.is_timed() { self.read_clock() } else { Duration::ZERO }
    }

    /// Returns the time of one reading of the clock, for decisions under the locks of several limiters.
    pub(super) fn time_at(&self, reading: Instant) -> Duration {
        reading.saturating_duration_since(self.origin)
    }

    /// Returns the earliest time of a grant of this weight, apart from the permits.
    fn due(&self, weight: u32) -> Duration {
        let rate = self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.due(weight));
        rate.max(self.hold_due())
    }

    fn hold_due(&self) -> Duration {
        let starts = self.starts_after_hold.unwrap_or(self.permits);
        self.hold.as_ref().map_or(Duration::ZERO, |hold| hold.due(starts))
    }

    /// Returns the earliest time of a grant of one permit, if it is in the future.
    pub(super) fn next_grant(&self) -> Option<Instant> {
        let due = self.due(1);
        (due > self.now()).then(|| self.origin + due)
    }

    /// Returns `true` if there are enough permits now. A weight above the limit needs all permits to be free.
    pub(super) fn fits(&self, weight: u32) -> bool {
        self.fits_beside(self.in_use, weight)
    }

    fn fits_beside(&self, in_use: usize, weight: u32) -> bool {
        let is_free = in_use == 0 || in_use.saturating_add(weight as usize) <= self.permits;
        self.permits > 0 && is_free
    }

    /// Returns `true` if the rate and a hold allow a start of this weight now.
    pub(super) fn is_due(&self, weight: u32, now: Duration) -> bool {
        self.rate.as_ref().is_none_or(|rate| rate.is_due(weight, now))
            && (self.hold.is_none() || self.hold_due() <= now)
    }

    /// Returns `true` if grants depend on the time.
    fn is_timed(&self) -> bool {
        self.rate.is_some() || self.hold.is_some()
    }

    /// Returns `true` if a request of this weight could be granted now, apart from the queue.
    fn is_free(&self, weight: u32, now: Duration) -> bool {
        self.fits(weight) && self.is_due(weight, now)
    }

    /// Returns `true` if the requests behind this one do not wait for it: only other limiters keep it waiting.
    fn is_passed(&self, request: &Request, now: Duration) -> bool {
        request.waits_for_others && self.is_free(request.weight, now)
    }

    /// Returns the first request that those behind it wait for.
    pub(super) fn head(&self, now: Duration) -> Option<(u64, &Request)> {
        self.waiting.iter().find(|(_, request)| !self.is_passed(request, now))
    }

    /// Returns `true` if a new request could be granted at once.
    pub(super) fn can_take_at_once(&self, weight: u32, now: Duration) -> bool {
        (self.waiting.is_empty() || self.head(now).is_none()) && self.is_free(weight, now)
    }

    /// Takes permits that can be taken at once.
    pub(super) fn take_at_once(&mut self, weight: u32, now: Duration) {
        if !self.is_timed() {
            self.in_use += weight as usize;
            return;
        }
        // A limiter that was idle dates from now. One that has just granted what was due continues from there.
        let is_busy = self.last_waited.is_some_and(|last| now.saturating_sub(last) <= LATEST);
        self.count(weight, now, is_busy);
    }

    /// Returns `true` if permits of an attempt that has ended may be those of a new one: no request waits, and they could be
    /// granted at once after they were returned.
    pub(super) fn can_renew(&self, weight: u32, now: Duration) -> bool {
        let others = self.in_use - weight as usize;
        self.waiting.is_empty() && self.fits_beside(others, weight) && self.is_due(weight, now)
    }

    /// Returns permits of an attempt that has ended, and takes them for a new one.
    pub(super) fn renew(&mut self, weight: u32, now: Duration) {
        self.release(weight, false);
        self.take_at_once(weight, now);
    }

    /// Returns `true` if a request that waits could be granted now: it is its turn, and there are enough permits.
    pub(super) fn can_grant(&self, number: u64, now: Duration) -> bool {
        let mut until_it = self
            .waiting
            .iter()
            .skip_while(|(before, request)| *before < number && self.is_passed(request, now));
        until_it.next().is_some_and(|(next, request)| next == number && self.is_free(request.weight, now))
    }

    /// Adds a request at the end of the queue. Its number is at least [`next_number`](Self::next_number).
    pub(super) fn join(&mut self, number: u64, request: Request) {
        self.next_number = number + 1;
        self.joint += usize::from(request.joint.is_some());
        self.waiting.push(number, request);
    }

    /// Returns the lowest number of the next request that joins the queue.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    fn remove(&mut self, number: u64) -> Option<Request> {
        let request = self.waiting.remove(number)?;
        self.joint -= usize::from(request.joint.is_some());
        Some(request)
    }

    /// Counts a grant at this time. One that was due before is dated then.
    fn count(&mut self, weight: u32, now: Duration, was_due: bool) {
        self.in_use += weight as usize;
        let at = if was_due { self.due(weight).max(now.saturating_sub(LATEST)) } else { now };
        if let Some(rate) = &mut self.rate {
            rate.take(weight, at);
        }
        match &mut self.hold {
            Some(hold) if hold.is_over(now) => self.hold = None,
            Some(hold) => hold.take(),
            None => {}
        }
    }

    /// Grants the head of the queue its permits, if there are enough. If it waits for a time, its task is woken, unless it knows
    /// that time.
    pub(super) fn next_task(&mut self, now: Duration) -> Option<Task> {
        let (number, request) = self.head(now)?;
        if !self.is_free(request.weight, now) {
            return self.untold(now).map(Task::Wake);
        }
        match &request.joint {
            Some(joint) => Some(Task::Try(Arc::clone(joint))),
            None => self.grant(number, now).map(|request| Task::Wake(request.waker)),
        }
    }

    /// Returns the requests at the head of the queue that this limiter could grant and that need other limiters as well.
    pub(super) fn joint_heads(&self, now: Duration) -> Vec<Arc<dyn JointRequest>> {
        let heads = self
            .waiting
            .iter()
            .map_while(|(_, request)| request.joint.clone().filter(|_| self.is_free(request.weight, now)));
        heads.collect()
    }

    /// Grants a request its permits.
    pub(super) fn grant(&mut self, number: u64, now: Duration) -> Option<Request> {
        let request = self.remove(number)?;
        self.count(request.weight, now, true);
        self.last_waited = Some(now);
        self.granted.insert(number);
        Some(request)
    }

    /// Notes if only other limiters keep a request waiting. Returns `true` if the requests behind it do not wait for it from now
    /// on.
    pub(super) fn set_waits_for_others(&mut self, number: u64, waits: bool) -> bool {
        let Some(request) = self.waiting.get_mut(number) else { return false };
        let waited = mem::replace(&mut request.waits_for_others, waits);
        waits && !waited
    }

    /// Returns the waker of the head of the queue, if its task does not know when it is due. It learns that when it asks again.
    pub(super) fn untold(&mut self, now: Duration) -> Option<Waker> {
        let (number, due) = self.head_due(now)?;
        if self.told.replace((number, due)) == Some((number, due)) {
            return None;
        }
        let request = self.waiting.get_mut(number)?;
        Some(mem::replace(&mut request.waker, Waker::noop().clone()))
    }

    /// Returns the head of the queue and the time at which it is due, if that is in the future.
    fn head_due(&self, now: Duration) -> Option<(u64, Duration)> {
        let (number, request) = self.head(now)?;
        Some((number, self.due(request.weight))).filter(|(_, due)| *due > now)
    }

    /// Tells the task of a request when it must ask again, if that is the head of the queue. Returns `true` if another request
    /// is the head, and nobody has served it: a request that it waited for waits only for other limiters now.
    pub(super) fn tell(&mut self, number: u64, now: Duration) -> bool {
        let due = self.head_due(now);
        let head = self.head(now).map(|(head, request)| (head, self.is_free(request.weight, now)));
        if head.is_some_and(|(head, _)| head == number) {
            self.told = due;
            return false;
        }
        // The time that it was told has passed.
        self.told = self.told.filter(|(told, _)| *told != number);
        let is_free = head.is_some_and(|(_, is_free)| is_free);
        self.joint > 0 && (is_free || (due.is_some() && due != self.told))
    }

    /// Returns the time at which the task of a request must ask again. `None` if it is woken, or is not the head.
    pub(super) fn told(&self, number: u64) -> Option<Instant> {
        let (_, due) = self.told.filter(|(told, _)| *told == number)?;
        Some(self.origin + due)
    }

    /// Takes permits that were granted.
    pub(super) fn take_granted(&mut self, number: u64) -> bool {
        self.granted.remove(&number)
    }

    /// Returns permits. Those with which nothing has begun were no start.
    pub(super) fn release(&mut self, weight: u32, is_unused: bool) {
        self.in_use -= weight as usize;
        if is_unused {
            if let Some(rate) = &mut self.rate {
                rate.untake(weight);
            }
            if let Some(hold) = &mut self.hold {
                hold.untake();
            }
        }
    }

    /// Removes a request, and returns permits that were granted to it. What leaves has consumed nothing.
    pub(super) fn leave(&mut self, number: u64, weight: u32) -> Option<Request> {
        if self.take_granted(number) {
            self.release(weight, true);
        }
        let request = self.remove(number);
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
