//! The builder: every setting of a task, what it means and what it is when nothing is said.

mod concurrency;
mod criteria;

use std::borrow::Cow;
use std::time::Duration;

use tracing::warn;

use crate::config::{Config, Settings};
use crate::error::ConfigError;
use crate::limiter::Limiter;
use crate::task::AsyncMapTask;

impl AsyncMapTask {
    /// A builder that holds the defaults: change what differs, then [`build`](AsyncMapTaskBuilder::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().concurrency(16).retries(2).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn builder() -> AsyncMapTaskBuilder {
        AsyncMapTaskBuilder { settings: Settings::default() }
    }
}

/// The settings of an [`AsyncMapTask`] to be; made by [`AsyncMapTask::builder`].
///
/// No setter panics and none checks its value: [`build`](Self::build) checks them all. The order of the
/// setters does not matter, and the last of several calls of one counts.
///
/// # Examples
///
/// ```
/// use async_map_task::AsyncMapTask;
/// use std::time::Duration;
///
/// let task = AsyncMapTask::builder()
///     .name("thumbnails")
///     .concurrency(32)
///     .retries(3)
///     .timeout_per_attempt(Duration::from_secs(5))
///     .min_success_ratio(0.95)
///     .build()?;
/// # Ok::<_, async_map_task::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` makes a task of it"]
pub struct AsyncMapTaskBuilder {
    settings: Settings,
}

/// # The name
impl AsyncMapTaskBuilder {
    /// What the task is called in error messages, in log lines and in the `tracing` span of a run.
    ///
    /// The default is the type name of the map function, such as `my_app::fetch`, or
    /// `my_app::main::{{closure}}` for a closure. Closures of one function share that name.
    ///
    /// `recover` and `cache` (feature `store`) require a name, because a store knows runs and outputs by it: without one,
    /// the run ends with [`FailureReason::Config`](crate::FailureReason::Config) before any item starts. Give each
    /// function a name of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// let task = AsyncMapTask::builder().name("resize").build()?;
    /// let error = task.run([1], |_| async { Err::<(), _>("disk full") }).await.unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "resize: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt: disk full"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.name = Some(name.into());
        self
    }
}

/// # Retries
impl AsyncMapTaskBuilder {
    /// How many further attempts an item gets after its first has failed: `retries(3)` is at most 4 attempts.
    ///
    /// The default is [`DEFAULT_RETRIES`](crate::DEFAULT_RETRIES), none. Retried are errors, all of them
    /// unless the run's [`retry_if`](crate::MapRun::retry_if) says otherwise, and attempts cut off by
    /// [`timeout_per_attempt`](Self::timeout_per_attempt). Never retried are a panic and an item that is out
    /// of its [`timeout_per_item`](Self::timeout_per_item). Only an item that fails its last attempt counts
    /// as a failure.
    ///
    /// Any number is allowed. With retries, the item is cloned for each attempt but the last; a run
    /// of [`map_once`](crate::Over::map_once), whose items need not be `Clone`, refuses them.
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
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retry.retries = retries;
        self
    }

    /// The wait before the first retry, from the end of the attempt that failed.
    ///
    /// The default is [`DEFAULT_RETRY_DELAY`](crate::DEFAULT_RETRY_DELAY), 1 second. Each later wait is
    /// [`retry_multiplier`](Self::retry_multiplier) times as long as the one before, up to
    /// [`max_retry_delay`](Self::max_retry_delay), and then [jittered](Self::retry_jitter): the defaults give
    /// about 1 s, 2 s, 4 s, 8 s. Zero retries at once, and stays zero. It says nothing where
    /// [`retries`](Self::retries) is 0, or where the run's [`retry_after`](crate::MapRun::retry_after) names a
    /// wait. Any duration is allowed.
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
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.settings.retry.delay = delay;
        self
    }

    /// The longest wait before any retry, jitter included.
    ///
    /// The default is [`DEFAULT_MAX_RETRY_DELAY`](crate::DEFAULT_MAX_RETRY_DELAY), 60 seconds. With the other
    /// defaults that is reached at the 7th retry: 1, 2, 4, 8, 16, 32, then 60 instead of 64 seconds. Where it
    /// is below [`retry_delay`](Self::retry_delay), every wait is this long. It does not shorten a wait that
    /// [`retry_after`](crate::MapRun::retry_after) names. Any duration is allowed.
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

    /// How many times as long each wait is as the one before it: the wait before retry `k` is
    /// `retry_delay * retry_multiplier^(k - 1)`.
    ///
    /// The default is [`DEFAULT_RETRY_MULTIPLIER`](crate::DEFAULT_RETRY_MULTIPLIER), 2. With 1 all waits are
    /// [`retry_delay`](Self::retry_delay) long; with 3 and a delay of 1 s they are 1 s, 3 s, 9 s, up to
    /// [`max_retry_delay`](Self::max_retry_delay). Below 1, infinite or NaN is an error of
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
    pub fn retry_multiplier(mut self, multiplier: f64) -> Self {
        self.settings.retry.multiplier = multiplier;
        self
    }

    /// By what part of itself a wait is made shorter or longer at random, so that items that failed together
    /// do not come back together.
    ///
    /// A wait `d` becomes uniform in `[d * (1 - jitter), d * (1 + jitter)]`, and never more than
    /// [`max_retry_delay`](Self::max_retry_delay). The default is
    /// [`DEFAULT_RETRY_JITTER`](crate::DEFAULT_RETRY_JITTER), 0.5: 4 s become 2 to 6 s. With 0 the waits are
    /// exact, which suits tests; with 1 they are 0 to twice as long. A wait that
    /// [`retry_after`](crate::MapRun::retry_after) names is not jittered. Below 0, above 1 or NaN is an error
    /// of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// // Exactly 1 s, 2 s and 4 s.
    /// let task = AsyncMapTask::builder().retries(3).retry_jitter(0.0).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn retry_jitter(mut self, jitter: f64) -> Self {
        self.settings.retry.jitter = jitter;
        self
    }
}

/// # Time limits
impl AsyncMapTaskBuilder {
    /// How long one attempt may take, from its first poll. Then it is dropped, and the item
    /// [tried again](Self::retries) where a retry is left.
    ///
    /// The default is no limit. Waiting for a place does not count, nor does the wait before a retry. With 5 s
    /// and `retries(3)`, the attempts of an item take at most 20 s together, its waits come on top;
    /// [`timeout_per_item`](Self::timeout_per_item) bounds both. Where both run out together, it counts as
    /// this one. With a [`cancel_grace`](Self::cancel_grace) of 2 s the attempt is told to stop after 5 s and
    /// dropped after 7 s. A result that is there in time is never lost to a limit.
    ///
    /// A limit cannot interrupt code that does not wait. If the first poll of an attempt holds up its thread, the limit
    /// runs from the end of that poll; time that a later poll takes counts. For a function that blocks, use
    /// [`map_blocking`](crate::Over::map_blocking).
    ///
    /// Zero is an error of [`build`](Self::build), and so is a limit above
    /// [`timeout_per_item`](Self::timeout_per_item). An item whose last attempt runs out of time fails as
    /// [`TimedOut`](crate::ItemError::TimedOut) with the scope [`Attempt`](crate::TimeoutScope::Attempt).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder().retries(3).timeout_per_attempt(Duration::from_secs(5)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn timeout_per_attempt(mut self, limit: Duration) -> Self {
        self.settings.timeout_per_attempt = Some(limit);
        self
    }

    /// How long one item may take with all its attempts and waits, from the first poll of its first attempt.
    ///
    /// The default is no limit. Unlike [`timeout_per_attempt`](Self::timeout_per_attempt), it is the last
    /// word: the item is not tried again. A retry that could not start within it is not waited for; the item
    /// fails at once with the error it has. With 10 s here and the exact waits of 1, 2, 4 and 8 s, an item whose
    /// attempts fail at once is tried at 0, 1, 3 and 7 s, and fails at 7 s, because its next attempt
    /// would begin at 15 s.
    ///
    /// Zero is an error of [`build`](Self::build). An item that is cut off by it fails as
    /// [`TimedOut`](crate::ItemError::TimedOut) with the scope [`Item`](crate::TimeoutScope::Item).
    /// The guide has [a timeline](crate#retries-and-timeouts-with-numbers).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder().retries(9).timeout_per_item(Duration::from_secs(30)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn timeout_per_item(mut self, limit: Duration) -> Self {
        self.settings.timeout_per_item = Some(limit);
        self
    }

    /// How long a whole run may take, from its first poll.
    ///
    /// The default is no limit. When it is over, the run begins nothing more, gives what runs the
    /// [`cancel_grace`](Self::cancel_grace), and ends with
    /// [`FailureReason::TimedOut`](crate::FailureReason::TimedOut) and everything that was finished: with
    /// 600 s here and a grace of 2 s, after 602 s at the latest. A retry that could not start within it
    /// is not waited for.
    ///
    /// Zero is an error of [`build`](Self::build), and so is a grace that is longer than it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// # use tokio::time::sleep;
    /// let task = AsyncMapTask::builder().run_timeout(Duration::from_secs(60)).build()?;
    /// let run = task.run([5, 3_600], |n| async move { Ok::<_, String>(sleep(Duration::from_secs(n)).await) });
    /// assert_eq!(run.await.unwrap_err().partial().successes(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_timeout(mut self, limit: Duration) -> Self {
        self.settings.run_timeout = Some(limit);
        self
    }

    /// How long an attempt that has to stop may go on, to end by itself.
    ///
    /// An attempt has to stop when a time limit of it runs out and when its run stops. Then its
    /// [`cancellation_token`](crate::ItemContext::cancellation_token) is cancelled, and it is dropped when the
    /// grace is over. If it ends with `Ok` within the grace, the item has succeeded. If it ends with `Err`
    /// after a time limit, it counts as timed out; if the run was stopping, the error is kept.
    ///
    /// The default is zero: it is dropped at once. Dropping is a clean end for most futures; a grace is for
    /// those that have something to finish, such as a file to remove. Such an attempt keeps its place
    /// meanwhile. A grace above [`run_timeout`](Self::run_timeout) is an error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder()
    ///     .timeout_per_attempt(Duration::from_secs(5))
    ///     .cancel_grace(Duration::from_secs(2))
    ///     .build()?;
    /// let result = task.over([()]).map_with_context(|cx, ()| async move {
    ///     cx.cancellation_token().cancelled().await;
    ///     Ok::<_, String>("what I have so far")
    /// });
    /// assert_eq!(result.await?.results, [Some("what I have so far")]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// A limit that this task shares with others: an attempt needs a place within
    /// [`concurrency`](Self::concurrency) *and* permits of the [`Limiter`], as many as the item's
    /// [`weight`](crate::MapRun::weight), which is 1 unless the run says otherwise.
    ///
    /// The default is none.
    pub fn limiter(mut self, limiter: &Limiter) -> Self {
        self.settings.limiter = Some(limiter.clone());
        self
    }
}

/// # The task
impl AsyncMapTaskBuilder {
    /// Checks the settings and makes the task.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] names the first setting that cannot be used, what was found and what is allowed:
    ///
    /// - [`concurrency`](Self::concurrency) or [`look_ahead`](Self::look_ahead) is 0;
    /// - [`retry_multiplier`](Self::retry_multiplier) is below 1, infinite or NaN;
    /// - [`retry_jitter`](Self::retry_jitter) is below 0, above 1 or NaN;
    /// - [`timeout_per_attempt`](Self::timeout_per_attempt), [`timeout_per_item`](Self::timeout_per_item) or
    ///   [`run_timeout`](Self::run_timeout) is zero;
    /// - [`timeout_per_attempt`](Self::timeout_per_attempt) is longer than
    ///   [`timeout_per_item`](Self::timeout_per_item);
    /// - [`cancel_grace`](Self::cancel_grace) is longer than [`run_timeout`](Self::run_timeout);
    /// - [`min_success_ratio`](Self::min_success_ratio) is below 0, above 1 or NaN;
    /// - [`early_success`](Self::early_success) is set and no success criterion is.
    ///
    /// # Warnings
    ///
    /// Settings that can be used but take each other's effect are logged once by `build`, as a `tracing` event
    /// at level `WARN` with the target `async_map_task`. Examples are a [`retry_delay`](Self::retry_delay)
    /// without [`retries`](Self::retries), a [`timeout_per_item`](Self::timeout_per_item) above the
    /// [`run_timeout`](Self::run_timeout), and [`fail_fast`](Self::fail_fast) together with
    /// [`max_failures`](Self::max_failures).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let error = AsyncMapTask::builder().min_success_ratio(95.0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "min_success_ratio is 95, allowed is 0 to 1");
    /// ```
    pub fn build(self) -> Result<AsyncMapTask, ConfigError> {
        let config = Config::try_from(self.settings)?;
        for doubt in config.doubts() {
            warn!(target: "async_map_task", task = config.name.as_deref(), "{doubt}");
        }
        Ok(AsyncMapTask::new(config))
    }
}
