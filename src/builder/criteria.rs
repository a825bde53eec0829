//! The settings that define when a run has succeeded.

use super::AsyncMapTaskBuilder;

/// # Success criteria
///
/// Every criterion that is set must hold. If none of `min_success_ratio`, `min_successes` and `max_failures` is set,
/// every item must succeed.
impl AsyncMapTaskBuilder {
    /// Sets the fraction of all items that must succeed, from 0 to 1.
    ///
    /// The default is [`DEFAULT_MIN_SUCCESS_RATIO`](crate::DEFAULT_MIN_SUCCESS_RATIO), 1. With a known total, **the
    /// run then stops at the first item that fails**, because it cannot succeed any more. The default applies only if
    /// neither [`min_successes`](Self::min_successes) nor [`max_failures`](Self::max_failures) is set.
    /// **`min_success_ratio(0.0)` runs everything and collects the errors.**
    ///
    /// The ratio means the decimal that you wrote. The required number of successes is rounded up: 0.07 of 100 items
    /// is 7, and 0.95 of 30 (28.5) is 29. So 0.95 of 200 items allows 10 failures, and the run stops at the 11th. If
    /// the total is not known (see [`over_stream`](crate::AsyncMapTask::over_stream)), the ratio is judged when all
    /// items have settled. An empty input has the ratio 1.
    ///
    /// A value below 0, above 1 or NaN is an error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// async fn parse(text: &str) -> Result<i32, std::num::ParseIntError> {
    ///     text.parse()
    /// }
    ///
    /// let strict = AsyncMapTask::builder().concurrency(1).build()?;
    /// let error = strict.run(["1", "two", "3"], parse).await.unwrap_err();
    /// assert_eq!(error.partial().results, [Some(1), None, None]); // "3" was not started
    ///
    /// let lenient = AsyncMapTask::builder().min_success_ratio(0.0).build()?;
    /// let result = lenient.run(["1", "two", "3"], parse).await?;
    /// assert_eq!(result.results, [Some(1), None, Some(3)]);
    /// assert!(result.errors.contains_key(&1));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("failure rate", "error rate", "threshold"))]
    pub fn min_success_ratio(mut self, ratio: f64) -> Self {
        self.settings.min_success_ratio = Some(ratio);
        self
    }

    /// Accepts any number of failures: the same as [`min_success_ratio(0.0)`](Self::min_success_ratio). Every item runs,
    /// and the errors are in the result.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let result = task.run([1, 2], |n| async move { if n == 1 { Err("down") } else { Ok(n) } }).await?;
    /// assert_eq!((result.successes(), result.errors.len()), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("continue_on_error", "ignore errors", "all_settled"))]
    pub fn allow_failures(self) -> Self {
        self.min_success_ratio(0.0)
    }

    /// Sets how many items must succeed.
    ///
    /// The default is none, and the ratio decides. Set alone, it replaces the default ratio: with
    /// `min_successes(10)`, 90 of 100 items may fail, and the 91st failure stops the run. If a ratio is set, too,
    /// both must hold. An input with fewer items, such as an empty one, cannot meet it and fails. If the total is not
    /// known, it is judged at the end. [`early_success`](Self::early_success) ends the run once it is reached. Any
    /// number is allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// let quorum = AsyncMapTask::builder().min_successes(2).build()?;
    /// let answers = quorum.run([1, 2, 3], |n| async move { if n == 3 { Err("down") } else { Ok(n) } }).await?;
    /// assert_eq!((answers.successes(), answers.failures()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("quorum"))]
    pub fn min_successes(mut self, successes: usize) -> Self {
        self.settings.min_successes = Some(successes);
        self
    }

    /// Sets how many items may fail: `max_failures(100)` lets 100 fail, and the 101st failure stops the run.
    ///
    /// The default is none, and the ratio decides. Set alone, it replaces the default ratio. If other criteria are
    /// set, too, all must hold. For example, a ratio of 0.95 allows 10 failures of 200 items, but `max_failures(3)`
    /// stops the run at the 4th. It needs no total, so it also stops a run over a stream early. 0 allows none.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let task = AsyncMapTask::builder().min_success_ratio(0.95).max_failures(100).build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("circuit breaker", "error threshold"))]
    pub fn max_failures(mut self, failures: usize) -> Self {
        self.settings.max_failures = Some(failures);
        self
    }

    /// If `true`, ends the run with a success as soon as no later failure could change the success. Running items are
    /// cancelled, with their [`cancel_grace`](Self::cancel_grace), and no other item starts.
    ///
    /// The default is `false`: every item is run. With `min_successes(3)` the run ends at the third success. With a
    /// ratio of 0.5 and 10 items it ends at the fifth, and with `max_failures(4)` and 10 items at the sixth. If the
    /// total is not known, only [`min_successes`](Self::min_successes) without another criterion can end a run early.
    ///
    /// Without a success criterion every item is needed, so `true` is an error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::AsyncMapTask;
    /// let first = AsyncMapTask::builder().concurrency(1).min_successes(1).early_success(true).build()?;
    /// let result = first.run(0..1_000, |n| async move { if n < 2 { Err("no") } else { Ok(n) } }).await?;
    /// assert_eq!(result.successful_results().next(), Some(&2));
    /// assert_eq!(result.not_started(), 997);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("race", "select_ok", "first"))]
    pub fn early_success(mut self, early_success: bool) -> Self {
        self.settings.early_success = early_success;
        self
    }

    /// If `true`, a run that is cancelled, is drained or reaches its time limit returns `Ok` with its partial result.
    /// [`Summary::completion`](crate::Summary::completion) states why it ended.
    ///
    /// The default is `false`: such a run returns an error. It applies to the run's
    /// [`cancellation_token`](crate::MapRun::cancellation_token) and [`drain_token`](crate::MapRun::drain_token), to
    /// [`cancel`](crate::MapHandle::cancel) and [`drain`](crate::MapHandle::drain) of its handle, to `cancel_on_ctrl_c`, and to
    /// [`run_timeout`](Self::run_timeout). It does not apply to an error of the source or of a sink. The success ratio is not judged then. [`min_successes`](Self::min_successes)
    /// is: if fewer items have succeeded, the run returns the error. Failed criteria and a shutdown of the runtime stay
    /// errors.
    ///
    /// # Examples
    ///
    /// Everything that was answered within 100 ms:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Completion};
    /// use std::time::Duration;
    ///
    /// let task = AsyncMapTask::builder().run_timeout(Duration::from_millis(100)).accept_partial(true).build()?;
    /// let answers = task
    ///     .run([10, 20, 5_000], |millis| async move {
    ///         tokio::time::sleep(Duration::from_millis(millis)).await;
    ///         Ok::<_, String>(millis)
    ///     })
    ///     .await?;
    /// assert_eq!(answers.results, [Some(10), Some(20), None]);
    /// assert_eq!(answers.summary.completion, Completion::TimedOut);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("best effort"))]
    pub fn accept_partial(mut self, accept_partial: bool) -> Self {
        self.settings.accept_partial = accept_partial;
        self
    }

    /// If `true`, stops the run at the first item that fails for good, after all its retries, whatever the other
    /// criteria allow.
    ///
    /// The default is `false`. The run ends with [`FailureReason::FailFast`](crate::FailureReason::FailFast), which
    /// names the item. Over a list, the default ratio of 1 stops a run at the same moment, as
    /// [`TooManyFailures`](crate::FailureReason::TooManyFailures). Over a stream of unknown length, only this setting
    /// or [`max_failures(0)`](Self::max_failures) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::{AsyncMapTask, FailureReason};
    /// let task = AsyncMapTask::builder().fail_fast(true).build()?;
    /// let error = task.run([1, 0, 2], |n| async move { if n == 0 { Err("zero") } else { Ok(n) } }).await;
    /// assert!(matches!(error.unwrap_err().reason(), FailureReason::FailFast { index: 1 }));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("stop_on_error", "abort"))]
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.settings.fail_fast = fail_fast;
        self
    }
}
