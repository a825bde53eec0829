//! The retry policy: the wait before each retry. This is the only file that names the `backoff` crate.

pub(crate) mod budget;

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Decides if and when a failed item is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RetryPolicy {
    /// How many attempts may follow the first.
    pub(crate) retries: u32,
    /// The wait before the first retry.
    pub(crate) delay: Duration,
    /// The longest wait before any retry.
    pub(crate) max_delay: Duration,
    /// The factor from each wait to the next.
    pub(crate) multiplier: f64,
    /// The largest part of a wait by which it is shortened or lengthened at random.
    pub(crate) jitter: f64,
    /// `true` if attempts that have exceeded their time limit are retried.
    pub(crate) timeouts: bool,
}

impl RetryPolicy {
    /// Returns `true` if an attempt may follow the one with this number; the first attempt is 1.
    pub(crate) fn allows_after(&self, attempt: u32) -> bool {
        attempt <= self.retries
    }

    /// Returns the wait before a retry, with jitter; the first retry is 1.
    pub(crate) fn wait_before(&self, retry: u32) -> Duration {
        self.jittered(self.backoff(retry))
    }

    /// Returns the wait before a retry without its jitter: `delay * multiplier^(retry - 1)`, at most `max_delay`. A wait
    /// that is too large for a [`Duration`] is `max_delay`, too.
    fn backoff(&self, retry: u32) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        if exponent == 0 || self.delay.is_zero() {
            return self.delay.min(self.max_delay);
        }
        let seconds = self.delay.as_secs_f64() * self.multiplier.powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.max_delay, |wait| wait.min(self.max_delay))
    }

    /// Returns a wait that is uniform in `[wait * (1 - jitter), wait * (1 + jitter)]`, and never above `max_delay`.
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

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        retries: 3,
        delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(60),
        multiplier: 2.0,
        jitter: 0.0,
        timeouts: true,
    };

    #[test]
    fn as_many_attempts_as_retries_and_one() {
        let allowed: Vec<_> = (1..=5).map(|attempt| POLICY.allows_after(attempt)).collect();
        assert_eq!(allowed, [true, true, true, false, false]);
        assert!(!RetryPolicy { retries: 0, ..POLICY }.allows_after(1));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = (1..=8).map(|retry| POLICY.wait_before(retry).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn no_retry_and_no_delay_overflows() {
        let longest =
            RetryPolicy { delay: Duration::MAX, max_delay: Duration::MAX, multiplier: 1e300, ..POLICY };
        for retry in [0, 1, 2, 64, 1_025, u32::MAX] {
            assert!(POLICY.wait_before(retry) <= POLICY.max_delay);
            assert!(longest.wait_before(retry) >= Duration::from_secs(u64::MAX / 2));
            assert_eq!(RetryPolicy { delay: Duration::ZERO, ..longest }.wait_before(retry), Duration::ZERO);
        }
        assert_eq!(POLICY.wait_before(u32::MAX), POLICY.max_delay);
        let exact = Duration::new(1 << 34, 1);
        assert_eq!(RetryPolicy { delay: exact, ..longest }.wait_before(1), exact);
        assert_eq!(RetryPolicy { multiplier: 1.0, ..POLICY }.wait_before(u32::MAX), POLICY.delay);
    }

    #[test]
    fn jitter_is_uniform_within_its_bounds_and_below_the_longest() {
        let jittered = RetryPolicy { jitter: 0.25, max_delay: Duration::from_millis(2_250), ..POLICY };
        let draw = |retry| (0..10_000).map(move |_| jittered.wait_before(retry).as_secs_f64());
        let quarter = |from: f64| draw(1).filter(|wait| (from..from + 0.125).contains(wait)).count();
        assert!(draw(1).all(|wait| (0.75..=1.25 + 1e-8).contains(&wait)));
        for from in [0.75, 0.875, 1.0, 1.125] {
            // A quarter of 10,000, and eleven standard deviations (43 each) to either side.
            assert!((2_000..3_000).contains(&quarter(from)), "{} from {from}", quarter(from));
        }
        assert!(draw(2).all(|wait| (1.5..=2.25).contains(&wait)) && draw(2).any(|wait| wait > 2.2));
        assert!(draw(3).all(|wait| (1.68..=2.25).contains(&wait)), "capped before and after the jitter");
        let hours = Duration::from_secs(36_000);
        let long = RetryPolicy { delay: hours, max_delay: hours * 2, ..jittered };
        assert!(
            (0..100).any(|_| long.wait_before(1) > hours) && (0..100).any(|_| long.wait_before(1) < hours)
        );
        let none = RetryPolicy { delay: Duration::ZERO, ..jittered };
        assert_eq!(none.wait_before(1), Duration::ZERO);
    }
}
