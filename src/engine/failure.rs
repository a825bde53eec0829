//! A failure without the error of the map function, so that its log line and its retry are compiled once for all runs.

use std::time::Duration;

use super::scheduler::AttemptEnd;
use crate::outcome::{FailureKind, ItemError, TimedOutAt, TimeoutScope};

/// The facts of an [`ItemError`].
pub(super) struct Failure<'a> {
    pub(super) kind: FailureKind,
    pub(super) attempts: u32,
    /// The time limit that has passed.
    pub(super) limit: Option<(Duration, TimeoutScope)>,
    /// The message of a panic or a fault.
    pub(super) message: Option<&'a str>,
}

impl<'a, E> From<&'a ItemError<E>> for Failure<'a> {
    fn from(error: &'a ItemError<E>) -> Self {
        let (kind, attempts) = (error.kind(), error.attempts());
        let (limit, message) = match error {
            ItemError::Failed { .. } => (None, None),
            ItemError::TimedOut { limit, scope, .. } => (Some((*limit, *scope)), None),
            ItemError::Panicked { message, .. } | ItemError::Faulted { message, .. } => {
                (None, Some(message.as_str()))
            }
        };
        Self { kind, attempts, limit, message }
    }
}

impl Failure<'_> {
    /// Returns `true` if the attempt was interrupted by the shutdown of its runtime. The number of a failed attempt is at
    /// least 1.
    pub(super) fn is_interruption(&self) -> bool {
        self.attempts == 0
    }

    /// Describes the failure as the message of an [`ItemError`] does. Returns `None` for an error without a `text`.
    pub(super) fn cause(&self, text: Option<&str>) -> Option<String> {
        match (self.kind, self.limit, self.message) {
            (FailureKind::TimedOut, Some((limit, scope)), _) => Some(TimedOutAt(limit, scope).to_string()),
            (FailureKind::Panicked, _, Some(message)) => Some(format!("panicked: {message}")),
            _ => self.message.or(text).map(str::to_owned),
        }
    }

    /// Returns the end of the attempt. `of_error` is that of an attempt with an error of the map function.
    pub(super) fn end(&self, of_error: AttemptEnd) -> AttemptEnd {
        match (self.kind, self.limit) {
            (FailureKind::Failed, _) => of_error,
            (FailureKind::TimedOut, Some((_, scope))) => AttemptEnd::TimedOut(scope),
            (FailureKind::TimedOut | FailureKind::Faulted, _) => AttemptEnd::Faulted,
            (FailureKind::Panicked, _) => AttemptEnd::Panicked,
        }
    }
}
