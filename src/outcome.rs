//! The outcome of one item.

use std::fmt;
use std::time::Duration;

use crate::count::Count;

/// The outcome of one item. [`for_each`](crate::MapRun::for_each), [`try_for_each`](crate::MapRun::try_for_each) and
/// [`stream`](crate::MapRun::stream) deliver one for each item that settled.
///
/// The item is not in its outcome. Put the data that you need into the error or the output, or look the item up by
/// [`index`](Self::index). A [`label`](crate::MapRun::label) is in the outcome, and also in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemOutcome<T, E> {
    /// The item's position in the input, from 0.
    pub index: usize,
    /// The number of attempts, the first included.
    pub attempts: u32,
    /// The time from the start of the first attempt to the end of the last, including the delays between them. If an
    /// item takes over the permit of the item before it, the time of pulling it from the source is included, too.
    pub elapsed: Duration,
    /// The origin of the result.
    pub origin: Origin,
    /// The reason why the item was not tried again. `None` if it succeeded.
    pub not_retried: Option<NotRetried>,
    /// The label of the item, if the run has [`label`](crate::MapRun::label).
    pub label: Option<String>,
    /// The value that the function returned, or the failure of the item.
    pub result: Result<T, ItemError<E>>,
}

/// An item that was pulled from its source and did not settle; see [`give_back`](crate::MapRun::give_back).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOver<I> {
    /// The item.
    pub item: I,
    /// The item's position in the input, from 0.
    pub index: usize,
    /// The number of attempts that had started. With 0, the item had no side effects.
    pub attempts: u32,
}

/// The origin of an item's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The function ran for this item in this run.
    Ran,
    /// The function ran for an equal item before, in this run or another, and its output was cached.
    Cached,
    /// The item succeeded in an earlier run of the same id.
    Recovered,
    /// The item succeeded in the run that this one repeats; see [`redo`](crate::MapRun::redo).
    Carried,
}

/// The failure of an item. `E` is the error type of the map function.
///
/// Implements [`std::error::Error`] for every `E: Display + Debug`, so also if `E` is a `String` or an
/// `anyhow::Error`. The text of `E` is part of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError<E> {
    /// The map function returned an error, and no further attempt was allowed or possible.
    ///
    /// The outcome and the result of the run say why: [`NotRetried`]. If the run was [drained](crate::MapRun::drain_token) or
    /// stopped meanwhile, the item may have retries left.
    Failed {
        /// The error of the last attempt.
        error: E,
        /// The number of attempts, the first included.
        attempts: u32,
    },
    /// The item exceeded a time limit. As with [`Failed`](Self::Failed), [`NotRetried`] is the reason why it was not tried again.
    TimedOut {
        /// The limit that was exceeded.
        limit: Duration,
        /// The scope of that limit.
        scope: TimeoutScope,
        /// The number of attempts, the one that was cut off included.
        attempts: u32,
    },
    /// The map function panicked: while it built its future, or while that future was polled.
    Panicked {
        /// The panic's message, or a note that the panic had no text.
        message: String,
        /// The number of attempts, the one that panicked included.
        attempts: u32,
    },
    /// The attempt has no result of its own, as the message explains:
    ///
    /// - No thread could be started for [`map_blocking`](crate::Over::map_blocking). Such an attempt is retried while
    ///   [`retries`](crate::AsyncMapTaskBuilder::retries) are left.
    /// - The call for a [batch](crate::Over::map_batches) returned the wrong number of results, or failed as a whole and was not
    ///   split. One of its items then has the error of the call, and the others this one.
    Faulted {
        /// The reason, as Tokio states it.
        message: String,
        /// The number of attempts, the one that could not start included.
        attempts: u32,
    },
}

impl<E> ItemError<E> {
    /// Returns the number of attempts, the first included.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Failed { attempts, .. }
            | Self::TimedOut { attempts, .. }
            | Self::Panicked { attempts, .. }
            | Self::Faulted { attempts, .. } => *attempts,
        }
    }

    /// Returns the error that the map function returned last. `None` if the item timed out, panicked or had no result of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let result = task.run(["12", "1x"], |text| async move { text.parse::<u32>() }).await?;
    /// let reasons: Vec<_> = result.errors.values().filter_map(|error| error.error()).collect();
    /// assert_eq!(reasons, [&"1x".parse::<u32>().unwrap_err()]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn error(&self) -> Option<&E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::TimedOut { .. } | Self::Panicked { .. } | Self::Faulted { .. } => None,
        }
    }

    /// As [`error`](Self::error), by value.
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::TimedOut { .. } | Self::Panicked { .. } | Self::Faulted { .. } => None,
        }
    }

    /// Returns the kind of the failure, without its data, for example as a label of a metric.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Failed { .. } => FailureKind::Failed,
            Self::TimedOut { .. } => FailureKind::TimedOut,
            Self::Panicked { .. } => FailureKind::Panicked,
            Self::Faulted { .. } => FailureKind::Faulted,
        }
    }
}

impl<E: std::error::Error> ItemError<E> {
    /// Returns the message of this error with the whole [`source()`](std::error::Error::source) chain of the function's error,
    /// as [`MapTaskError::report`](crate::MapTaskError::report) does for the first failure of a run.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let result = task.run(["12", "1x"], |text| async move { text.parse::<u32>() }).await?;
    /// let reports: Vec<_> = result.errors.values().map(|error| error.report().to_string()).collect();
    /// assert_eq!(reports, ["failed after 1 attempt: invalid digit found in string"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        with_sources(self.to_string(), self.error().and_then(std::error::Error::source))
    }
}

/// Appends the messages of an error and its sources to a text, except those that the text already ends with.
pub(crate) fn with_sources(
    mut text: String,
    mut source: Option<&(dyn std::error::Error + 'static)>,
) -> String {
    while let Some(error) = source {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = error.source();
    }
    text
}

/// The error of the function is shown in its alternate form, `{:#}`, which for an `anyhow::Error` includes its causes.
impl<E: fmt::Display> fmt::Display for ItemError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed after {}: {:#}", Count(self.attempts(), "attempt"), Cause(self))
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ItemError<E> {}

/// The time limit that an item exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutScope {
    /// The limit of one attempt,
    /// [`timeout_per_attempt`](crate::AsyncMapTaskBuilder::timeout_per_attempt).
    Attempt,
    /// The limit of the item over all its attempts and delays,
    /// [`timeout_per_item`](crate::AsyncMapTaskBuilder::timeout_per_item).
    Item,
}

/// The reason why an item that has failed was not tried again. With it, a caller can tell a final failure from one that another run
/// may not have.
///
/// # Examples
///
/// The failures of a run that was stopped, without those that were only interrupted:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, NotRetried};
/// use std::time::Duration;
///
/// # async fn check(url: &str) -> Result<(), String> {
/// #     tokio::time::sleep(Duration::from_secs(1)).await;
/// #     Err(if url == "/old" { "gone" } else { "busy" }.to_owned())
/// # }
/// # let shutdown = tokio_util::sync::CancellationToken::new();
/// # let token = shutdown.clone();
/// # tokio::spawn(async move {
/// #     tokio::time::sleep(Duration::from_millis(500)).await;
/// #     token.cancel();
/// # });
/// let task = AsyncMapTask::builder().retries(3).allow_failures().accept_partial(true).build()?;
/// let urls = ["/old", "/shop"];
/// let run = task.over(urls).map(check).retry_if(|error| error == "busy");
/// let result = run.drain_token(shutdown).await?;
/// let is_final = |index: &&usize| result.not_retried(**index) != Some(NotRetried::Stopping);
/// let broken: Vec<_> = result.errors.keys().filter(is_final).map(|index| urls[*index]).collect();
/// assert_eq!(broken, ["/old"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotRetried {
    /// It had no [`retries`](crate::AsyncMapTaskBuilder::retries) left.
    NoRetriesLeft,
    /// Its failure is not one that is retried: [`retry_if`](crate::MapRun::retry_if) has returned `false`, or
    /// [`retry_timeouts`](crate::AsyncMapTaskBuilder::retry_timeouts) is; it is a panic, or a batch without a result for the item.
    NotRetryable,
    /// The retry could not start before its [`timeout_per_item`](crate::AsyncMapTaskBuilder::timeout_per_item) or the
    /// [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout), or had not.
    TimeLimit,
    /// The [`RetryBudget`](crate::RetryBudget) has refused it.
    RetryBudget,
    /// The run was stopping, or being drained. The item has retries left, and its failure is one that is retried.
    Stopping,
}

impl NotRetried {
    /// Returns the word for log lines and labels: `no_retries_left`, `not_retryable`, `time_limit`, `retry_budget` or `stopping`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRetriesLeft => "no_retries_left",
            Self::NotRetryable => "not_retryable",
            Self::TimeLimit => "time_limit",
            Self::RetryBudget => "retry_budget",
            Self::Stopping => "stopping",
        }
    }
}

/// The reason in words, such as `no retries left`.
impl fmt::Display for NotRetried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRetriesLeft => "no retries left",
            Self::NotRetryable => "not to be retried",
            Self::TimeLimit => "no time left for a retry",
            Self::RetryBudget => "the retry budget was spent",
            Self::Stopping => "the run was stopping",
        })
    }
}

/// The variants of [`ItemError`] without their data, as an [`Event`](crate::Event) reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The map function returned an error.
    Failed,
    /// The item exceeded a time limit.
    TimedOut,
    /// The map function panicked.
    Panicked,
    /// The attempt had no result of its own.
    Faulted,
}

impl FailureKind {
    /// Returns the word for log lines and labels: `error`, `timeout`, `panic` or `fault`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "error",
            Self::TimedOut => "timeout",
            Self::Panicked => "panic",
            Self::Faulted => "fault",
        }
    }
}

/// The cause of a failure, without the number of attempts.
pub(crate) struct Cause<'a, E>(pub(crate) &'a ItemError<E>);

impl<E: fmt::Display> fmt::Display for Cause<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ItemError::Failed { error, .. } => error.fmt(f),
            ItemError::TimedOut { limit, scope, .. } => TimedOutAt(*limit, *scope).fmt(f),
            ItemError::Panicked { message, .. } => write!(f, "panicked: {message}"),
            ItemError::Faulted { message, .. } => f.write_str(message),
        }
    }
}

/// A time limit that has passed.
pub(crate) struct TimedOutAt(pub(crate) Duration, pub(crate) TimeoutScope);

impl fmt::Display for TimedOutAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(limit, scope) = self;
        let setting = match scope {
            TimeoutScope::Attempt => "timeout_per_attempt",
            TimeoutScope::Item => "timeout_per_item",
        };
        write!(f, "timed out at the {setting} of {limit:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_and_how_often_it_was_tried() {
        let limit = Duration::from_millis(1_500);
        for (error, kind, word, attempts, text) in [
            (
                ItemError::Failed { error: "refused", attempts: 1 },
                FailureKind::Failed,
                "error",
                1,
                "failed after 1 attempt: refused",
            ),
            (
                ItemError::TimedOut { limit, scope: TimeoutScope::Attempt, attempts: 4 },
                FailureKind::TimedOut,
                "timeout",
                4,
                "failed after 4 attempts: timed out at the timeout_per_attempt of 1.5s",
            ),
            (
                ItemError::TimedOut { limit, scope: TimeoutScope::Item, attempts: 2 },
                FailureKind::TimedOut,
                "timeout",
                2,
                "failed after 2 attempts: timed out at the timeout_per_item of 1.5s",
            ),
            (
                ItemError::Panicked { message: "index 9".to_owned(), attempts: 3 },
                FailureKind::Panicked,
                "panic",
                3,
                "failed after 3 attempts: panicked: index 9",
            ),
            (
                ItemError::Faulted { message: "no thread".to_owned(), attempts: 2 },
                FailureKind::Faulted,
                "fault",
                2,
                "failed after 2 attempts: no thread",
            ),
        ] {
            assert_eq!((error.attempts(), error.kind()), (attempts, kind));
            let own = (kind == FailureKind::Failed).then_some("refused");
            assert_eq!((error.error().copied(), error.clone().into_error()), (own, own));
            assert_eq!((kind.as_str(), error.to_string().as_str()), (word, text));
        }
    }
}
