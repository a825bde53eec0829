//! The limiters of a task, and its requests to them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::{fmt, slice};

use super::joint::{Joint, Several};
use super::request::Request;
use super::state::State;
use super::ticket::{Acquired, Ended, Permit, Ticket};
use super::{Change, Limiter};
use crate::error::ConfigError;
use crate::rt::{Instant, MutexGuard};

/// The limiters of a task.
#[derive(Clone)]
pub enum LimiterSet {
    One(Limiter),
    Several(Arc<Several>),
}

impl LimiterSet {
    /// Returns the limiters, with another one.
    pub(crate) fn and(&self, limiter: &Limiter) -> Self {
        let mut limiters = self.limiters().to_vec();
        if limiters.iter().any(|known| known.is(limiter)) {
            return self.clone();
        }
        limiters.push(limiter.clone());
        limiters.sort_by_key(Limiter::address);
        Self::Several(Arc::new(Several { limiters: limiters.into(), first: self.first().clone() }))
    }

    pub(super) fn limiters(&self) -> &[Limiter] {
        match self {
            Self::One(limiter) => slice::from_ref(limiter),
            Self::Several(several) => &several.limiters,
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.limiters().len()
    }

    /// Returns the limiter that was named first.
    pub(crate) fn first(&self) -> &Limiter {
        match self {
            Self::One(limiter) => limiter,
            Self::Several(several) => &several.first,
        }
    }

    /// Dates a permit that was granted before at the start of its attempt, which is now.
    pub(crate) fn date_start(&self) {
        self.limiters().iter().for_each(|limiter| limiter.lock().date_start());
    }

    /// Returns `true` if a hold is active in one of the limiters.
    pub(crate) fn is_held(&self) -> bool {
        self.limiters().iter().any(Limiter::is_held)
    }

    /// Returns the earliest time at which all limiters may grant a request, if it is in the future: because of a rate or a hold.
    pub(crate) fn next_grant(&self) -> Option<Instant> {
        self.limiters().iter().filter_map(Limiter::next_grant).max()
    }

    /// Requests permits. They are granted immediately if they are free and no other request waits for them.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight is above the largest number of permits that one of the limiters has ever had.
    pub(crate) fn request(&self, weight: u32, waker: &Waker) -> Result<Acquired, ConfigError> {
        match self {
            Self::One(limiter) => limiter.request(weight, waker),
            Self::Several(several) => several.request(weight, waker),
        }
    }

    /// Takes one permit of each, if all could be granted now. It wakes no task.
    ///
    /// # Errors
    ///
    /// Returns the limiters otherwise.
    pub(crate) fn try_acquire(self) -> Result<Permit, Self> {
        if self.take_at_once(1) { Ok(Permit::new(self, 1)) } else { Err(self) }
    }

    pub(super) fn take_at_once(&self, weight: u32) -> bool {
        match self {
            Self::One(limiter) => limiter.take_at_once(weight),
            Self::Several(several) => several.take_at_once(&mut several.lock(), weight, Instant::now()),
        }
    }

    /// Exchanges permits of an attempt that has ended for those of a new one, if no request waits and they could be granted now.
    pub(super) fn renew(&self, weight: u32) -> bool {
        match self {
            Self::One(limiter) => {
                let mut state = limiter.lock();
                let now = state.now();
                let can_renew = state.can_renew(weight, now);
                if can_renew {
                    state.renew(weight, now);
                }
                can_renew
            }
            Self::Several(several) => several.renew(&mut several.lock(), weight, Instant::now()),
        }
    }

    /// Returns permits. All are returned before the first request gets them.
    pub(super) fn release(&self, weight: u32, is_unused: bool, ended: Option<&Ended>) {
        match self {
            Self::One(limiter) => limiter.release(weight, is_unused, ended),
            Self::Several(several) => {
                for state in &mut several.lock() {
                    if let Some(ended) = ended {
                        state.note_end(weight, ended);
                    }
                    state.release(weight, is_unused);
                }
                self.serve();
            }
        }
    }

    /// Returns `true` if one of the limiters finds its own number of permits.
    pub(crate) fn is_adaptive(&self) -> bool {
        self.limiters().iter().any(|limiter| limiter.shared.is_adaptive)
    }

    /// Returns the number of changes so far of each limiter that finds its own number of permits.
    pub(crate) fn limit_changes(&self) -> Vec<u64> {
        self.limiters().iter().map(|limiter| limiter.lock().limit_changes()).collect()
    }

    /// Returns the changes that were not `seen`, and notes that they are.
    pub(crate) fn new_limit_changes(&self, seen: &mut [u64]) -> Vec<Change> {
        let mut all = Vec::new();
        for (limiter, seen) in self.limiters().iter().zip(seen) {
            let (changes, count) = limiter.lock().limit_changes_after(*seen);
            all.extend(changes);
            *seen = count;
        }
        all
    }

    /// Grants permits to the requests that wait.
    pub(super) fn serve(&self) {
        if let Self::Several(several) = self {
            several.serve_joint();
        }
        self.limiters().iter().for_each(|limiter| limiter.serve(limiter.lock()));
    }
}

// Two sets are equal if they have the same limiters.
impl PartialEq for LimiterSet {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one.is(other),
            (Self::Several(one), Self::Several(other)) => {
                let (one, other) = (&one.limiters, &other.limiters);
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is(other))
            }
            // Several are at least two.
            (Self::One(_), Self::Several(_)) | (Self::Several(_), Self::One(_)) => false,
        }
    }
}

impl Eq for LimiterSet {}

impl Hash for LimiterSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.limiters().iter().for_each(|limiter| limiter.address().hash(state));
    }
}

impl From<Limiter> for LimiterSet {
    fn from(limiter: Limiter) -> Self {
        Self::One(limiter)
    }
}

impl fmt::Debug for LimiterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.limiters()).finish()
    }
}

impl Several {
    fn request(self: &Arc<Self>, weight: u32, waker: &Waker) -> Result<Acquired, ConfigError> {
        let mut own_wakers = Vec::new();
        loop {
            let mut states = self.lock();
            states.iter().try_for_each(|state| state.check(weight))?;
            let reading = Instant::now();
            if self.take_at_once(&mut states, weight, reading) {
                return Ok(Acquired::Now(Permit::new(LimiterSet::Several(Arc::clone(self)), weight)));
            }
            if !own_wakers.is_empty() {
                return Ok(Acquired::Later(self.join(&mut states, weight, own_wakers, reading)));
            }
            drop(states);
            own_wakers = self.wakers(waker);
        }
    }

    /// Joins the queues of all limiters.
    fn join(
        self: &Arc<Self>,
        states: &mut [MutexGuard<'_, State>],
        weight: u32,
        wakers: Vec<Waker>,
        reading: Instant,
    ) -> Ticket {
        let number = states.iter().map(|state| state.next_number()).max().unwrap_or(0);
        let joint = Arc::new(Joint { several: Arc::clone(self), number });
        for (state, waker) in states.iter_mut().zip(wakers) {
            let request = Request { joint: Some(joint.clone()), ..Request::new(weight, waker) };
            state.join(number, request);
        }
        let owes_turn = joint.wait(states, reading);
        Ticket::of_several(joint, weight, owes_turn)
    }
}
