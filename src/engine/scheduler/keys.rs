//! Attempts that need a permit of the limiter of their item's key. An attempt gets it before the permits of the run, and of the
//! limiters of the task.
//!
//! The attempts of a key form a line: retries first, then new items in the order of the input. A line that cannot get its
//! permit at once requests it, and the driver awaits the request. A permit that was granted is used at once or returned: the
//! run holds at most one for an attempt that cannot start yet.

use std::collections::{HashMap, VecDeque};
use std::mem;

use super::clock::earliest;
use super::key_request::{KeyGrant, KeyRequest, Room};
use super::later::Later;
use super::{Next, Scheduler};
use crate::error::ConfigError;
use crate::limiter::{LimiterSet, Permit};
use crate::rt::Instant;

/// The attempts that need a permit of their key.
#[derive(Default)]
pub(in super::super) struct Keys {
    /// The attempts of each key that wait, without the one in `ready`. No line is empty.
    lines: HashMap<LimiterSet, VecDeque<Next>>,
    /// Permits that were granted to lines in this poll of the driver.
    granted: VecDeque<Permit>,
    /// The lines without a request.
    idle: VecDeque<LimiterSet>,
    /// The attempt that starts next. It has the permit of its key.
    ready: Option<Ready>,
    /// The attempts with new keys for which a keyed limiter has no room, in their order.
    outside: VecDeque<Next>,
    /// `true` if the first of these waits for a request.
    awaits_room: bool,
    /// Requests that the driver does not await yet.
    new_requests: Vec<KeyRequest>,
    /// `true` if the driver is to drop its requests.
    drops_requests: bool,
    /// The earliest `give_up` of the attempts that wait, or an earlier time.
    next_give_up: Option<Instant>,
}

/// An attempt with the permit of its key.
struct Ready {
    next: Next,
    permit: Permit,
    /// `true` if it has waited for the permits of the run or of the limiters since.
    has_waited: bool,
}

impl Keys {
    /// Returns the attempt that starts next.
    pub(in super::super) fn ready(&self) -> Option<&Next> {
        self.ready.as_ref().map(|ready| &ready.next)
    }

    /// Takes what a request was granted.
    ///
    /// # Errors
    ///
    /// Returns an error if the limiter of a key never grants a permit.
    pub(in super::super) fn grant(&mut self, grant: KeyGrant) -> Result<(), ConfigError> {
        match grant {
            KeyGrant::Permit(permit) => self.granted.push_back(permit?),
            KeyGrant::Room => self.awaits_room = false,
        }
        Ok(())
    }

    /// Returns `true` if there are requests that the driver does not await yet, or is to drop.
    pub(in super::super) fn has_new_requests(&self) -> bool {
        self.drops_requests || !self.new_requests.is_empty()
    }

    /// Returns `true` if an attempt can become ready without a new item or a due retry.
    pub(in super::super) fn can_serve_lines(&self) -> bool {
        self.ready.is_some() || !self.granted.is_empty() || !self.idle.is_empty() || self.can_enter()
    }

    /// Returns `true` if no attempt waits.
    fn is_empty(&self) -> bool {
        self.ready.is_none() && self.lines.is_empty() && self.outside.is_empty() && self.granted.is_empty()
    }

    fn can_enter(&self) -> bool {
        !self.awaits_room && !self.outside.is_empty()
    }

    /// Takes the first attempt without a key in a keyed limiter, if that may have room now.
    pub(in super::super) fn pop_outside(&mut self) -> Option<Next> {
        if self.can_enter() { self.outside.pop_front() } else { None }
    }

    /// Lets an attempt wait until there is room for its key.
    pub(in super::super) fn wait_outside(&mut self, next: Next, room: Room) {
        if self.awaits_room {
            self.outside.push_back(next);
        } else {
            // It was the first of those that wait, or there are none.
            self.outside.push_front(next);
            self.awaits_room = true;
            self.new_requests.push(KeyRequest::Room(room));
        }
    }

    /// Returns `true` if attempts wait for room for their keys.
    pub(in super::super) fn has_outside(&self) -> bool {
        !self.outside.is_empty()
    }

    /// Gives an attempt a permit, if nothing else waits for its key, or puts it into the line of its key.
    pub(in super::super) fn join(&mut self, mut limiters: LimiterSet, next: Next) {
        if self.ready.is_none() && !self.lines.contains_key(&limiters) {
            match limiters.try_acquire() {
                Ok(permit) => {
                    self.ready = Some(Ready { next, permit, has_waited: false });
                    return;
                }
                Err(full) => limiters = full,
            }
        }
        let line = self.lines.entry(limiters.clone()).or_default();
        if line.is_empty() {
            self.idle.push_back(limiters);
        }
        let at = match next.new_index() {
            // It can be an earlier item that was taken back.
            Some(index) => {
                let is_later = |other: &&Next| other.new_index().is_some_and(|other| other > index);
                line.len() - line.iter().rev().take_while(is_later).count()
            }
            None => line.iter().take_while(|other| !other.is_new()).count(),
        };
        line.insert(at, next);
    }

    /// Gives a permit to the first attempt of a line, so that it is ready. The rest is dropped later: that may wake other tasks.
    pub(in super::super) fn serve_lines(&mut self, later: &mut Later) {
        if self.ready.as_ref().is_some_and(|ready| ready.permit.limiters().is_held()) {
            // The hold has begun while the attempt waited for the permits of the run or of the limiters.
            self.return_unused(true, later);
        }
        while self.ready.is_none() {
            if let Some(permit) = self.granted.pop_front() {
                self.use_permit(permit, later);
            } else if let Some(limiters) = self.idle.pop_front() {
                self.serve_idle(limiters, later);
            } else {
                break;
            }
        }
    }

    /// Takes a permit for a line, or requests one.
    fn serve_idle(&mut self, limiters: LimiterSet, later: &mut Later) {
        if !self.lines.contains_key(&limiters) {
            later.limiters([limiters]);
            return;
        }
        match limiters.try_acquire() {
            Ok(permit) => self.use_permit(permit, later),
            Err(limiters) => self.new_requests.push(KeyRequest::Permit(limiters.acquire(1))),
        }
    }

    /// Makes the first attempt of a line ready.
    fn use_permit(&mut self, permit: Permit, later: &mut Later) {
        let limiters = permit.limiters();
        let next = self.lines.get_mut(limiters).and_then(VecDeque::pop_front);
        let Some(next) = next else { return later.unused_permits([permit]) };
        if self.lines.get(limiters).is_some_and(VecDeque::is_empty) {
            self.remove_line(limiters, later);
        } else {
            self.idle.push_back(limiters.clone());
        }
        self.ready = Some(Ready { next, permit, has_waited: false });
    }

    fn remove_line(&mut self, limiters: &LimiterSet, later: &mut Later) {
        if let Some((limiters, _)) = self.lines.remove_entry(limiters) {
            later.limiters([limiters]);
        }
    }

    /// Notes that the attempt with the permit of its key has to wait for others.
    pub(in super::super) fn note_wait(&mut self) {
        if let Some(ready) = &mut self.ready {
            ready.has_waited = true;
        }
    }

    /// Takes the attempt that starts, with the permit of its key.
    pub(in super::super) fn pop_ready(&mut self) -> Option<(Next, Permit)> {
        let Ready { next, permit, has_waited } = self.ready.take()?;
        if has_waited {
            permit.limiters().date_start();
        }
        Some((next, permit))
    }

    /// Returns the permits of attempts that cannot start now. With `all`, also that of the attempt that starts next.
    fn return_unused(&mut self, all: bool, later: &mut Later) {
        for permit in mem::take(&mut self.granted) {
            self.idle.push_back(permit.limiters().clone());
            later.unused_permits([permit]);
        }
        if let Some(Ready { next, permit, .. }) = self.ready.take_if(|_| all) {
            let line = self.lines.entry(permit.limiters().clone()).or_default();
            if line.is_empty() {
                self.idle.push_front(permit.limiters().clone());
            }
            line.push_front(next);
            later.unused_permits([permit]);
        }
    }

    /// Withdraws all requests. The lines make new ones when an attempt may start again.
    fn withdraw(&mut self, later: &mut Later) {
        self.drops_requests = true;
        self.awaits_room = false;
        later.requests(self.new_requests.drain(..));
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_by_key(|(_, line)| line.front().map(Next::slot));
        let idle = lines.into_iter().map(|(limiters, _)| limiters.clone()).collect();
        let former = mem::replace(&mut self.idle, idle);
        later.limiters(former);
    }

    /// Takes the new requests, and `true` if the requests before these are to be dropped.
    pub(in super::super) fn take_requests(&mut self) -> (bool, Vec<KeyRequest>) {
        (mem::take(&mut self.drops_requests), mem::take(&mut self.new_requests))
    }

    /// Takes a retry that did not start before its `give_up`.
    fn pop_given_up(&mut self, now: Instant, later: &mut Later) -> Option<Next> {
        if self.next_give_up.is_none_or(|give_up| give_up > now) {
            return None;
        }
        let is_late = |next: &Next| next.give_up().is_some_and(|give_up| give_up <= now);
        if let Some(Ready { next, permit, .. }) = self.ready.take_if(|ready| is_late(&ready.next)) {
            later.unused_permits([permit]);
            return Some(next);
        }
        if let Some(at) = self.outside.iter().position(is_late) {
            return self.outside.remove(at);
        }
        let late = self.lines.iter().find_map(|(limiters, line)| {
            let at = line.iter().position(is_late)?;
            Some((limiters.clone(), at))
        });
        if let Some((limiters, at)) = late {
            let line = self.lines.get_mut(&limiters)?;
            let next = line.remove(at);
            if line.is_empty() {
                self.remove_line(&limiters, later);
            }
            later.limiters([limiters]);
            return next;
        }
        let left = self.ready().into_iter().chain(self.lines.values().flatten()).chain(&self.outside);
        self.next_give_up = left.fold(None, |earlier, next| earliest(earlier, next.give_up()));
        None
    }

    /// Takes all attempts, and returns all permits.
    fn clear(&mut self, later: &mut Later) -> Vec<Next> {
        self.return_unused(true, later);
        let mut nexts = Vec::from_iter(self.outside.drain(..));
        for (limiters, line) in self.lines.drain() {
            later.limiters([limiters]);
            nexts.extend(line);
        }
        self.withdraw(later);
        nexts
    }
}

impl Scheduler {
    /// Counts an attempt that waits for the permit of its key.
    pub(in super::super) fn count_keyed(&mut self, next: &Next) {
        if let Some(keys) = &mut self.keys {
            keys.next_give_up = earliest(keys.next_give_up, next.give_up());
        }
        let count = if next.is_new() { &mut self.keyed_new } else { &mut self.keyed_retries };
        *count += 1;
    }

    /// Counts an attempt that does not wait for the permit of its key any more.
    pub(in super::super) fn uncount_keyed(&mut self, next: &Next) {
        let count = if next.is_new() { &mut self.keyed_new } else { &mut self.keyed_retries };
        *count -= 1;
    }

    /// Returns `true` if a worker may continue with its shared permits, once these are renewed: no attempt of this run waits for such
    /// permits.
    pub(in super::super) fn may_renew_shared(&self) -> bool {
        self.permits.are_renewable() && self.keys.as_ref().is_none_or(|keys| keys.is_empty())
    }

    /// Returns the permits of keys for attempts that cannot start now. If the run's own permits are all in use, it is paused, or
    /// it has no room for outcomes, none can.
    pub(in super::super) fn return_unused_keys(&mut self, has_room: bool) {
        let (is_paused, is_full) = (self.is_paused(), self.permits.is_full());
        let Some(keys) = &mut self.keys else { return };
        let later = self.permits.later();
        keys.return_unused(is_paused || is_full || !has_room, later);
        if is_paused {
            keys.withdraw(later);
        }
    }

    /// Returns the earliest time after which a retry that waits for its key is not made any more.
    pub(super) fn next_keyed_give_up(&self) -> Option<Instant> {
        if self.keyed_retries == 0 {
            return None;
        }
        self.keys.as_ref()?.next_give_up
    }

    /// Takes the slot of a retry that did not get the permit of its key before its `give_up`.
    pub(in super::super) fn pop_keyed_given_up(&mut self, now: Instant) -> Option<usize> {
        if self.keyed_retries == 0 {
            return None;
        }
        let next = self.keys.as_mut()?.pop_given_up(now, self.permits.later())?;
        self.uncount_keyed(&next);
        Some(next.slot())
    }

    /// Puts the attempts that wait for the permits of their keys back where they were before.
    pub(super) fn clear_keys(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        let nexts = keys.clear(self.permits.later());
        (self.keyed_new, self.keyed_retries) = (0, 0);
        for next in nexts {
            match next {
                Next::New(pulled) => self.backlog.push_back(pulled),
                Next::Retry(ticket) => self.retries.put_back(ticket),
            }
        }
        self.backlog.make_contiguous().sort_unstable_by_key(|pulled| pulled.index);
    }
}
