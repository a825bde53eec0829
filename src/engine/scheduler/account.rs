//! The account of a run, and its verdict.

use std::mem;

use super::{Scheduler, SourceState, Stop};
use crate::error::{FailureReason, FirstFailure};
use crate::progress::Progress;
use crate::result::{Completion, Started, Summary};
use crate::rt::Instant;
use crate::verdict::Exceeded;

#[derive(Default)]
pub(in super::super) struct Tally {
    pub(in super::super) successes: usize,
    pub(in super::super) failures: usize,
    /// Includes attempts that the shutdown of their runtime has interrupted.
    pub(in super::super) failed_attempts: usize,
    pub(in super::super) retries: usize,
    /// How many items were in the calls for parts of batches: such a call continues attempts that count as failed.
    pub(in super::super) parts: usize,
    /// The calls for batches.
    pub(in super::super) calls: usize,
    pub(in super::super) retries_refused: usize,
    pub(in super::super) timeouts: usize,
    pub(in super::super) panics: usize,
    pub(in super::super) recovered: usize,
    pub(in super::super) carried: usize,
    pub(in super::super) cached: usize,
    pub(in super::super) changed: usize,
    /// The first item that settled as failed.
    pub(in super::super) first_failure: Option<FirstFailure>,
}

/// The verdict on a run that has ended.
#[derive(Debug)]
pub(in super::super) struct Verdict {
    pub(in super::super) name: String,
    pub(in super::super) summary: Summary,
    /// `None` if the run succeeded.
    pub(in super::super) reason: Option<FailureReason>,
    /// The first item that settled as failed.
    pub(in super::super) first_failure: Option<FirstFailure>,
    /// The number of required successes, if there are fewer items than that.
    pub(in super::super) shortfall: Option<usize>,
    pub(in super::super) started: Started,
}

impl Scheduler {
    /// Counts an item that has failed. Returns the cause to stop, if this failure stops the run.
    pub(in super::super) fn count_failure(
        &mut self,
        index: usize,
        first: impl FnOnce() -> FirstFailure,
    ) -> Option<Stop> {
        self.tally.failures += 1;
        self.tally.first_failure.get_or_insert_with(first);
        let criteria = &self.config.criteria;
        if criteria.fail_fast {
            return Some(Stop::Failed(FailureReason::FailFast { index }));
        }
        let Exceeded { failures, allowed } = criteria.after_failure(self.tally.failures, self.total())?;
        Some(Stop::Failed(FailureReason::TooManyFailures { failures, allowed }))
    }

    /// Counts an item that has succeeded, and stops the run if that is enough.
    #[inline(always)]
    pub(in super::super) fn count_success(&mut self) {
        self.tally.successes += 1;
        if self.config.criteria.early_success {
            self.stop_if_enough();
        }
    }

    #[cold]
    fn stop_if_enough(&mut self) {
        if self.config.criteria.enough(self.tally.successes, self.total()) {
            self.stop(Stop::EarlySuccess);
        }
    }

    /// Ends the account, reports it, and judges the run.
    pub(in super::super) fn end(&mut self) -> Verdict {
        let mut summary = self.summary();
        self.end_report(&summary);
        let stop = self.stop.take();
        // More successes can be required than there are items, but only once the number of items is known.
        let required = self.config.criteria.required(summary.total);
        let is_known = stop.is_none() || self.total().is_some();
        let shortfall = Some(required).filter(|required| is_known && *required > summary.total);
        summary.completion = self.completion(stop.as_ref());
        let reason = match stop {
            Some(Stop::EarlySuccess) => None,
            Some(Stop::Failed(_)) if self.accepts(&summary) => None,
            Some(Stop::Failed(reason)) => Some(reason),
            None => match self.config.criteria.at_end(summary.successes, summary.failures) {
                Ok(()) => None,
                Err(Exceeded { failures, allowed }) => {
                    summary.completion = Completion::Failed;
                    Some(FailureReason::TooManyFailures { failures, allowed })
                }
            },
        };
        let (first_failure, started) = (self.tally.first_failure.take(), self.started_items());
        Verdict { name: mem::take(&mut self.name), summary, reason, first_failure, shortfall, started }
    }

    /// Returns why the run ended, unless the criteria have failed at its end.
    fn completion(&self, stop: Option<&Stop>) -> Completion {
        match stop {
            None => Completion::All,
            Some(Stop::EarlySuccess) => Completion::EarlySuccess,
            Some(Stop::Failed(FailureReason::Cancelled)) => Completion::Cancelled,
            Some(Stop::Failed(FailureReason::TimedOut { .. })) => Completion::TimedOut,
            Some(Stop::Failed(_)) => Completion::Failed,
        }
    }

    /// Returns `true` if a run that has ended early succeeds with its partial result.
    fn accepts(&self, summary: &Summary) -> bool {
        let is_asked_for = match summary.completion {
            Completion::Cancelled => !self.is_shut_down,
            completion => completion == Completion::TimedOut,
        };
        let least = self.config.criteria.min_successes.unwrap_or(0);
        self.config.accept_partial && is_asked_for && summary.successes >= least
    }

    /// Returns the current account.
    fn summary(&self) -> Summary {
        let Tally {
            successes,
            failures,
            retries,
            retries_refused,
            timeouts,
            panics,
            recovered,
            carried,
            cached,
            changed,
            calls,
            ..
        } = self.tally;
        let total = self.final_total();
        let started = self.started();
        Summary {
            total,
            successes,
            failures,
            cancelled: started - successes - failures,
            not_started: total - started,
            retries,
            retries_refused,
            timeouts,
            panics,
            recovered,
            carried,
            cached,
            changed,
            calls,
            elapsed: Instant::now().saturating_duration_since(self.started),
            completion: Completion::All,
        }
    }

    /// Returns the total number of items: those that were pulled or, if the run stopped before the end of the source, the
    /// promised number.
    fn final_total(&self) -> usize {
        match self.total() {
            Some(promised) if self.source_state != SourceState::Ended => promised,
            _ => self.pulled,
        }
    }

    /// Returns `true` if the source has no further items.
    pub(in super::super) fn has_pulled_all(&self) -> bool {
        self.source_state == SourceState::Ended || self.total() == Some(self.pulled)
    }

    /// Removes an early success as the cause of the end. It does not count if the sink or the store has failed.
    pub(in super::super) fn revoke_early_success(&mut self) {
        if let Some(Stop::EarlySuccess) = self.stop {
            self.stop = None;
        }
    }

    /// Records why a dropped run has ended. The first cause counts. If there was none, the run is cancelled, unless its last
    /// item had settled and everything `is_durable`.
    pub(in super::super) fn stop_dropped(&mut self, is_durable: bool) {
        let all_settled = self.tally.successes + self.tally.failures == self.pulled;
        match &self.stop {
            Some(Stop::Failed(_)) => {}
            Some(Stop::EarlySuccess) if is_durable => {}
            None if all_settled && self.has_pulled_all() && is_durable => {}
            None | Some(Stop::EarlySuccess) => {
                self.is_shut_down = true;
                self.stop = Some(Stop::Failed(FailureReason::Cancelled));
            }
        }
    }

    /// Removes the timeout of the run if the last item ended in the same poll.
    pub(in super::super) fn clear_timeout(&mut self) {
        let timed_out = matches!(self.stop, Some(Stop::Failed(FailureReason::TimedOut { .. })));
        let all_settled = self.started() == self.tally.successes + self.tally.failures;
        if timed_out && all_settled && self.has_pulled_all() && self.pulled == self.started() {
            self.stop = None;
        }
    }

    /// Sends the last report of a run that was dropped, unless it was sent before.
    pub(in super::super) fn end_report_of_dropped(&mut self) {
        if self.reporter.is_some() {
            self.end_report(&self.summary());
        }
    }

    /// Sends the last report: nothing runs or waits any more.
    fn end_report(&mut self, summary: &Summary) {
        if let Some(reporter) = self.reporter.take() {
            reporter.end(Progress { total: Some(summary.total), ..self.counts() }, summary.elapsed);
        }
    }

    pub(in super::super) fn counts(&self) -> Progress {
        let Tally { successes, failures, retries, recovered, carried, cached, .. } = self.tally;
        Progress { successes, failures, recovered, carried, cached, retries, ..Progress::default() }
    }
}
