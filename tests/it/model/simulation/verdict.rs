//! The effect of settled items on the run, and the causes that stop it.

use super::Simulation;
use crate::model::script::Source;
use crate::model::{Ended, Observed, Status};

impl Simulation<'_> {
    fn total(&self) -> Option<usize> {
        matches!(self.run.case.source, Source::List).then_some(self.run.case.items.len())
    }

    /// Returns `true` if no item is left: the source has ended, or has yielded as many items as it promised.
    pub(super) fn all_are_settled(&self) -> bool {
        self.running.is_empty()
            && self.waiting.is_empty()
            && self.started == self.pulled
            && (self.exhausted || self.total() == Some(self.pulled))
    }

    /// Returns the minimum successes and the maximum failures among `total` items.
    fn criteria(&self, total: usize) -> (usize, usize) {
        let case = &self.run.case;
        let none = case.min_successes.is_none() && case.max_failures.is_none();
        let hundredths = case.min_ratio.or(none.then_some(100)).unwrap_or(0) as usize;
        let least = (hundredths * total).div_ceil(100).max(case.min_successes.unwrap_or(0));
        (least, total.saturating_sub(least).min(case.max_failures.unwrap_or(usize::MAX)))
    }

    fn settle(&mut self, index: usize, status: Status) {
        self.seen.items[index].0 = status;
        self.seen.settled.push((index, self.now));
        if self.run.taker().is_some() && !self.taker_failed {
            self.held.push(index);
        }
    }

    pub(super) fn count(&self, succeeded: bool) -> usize {
        let settled = self.seen.settled.iter().map(|(index, _)| self.seen.items[*index].0);
        settled.filter(|status| (*status == Status::Succeeded) == succeeded).count()
    }

    pub(super) fn succeed(&mut self, index: usize) {
        self.settle(index, Status::Succeeded);
        let case = &self.run.case;
        let certain = match self.total() {
            Some(total) => {
                let most = case.max_failures.map_or(0, |most| total.saturating_sub(most));
                Some(self.criteria(total).0.max(most))
            }
            None if case.min_ratio.is_none() && case.max_failures.is_none() => case.min_successes,
            None => None,
        };
        if case.early_success && certain.is_some_and(|certain| self.count(true) >= certain) {
            self.stop(Ended::Succeeded);
        }
        self.give_at_once();
    }

    pub(super) fn fail(&mut self, index: usize, failure: Status) {
        self.settle(index, failure);
        self.seen.first_failure.get_or_insert(index);
        let failures = self.count(false);
        let allowed = match self.total() {
            Some(total) => self.criteria(total).1,
            None => self.run.case.max_failures.unwrap_or(usize::MAX),
        };
        if self.run.case.fail_fast {
            self.stop(Ended::FailFast { index });
        }
        if failures > allowed {
            self.stop(Ended::TooManyFailures { failures, allowed });
        }
        self.give_at_once();
    }

    /// Stops the run. The first cause counts. Waiting items are given up, and running ones are notified.
    pub(super) fn stop(&mut self, cause: Ended) {
        if self.stop.is_none() {
            self.give_up_waiting(cause);
            // With `parallel()`, attempts that end at the same instant are notified too late.
            self.untold = self.run.parallel;
            self.stop_at = self.now + self.run.case.grace.unwrap_or(0);
            if !self.untold {
                self.tell_all();
            }
        }
    }

    /// Like `stop`, but running attempts have no more time.
    pub(super) fn halt(&mut self, cause: Ended) {
        self.stop(cause);
        if std::mem::take(&mut self.draining) {
            self.tell_all();
        }
    }

    /// Gives up waiting items. Running ones may return.
    pub(super) fn drain(&mut self) {
        if self.stop.is_none() {
            self.give_up_waiting(Ended::Cancelled);
            self.draining = true;
        }
    }

    fn give_up_waiting(&mut self, cause: Ended) {
        self.stop = Some(cause);
        self.waiting.clear();
        self.leave_queue();
    }

    pub(super) fn finish(mut self) -> Observed {
        let (successes, failures) = (self.count(true), self.count(false));
        let (least, allowed) = self.criteria(successes + failures);
        self.seen.ended = match self.stop.take() {
            Some(cause) => cause,
            None if successes >= least && failures <= allowed => Ended::Succeeded,
            None => Ended::TooManyFailures { failures, allowed },
        };
        if self.run.parallel {
            self.seen.starts.sort_by_key(|(index, number, at)| (*at, *index, *number));
        }
        self.seen.total = self.total().unwrap_or(self.started);
        // Only the outcome of an item shows which of its limits it has passed.
        if self.run.taker().is_some() {
            for (index, (status, _)) in self.seen.items.iter_mut().enumerate() {
                let given = self.seen.given.iter().any(|(given, _)| *given == index);
                if *status == Status::TimedOutItem && !given {
                    *status = Status::TimedOutAttempt;
                }
            }
        }
        self.seen
    }
}
