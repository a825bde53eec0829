//! The settings of retries.

use std::time::Duration;

use super::AsyncMapTaskBuilder;
use crate::retry_budget::RetryBudget;

/// # Retries
impl AsyncMapTaskBuilder {
    /// Sets how many more attempts an item gets after its first has failed: `retries(3)` allows at most 4 attempts.
    ///
    /// The default is [`DEFAULT_RETRIES`](crate::DEFAULT_RETRIES), none. These are retried:
    ///
    /// - errors that the run's [`retry_if`](crate::MapRun::retry_if) accepts, by default all;
    /// - attempts that exceed [`timeout_per_attempt`](Self::timeout_per_attempt), unless
    ///   [`retry_timeouts`](Self::retry_timeouts) is `false`;
    /// - attempts of [`map_blocking`](crate::Over::map_blocking) for which no thread could be started.
    ///
    /// A panic is never retried, nor is an item that has exceeded its [`timeout_per_item`](Self::timeout_per_item).
    /// An item counts as a failure only after its last attempt.
    ///
    /// Any number is allowed. With retries, the item is cloned for each attempt but the last. If the task has
    /// retries, a run of [`map_once`](crate::Over::map_once) is refused, because its items need not be `Clone`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder().retries(3).retry_delay(Duration::ZERO).build()?;
    /// let error = task.run(["x"], |_| async { Err::<(), _>("busy") }).await.unwrap_err();
    /// assert_eq!(error.partial().errors[&0].attempts(), 4);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("retry", "max_retries", "attempts", "max_attempts"))]
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retry.retries = retries;
        self
    }

    /// Sets the delay before the first retry, from the end of the attempt that failed.
    ///
    /// The default is [`DEFAULT_RETRY_DELAY`](crate::DEFAULT_RETRY_DELAY), 1 second. Each later delay is
    /// [`retry_multiplier`](Self::retry_multiplier) times the one before, up to
    /// [`max_retry_delay`](Self::max_retry_delay), and is then [jittered](Self::retry_jitter). The defaults give
    /// about 1 s, 2 s, 4 s, 8 s. A zero delay is never multiplied, and the retry starts after one new item. Any
    /// duration is allowed.
    ///
    /// The setting has no effect if [`retries`](Self::retries) is 0, or if the run's
    /// [`retry_after`](crate::MapRun::retry_after) returns a delay.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// // About 200 ms, 400 ms and 800 ms.
    /// let task = AsyncMapTask::builder().retries(3).retry_delay(Duration::from_millis(200)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("backoff", "exponential backoff", "wait"))]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.settings.retry.delay = delay;
        self
    }

    /// Sets the longest delay before any retry, jitter included.
    ///
    /// The default is [`DEFAULT_MAX_RETRY_DELAY`](crate::DEFAULT_MAX_RETRY_DELAY), 60 seconds. With the other
    /// defaults, the 7th retry reaches it: 1, 2, 4, 8, 16, 32, then 60 instead of 64 seconds. If it is below
    /// [`retry_delay`](Self::retry_delay), every delay is this long. It also caps the delay that
    /// [`retry_after`](crate::MapRun::retry_after) returns. Any duration is allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// // About 1, 2, 4 and 8 s, then 10 s each time.
    /// let task = AsyncMapTask::builder().retries(9).max_retry_delay(Duration::from_secs(10)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn max_retry_delay(mut self, delay: Duration) -> Self {
        self.settings.retry.max_delay = delay;
        self
    }

    /// If `false`, an attempt that has exceeded [`timeout_per_attempt`](Self::timeout_per_attempt) is not retried: its
    /// item fails with [`TimedOut`](crate::ItemError::TimedOut).
    ///
    /// The default is `true`. Use `false` if the attempt may have had its effect, and a second one would repeat it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder()
    ///     .retries(3)
    ///     .timeout_per_attempt(Duration::from_secs(1))
    ///     .retry_timeouts(false)
    ///     .build()?;
    /// let error = task.run([1], |_| std::future::pending::<Result<(), String>>()).await.unwrap_err();
    /// assert_eq!(error.partial().errors[&0].attempts(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_timeouts(mut self, retry_timeouts: bool) -> Self {
        self.settings.retry.timeouts = retry_timeouts;
        self
    }

    /// Sets the factor between one delay and the next: the delay before retry `k` is
    /// `retry_delay * retry_multiplier^(k - 1)`.
    ///
    /// The default is [`DEFAULT_RETRY_MULTIPLIER`](crate::DEFAULT_RETRY_MULTIPLIER), 2. With 1, every delay is
    /// [`retry_delay`](Self::retry_delay). With 3 and a delay of 1 s, the delays are 1 s, 3 s, 9 s, up to
    /// [`max_retry_delay`](Self::max_retry_delay). A value below 1, infinite or NaN is an error of
    /// [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let every_second = AsyncMapTask::builder().retries(5).retry_multiplier(1.0).build()?;
    ///
    /// assert!(AsyncMapTask::builder().retry_multiplier(0.5).build().is_err());
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("backoff", "exponential"))]
    pub fn retry_multiplier(mut self, multiplier: f64) -> Self {
        self.settings.retry.multiplier = multiplier;
        self
    }

    /// Sets the fraction by which a delay is made shorter or longer at random, so that items that failed together are
    /// not retried together.
    ///
    /// A delay `d` becomes uniform in `[d * (1 - jitter), d * (1 + jitter)]`, and at most
    /// [`max_retry_delay`](Self::max_retry_delay). The default is
    /// [`DEFAULT_RETRY_JITTER`](crate::DEFAULT_RETRY_JITTER), 0.5: 4 s become 2 to 6 s. With 0 the delays are exact,
    /// which suits tests. With 1 they are 0 to twice as long. A delay that
    /// [`retry_after`](crate::MapRun::retry_after) returns is not jittered. A value below 0, above 1 or NaN is an
    /// error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// // Exactly 1 s, 2 s and 4 s.
    /// let task = AsyncMapTask::builder().retries(3).retry_jitter(0.0).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("backoff", "random"))]
    pub fn retry_jitter(mut self, jitter: f64) -> Self {
        self.settings.retry.jitter = jitter;
        self
    }

    /// Sets a limit on the retries of all items, which this task can share with other tasks: a [`RetryBudget`].
    ///
    /// The default is none. [`retries`](Self::retries) still limits the attempts at each item, and the budget is only asked
    /// for a retry that everything else allows. So it has no effect if `retries` is 0.
    ///
    /// If the budget is spent, the item fails with the error that it has, and counts in
    /// [`Summary::retries_refused`](crate::Summary::retries_refused). With [`WhenSpent::Wait`](crate::WhenSpent::Wait), it
    /// waits until the budget grants the retry. Its [`timeout_per_item`](Self::timeout_per_item) and the
    /// [`run_timeout`](Self::run_timeout) continue meanwhile. The delay of a retry begins when its attempt has failed, so the
    /// wait for the budget is not added to it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::{AsyncMapTask, RetryBudget};
    /// // Whatever happens to the database, at most one retry for five first attempts of both, and 10 a second more.
    /// let budget = RetryBudget::builder().build()?;
    /// let read = AsyncMapTask::builder().retries(3).retry_budget(&budget).build()?;
    /// let write = AsyncMapTask::builder().retries(1).retry_budget(&budget).build()?;
    /// # let _ = (read, write);
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("circuit breaker", "retry storm"))]
    pub fn retry_budget(mut self, budget: &RetryBudget) -> Self {
        self.settings.retry_budget = Some(budget.clone());
        self
    }
}
