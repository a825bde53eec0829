//! The builder of a limiter.

use std::time::Duration;

use super::rate::Rate;
use super::state::State;
use super::{Limiter, MAX_HOLD};
use crate::error::ConfigError;

/// The longest value of `max_hold`.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Builds a [`Limiter`]; see [`Limiter::builder`].
///
/// # Examples
///
/// A server that allows 3,000 requests per minute, and 100 at once:
///
/// ```
/// use async_map_task::Limiter;
/// use std::time::Duration;
///
/// let api = Limiter::builder().permits(100).rate(3_000, Duration::from_secs(60)).burst(50).build()?;
/// assert_eq!(api.permits(), 100);
///
/// let error = Limiter::builder().rate(0, Duration::from_secs(60)).build().unwrap_err();
/// assert_eq!(error.to_string(), "rate must be at least 1 per period, got 0");
/// # Ok::<_, async_map_task::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct LimiterBuilder {
    permits: usize,
    rate: Option<(u32, Duration)>,
    burst: Option<u32>,
    max_hold: Duration,
}

impl Default for LimiterBuilder {
    fn default() -> Self {
        Self { permits: usize::MAX, rate: None, burst: None, max_hold: MAX_HOLD }
    }
}

impl LimiterBuilder {
    /// Sets how many permits may be in use at the same time. The default is no bound. 0 is an error of
    /// [`build`](Self::build).
    pub fn permits(mut self, permits: usize) -> Self {
        self.permits = permits;
        self
    }

    /// Sets how many attempts may begin per period, retries included. The default is no bound.
    ///
    /// Starts are evenly spaced: with `rate(3_000, 60 s)`, one every 20 ms. An attempt of weight w counts as w starts. The wait
    /// for the rate comes before the attempt. It holds no permit of the run, and does not count toward the time limits of an
    /// item's first attempt. The wait of a retry counts toward [`timeout_per_item`](crate::AsyncMapTaskBuilder::timeout_per_item).
    ///
    /// The rate is exact: in any time t, at most `burst + (t + 10 ms) x count / period` attempts begin. The 10 ms let a start
    /// that a timer has delayed make up for it, so that the rate is also used, whether it is one per hour or 100,000 per second.
    /// The algorithm is the generic cell rate algorithm of ITU-T I.371.
    ///
    /// It is the rate of one process. Several processes divide a quota among them.
    ///
    /// A `count` of 0, and a `period` of 0 or above 24 hours, are errors of [`build`](Self::build).
    #[doc(alias("rate limit", "throttle", "quota", "token bucket", "gcra"))]
    pub fn rate(mut self, count: u32, period: Duration) -> Self {
        self.rate = Some((count, period));
        self
    }

    /// Sets how many attempts may begin at once after a pause, before the rate spaces them. The default is 1.
    ///
    /// 0 is an error of [`build`](Self::build), and so is a burst without a rate.
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Sets the longest time of a [hold](Limiter::hold_back): a longer one is shortened to it. The default is 300 s.
    ///
    /// 0, and more than 24 hours, are errors of [`build`](Self::build).
    pub fn max_hold(mut self, time: Duration) -> Self {
        self.max_hold = time;
        self
    }

    /// Returns the limiter.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is not allowed. It names the setting, the value and the allowed values.
    pub fn build(self) -> Result<Limiter, ConfigError> {
        let Self { permits, rate, burst, max_hold } = self;
        if permits == 0 {
            return Err(ConfigError::new("permits", permits, "at least 1"));
        }
        if max_hold.is_zero() || max_hold > LONGEST_HOLD {
            let found = format!("{max_hold:?}");
            return Err(ConfigError::new("max_hold", found, "above 0 and at most 24 hours"));
        }
        let mut state = State::new(permits, "");
        state.max_hold = max_hold;
        match (rate, burst) {
            (Some((count, period)), burst) => {
                state.set_rate(Rate::new(count, period, burst.unwrap_or(1))?);
            }
            (None, Some(burst)) => {
                return Err(ConfigError::new("burst", burst, "set together with a rate"));
            }
            (None, None) => {}
        }
        Ok(Limiter::with_state(state))
    }
}
