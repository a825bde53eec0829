//! The builder: the meaning and the default of every setting.

mod concurrency;
mod criteria;
mod retries;

use std::borrow::Cow;
use std::time::Duration;

use tracing::warn;

use crate::config::{Config, Settings};
use crate::error::ConfigError;
use crate::limiter::Limiter;
use crate::observe::Observer;
use crate::task::AsyncMapTask;

impl AsyncMapTask {
    /// Returns a builder with the defaults. Change the settings that differ, then call
    /// [`build`](AsyncMapTaskBuilder::build).
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

impl AsyncMapTask {
    /// Returns a builder with the settings of this task, for a task that differs in some of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().name("fetch").retries(2).build()?;
    /// let careful = task.to_builder().concurrency(1).build()?;
    /// # let _ = careful;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn to_builder(&self) -> AsyncMapTaskBuilder {
        AsyncMapTaskBuilder { settings: self.settings().clone() }
    }
}

/// The settings of an [`AsyncMapTask`] before it is built; created by [`AsyncMapTask::builder`].
///
/// No setter panics, and none checks its value: [`build`](Self::build) checks them all. The order of the setters does
/// not matter. If a setter is called several times, the last call counts.
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
#[must_use = "a builder does nothing until `build` is called"]
pub struct AsyncMapTaskBuilder {
    settings: Settings,
}

/// # The name
impl AsyncMapTaskBuilder {
    /// Sets the name of the task in error messages, in log lines and in the `tracing` span of a run.
    ///
    /// The default is the type name of the map function, such as `my_app::fetch`, or
    /// `my_app::main::{{closure}}` for a closure. Closures of one function share that name.
    ///
    /// `recover` and `cache` (feature `store`) require a name, because a store identifies runs and outputs by it.
    /// Without a name, the run ends with [`FailureReason::Config`](crate::FailureReason::Config) before any item
    /// starts. Give each function a name of its own.
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

/// # Time limits
impl AsyncMapTaskBuilder {
    /// Limits the time of one attempt, from its first poll. An attempt that exceeds it is dropped, and the item is
    /// [retried](Self::retries) if a retry is left.
    ///
    /// The default is no limit. The wait for a permit does not count, nor does the delay before a retry. With 5 s and
    /// `retries(3)`, the attempts of an item take at most 20 s together, plus its delays.
    /// [`timeout_per_item`](Self::timeout_per_item) bounds attempts and delays together. If both limits pass at the
    /// same time, this one is reported. With a [`cancel_grace`](Self::cancel_grace) of 2 s, the attempt is told to
    /// stop after 5 s and dropped after 7 s. If an attempt finishes in the same poll in which the limit passes, its
    /// result counts.
    ///
    /// A limit cannot interrupt code that does not reach an `.await`. If the first poll of an attempt blocks its
    /// thread, the limit runs from the end of that poll. The time of later polls counts. For a function that blocks,
    /// use [`map_blocking`](crate::Over::map_blocking).
    ///
    /// Zero is an error of [`build`](Self::build), and so is a limit above
    /// [`timeout_per_item`](Self::timeout_per_item). If the last attempt of an item exceeds the limit, the item fails
    /// as [`TimedOut`](crate::ItemError::TimedOut) with the scope [`Attempt`](crate::TimeoutScope::Attempt).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder().retries(3).timeout_per_attempt(Duration::from_secs(5)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("time limit"))]
    pub fn timeout_per_attempt(mut self, limit: Duration) -> Self {
        self.settings.timeout_per_attempt = Some(limit);
        self
    }

    /// Limits the time of one item with all its attempts and delays, from the first poll of its first attempt.
    ///
    /// The default is no limit. Unlike [`timeout_per_attempt`](Self::timeout_per_attempt), this limit is final: the
    /// item is not retried. If a retry could not start before it, the item fails immediately with the error it has.
    /// For example, take a limit of 10 s, exact delays of 1, 2, 4 and 8 s, and an item that fails immediately each
    /// time. Its attempts start at 0, 1, 3 and 7 s. It fails at 7 s, because its next attempt would start at 15 s.
    ///
    /// Zero is an error of [`build`](Self::build). An item that exceeds this limit fails as
    /// [`TimedOut`](crate::ItemError::TimedOut) with the scope [`Item`](crate::TimeoutScope::Item). The guide has [a
    /// timeline](crate::guide::retries#a-timeline).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// # use std::time::Duration;
    /// let task = AsyncMapTask::builder().retries(9).timeout_per_item(Duration::from_secs(30)).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("deadline", "time limit"))]
    pub fn timeout_per_item(mut self, limit: Duration) -> Self {
        self.settings.timeout_per_item = Some(limit);
        self
    }

    /// Limits the time of a whole run, from its first poll.
    ///
    /// The default is no limit. After this time the run starts nothing new and gives running attempts the
    /// [`cancel_grace`](Self::cancel_grace). It ends with [`FailureReason::TimedOut`](crate::FailureReason::TimedOut)
    /// and all finished results. With a limit of 600 s and a grace of 2 s, it ends after 602 s at the latest. If a
    /// retry could not start before this limit, its item fails immediately with the error it has.
    ///
    /// Zero is an error of [`build`](Self::build), and so is a longer [`cancel_grace`](Self::cancel_grace).
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
    #[doc(alias("deadline", "time limit"))]
    pub fn run_timeout(mut self, limit: Duration) -> Self {
        self.settings.run_timeout = Some(limit);
        self
    }

    /// Sets how long an attempt may continue after it was told to stop.
    ///
    /// An attempt must stop when one of its time limits passes, and when its run stops. Then its
    /// [`cancellation_token`](crate::ItemContext::cancellation_token) is cancelled, and the attempt is dropped at the
    /// end of the grace. If it ends with `Ok` within the grace, the item succeeds. If it ends with `Err` after a time
    /// limit, it counts as timed out. If it ends with `Err` while the run stops, the error is kept.
    ///
    /// The default is zero: the attempt is dropped immediately. Dropping is a clean end for most futures. A grace is
    /// for attempts that have work to finish, such as a file to remove. The attempt keeps its permits meanwhile. A
    /// grace above [`run_timeout`](Self::run_timeout) is an error of [`build`](Self::build).
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
    #[doc(alias("graceful", "graceful shutdown"))]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// Sets a limit that this task shares with other tasks. An attempt needs permits within
    /// [`concurrency`](Self::concurrency) *and* permits of the [`Limiter`]. It takes as many of each as the item's
    /// [`weight`](crate::MapRun::weight), which is 1 by default.
    ///
    /// The limiter may also have a rate, and can hold everything back after a refusal; see [`Limiter`]. The default is none. The
    /// guide shows [a limiter in a service](crate::guide::services#one-limit-over-many-requests), and helps to [choose the
    /// limits](crate::guide::limits).
    ///
    /// A second call adds another limiter: an attempt needs permits of all of them, as many of each. It holds none until all can
    /// grant it, and takes all at once. While only one limiter keeps it waiting, the requests behind it at the others do not
    /// wait for it. So the order of the calls does not matter, and no order can deadlock. The first limiter is the one that
    /// [`hold_back`](crate::MapRun::hold_back) holds. A limiter that is named twice counts once.
    ///
    /// There is no reservation. If other tasks always use all permits of one limiter, and others all of a second one, a task
    /// that needs both waits until both are free at the same moment.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::{AsyncMapTask, Limiter};
    /// let database = Limiter::new(100);
    /// let read = AsyncMapTask::builder().concurrency(8).limiter(&database).build()?;
    /// let write = AsyncMapTask::builder().concurrency(4).limiter(&database).build()?;
    /// // However many runs of both there are, at most 100 attempts run at once.
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("rate limit", "throttle", "semaphore", "shared limit"))]
    pub fn limiter(mut self, limiter: &Limiter) -> Self {
        let limiters = self.settings.limiters.take();
        self.settings.limiters =
            Some(limiters.map_or_else(|| limiter.clone().into(), |named| named.and(limiter)));
        self
    }

    /// Adds an observer of every run of this task; see [`Observer`]. Repeated calls add further ones. The default is none.
    ///
    /// Runs of one task may overlap, and an event does not name its run: to tell them apart, implement
    /// [`for_run`](Observer::for_run). If the observer is a closure, write the type of its parameter, `|event: &Event<'_>| ..`.
    ///
    /// Each event goes to the observers in the order in which they were added, and then to that of the run, which
    /// [`observe`](crate::MapRun::observe) sets.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Event};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let settled = Arc::new(AtomicUsize::new(0));
    /// let counter = Arc::clone(&settled);
    /// let task = AsyncMapTask::builder()
    ///     .observer(move |event: &Event<'_>| {
    ///         if let Event::ItemSettled { .. } = event {
    ///             counter.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// for _ in 0..2 {
    ///     task.run(0..10, |n| async move { Ok::<_, String>(n) }).await?;
    /// }
    /// assert_eq!(settled.load(Ordering::Relaxed), 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn observer<O>(mut self, observer: O) -> Self
    where
        O: Observer + Send + Sync + 'static, // a closure needs the type of its parameter: `|event: &Event<'_>| ..`
    {
        self.settings.observers.add(observer);
        self
    }
}

/// # The task
impl AsyncMapTaskBuilder {
    /// Checks the settings and builds the task.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that names the first invalid setting, its value and the allowed values. A setting is
    /// invalid if:
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
    /// Valid settings that make another setting ineffective are logged once by `build`, as a `tracing` event at level
    /// `WARN` with the target `async_map_task`. Examples are a [`retry_delay`](Self::retry_delay) without
    /// [`retries`](Self::retries), a [`timeout_per_item`](Self::timeout_per_item) above the
    /// [`run_timeout`](Self::run_timeout), and [`fail_fast`](Self::fail_fast) together with
    /// [`max_failures`](Self::max_failures).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let error = AsyncMapTask::builder().min_success_ratio(95.0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "min_success_ratio must be between 0 and 1, got 95");
    /// ```
    pub fn build(self) -> Result<AsyncMapTask, ConfigError> {
        let config = Config::try_from(self.settings)?;
        for doubt in config.doubts() {
            warn!(target: "async_map_task", task = config.name.as_deref(), "{doubt}");
        }
        Ok(AsyncMapTask::new(config))
    }
}
