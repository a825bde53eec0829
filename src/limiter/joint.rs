//! Requests for permits of several limiters: all are granted at the same time, and none before.
//!
//! Such a request waits in the queues of all its limiters. Each of them notes if it could grant the request and another could
//! not; those behind the request do not wait for it then. A change of a limiter after which it can grant the request tries it
//! again with all of them locked. They are always locked in the same order.

use std::sync::Arc;
use std::task::Waker;
use std::{mem, ptr};

use super::request::{JointRequest, Request};
use super::state::State;
use super::{Limiter, LimiterSet};
use crate::rt::{Instant, MutexGuard};

/// Several limiters, each of them once.
#[derive(Debug)]
pub struct Several {
    /// In the order in which they are locked.
    pub(super) limiters: Box<[Limiter]>,
    /// The one that was named first.
    pub(super) first: Limiter,
}

impl Several {
    /// Tries the requests for several limiters that may be granted next, before any other request is granted. The earliest comes
    /// first: whether a later one has to wait for it can have changed with these limiters.
    pub(super) fn serve_joint(&self) {
        let mut others = Vec::new();
        loop {
            let heads = self.limiters.iter().flat_map(|limiter| {
                let state = limiter.lock();
                state.joint_heads(state.now())
            });
            let mut heads: Vec<_> = heads.collect();
            heads.sort_by_key(|joint| joint.number());
            let before = others.len();
            for joint in heads {
                joint.serve(&mut others);
            }
            if others.len() == before {
                break;
            }
        }
        others.iter().for_each(|limiter| limiter.serve(limiter.lock()));
    }

    pub(super) fn lock(&self) -> Vec<MutexGuard<'_, State>> {
        self.limiters.iter().map(Limiter::lock).collect()
    }

    /// Takes permits, if all limiters could grant them at once.
    pub(super) fn take_at_once(
        &self,
        states: &mut [MutexGuard<'_, State>],
        weight: u32,
        reading: Instant,
    ) -> bool {
        let can_take = |state: &MutexGuard<'_, State>| state.can_take_at_once(weight, state.time_at(reading));
        let is_free = states.iter().all(can_take);
        if is_free {
            for state in states {
                let now = state.time_at(reading);
                state.take_at_once(weight, now);
            }
        }
        is_free
    }

    /// Exchanges permits of an attempt that has ended for those of a new one, if no request waits and all limiters could grant them
    /// at once.
    pub(super) fn renew(&self, states: &mut [MutexGuard<'_, State>], weight: u32, reading: Instant) -> bool {
        let can_renew = states.iter().all(|state| state.can_renew(weight, state.time_at(reading)));
        if can_renew {
            for state in states {
                let now = state.time_at(reading);
                state.renew(weight, now);
            }
        }
        can_renew
    }

    pub(super) fn wakers(&self, waker: &Waker) -> Vec<Waker> {
        self.limiters.iter().map(|_| waker.clone()).collect()
    }
}

/// A request for permits of several limiters, which waits in the queue of each.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(super) several: Arc<Several>,
    /// Its number, which is the same in all queues.
    pub(super) number: u64,
}

impl Joint {
    pub(super) fn limiters(&self) -> LimiterSet {
        LimiterSet::Several(Arc::clone(&self.several))
    }

    pub(super) fn lock(&self) -> Vec<MutexGuard<'_, State>> {
        self.several.lock()
    }

    /// Returns the time at which the request must be tried again, if nothing wakes its task before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|state| state.told(self.number)).min()
    }

    /// Returns `true` if the waker wakes the same task as those of the request.
    pub(super) fn is_woken_by(&self, states: &mut [MutexGuard<'_, State>], waker: &Waker) -> bool {
        self.requests(states).all(|request| request.waker.will_wake(waker))
    }

    /// Returns a clone of the waker for each limiter.
    pub(super) fn wakers(&self, waker: &Waker) -> Vec<Waker> {
        self.several.wakers(waker)
    }

    /// Exchanges the wakers of the request with others, if there are any.
    pub(super) fn swap_wakers(&self, states: &mut [MutexGuard<'_, State>], wakers: &mut [Waker]) {
        self.requests(states).zip(wakers).for_each(|(request, waker)| mem::swap(&mut request.waker, waker));
    }

    fn requests<'a>(
        &'a self,
        states: &'a mut [MutexGuard<'_, State>],
    ) -> impl Iterator<Item = &'a mut Request> {
        states.iter_mut().filter_map(|state| state.waiting.get_mut(self.number))
    }

    /// Takes permits that were granted.
    pub(super) fn take_granted(&self, states: &mut [MutexGuard<'_, State>]) -> bool {
        states.iter_mut().filter_map(|state| state.take_granted(self.number).then_some(())).count() > 0
    }

    /// Leaves the queues of all limiters; see [`State::leave`].
    pub(super) fn leave(&self, weight: u32) -> Vec<Request> {
        self.lock().iter_mut().filter_map(|state| state.leave(self.number, weight)).collect()
    }

    /// Grants the request, if all limiters can do so now. Returns the requests that were removed from their queues.
    pub(super) fn grant(&self, states: &mut [MutexGuard<'_, State>], reading: Instant) -> Vec<Request> {
        if !states.iter().all(|state| state.can_grant(self.number, state.time_at(reading))) {
            return Vec::new();
        }
        let granted = states.iter_mut().filter_map(|state| {
            let now = state.time_at(reading);
            state.grant(self.number, now)
        });
        granted.collect()
    }

    /// Notes in each limiter that could grant the request that others keep it waiting. Returns those whose next requests do not
    /// wait for it from now on.
    fn note_waiting(&self, states: &mut [MutexGuard<'_, State>], reading: Instant) -> Vec<Limiter> {
        let mut passed = Vec::new();
        for (state, limiter) in states.iter_mut().zip(&self.several.limiters) {
            let can_grant = state.can_grant(self.number, state.time_at(reading));
            if state.set_waits_for_others(self.number, can_grant) {
                passed.push(limiter.clone());
            }
        }
        passed
    }

    /// Notes that the request waits, and tells its task when it must be tried again. Returns `true` if a limiter has to serve
    /// other requests.
    pub(super) fn wait(&self, states: &mut [MutexGuard<'_, State>], reading: Instant) -> bool {
        let lets_pass = !self.note_waiting(states, reading).is_empty();
        states.iter_mut().fold(lets_pass, |is_unserved, state| {
            let now = state.time_at(reading);
            state.tell(self.number, now) || is_unserved
        })
    }
}

impl JointRequest for Joint {
    fn number(&self) -> u64 {
        self.number
    }

    fn serve(&self, others: &mut Vec<Limiter>) {
        let mut states = self.lock();
        let reading = Instant::now();
        let mut granted = self.grant(&mut states, reading);
        if let Some(Request { waker, .. }) = granted.pop() {
            drop(states);
            waker.wake();
            others.extend_from_slice(&self.several.limiters);
            return;
        }
        others.extend(self.note_waiting(&mut states, reading));
        let untold = states.iter_mut().filter_map(|state| {
            let now = state.time_at(reading);
            state.untold(now)
        });
        let wakers: Vec<_> = untold.collect();
        drop(states);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Limiter {
    /// Returns `true` if this is the same limiter.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn address(&self) -> usize {
        ptr::from_ref(&*self.shared).addr()
    }
}
