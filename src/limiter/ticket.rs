//! A position in the queue of a limiter, and the permits that it leads to.

use std::cell::Cell;
use std::mem;
use std::task::{Poll, Waker};

use super::Limiter;
use crate::rt::Instant;

/// Permits, or a position in the queue for them.
#[derive(Debug)]
pub(crate) enum Acquired {
    Now(Permit),
    Later(Ticket),
}

/// A position in the queue of a limiter. When it is dropped, it leaves the queue, and returns permits that were granted and
/// not taken.
#[derive(Debug)]
pub(crate) struct Ticket {
    limiter: Limiter,
    number: u64,
    weight: u32,
    at_drop: Cell<AtDrop>,
}

/// What a ticket does when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtDrop {
    /// Leaves the queue, because its permits were not taken.
    Leave,
    /// Serves the requests behind it, because it has granted the permits to itself.
    Serve,
    /// Nothing: the grant of its permits has served them.
    Nothing,
}

/// The permits of a ticket were taken before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AlreadyTaken;

impl Ticket {
    pub(super) fn new(limiter: Limiter, number: u64, weight: u32) -> Self {
        Self { limiter, number, weight, at_drop: Cell::new(AtDrop::Leave) }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns the time at which the ticket must be polled again, if nothing wakes its task before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.limiter.lock().told(self.number)
    }

    /// Returns `true` if other tasks may be woken when the ticket is dropped, although its permits were taken.
    pub(crate) fn serves_others(&self) -> bool {
        self.at_drop.get() == AtDrop::Serve
    }

    /// Takes the permits if they are granted, and replaces the waker if they are not. It wakes no other task, because the
    /// caller may have locked something.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Permit, AlreadyTaken>> {
        let mut own_waker = None;
        loop {
            let mut state = self.limiter.lock();
            let now = state.now();
            if state.waiting.first_number() == Some(self.number) {
                // Its time may have come. No other task need notice that.
                if let Some(own) = state.grant_next(now) {
                    drop(state);
                    drop(own);
                    self.at_drop.set(AtDrop::Serve);
                    continue;
                }
            }
            if state.take_granted(self.number) {
                if self.at_drop.get() == AtDrop::Leave {
                    self.at_drop.set(AtDrop::Nothing);
                }
                return Poll::Ready(Ok(Permit::new(self.limiter.clone(), self.weight)));
            }
            let Some(request) = state.waiting.get_mut(self.number) else {
                return Poll::Ready(Err(AlreadyTaken));
            };
            if request.waker.will_wake(waker) {
                state.tell(self.number, now);
                return Poll::Pending;
            }
            if let Some(new) = own_waker.take() {
                let old = mem::replace(&mut request.waker, new);
                state.tell(self.number, now);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            drop(state);
            own_waker = Some(waker.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.at_drop.get() == AtDrop::Nothing {
            return;
        }
        let mut state = self.limiter.lock();
        // Its waker is dropped at the end of this function, after the lock was released.
        let _request = state.leave(self.number, self.weight);
        self.limiter.serve(state);
    }
}

/// Permits of a [`Limiter`] that are in use until this is dropped; see [`acquire`](Limiter::acquire).
#[derive(Debug)]
#[must_use = "the permits are returned when this is dropped"]
pub struct Permit {
    limiter: Limiter,
    weight: u32,
}

impl Permit {
    pub(super) fn new(limiter: Limiter, weight: u32) -> Self {
        Self { limiter, weight }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self.weight);
    }
}
