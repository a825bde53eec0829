//! The limits on running attempts: the limit of the run, and one that it may share with other runs.

use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::later::Later;
use crate::config::Config;
use crate::error::ConfigError;
use crate::limiter::{Acquired, Change, Limiter, LimiterSet, Permit, SharedPermits, Ticket};
use crate::rt::{Instant, OwnedSemaphorePermit, Semaphore};

/// The permits that an attempt holds while it runs.
#[derive(Debug, Default)]
pub(in super::super) struct HeldPermits {
    own: Option<OwnedSemaphorePermit>,
    pub(in super::super) shared: SharedPermits,
}

impl HeldPermits {
    /// Returns how many of the run's own permits are held.
    #[inline]
    pub(in super::super) fn own_permits(&self) -> usize {
        self.own.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

/// Grants permits to attempts, one at a time, in their order.
pub(in super::super) struct Permits {
    semaphore: Arc<Semaphore>,
    /// `true` if there is no shared limit, no retry budget and no key, and has been no debt since permits were last taken.
    is_simple: bool,
    /// The current concurrency.
    capacity: usize,
    /// The largest concurrency so far.
    most: usize,
    /// How many permits are to be forgotten when they are returned: `capacity` was lowered, or an attempt that needs more
    /// permits than that runs alone.
    debt: usize,
    limiters: Option<LimiterSet>,
    /// `true` if one of these finds its own number of permits. It has to see the end of each attempt, and a new start.
    is_adaptive: bool,
    /// How many changes of each limiter were reported.
    seen_changes: Vec<u64>,
    /// `true` if the attempt that has just ended was an overload of the server.
    was_overload: bool,
    /// `true` if items have keys.
    keyed: bool,
    /// `true` if a retry budget counts the first attempts.
    has_budget: bool,
    /// The position in the queue of the shared limit, while the next attempt waits only for that limit.
    ticket: Option<Ticket>,
    /// Parts of the shared limits that are no longer needed.
    later: Later,
}

impl Permits {
    /// If the run `holds` its items back and has no limiter, it gets one of its own, with holds only.
    pub(in super::super) fn new(config: &Config, holds: bool, keyed: bool) -> Self {
        let &Config { concurrency, ref limiters, ref retry_budget, .. } = config;
        let limiters = limiters.clone().or_else(|| holds.then(|| Limiter::for_holds(concurrency).into()));
        let has_budget = retry_budget.is_some();
        let capacity = concurrency.min(Semaphore::MAX_PERMITS);
        let is_simple = limiters.is_none() && !keyed && !has_budget;
        let is_adaptive = limiters.as_ref().is_some_and(LimiterSet::is_adaptive);
        let adaptive = limiters.as_ref().filter(|_| is_adaptive);
        Self {
            is_simple,
            semaphore: Arc::new(Semaphore::new(capacity)),
            capacity,
            most: capacity,
            debt: 0,
            seen_changes: adaptive.map(LimiterSet::limit_changes).unwrap_or_default(),
            limiters,
            is_adaptive,
            was_overload: false,
            keyed,
            has_budget,
            ticket: None,
            later: Later::default(),
        }
    }

    pub(in super::super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns `true` if the run's own limit has no free permit.
    pub(in super::super) fn is_full(&self) -> bool {
        self.semaphore.available_permits() == 0
    }

    /// Returns `true` if only the run's own permits have to be checked. Then there is no shared limit, no retry budget and no
    /// key, and no permit has paid the debt of a lowered limit.
    #[inline]
    pub(in super::super) fn is_simple(&self) -> bool {
        self.is_simple
    }

    /// Returns `true` if an attempt can reuse the permits of the attempt before it unchanged.
    #[inline]
    pub(in super::super) fn is_reusable(&self, held: &HeldPermits, weight: u32) -> bool {
        self.is_simple && held.own_permits() == weight as usize
    }

    /// Makes `held` fit for an attempt. Returns `false` if the permits are not available now. If the shared limit lacks
    /// permits, `waker` is woken when they are available.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight is above the largest value that a limit has had.
    #[inline]
    pub(in super::super) fn take(
        &mut self,
        held: &mut HeldPermits,
        weight: u32,
        waker: &Waker,
    ) -> Result<bool, ConfigError> {
        self.is_simple = self.debt == 0 && self.limiters.is_none() && !self.keyed && !self.has_budget;
        let taken = self.take_own(held, weight)? && self.take_shared(held, weight, waker)?;
        if !taken {
            // Permits that were lent to an attempt that has to wait are taken back, so that other attempts cannot use them
            // meanwhile.
            self.give_back(held);
        }
        Ok(taken)
    }

    fn take_own(&mut self, held: &mut HeldPermits, weight: u32) -> Result<bool, ConfigError> {
        let needed = weight as usize;
        if needed > self.most {
            return Err(ConfigError::new(
                "weight",
                weight,
                format!("at most {}, the concurrency", self.most),
            ));
        }
        let count = held.own_permits();
        if count > needed {
            drop(held.own.as_mut().and_then(|own| own.split(count - needed)));
        } else if count < needed {
            if needed > self.capacity && self.in_use() == count {
                self.overdraw(needed - self.capacity);
            }
            let missing = u32::try_from(needed - count).unwrap_or(u32::MAX);
            match (Arc::clone(&self.semaphore).try_acquire_many_owned(missing), &mut held.own) {
                (Ok(more), Some(own)) => own.merge(more),
                (Ok(all), none) => *none = Some(all),
                (Err(_), _) => {
                    // An attempt that cannot start does not block the attempts of other runs.
                    self.leave_queue();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Lends permits to an attempt that runs alone and needs more than the lowered limit has. They are forgotten when they
    /// are returned.
    #[cold]
    fn overdraw(&mut self, permits: usize) {
        self.semaphore.add_permits(permits);
        self.debt += permits;
        self.is_simple = false;
    }

    /// Returns how many permits are in use.
    fn in_use(&self) -> usize {
        (self.capacity + self.debt).saturating_sub(self.semaphore.available_permits())
    }

    fn take_shared(
        &mut self,
        held: &mut HeldPermits,
        weight: u32,
        waker: &Waker,
    ) -> Result<bool, ConfigError> {
        if self.limiters.is_none() {
            return Ok(true);
        }
        if held.shared.of_limiters.as_ref().is_some_and(|permit| permit.weight() == weight) {
            return Ok(true);
        }
        self.later.permits(held.shared.of_limiters.take());
        if self.ticket.as_ref().is_some_and(|ticket| ticket.weight() != weight) {
            self.later.tickets(self.ticket.take());
        }
        let ticket = if let Some(ticket) = self.ticket.take() {
            if let Poll::Ready(permit) = ticket.poll(waker) {
                held.shared.of_limiters = Some(permit);
            }
            ticket
        } else {
            let Some(limiters) = &self.limiters else { return Ok(true) };
            match limiters.request(weight, waker)? {
                Acquired::Now(permit) => {
                    held.shared.of_limiters = Some(permit);
                    return Ok(true);
                }
                Acquired::Later(ticket) => ticket,
            }
        };
        self.later.turns(ticket.turn());
        self.ticket = held.shared.of_limiters.is_none().then_some(ticket);
        Ok(held.shared.of_limiters.is_some())
    }

    /// Returns `true` if a worker may go on with the permits of an attempt that has ended, once the shared ones are
    /// [renewed](Self::renew_shared).
    pub(super) fn are_renewable(&self) -> bool {
        self.debt == 0 && !self.has_budget && self.ticket.is_none() && !self.is_adaptive
    }

    /// Exchanges the permits of the limiters for those of a new attempt, if it has the same weight, could start now, and no request
    /// waits for them. Returns `false` if not.
    pub(in super::super) fn renew_shared(&self, held: &mut HeldPermits, weight: u32) -> bool {
        held.own_permits() == weight as usize
            && (self.limiters.is_none() || held.shared.of_limiters.as_mut().is_some_and(Permit::renew))
    }

    /// Exchanges the permit of a key for one of the key of a new attempt, if that is free. Returns `false` if not: nothing begins
    /// with the permits of the limiters then, and they are returned.
    pub(in super::super) fn renew_key(
        &mut self,
        held: &mut HeldPermits,
        limiters: Option<LimiterSet>,
    ) -> bool {
        if let (Some(limiters), Some(permit)) = (limiters, &mut held.shared.of_key) {
            if let Some(former) = permit.exchange(limiters) {
                // The run keeps the key until it unlocks the state. Otherwise, a key that is idle between two items would be
                // forgotten and added again for each.
                self.later.limiters([former]);
                return true;
            }
        }
        drop(held.shared.of_limiters.take().map(Permit::unused));
        false
    }

    /// Takes back permits of an ended attempt while there is debt. The next attempt may reuse the rest.
    #[inline]
    pub(in super::super) fn give_back(&mut self, held: &mut HeldPermits) {
        if self.debt > 0 {
            self.settle_debt(held);
        }
    }

    #[cold]
    fn settle_debt(&mut self, held: &mut HeldPermits) {
        let count = held.own_permits();
        let paid = count.min(self.debt);
        if let Some(own) = held.own.as_mut().and_then(|own| own.split(paid)) {
            own.forget();
            self.debt -= paid;
        }
        if paid == count {
            held.own = None;
        }
    }

    /// Changes the run's own limit, which has been as large as `most`. Running attempts continue.
    pub(in super::super) fn set_capacity(&mut self, concurrency: usize, most: usize) {
        let capacity = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        if capacity > self.capacity {
            let more = capacity - self.capacity;
            let forgiven = more.min(self.debt);
            self.debt -= forgiven;
            self.semaphore.add_permits(more - forgiven);
        } else {
            let fewer = self.capacity - capacity;
            self.debt += fewer - self.semaphore.forget_permits(fewer);
        }
        self.capacity = capacity;
        self.most = self.most.max(most.min(Semaphore::MAX_PERMITS));
        self.is_simple = false;
    }

    /// Returns `true` if the run's own limit has room for an attempt of this weight.
    pub(in super::super) fn has_room(&self, weight: u32) -> bool {
        let needed = weight as usize;
        self.semaphore.available_permits() >= needed || (needed > self.capacity && self.in_use() == 0)
    }

    /// Returns `true` if the next attempt waits for the shared limit, which wakes the driver when the permits are available.
    pub(in super::super) fn is_in_queue(&self) -> bool {
        self.ticket.is_some()
    }

    /// Returns the weight of the attempt that waits for the shared limit.
    pub(in super::super) fn queued_weight(&self) -> Option<u32> {
        self.ticket.as_ref().map(Ticket::weight)
    }

    /// Returns the time at which the shared limit must be asked again, if it does not wake the driver before.
    pub(in super::super) fn next_due(&self) -> Option<Instant> {
        self.ticket.as_ref().and_then(Ticket::due)
    }

    /// Lets nothing start until the time has passed. Returns the length of the hold if nothing was held back before.
    pub(in super::super) fn hold_back(&self, time: Duration) -> Option<Duration> {
        self.limiters.as_ref()?.first().begin_hold(time)
    }

    /// Notes that the attempt that has just ended was an overload of the server.
    pub(in super::super) fn note_overload(&mut self) {
        self.was_overload = true;
    }

    /// Sets if it was one, whether or not it holds other items back.
    pub(in super::super) fn set_overload(&mut self, was_overload: bool) {
        self.was_overload = was_overload;
    }

    /// Returns `true` if the attempt that has just ended was an overload of the server.
    pub(in super::super) fn take_overload(&mut self) -> bool {
        mem::take(&mut self.was_overload)
    }

    /// Returns the changes of limiters that find their own numbers of permits, since the last call.
    pub(in super::super) fn limit_changes(&mut self) -> Vec<Change> {
        match &self.limiters {
            Some(limiters) if self.is_adaptive => limiters.new_limit_changes(&mut self.seen_changes),
            _ => Vec::new(),
        }
    }

    /// Returns `true` if a limiter finds its own number of permits.
    #[inline]
    pub(in super::super) fn is_adaptive(&self) -> bool {
        self.is_adaptive
    }

    /// Returns the earliest time at which the shared limit lets an attempt start, if that is in the future.
    pub(in super::super) fn next_grant(&self) -> Option<Instant> {
        self.limiters.as_ref().and_then(LimiterSet::next_grant)
    }

    /// Leaves the queue of the shared limit.
    pub(in super::super) fn leave_queue(&mut self) {
        self.later.tickets(self.ticket.take());
    }

    /// Takes back the permits of an attempt that does not start.
    pub(in super::super) fn abandon(&mut self, mut held: HeldPermits) {
        self.give_back(&mut held);
        let SharedPermits { of_limiters, of_key, .. } = held.shared;
        self.later.unused_permits(of_limiters.into_iter().chain(of_key));
    }

    /// Returns what is dropped after the state is unlocked.
    #[inline]
    pub(in super::super) fn later(&mut self) -> &mut Later {
        &mut self.later
    }
}
