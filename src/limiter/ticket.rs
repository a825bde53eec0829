//! A position in the queue of a limiter, and the permits that it leads to.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::joint::Joint;
use super::{Limiter, LimiterSet};
use crate::rt::Instant;

/// Permits, or a position in the queue for them.
#[derive(Debug)]
pub(crate) enum Acquired {
    Now(Permit),
    Later(Ticket),
}

/// A position in the queue of a limiter, or of several. When it is dropped, it leaves the queue, and returns permits that were
/// granted and not taken.
#[derive(Debug)]
pub(crate) struct Ticket {
    place: Place,
    weight: u32,
    /// `true` if its permits were taken, so that it is not in the queue any more.
    is_taken: Cell<bool>,
    /// `true` if the requests behind it have to be served.
    owes_turn: Cell<bool>,
}

#[derive(Debug)]
enum Place {
    One { limiter: Limiter, number: u64 },
    Several(Arc<Joint>),
}

impl Ticket {
    pub(super) fn of_one(limiter: Limiter, number: u64, weight: u32, owes_turn: bool) -> Self {
        Self::new(Place::One { limiter, number }, weight, owes_turn)
    }

    pub(super) fn of_several(joint: Arc<Joint>, weight: u32, owes_turn: bool) -> Self {
        Self::new(Place::Several(joint), weight, owes_turn)
    }

    fn new(place: Place, weight: u32, owes_turn: bool) -> Self {
        Self { place, weight, is_taken: Cell::new(false), owes_turn: Cell::new(owes_turn) }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns the time at which the ticket must be polled again, if nothing wakes its task before.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.place {
            Place::One { limiter, number } => limiter.lock().told(*number),
            Place::Several(joint) => joint.due(),
        }
    }

    /// Returns the turn of the requests behind it, if they have to be served. It is dropped where other tasks may be woken.
    pub(crate) fn turn(&self) -> Option<Turn> {
        self.owes_turn.take().then(|| Turn(self.limiters()))
    }

    fn limiters(&self) -> LimiterSet {
        match &self.place {
            Place::One { limiter, .. } => limiter.clone().into(),
            Place::Several(joint) => joint.limiters(),
        }
    }

    /// Takes the permits if they are granted, and replaces the waker if they are not. It wakes no other task, because the
    /// caller may have locked something; see [`turn`](Self::turn).
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Permit> {
        match &self.place {
            Place::One { limiter, number } => self.poll_one(limiter, *number, waker),
            Place::Several(joint) => self.poll_several(joint, waker),
        }
    }

    fn take(&self) -> Permit {
        self.is_taken.set(true);
        Permit::new(self.limiters(), self.weight)
    }

    fn poll_one(&self, limiter: &Limiter, number: u64, waker: &Waker) -> Poll<Permit> {
        let mut own_waker = None;
        loop {
            let mut state = limiter.lock();
            let now = state.now();
            // Its time may have come. No other task need notice that.
            let granted = if state.can_grant(number, now) { state.grant(number, now) } else { None };
            self.owes_turn.set(self.owes_turn.get() || granted.is_some());
            if state.take_granted(number) {
                drop(state);
                return Poll::Ready(self.take());
            }
            // After its permits were taken, it is pending like a future that has ended.
            let Some(request) = state.waiting.get_mut(number) else { return Poll::Pending };
            let mut old = None;
            if !request.waker.will_wake(waker) {
                let Some(new) = own_waker.take() else {
                    drop(state);
                    own_waker = Some(waker.clone());
                    continue;
                };
                old = Some(mem::replace(&mut request.waker, new));
            }
            self.owes_turn.set(state.tell(number, now) || self.owes_turn.get());
            drop(state);
            drop(old);
            return Poll::Pending;
        }
    }

    fn poll_several(&self, joint: &Joint, waker: &Waker) -> Poll<Permit> {
        let mut own_wakers = Vec::new();
        loop {
            let mut states = joint.lock();
            let reading = Instant::now();
            let granted = joint.grant(&mut states, reading);
            self.owes_turn.set(self.owes_turn.get() || !granted.is_empty());
            if joint.take_granted(&mut states) {
                drop(states);
                return Poll::Ready(self.take());
            }
            if !joint.is_woken_by(&mut states, waker) && own_wakers.is_empty() {
                drop(states);
                own_wakers = joint.wakers(waker);
                continue;
            }
            joint.swap_wakers(&mut states, &mut own_wakers);
            self.owes_turn.set(joint.wait(&mut states, reading) || self.owes_turn.get());
            // The wakers that were replaced are dropped after the limiters are unlocked.
            drop(states);
            return Poll::Pending;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_taken.get() {
            // The wakers are dropped after the limiters are unlocked.
            let _requests = match &self.place {
                Place::One { limiter, number } => Vec::from_iter(limiter.lock().leave(*number, self.weight)),
                Place::Several(joint) => joint.leave(self.weight),
            };
            self.owes_turn.set(true);
        }
        drop(self.turn());
    }
}

/// The turn of requests that wait behind one that was granted, or lets them pass. They are served when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(LimiterSet);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.serve();
    }
}

/// Permits of a [`Limiter`] that are in use until this is dropped; see [`acquire`](Limiter::acquire).
#[derive(Debug)]
#[must_use = "the permits are returned when this is dropped"]
pub struct Permit {
    limiters: LimiterSet,
    weight: u32,
    use_of_it: Use,
    /// When it was granted, if an adaptive limiter has to know.
    began: Option<Instant>,
}

/// What has become of the attempt that a permit was granted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It has not begun, so that it does not count as a start.
    None,
    /// It has not ended. If the permit is dropped, it was cancelled.
    Begun,
    /// It has ended, or is code that ends when the permit is dropped.
    Ended,
    /// It has ended as an overload of the server.
    Overload,
}

/// The end of an attempt, for adaptive limiters.
pub(super) struct Ended {
    pub(super) began: Instant,
    pub(super) is_overload: bool,
}

impl Permit {
    pub(super) fn new(limiters: LimiterSet, weight: u32) -> Self {
        let began = if limiters.is_adaptive() { Some(Instant::now()) } else { None };
        Self { limiters, weight, use_of_it: Use::Begun, began }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    pub(crate) fn limiters(&self) -> &LimiterSet {
        &self.limiters
    }

    /// Makes this the permit of a new attempt, if no request waits for it and the limiter allows a start now. Returns `false` if
    /// not. It wakes no task.
    pub(crate) fn renew(&mut self) -> bool {
        self.limiters.renew(self.weight)
    }

    /// Exchanges the permit for one of other limiters, if that could be granted now, and returns the former limiters. It may wake
    /// tasks that wait for these.
    pub(crate) fn exchange(&mut self, limiters: LimiterSet) -> Option<LimiterSet> {
        if limiters == self.limiters {
            return self.renew().then_some(limiters);
        }
        if !limiters.take_at_once(self.weight) {
            return None;
        }
        let former = mem::replace(&mut self.limiters, limiters);
        former.release(self.weight, false, None);
        Some(former)
    }

    /// Marks the permit as one with which nothing has begun.
    pub(crate) fn unused(mut self) -> Self {
        self.use_of_it = Use::None;
        self
    }

    /// Marks the permit as one of an attempt that has ended, or of code that ends when the permit is dropped.
    pub(crate) fn ended(mut self) -> Self {
        self.end(false);
        self
    }

    fn end(&mut self, is_overload: bool) {
        self.use_of_it = if is_overload { Use::Overload } else { Use::Ended };
    }
}

/// The permits that an attempt holds besides those of its run.
#[derive(Debug, Default)]
pub struct SharedPermits {
    pub(crate) of_limiters: Option<Permit>,
    pub(crate) of_key: Option<Permit>,
    /// The limiters of the key, if a function has the permits.
    key: Option<LimiterSet>,
}

impl SharedPermits {
    pub(crate) fn is_empty(&self) -> bool {
        self.of_limiters.is_none() && self.of_key.is_none() && self.key.is_none()
    }

    /// Returns the limiters of the key of the attempt.
    pub(crate) fn key(&self) -> Option<&LimiterSet> {
        self.of_key.as_ref().map(Permit::limiters).or(self.key.as_ref())
    }

    /// Notes that the attempt has ended, for adaptive limiters.
    pub(crate) fn end(&mut self, is_overload: bool) {
        if let Some(permit) = &mut self.of_limiters {
            permit.end(is_overload);
        }
    }

    /// Takes all permits for a function that keeps them until it returns.
    pub(crate) fn take(&mut self) -> Self {
        let key = self.key().cloned();
        mem::replace(self, Self { key, ..Self::default() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let is_overload = self.use_of_it == Use::Overload;
        let ended = match self.began {
            Some(began) if is_overload || self.use_of_it == Use::Ended => Some(Ended { began, is_overload }),
            _ => None,
        };
        self.limiters.release(self.weight, self.use_of_it == Use::None, ended.as_ref());
    }
}
