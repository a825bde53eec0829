//! The errors of building a task and of a run.

mod run_error;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::count::Count;
use crate::outcome::{Cause, ItemError, with_sources};
use crate::result::{MapTaskResult, Summary};

pub use self::run_error::RunError;

/// Any error, as a source, a sink or a store returns it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An invalid setting: its name, its value, and the allowed values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}, got {found}")]
pub struct ConfigError {
    field: &'static str,
    found: String,
    allowed: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, found: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self { field, found: found.to_string(), allowed: allowed.into() }
    }

    /// Returns the name of the setting, which is that of its setter.
    pub fn field(&self) -> &str {
        self.field
    }

    /// Returns the invalid value.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// Returns a description of the allowed values.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

/// The reason why a run did not succeed: the first cause that stopped it, or the verdict at its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum FailureReason {
    /// An item failed, and [`fail_fast`](crate::AsyncMapTaskBuilder::fail_fast) was set.
    FailFast {
        /// The index of that item.
        index: usize,
    },
    /// More items failed, or fewer succeeded, than the success criteria allow.
    TooManyFailures {
        /// The number of items that had failed when the run was judged.
        failures: usize,
        /// The number of items that were allowed to fail.
        allowed: usize,
    },
    /// The run's [`cancellation_token`](crate::MapRun::cancellation_token) or
    /// [`drain_token`](crate::MapRun::drain_token) was cancelled, its [`MapHandle`](crate::MapHandle) has cancelled or
    /// drained it, Ctrl-C was pressed in a run with `cancel_on_ctrl_c`, or its runtime was shut down.
    Cancelled,
    /// The run did not end within [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The source of [`over_try`](crate::AsyncMapTask::over_try) or
    /// [`over_try_stream`](crate::AsyncMapTask::over_try_stream) returned an error. Its position is the number of items that
    /// were pulled before it, which is the `total` of the [`Summary`].
    Source(BoxError),
    /// The function of [`try_for_each`](crate::MapRun::try_for_each) returned an error.
    Sink(BoxError),
    /// The store of a durable run could not be read or written, or another holder has taken the run. The text of the
    /// error states the cause. Items that had succeeded and were not yet durable are in the partial result. They run
    /// again when the run is recovered.
    Store(BoxError),
    /// The task and the run do not fit together. The item in question was not started. The cases are:
    ///
    /// - retries with [`map_once`](crate::Over::map_once);
    /// - `recover` or `cache` in a task without a [`name`](crate::AsyncMapTaskBuilder::name);
    /// - [`map_batches`](crate::Over::map_batches) with a size of 0, or with an option that counts single items;
    /// - an item whose [`weight`](crate::MapRun::weight) is above the largest value that a limit has had;
    /// - a [`Limiter`](crate::Limiter) that has never had a permit;
    /// - [`redo`](crate::MapRun::redo) with another number of items, or together with `recover`.
    Config(ConfigError),
}

impl FailureReason {
    /// Returns the underlying error, if the reason is one of the source, the sink or the store.
    fn error(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(error) | Self::Sink(error) | Self::Store(error) => Some(error.as_ref()),
            _ => None,
        }
    }

    /// Returns `true` unless the reason is an error of the source, the sink or the store.
    fn is_about_items(&self) -> bool {
        self.error().is_none()
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailFast { index } => write!(f, "item {index} failed and fail_fast is set"),
            Self::TooManyFailures { failures, allowed } => {
                write!(f, "{} failed, {allowed} allowed", Count(*failures, "item"))
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::TimedOut { limit } => write!(f, "timed out at the run_timeout of {limit:?}"),
            Self::Source(error) => write!(f, "the source failed: {error}"),
            Self::Sink(error) => write!(f, "the sink failed: {error}"),
            Self::Store(error) => write!(f, "the store failed: {error}"),
            Self::Config(error) => error.fmt(f),
        }
    }
}

/// The error of a failed run. It contains everything that was finished.
///
/// The message names the first item that failed, and includes its error, because `E` need not be an error type
/// itself: `resize: 7 of 100 items failed, 5 allowed; item 3 failed first, after 4 attempts: connection refused`. It
/// shows that error in its alternate form, `{:#}`, which for an `anyhow::Error` includes its causes. For other error
/// types with causes, see [`report`](Self::report): the [`source()`](Error::source) of this error is that of the source, the
/// sink or the store, and never the error of an item.
///
/// `?` converts it into an `anyhow::Error` if `T` and `E` are `Send + Sync + 'static`. It converts it into a `Box<dyn
/// Error>` if they are `'static`, because the error contains their values. If they borrow, drop the partial result
/// first: `.map_err(|error| anyhow!("{error}"))?`.
pub struct MapTaskError<T, E> {
    // Boxed, so that a `Result` with this error stays as small as its `Ok`.
    inner: Box<Failure<T, E>>,
}

struct Failure<T, E> {
    name: String,
    reason: FailureReason,
    first_failure: Option<FirstFailure>,
    /// The number of successes that the criteria require, if it is more than the number of items.
    shortfall: Option<usize>,
    partial: MapTaskResult<T, E>,
}

impl<T, E> MapTaskError<T, E> {
    pub(crate) fn new(
        name: String,
        reason: FailureReason,
        first_failure: Option<FirstFailure>,
        shortfall: Option<usize>,
        partial: MapTaskResult<T, E>,
    ) -> Self {
        Self { inner: Box::new(Failure { name, reason, first_failure, shortfall, partial }) }
    }

    /// Returns the reason why the run did not succeed.
    pub fn reason(&self) -> &FailureReason {
        &self.inner.reason
    }

    /// Returns `true` if the run was cancelled or drained, or its runtime was shut down.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.inner.reason, FailureReason::Cancelled)
    }

    /// Returns the account of the run.
    pub fn summary(&self) -> &Summary {
        &self.inner.partial.summary
    }

    /// Returns all results and errors of the items that were finished.
    pub fn partial(&self) -> &MapTaskResult<T, E> {
        &self.inner.partial
    }

    /// Returns all results and errors of the items that were finished, by value.
    pub fn into_partial(self) -> MapTaskResult<T, E> {
        self.inner.partial
    }

    /// Returns the item that failed before all others, with its index.
    pub fn first_failure(&self) -> Option<(usize, &ItemError<E>)> {
        let index = self.inner.first_failure.as_ref()?.index;
        self.inner.partial.errors.get(&index).map(|error| (index, error))
    }
}

impl<T, E: fmt::Debug> fmt::Debug for MapTaskError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapTaskError")
            .field("name", &self.inner.name)
            .field("reason", &self.inner.reason)
            .field("first_failure", &self.first_failure())
            .field("label", &self.inner.first_failure.as_ref().and_then(|first| first.label.as_deref()))
            .field("summary", self.summary())
            .finish_non_exhaustive()
    }
}

impl<T, E: fmt::Display> fmt::Display for MapTaskError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { name, reason, first_failure, shortfall, partial } = &*self.inner;
        Headline { name, reason, shortfall: *shortfall, summary: &partial.summary }.fmt(f)?;
        match (first_failure, self.first_failure()) {
            (Some(first), Some((_, error))) if reason.is_about_items() => {
                write!(f, "; {first}: {:#}", Cause(error))
            }
            _ => Ok(()),
        }
    }
}

impl<T, E: Error> MapTaskError<T, E> {
    /// Returns the message of this error with the whole [`source()`](Error::source) chain of the first failure: `fetch: 1 of
    /// 1 item failed, 0 allowed; item 0 failed first, after 1 attempt: error sending request: connection refused`.
    ///
    /// Many error types name only themselves in their message and leave the cause to their source, as those of `reqwest`
    /// do. For an error type without sources, such as a `String`, the message itself is enough. A source whose text the
    /// message already ends with is not repeated.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::{error, fmt, io};
    ///
    /// #[derive(Debug)]
    /// struct Refused(io::Error);
    ///
    /// impl fmt::Display for Refused {
    ///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    ///         f.write_str("cannot fetch")
    ///     }
    /// }
    ///
    /// impl error::Error for Refused {
    ///     fn source(&self) -> Option<&(dyn error::Error + 'static)> {
    ///         Some(&self.0)
    ///     }
    /// }
    ///
    /// let task = AsyncMapTask::builder().name("fetch").build()?;
    /// let error = task.run([1], |_| async { Err::<(), _>(Refused(io::Error::other("reset"))) }).await.unwrap_err();
    /// assert!(error.to_string().ends_with("after 1 attempt: cannot fetch"));
    /// assert!(error.report().to_string().ends_with("after 1 attempt: cannot fetch: reset"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        Report(self)
    }
}

/// The message of an error with the sources of the first failure.
struct Report<'a, T, E>(&'a MapTaskError<T, E>);

impl<T, E: Error> fmt::Display for Report<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.first_failure().filter(|_| self.0.reason().is_about_items());
        let source = match first {
            Some((_, ItemError::Failed { error, .. })) => error.source(),
            _ => self.0.inner.reason.error(),
        };
        f.write_str(&with_sources(self.0.to_string(), source))
    }
}

impl<T, E: fmt::Debug + fmt::Display> Error for MapTaskError<T, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.reason.error()
    }
}

/// The first item of a run that failed.
#[derive(Debug)]
pub(crate) struct FirstFailure {
    pub(crate) index: usize,
    pub(crate) attempts: u32,
    pub(crate) label: Option<String>,
    /// Its last failure, if that has a text without the type of its error.
    pub(crate) cause: Option<String>,
}

impl fmt::Display for FirstFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, attempts, label, .. } = self;
        write!(f, "item {index} ")?;
        if let Some(label) = label {
            write!(f, "({label}) ")?;
        }
        write!(f, "failed first, after {}", Count(*attempts, "attempt"))
    }
}

/// The beginning of the messages of both errors of a run.
struct Headline<'a> {
    name: &'a str,
    reason: &'a FailureReason,
    shortfall: Option<usize>,
    summary: &'a Summary,
}

impl fmt::Display for Headline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason, shortfall, summary } = *self;
        let Summary { total, successes, failures, .. } = *summary;
        let (total, settled) = (Count(total, "item"), Count(successes + failures, "item"));
        write!(f, "{name}: ")?;
        match (reason, shortfall) {
            (FailureReason::TooManyFailures { .. }, Some(required)) => {
                write!(f, "{successes} of {total} succeeded, {required} required")
            }
            (FailureReason::TooManyFailures { failures, allowed }, None) => {
                write!(f, "{failures} of {total} failed, {allowed} allowed")
            }
            (FailureReason::FailFast { .. }, _) => {
                write!(f, "{failures} of {total} failed, fail_fast is set")
            }
            (FailureReason::Cancelled | FailureReason::TimedOut { .. }, _) => {
                write!(f, "{reason} after {} of {total}", settled.0)
            }
            // The error itself is the `source()`.
            (FailureReason::Source(_), _) => write!(f, "the source failed after {total}"),
            (FailureReason::Sink(_), _) => write!(f, "the sink failed after {settled}"),
            (FailureReason::Store(_), _) => write!(f, "the store failed after {settled}"),
            (FailureReason::Config(_), _) => write!(f, "{reason}"),
        }?;
        if reason.is_about_items() && summary.retries_refused > 0 {
            write!(f, ", the retry budget refused {}", Count(summary.retries_refused, "retry"))?;
        }
        Ok(())
    }
}
