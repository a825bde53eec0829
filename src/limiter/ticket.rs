//! A position in the queue of a limiter, and the permits that it leads to.

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
}

/// The permits of a ticket were taken before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AlreadyTaken;

impl Ticket {
    pub(super) fn new(limiter: Limiter, number: u64, weight: u32) -> Self {
        Self { limiter, number, weight }
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns the time at which the ticket must be polled again, if nothing wakes its task before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.limiter.lock().told(self.number)
    }

    /// Takes the permits if they are granted, and replaces the waker if they are not.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Permit, AlreadyTaken>> {
        let mut own_waker = None;
        loop {
            let mut state = self.limiter.lock();
            let now = state.now();
            if state.waiting.first_number() == Some(self.number) {
                // Its time may have come. No other task need notice that.
                if let Some(old) = state.grant_next(now) {
                    self.limiter.serve(state);
                    drop(old);
                    continue;
                }
            }
            if state.take_granted(self.number) {
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
