//! What a run ends with, and what its caller gets of it.

use super::collector::Collector;
use super::trace;
use crate::error::{FailureReason, MapTaskError, RunError};
use crate::result::{MapTaskResult, Summary};

/// What a run of these types gives where its results are kept.
pub(crate) type Outcome<T, E> = Result<MapTaskResult<T, E>, MapTaskError<T, E>>;

/// The end of a run.
#[derive(Debug)]
pub struct Ending<T, E> {
    pub(super) name: String,
    pub(super) summary: Summary,
    /// `None` where the run succeeded.
    pub(super) reason: Option<FailureReason>,
    /// The item that settled as failed before all others, and how many attempts it had.
    pub(super) first_failure: Option<(usize, u32)>,
    /// How many successes were required, where it is more than there are items.
    pub(super) shortfall: Option<usize>,
    pub(super) collector: Collector<T, E>,
}

impl<T, E> Ending<T, E> {
    /// The end of a run that was dropped before it began, with its promised total.
    pub(super) fn not_begun(name: String, total: usize) -> Self {
        Self {
            name,
            summary: Summary { total, not_started: total, ..Summary::default() },
            reason: Some(FailureReason::Cancelled),
            first_failure: None,
            shortfall: None,
            collector: Collector::default(),
        }
    }

    /// Logs the account of the run.
    pub(super) fn log(&self) {
        let Self { name, summary, reason, shortfall, .. } = self;
        match (reason, shortfall) {
            (Some(FailureReason::TooManyFailures { .. }), Some(required)) => {
                let text = format_args!("{} items succeeded, {required} required", summary.successes);
                trace::verdict(name, summary, reason.as_ref(), &text);
            }
            (Some(text), _) => trace::verdict(name, summary, Some(text), text),
            (None, _) => trace::verdict(name, summary, None, &""),
        }
    }

    pub(crate) fn into_result(self) -> Outcome<T, E> {
        let Self { name, summary, reason, first_failure, shortfall, collector } = self;
        let (results, errors) = collector.into_parts(summary.total - summary.not_started, summary.total);
        let result = MapTaskResult { results, errors, summary };
        match reason {
            None => Ok(result),
            Some(reason) => {
                let first_failure = first_failure.map(|(index, _)| index);
                Err(MapTaskError::new(name, reason, first_failure, shortfall, result))
            }
        }
    }

    pub(crate) fn into_summary(self) -> Result<Summary, RunError> {
        let Self { name, summary, reason, first_failure, shortfall, .. } = self;
        match reason {
            None => Ok(summary),
            Some(reason) => Err(RunError::new(name, reason, first_failure, shortfall, summary)),
        }
    }
}
