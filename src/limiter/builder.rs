//! The builder of a limiter.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::adaptive::Adaptive;
use super::rate::Rate;
use super::state::State;
use super::{Limiter, MAX_HOLD};
use crate::error::ConfigError;

/// The first number of permits of an adaptive limiter, unless `start_at` sets another.
const START: usize = 4;

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
    permits: Option<usize>,
    adaptive: Option<RangeInclusive<usize>>,
    start: Option<usize>,
    rate: Option<(u32, Duration)>,
    burst: Option<u32>,
    max_hold: Duration,
}

impl Default for LimiterBuilder {
    fn default() -> Self {
        Self { permits: None, adaptive: None, start: None, rate: None, burst: None, max_hold: MAX_HOLD }
    }
}

impl LimiterBuilder {
    /// Sets how many permits may be in use at the same time. The default is no bound. 0 is an error of
    /// [`build`](Self::build).
    pub fn permits(mut self, permits: usize) -> Self {
        self.permits = Some(permits);
        self
    }

    /// Lets the limiter find its own number of permits, within this range: that of a server whose capacity is not known, or changes.
    /// The default is a fixed number, or no bound.
    ///
    /// The limiter observes how long attempts take. If they take longer than without a queue at the server, it lowers the number;
    /// if they do not, it raises it, as long as all permits are in use. Attempts that end as an
    /// [overload](crate::MapRun::overload) lower it at once, if they are more than one in eight. About every 10 s, it halves the number
    /// for a short time, to measure how long an attempt takes without a queue.
    ///
    /// A run needs a [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) of at least the upper end of the range to use all
    /// permits. A weight above the upper end is refused. Attempts that are cancelled do not count. An attempt of
    /// [`map_blocking`](crate::Over::map_blocking) counts when its function returns, and is no overload.
    ///
    /// [`Event::LimitChanged`](crate::Event::LimitChanged) reports each change. The guide says [when to use
    /// it](crate::guide::limits#a-limit-that-finds-itself), and when not.
    ///
    /// A range that is empty or begins at 0, and [`permits`](Self::permits) beside it, are errors of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::Limiter;
    ///
    /// let server = Limiter::builder().adaptive(1..=500).start_at(4).build()?;
    /// assert_eq!(server.permits(), 4);
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("auto", "aimd", "vegas", "gradient", "congestion control", "concurrency limit"))]
    pub fn adaptive(mut self, range: RangeInclusive<usize>) -> Self {
        self.adaptive = Some(range);
        self
    }

    /// Sets the number of permits with which an [`adaptive`](Self::adaptive) limiter begins. The default is 4, or the nearest number in
    /// the range.
    ///
    /// Too low a number costs a few seconds. Too high a number fills the queue of the server until the first measurement, after about
    /// 10 s.
    ///
    /// A number outside the range, and one without `adaptive`, are errors of [`build`](Self::build).
    pub fn start_at(mut self, permits: usize) -> Self {
        self.start = Some(permits);
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
        let Self { rate, burst, max_hold, .. } = self;
        if max_hold.is_zero() || max_hold > LONGEST_HOLD {
            let found = format!("{max_hold:?}");
            return Err(ConfigError::new("max_hold", found, "above 0 and at most 24 hours"));
        }
        let mut state = self.state()?;
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

    /// Returns the state of a limiter with these permits.
    fn state(&self) -> Result<State, ConfigError> {
        match (&self.adaptive, self.permits, self.start) {
            (None, Some(0), _) => Err(ConfigError::new("permits", 0, "at least 1")),
            (None, _, Some(start)) => Err(ConfigError::new("start_at", start, "set together with adaptive")),
            (None, permits, None) => Ok(State::new(permits.unwrap_or(usize::MAX), "")),
            (Some(_), Some(permits), _) => {
                Err(ConfigError::new("permits", permits, "left out, because adaptive finds their number"))
            }
            (Some(range), None, _) if range.is_empty() || range.contains(&0) => {
                let found = format!("{range:?}");
                Err(ConfigError::new("adaptive", found, "a range that begins at 1 or more and is not empty"))
            }
            (Some(range), None, Some(start)) if !range.contains(&start) => {
                Err(ConfigError::new("start_at", start, format!("within {range:?}")))
            }
            (Some(range), None, start) => {
                let start = start.unwrap_or(START).clamp(*range.start(), *range.end());
                Ok(State::seeking(Adaptive::new(range.clone(), start)))
            }
        }
    }
}
