//! The results of a run, combined with the observations from inside.

use std::collections::BTreeMap;

use async_map_task::{FailureKind, FailureReason, ItemError, ItemOutcome, RunError, Summary, TimeoutScope};

use super::{Log, Outcome, Scripted};
use crate::model::plan::{End, Run, Taker};
use crate::model::script::Source;
use crate::model::{Ended, Millis, Observed, Status, millis};

/// The outcomes that were given out one by one.
#[derive(Debug, Default)]
pub(super) struct Given {
    items: BTreeMap<usize, (Status, u32)>,
}

impl Given {
    /// Records an outcome. Returns how long it keeps the taker busy, and `true` if the taker fails with it.
    pub(super) fn note(
        &mut self,
        outcome: ItemOutcome<usize, Scripted>,
        log: &Log,
        taker: &Taker,
    ) -> (Millis, bool) {
        let ItemOutcome { index, attempts, elapsed, result, .. } = outcome;
        let nth = self.items.len();
        let status = status(result.as_ref().map(|value| assert_eq!(*value, index, "it is another's result")));
        assert!(self.items.insert(index, (status, attempts)).is_none(), "item {index} is given twice");
        log.given.borrow().push((index, log.now()));
        let started = log.starts.borrow().iter().find(|(i, ..)| *i == index).map(|(.., at)| *at);
        let settled = log.settled.borrow().iter().find(|(i, _)| *i == index).map(|(_, at)| *at);
        assert_eq!(Some(millis(elapsed)), settled.zip(started).map(|(settled, started)| settled - started));
        (taker.nap(nth), taker.fails_at == Some(nth))
    }
}

/// The end of a run and its results.
pub(super) struct Seen {
    ended: Ended,
    /// From the error, if the run failed.
    time_limit: Option<Millis>,
    summary: Summary,
    items: BTreeMap<usize, (Status, u32)>,
    /// The slots of a result and the first failure, from the error.
    slots: Option<usize>,
    first_failure: Option<Option<usize>>,
}

impl Seen {
    pub(super) fn of_results(outcome: Outcome) -> Self {
        let (reason, first_failure, result) = match outcome {
            Ok(result) => (None, None, result),
            Err(error) => {
                let first_failure = error.first_failure().map(|(index, _)| index);
                (Some(ended(error.reason())), Some(first_failure), error.into_partial())
            }
        };
        let (ended, time_limit) = reason.unwrap_or((Ended::Succeeded, None));
        let mut items = BTreeMap::new();
        for (index, value) in result.results.iter().enumerate() {
            if let Some(value) = value {
                assert_eq!(*value, index, "a result is in a wrong slot");
                items.insert(index, (Status::Succeeded, 0));
            }
        }
        for (index, error) in &result.errors {
            let failed = (status(Err(error)), error.attempts());
            assert!(items.insert(*index, failed).is_none(), "item {index} has a result and an error");
        }
        let slots = Some(result.results.len());
        Self { ended, time_limit, summary: result.summary, items, slots, first_failure }
    }

    pub(super) fn of_outcomes(given: Given, outcome: Result<Summary, RunError>) -> Self {
        let (ended, time_limit) =
            outcome.as_ref().map_or_else(|error| ended(error.reason()), |_| (Ended::Succeeded, None));
        let summary = outcome.unwrap_or_else(|error| error.summary().clone());
        Self { ended, time_limit, summary, items: given.items, slots: None, first_failure: None }
    }
}

fn ended(reason: &FailureReason) -> (Ended, Option<Millis>) {
    let ended = match reason {
        FailureReason::FailFast { index } => Ended::FailFast { index: *index },
        FailureReason::TooManyFailures { failures, allowed } => {
            Ended::TooManyFailures { failures: *failures, allowed: *allowed }
        }
        FailureReason::Cancelled => Ended::Cancelled,
        FailureReason::TimedOut { limit } => return (Ended::TimedOut, Some(millis(*limit))),
        FailureReason::Source(_) => Ended::Source,
        FailureReason::Sink(_) => Ended::Sink,
        FailureReason::Config(error) => {
            assert!(["weight", "limiter"].contains(&error.field()), "{error}");
            Ended::Config
        }
        other => panic!("no case ends with {other}"),
    };
    (ended, None)
}

fn status(result: Result<(), &ItemError<Scripted>>) -> Status {
    match result {
        Ok(()) => Status::Succeeded,
        Err(ItemError::Failed { .. }) => Status::Failed,
        Err(ItemError::TimedOut { scope: TimeoutScope::Attempt, .. }) => Status::TimedOutAttempt,
        Err(ItemError::TimedOut { scope: TimeoutScope::Item, .. }) => Status::TimedOutItem,
        Err(ItemError::Panicked { .. }) => Status::Panicked,
        Err(other) => panic!("an unknown error: {other:?}"),
    }
}

/// Returns the result of an item without a given outcome, as the observer recorded it.
fn status_as_observed(log: &Log, index: usize) -> Option<Status> {
    log.settled.borrow().iter().find(|(settled, _)| *settled == index)?;
    let failure = log.failures.borrow().iter().find(|(failed, _)| *failed == index).map(|(_, kind)| *kind);
    Some(match failure {
        None => Status::Succeeded,
        Some(FailureKind::Failed) => Status::Failed,
        Some(FailureKind::TimedOut) => Status::TimedOutAttempt,
        Some(FailureKind::Panicked) => Status::Panicked,
        Some(other) => panic!("an unknown failure: {other:?}"),
    })
}

pub(super) fn observe(run: &Run, log: &Log, seen: Seen) -> Observed {
    let closed = log.now();
    let mut starts = log.starts.borrow().clone();
    let announced = log.ties.borrow().announced.len();
    assert!(log.ties.borrow().announced.is_sorted(), "items do not start in input order");
    let Seen { ended, time_limit, summary, items: given, slots, first_failure } = seen;
    if ended == Ended::TimedOut {
        assert_eq!(time_limit, run.case.per_run);
    }
    let may_fail = run.taker().is_some_and(|taker| taker.fails_at.is_some());
    let items: Vec<_> = (0..run.case.items.len())
        .map(|index| {
            let attempts = starts.iter().filter(|(i, _, _)| *i == index).count() as u32;
            let status = match (given.get(&index), status_as_observed(log, index)) {
                (Some((status, counted)), Some(_)) => {
                    assert!([0, attempts].contains(counted), "it had {attempts} attempts, not {counted}");
                    *status
                }
                (None, Some(status)) => {
                    assert!(may_fail, "the outcome of item {index} is lost");
                    status
                }
                (None, None) if index >= announced => Status::NotStarted,
                (None, None) => Status::Cancelled,
                (Some(status), None) => panic!("item {index} has not settled, and yet it is {status:?}"),
            };
            (status, attempts)
        })
        .collect();
    let of = |status| items.iter().filter(|(s, _)| *s == status).count();
    assert_eq!(summary.successes, of(Status::Succeeded));
    assert_eq!(summary.cancelled, of(Status::Cancelled));
    assert_eq!(summary.failures, log.failures.borrow().len());
    assert_eq!(summary.total, summary.successes + summary.failures + summary.cancelled + summary.not_started);
    assert!(slots.is_none_or(|slots| slots == summary.total));
    let end = millis(summary.elapsed);
    assert!(end == closed || matches!(run.end, End::Stream(_)), "it has ended at {end} and {closed}");
    let failed_first = *log.first_failure.borrow();
    assert!(first_failure.is_none_or(|first| first == failed_first), "another item failed first");
    let given = log.given.borrow().clone();
    let settled = log.settled.borrow().clone();
    let looks = log.looks.borrow().clone();
    // If the source does not know its length, an item may have been pulled but never started.
    let known = matches!(run.case.source, Source::List);
    let total = if known { summary.total } else { announced };
    let most = if run.parallel { announced + run.case.concurrency.max(8) } else { announced + 1 };
    assert!(
        known || (announced..=most).contains(&summary.total),
        "{} items, {announced} of them started",
        summary.total
    );
    let mut retries = summary.retries;
    if run.parallel {
        // Several tasks that begin at one instant call the function in any order, or are stopped before they do.
        starts.sort_by_key(|(index, number, at)| (*at, *index, *number));
        retries = starts.iter().filter(|(_, number, _)| *number > 1).count();
        assert!((retries..=retries + run.case.concurrency.max(8)).contains(&summary.retries));
    }
    Observed {
        ended,
        end,
        closed,
        total,
        items,
        starts,
        settled,
        given,
        looks,
        peak: log.running.peak(),
        retries,
        timeouts: summary.timeouts,
        panics: summary.panics,
        first_failure: failed_first,
    }
}
