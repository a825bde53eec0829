//! The end of a run, and the value that its caller gets.

use super::output::outcomes::Results;
use super::scheduler::Verdict;
use super::trace;
use crate::error::{FailureReason, MapTaskError, RunError};
use crate::result::{Completion, MapTaskResult, Started, Summary};

/// The return value of a run that keeps its results.
pub(crate) type Outcome<T, E> = Result<MapTaskResult<T, E>, MapTaskError<T, E>>;

/// The end of a run, with the part of its outcomes that is left.
#[derive(Debug)]
pub struct Ending<R> {
    pub(super) verdict: Verdict,
    pub(super) rest: R,
}

impl<R: Default> Ending<R> {
    /// Returns the end of a run that was dropped before it started, with its promised total.
    pub(super) fn not_begun(name: String, total: usize) -> Self {
        Self { verdict: Verdict::not_begun(name, total), rest: R::default() }
    }
}

impl<R> Ending<R> {
    pub(crate) fn into_summary(self) -> Result<Summary, RunError> {
        self.verdict.into_summary()
    }
}

impl<T, E> Ending<Results<T, E>> {
    pub(crate) fn into_result(self) -> Outcome<T, E> {
        let Self { verdict: Verdict { name, summary, reason, first_failure, shortfall, started }, rest } =
            self;
        let (results, errors, notes) = rest.into_parts(summary.total - summary.not_started, summary.total);
        let result = MapTaskResult { results, errors, summary, started, notes };
        match reason {
            None => Ok(result),
            Some(reason) => Err(MapTaskError::new(name, reason, first_failure, shortfall, result)),
        }
    }
}

impl Verdict {
    fn not_begun(name: String, total: usize) -> Self {
        Self {
            name,
            summary: Summary {
                total,
                not_started: total,
                completion: Completion::Cancelled,
                ..Summary::default()
            },
            reason: Some(FailureReason::Cancelled),
            first_failure: None,
            shortfall: None,
            started: Started::default(),
        }
    }

    /// Logs the account of the run.
    pub(super) fn log(&self) {
        let Self { name, summary, reason, shortfall, .. } = self;
        match (reason, shortfall) {
            (Some(FailureReason::TooManyFailures { .. }), Some(required)) => {
                let text = format!("{} items succeeded, {required} required", summary.successes);
                trace::verdict(name, summary, reason.as_ref(), &text);
            }
            (Some(text), _) => trace::verdict(name, summary, Some(text), text),
            (None, _) => trace::verdict(name, summary, None, &""),
        }
    }

    fn into_summary(self) -> Result<Summary, RunError> {
        let Self { name, summary, reason, first_failure, shortfall, .. } = self;
        match reason {
            None => Ok(summary),
            Some(reason) => Err(RunError::new(name, reason, first_failure, shortfall, summary)),
        }
    }
}
