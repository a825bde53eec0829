//! What a run ends with, and what its caller gets of it.

use std::mem;

use super::access::Access;
use super::collector::Collector;
use super::core::{Stop, Tally};
use super::hooks::Hooks;
use super::{Drive, Driver, trace};
use crate::count::Count;
use crate::error::{FailureReason, MapTaskError, RunError};
use crate::observe::Event;
use crate::result::{MapTaskResult, Summary};
use crate::rt::Instant;
use crate::verdict::Exceeded;

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

impl<W: Drive> Driver<W> {
    /// The account of the run, and its verdict.
    pub(super) fn finish(&mut self) -> Ending<W::Output, W::Error> {
        let mut access = Access::new(&self.core);
        let core = access.get();
        let Tally {
            successes,
            failures,
            retries,
            timeouts,
            panics,
            recovered,
            cached,
            changed,
            first_failure,
            ..
        } = core.tally;
        let (started, total, now) = (core.started(), core.final_total(), Instant::now());
        let summary = Summary {
            total,
            successes,
            failures,
            cancelled: started - successes - failures,
            not_started: total - started,
            retries,
            timeouts,
            panics,
            recovered,
            cached,
            changed,
            elapsed: now - self.started,
        };
        core.end_report(total, now, self.started);
        let stop = core.stop.take();
        // More successes can be required than there are items, once it is known how many there are.
        let required = self.config.criteria.required(total);
        let known = stop.is_none() || core.total().is_some();
        let shortfall = Some(required).filter(|required| known && *required > total);
        let reason = match stop {
            Some(Stop::EarlySuccess) => None,
            Some(Stop::Failed(reason)) => Some(reason),
            None => match self.config.criteria.at_end(successes, failures) {
                Ok(()) => None,
                Err(Exceeded { failures, allowed }) => {
                    Some(FailureReason::TooManyFailures { failures, allowed })
                }
            },
        };
        match (&reason, shortfall) {
            (Some(FailureReason::TooManyFailures { .. }), Some(required)) => {
                let text = format_args!("{} succeeded, {required} required", Count(successes, "item"));
                trace::verdict(&core.name, &summary, reason.as_ref(), &text);
            }
            (Some(text), _) => trace::verdict(&core.name, &summary, Some(text), text),
            (None, _) => trace::verdict(&core.name, &summary, None, &""),
        }
        if let Some(observer) = core.hooks.observer() {
            observer.on_event(&Event::RunFinished { summary: &summary, reason: reason.as_ref() });
        }
        let name = mem::take(&mut core.name);
        let collector = mem::replace(&mut core.collector, Collector::results());
        Ending { name, summary, reason, first_failure, shortfall, collector }
    }
}
