//! The retry policy: how long to wait before which retry. The only file that names the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// When an item that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RetryPolicy {
    /// How many attempts may follow the first.
    pub(crate) retries: u32,
    /// The wait before the first retry.
    pub(crate) delay: Duration,
    /// The longest wait before any retry.
    pub(crate) max_delay: Duration,
    /// How many times longer each wait is than the one before.
    pub(crate) multiplier: f64,
    /// The part of a wait by which it is made shorter or longer at random.
    pub(crate) jitter: f64,
}

impl RetryPolicy {
    /// Whether an attempt may follow the one with this number; the first attempt is 1.
    pub(crate) fn allows_after(&self, attempt: u32) -> bool {
        attempt <= self.retries
    }

    /// The wait before a retry, jittered; the first retry is 1.
    pub(crate) fn wait_before(&self, retry: u32) -> Duration {
        self.jittered(self.backoff(retry))
    }

    /// The wait before a retry without its jitter: `delay * multiplier^(retry - 1)`, at most
    /// `max_delay`. Too large for a number is `max_delay`, too.
    fn backoff(&self, retry: u32) -> Duration {
        if self.delay.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.multiplier.powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.max_delay, |wait| wait.min(self.max_delay))
    }

    /// Uniform in `[wait * (1 - jitter), wait * (1 + jitter)]`, and never above `max_delay`.
    fn jittered(&self, wait: Duration) -> Duration {
        if self.jitter <= 0.0 || wait.is_zero() {
            return wait;
        }
        let mut interval = ExponentialBackoff {
            current_interval: wait,
            randomization_factor: self.jitter,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        interval.next_backoff().map_or(wait, |jittered| jittered.min(self.max_delay))
    }
}
