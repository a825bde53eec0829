//! How one item ended.

use std::fmt;
use std::time::Duration;

use crate::count::Count;

/// What became of one item: what [`for_each`](crate::MapRun::for_each),
/// [`try_for_each`](crate::MapRun::try_for_each) and [`stream`](crate::MapRun::stream) give for each item that
/// settled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemOutcome<T, E> {
    /// The item's place in the input, from 0.
    pub index: usize,
    /// How many attempts were made, the first included.
    pub attempts: u32,
    /// From the start of the first attempt to the end of the last, the waits between them included. Where an item
    /// takes over from the one before it, what the source takes to give it, as an iterator's `next`, is included, too.
    pub elapsed: Duration,
    /// Where the result is from.
    pub origin: Origin,
    /// What the function returned, or why the item failed.
    pub result: Result<T, ItemError<E>>,
}

/// Where the result of an item is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The function ran for it in this run.
    Ran,
    /// The function ran for an equal item before, in this run or another, and its output was kept.
    Cached,
    /// The item has succeeded in an earlier run of the same id.
    Recovered,
}

/// Why an item failed. `E` is the error type of the map function.
///
/// Implements [`std::error::Error`] for every `E: Display + Debug`, so also where `E` is a `String`
/// or an `anyhow::Error`; the text of `E` is part of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError<E> {
    /// The map function returned an error, and no further attempt was allowed or possible.
    Failed {
        /// The error of the last attempt.
        error: E,
        /// How many attempts were made, the first included.
        attempts: u32,
    },
    /// A time limit ran out.
    TimedOut {
        /// The limit that ran out.
        limit: Duration,
        /// Which limit it was.
        scope: TimeoutScope,
        /// How many attempts were made, the one that was cut off included.
        attempts: u32,
    },
    /// The map function panicked, while it built its future or while the future was polled.
    Panicked {
        /// The panic's message, or a note that it carried no text.
        message: String,
        /// How many attempts were made, the one that panicked included.
        attempts: u32,
    },
    /// The map function could not be called: the system gave no thread for
    /// [`map_blocking`](crate::Over::map_blocking). Such an attempt is retried while
    /// [`retries`](crate::AsyncMapTaskBuilder::retries) are left.
    Faulted {
        /// The reason, as Tokio states it.
        message: String,
        /// How many attempts were made, the one that could not begin included.
        attempts: u32,
    },
}

impl<E> ItemError<E> {
    /// How many attempts were made, the first included.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Failed { attempts, .. }
            | Self::TimedOut { attempts, .. }
            | Self::Panicked { attempts, .. }
            | Self::Faulted { attempts, .. } => *attempts,
        }
    }

    /// Which kind of failure it was, without its data: a label for a metric, say.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Failed { .. } => FailureKind::Failed,
            Self::TimedOut { .. } => FailureKind::TimedOut,
            Self::Panicked { .. } => FailureKind::Panicked,
            Self::Faulted { .. } => FailureKind::Faulted,
        }
    }
}

/// The alternate form, `{:#}`, shows the error of the function in its alternate form, too.
impl<E: fmt::Display> fmt::Display for ItemError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed after {}: ", Count(self.attempts(), "attempt"))?;
        Cause(self).fmt(f)
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ItemError<E> {}

/// Which of the two limits of an item ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutScope {
    /// The limit of one attempt,
    /// [`timeout_per_attempt`](crate::AsyncMapTaskBuilder::timeout_per_attempt).
    Attempt,
    /// The limit of the item over all its attempts and waits,
    /// [`timeout_per_item`](crate::AsyncMapTaskBuilder::timeout_per_item).
    Item,
}

/// The variants of [`ItemError`] without their data, as an [`Event`](crate::Event) tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The map function returned an error.
    Failed,
    /// A time limit ran out.
    TimedOut,
    /// The map function panicked.
    Panicked,
    /// The map function could not be called.
    Faulted,
}

impl FailureKind {
    /// The word for it in a log line or a label: `error`, `timeout`, `panic` or `fault`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "error",
            Self::TimedOut => "timeout",
            Self::Panicked => "panic",
            Self::Faulted => "fault",
        }
    }
}

/// What went wrong, without the number of attempts.
pub(crate) struct Cause<'a, E>(pub(crate) &'a ItemError<E>);

impl<E: fmt::Display> fmt::Display for Cause<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ItemError::Failed { error, .. } => error.fmt(f),
            ItemError::TimedOut { limit, scope: TimeoutScope::Attempt, .. } => {
                write!(f, "timed out at the timeout_per_attempt of {limit:?}")
            }
            ItemError::TimedOut { limit, scope: TimeoutScope::Item, .. } => {
                write!(f, "timed out at the timeout_per_item of {limit:?}")
            }
            ItemError::Panicked { message, .. } => write!(f, "panicked: {message}"),
            ItemError::Faulted { message, .. } => f.write_str(message),
        }
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
            assert_eq!((kind.as_str(), error.to_string().as_str()), (word, text));
        }
    }
}
