//! Decides if and when an attempt is followed by another, and asks the retry budget.

use std::time::Duration;

use super::Scheduler;
use super::clock::deadline;
use crate::limiter::LimiterSet;
use crate::outcome::{NotRetried, TimeoutScope};
use crate::retry_budget::WhenSpent;
use crate::rt::Instant;

/// The end of an attempt that did not succeed.
pub(in super::super) enum AttemptEnd {
    /// With an error that `retry_if` refuses.
    Refused,
    /// With an error, for which `retry_after` may name a delay.
    Failed {
        retry_after: Option<Duration>,
    },
    TimedOut(TimeoutScope),
    Faulted,
    Panicked,
}

/// The reason why an item is not tried again.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Refusal {
    pub(in super::super) kind: NotRetried,
    /// For the log.
    pub(in super::super) why: &'static str,
}

impl Refusal {
    pub(in super::super) const NO_RETRIES_LEFT: Self =
        Self::new(NotRetried::NoRetriesLeft, "no retries left");

    pub(in super::super) const ITEM_LIMIT: Self =
        Self::new(NotRetried::TimeLimit, "the item's time limit has passed");

    pub(in super::super) const fn new(kind: NotRetried, why: &'static str) -> Self {
        Self { kind, why }
    }
}

/// The wait of an item before its next attempt.
pub(in super::super) struct Wait {
    pub(in super::super) length: Duration,
    pub(in super::super) until: Instant,
    /// After this time, the attempt is not made any more.
    pub(in super::super) give_up: Option<Instant>,
    /// `false` if the retry budget has not granted the attempt yet.
    pub(in super::super) is_granted: bool,
}

impl Scheduler {
    /// Returns the wait before the next attempt at an item, or the reason why there is none. The first attempt at the item
    /// started at `started`.
    pub(in super::super) fn wait_before_retry(
        &mut self,
        attempt: u32,
        started: Option<Instant>,
        ended: AttemptEnd,
        key: Option<&LimiterSet>,
    ) -> Result<Wait, Refusal> {
        let policy = &self.config.retry;
        let refuse = |why| Err(Refusal::new(NotRetried::NotRetryable, why));
        let length = match ended {
            AttemptEnd::Refused => return refuse("retry_if returned false"),
            AttemptEnd::Failed { retry_after: Some(delay) } => delay.min(policy.max_delay),
            AttemptEnd::Failed { retry_after: None } => policy.wait_before(attempt),
            AttemptEnd::TimedOut(TimeoutScope::Attempt) if !policy.timeouts => {
                return refuse("retry_timeouts is false");
            }
            AttemptEnd::TimedOut(TimeoutScope::Attempt) | AttemptEnd::Faulted => policy.wait_before(attempt),
            AttemptEnd::TimedOut(TimeoutScope::Item) => return Err(Refusal::ITEM_LIMIT),
            AttemptEnd::Panicked => return refuse("a panic is not retried"),
        };
        if self.stop.is_some() {
            return Err(Refusal::new(NotRetried::Stopping, "the run is stopping"));
        }
        let now = self.clock.read();
        let until = deadline(now, length);
        let give_up = match (self.config.timeout_per_item, started) {
            (Some(limit), Some(started)) => Some(deadline(self.clock.latest_start(started), limit)),
            _ => None,
        };
        let grants = [self.permits.next_grant(), key.and_then(LimiterSet::next_grant)];
        let start = grants.into_iter().flatten().fold(until, Instant::max);
        let too_late = |limit: Option<Instant>| limit.is_some_and(|limit| start >= limit);
        if too_late(give_up) || too_late(self.run_deadline) {
            return Err(Refusal::new(NotRetried::TimeLimit, "a retry could not start before a time limit"));
        }
        let is_granted = self.ask_budget(now)?;
        Ok(Wait { length, until, give_up, is_granted })
    }

    /// Asks the retry budget, if there is one, for a retry. Returns `false` if the retry has to wait until it is granted, or the
    /// reason why there is none.
    #[inline(never)]
    fn ask_budget(&mut self, now: Instant) -> Result<bool, Refusal> {
        if self.config.retry_budget.is_none() {
            return Ok(true);
        }
        self.grant_retries(now);
        let Some(budget) = &self.config.retry_budget else { return Ok(true) };
        // The retries that wait come first.
        if !self.retries.has_refused() && budget.grant(now) {
            return Ok(true);
        }
        match budget.when_spent() {
            WhenSpent::Wait => Ok(false),
            WhenSpent::Fail => {
                self.tally.retries_refused += 1;
                Err(Refusal::new(NotRetried::RetryBudget, "the retry budget is spent"))
            }
        }
    }

    /// As [`ask_budget`](Self::ask_budget), for a call that continues the attempts of a part of a batch.
    pub(in super::super) fn grant_call(&mut self) -> Result<bool, Refusal> {
        let now = self.clock.read();
        self.ask_budget(now)
    }

    /// Asks the retry budget for the retries that it has refused, in their order. A run that is paused does not ask: it could not
    /// start them.
    #[cold]
    pub(in super::super) fn grant_retries(&mut self, now: Instant) {
        let Some(budget) = &self.config.retry_budget else { return };
        if self.signals.raised().is_paused() {
            self.retries.set_next_grant(None);
            return;
        }
        let mut has_deadline = false;
        while self.retries.has_refused() {
            if !budget.grant(now) {
                if self.retries.next_grant().is_none_or(|next| next <= now) {
                    self.retries.set_next_grant(budget.next_room());
                    has_deadline = true;
                }
                break;
            }
            has_deadline |= self.retries.grant_first(now);
        }
        if has_deadline {
            // The driver has to set its timer.
            self.notify_driver();
        }
    }

    /// Counts a first attempt that begins now, if there is a retry budget. That may let retries start.
    #[cold]
    pub(in super::super) fn count_first_attempt(&mut self) {
        if self.config.retry_budget.is_none() {
            return;
        }
        let now = self.clock.read();
        if let Some(budget) = &self.config.retry_budget {
            budget.count_first_attempt(now);
        }
        self.grant_retries(now);
    }
}
