//! Decides if and when an attempt is followed by another.

use std::time::Duration;

use super::Scheduler;
use super::clock::deadline;
use crate::outcome::TimeoutScope;
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

/// The wait of an item before its next attempt.
pub(in super::super) struct Wait {
    pub(in super::super) length: Duration,
    pub(in super::super) until: Instant,
    /// After this time, the attempt is not made any more.
    pub(in super::super) give_up: Option<Instant>,
}

impl Scheduler {
    /// Returns the wait before the next attempt at an item, or the reason why there is none. The first attempt at the item
    /// started at `started`.
    pub(in super::super) fn wait_before_retry(
        &mut self,
        attempt: u32,
        started: Option<Instant>,
        ended: AttemptEnd,
    ) -> Result<Wait, &'static str> {
        let policy = &self.config.retry;
        let length = match ended {
            AttemptEnd::Refused => return Err("retry_if returned false"),
            AttemptEnd::Failed { retry_after: Some(delay) } => delay.min(policy.max_delay),
            AttemptEnd::Failed { retry_after: None } => policy.wait_before(attempt),
            AttemptEnd::TimedOut(TimeoutScope::Attempt) if !policy.timeouts => {
                return Err("retry_timeouts is false");
            }
            AttemptEnd::TimedOut(TimeoutScope::Attempt) | AttemptEnd::Faulted => policy.wait_before(attempt),
            AttemptEnd::TimedOut(TimeoutScope::Item) => return Err("the item's time limit has passed"),
            AttemptEnd::Panicked => return Err("a panic is not retried"),
        };
        let until = deadline(self.clock.read(), length);
        let give_up = match (self.config.timeout_per_item, started) {
            (Some(limit), Some(started)) => Some(deadline(self.clock.latest_start(started), limit)),
            _ => None,
        };
        let start = self.permits.next_grant().map_or(until, |grant| grant.max(until));
        let too_late = |limit: Option<Instant>| limit.is_some_and(|limit| start >= limit);
        if too_late(give_up) || too_late(self.run_deadline) {
            return Err("a retry could not start before a time limit");
        }
        Ok(Wait { length, until, give_up })
    }
}
