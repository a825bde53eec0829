//! The builder of a keyed limiter.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use super::{KeyedLimiter, MAX_KEYS};
use crate::error::ConfigError;
use crate::limiter::LimiterBuilder;

/// Builds a [`KeyedLimiter`]; see [`KeyedLimiter::builder`].
///
/// No setter panics, and none checks its value: [`build`](Self::build) checks them all.
///
/// # Examples
///
/// At most 4 requests at once to each host, and 2 per second, after a burst of 10:
///
/// ```
/// use async_map_task::KeyedLimiter;
/// use std::time::Duration;
///
/// let hosts = KeyedLimiter::<String>::builder()
///     .permits(4)
///     .rate(2, Duration::from_secs(1))
///     .burst(10)
///     .build()?;
///
/// let error = KeyedLimiter::<String>::builder().max_keys(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "max_keys must be at least 1, got 0");
/// # let _ = hosts;
/// # Ok::<_, async_map_task::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct KeyedLimiterBuilder<K> {
    limiter: LimiterBuilder,
    max_keys: usize,
    key: PhantomData<fn(K)>,
}

impl<K> KeyedLimiterBuilder<K> {
    pub(super) fn new() -> Self {
        Self { limiter: LimiterBuilder::default(), max_keys: MAX_KEYS, key: PhantomData }
    }

    /// Sets how many permits of each key may be in use at the same time. The default is no bound. 0 is an error of
    /// [`build`](Self::build).
    pub fn permits(self, permits: usize) -> Self {
        Self { limiter: self.limiter.permits(permits), ..self }
    }

    /// Sets how many permits of each key may be granted per period. The default is no bound.
    ///
    /// Each key has a rate of its own, which works as [`LimiterBuilder::rate`] does. A key is remembered until its rate has
    /// recovered completely: after n permits, for n times `period / count`. So a slow rate and many keys need a higher
    /// [`max_keys`](Self::max_keys).
    ///
    /// A `count` of 0, and a `period` of 0 or above 24 hours, are errors of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::KeyedLimiter;
    /// use std::time::Duration;
    ///
    /// let hosts = KeyedLimiter::builder().rate(2, Duration::from_secs(1)).build()?;
    /// let start = tokio::time::Instant::now();
    /// for host in ["a.example", "b.example", "a.example", "b.example"] {
    ///     drop(hosts.acquire(host).await?);
    /// }
    /// assert_eq!(start.elapsed(), Duration::from_millis(500)); // with one rate for both, it would be 1.5 s
    /// # Ok(())
    /// # }
    /// ```
    pub fn rate(self, count: u32, period: Duration) -> Self {
        Self { limiter: self.limiter.rate(count, period), ..self }
    }

    /// Sets how many permits of a key may be granted at once after a pause, before the rate spaces them. The default is 1.
    ///
    /// 0 is an error of [`build`](Self::build), and so is a burst without a rate.
    pub fn burst(self, burst: u32) -> Self {
        Self { limiter: self.limiter.burst(burst), ..self }
    }

    /// Sets the longest time of a [hold](KeyedLimiter::hold_back): a longer one is shortened to it. The default is 300 s.
    ///
    /// 0, and more than 24 hours, are errors of [`build`](Self::build).
    pub fn max_hold(self, time: Duration) -> Self {
        Self { limiter: self.limiter.max_hold(time), ..self }
    }

    /// Sets how many keys are remembered. The default is
    /// [`DEFAULT_MAX_KEYS`](KeyedLimiter::DEFAULT_MAX_KEYS), 100,000.
    ///
    /// This bounds the memory. A key that is not idle cannot be forgotten, because its limit would be lost. So while this many
    /// keys are not idle, [`acquire`](KeyedLimiter::acquire) of a new key waits until one of them is. See [which keys are
    /// remembered](KeyedLimiter#which-keys-are-remembered).
    ///
    /// A key takes about 600 bytes, and the memory that it owns. 0 is an error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::KeyedLimiter;
    ///
    /// let hosts = KeyedLimiter::builder().permits(4).max_keys(2).build()?;
    /// let (one, other) = (hosts.acquire("a.example").await?, hosts.acquire("b.example").await?);
    /// assert!(hosts.try_acquire("c.example").is_none());
    /// drop(one);
    /// assert!(hosts.try_acquire("c.example").is_some());
    /// # drop(other);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_keys(self, keys: usize) -> Self {
        Self { max_keys: keys, ..self }
    }
}

impl<K: Eq + Hash + Clone> KeyedLimiterBuilder<K> {
    /// Returns the limiter.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is not allowed. It names the setting, the value and the allowed values.
    pub fn build(self) -> Result<KeyedLimiter<K>, ConfigError> {
        if self.max_keys == 0 {
            return Err(ConfigError::new("max_keys", 0, "at least 1"));
        }
        Ok(KeyedLimiter::like(self.limiter.build()?, self.max_keys))
    }
}

// Derived, these would need a key that has them.
impl<K> Clone for KeyedLimiterBuilder<K> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), max_keys: self.max_keys, key: PhantomData }
    }
}

impl<K> fmt::Debug for KeyedLimiterBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiterBuilder")
            .field("limiter", &self.limiter)
            .field("max_keys", &self.max_keys)
            .finish()
    }
}
