//! The error of a run that delivers its outcomes.

use std::error::Error;
use std::fmt;

use super::{FailureReason, FirstFailure, Headline};
use crate::outcome::with_sources;
use crate::result::Summary;

/// The error of a failed run by [`for_each`](crate::MapRun::for_each), [`try_for_each`](crate::MapRun::try_for_each)
/// or [`stream`](crate::MapRun::stream). The outcomes of its items were delivered before it.
///
/// The message names the first item that failed: `resize: 7 of 100 items failed, 5 allowed; item 3 failed first,
/// after 4 attempts: connection refused`. The error type need not have a text, so the error is in the message only if the run has
/// [`error_text`](crate::MapRun::error_text). A time limit or a panic is always in it. The error itself is in the outcome of the
/// item.
///
/// An error of the source, the sink or the store is not in the message but in [`source()`](Error::source). The `{:#}` of
/// `anyhow` prints both, and so does [`report`](Self::report).
pub struct RunError {
    // Boxed, so that a `Result` with this error stays as small as its `Ok`.
    inner: Box<RunFailure>,
}

struct RunFailure {
    name: String,
    reason: FailureReason,
    first_failure: Option<FirstFailure>,
    shortfall: Option<usize>,
    summary: Summary,
}

impl RunError {
    pub(crate) fn new(
        name: String,
        reason: FailureReason,
        first_failure: Option<FirstFailure>,
        shortfall: Option<usize>,
        summary: Summary,
    ) -> Self {
        Self { inner: Box::new(RunFailure { name, reason, first_failure, shortfall, summary }) }
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
        &self.inner.summary
    }

    /// Returns the message with all its causes, joined by `: `, for a log or a terminal.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().name("copy").build()?;
    /// let run = task.run([1], |n| async move { Ok::<_, String>(n) });
    /// let error = run.try_for_each(|_| async { Err("the disk is full") }).await.unwrap_err();
    /// assert!(error.report().to_string().ends_with(": the disk is full"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        with_sources(self.to_string(), self.source())
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunError")
            .field("name", &self.inner.name)
            .field("reason", &self.inner.reason)
            .field("first_failure", &self.inner.first_failure)
            .field("summary", &self.inner.summary)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunFailure { name, reason, first_failure, shortfall, summary } = &*self.inner;
        Headline { name, reason, shortfall: *shortfall, summary }.fmt(f)?;
        match first_failure {
            Some(first) if reason.is_about_items() => {
                write!(f, "; {first}")?;
                first.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            _ => Ok(()),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.reason.error()
    }
}
