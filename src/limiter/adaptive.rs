//! The state of a limiter that finds its own number of permits: the rule, and the changes that runs report.

mod round;
mod rule;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) use self::rule::End;
use self::rule::{Cause, Rule};
use crate::observe::LimitChange;

/// A run that is not polled for longer misses changes.
const KEPT_CHANGES: usize = 64;

/// A change of the number of permits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) why: LimitChange,
}

#[derive(Debug)]
pub(super) struct Adaptive {
    rule: Rule,
    range: RangeInclusive<usize>,
    /// The last time at which an attempt ended while all permits were in use.
    full_at: Option<Duration>,
    changes: VecDeque<Change>,
    /// The number of all changes so far.
    changed: u64,
}

impl Adaptive {
    pub(super) fn new(range: RangeInclusive<usize>, start: usize) -> Self {
        let rule = Rule::new(*range.start(), *range.end(), start);
        Self { rule, range, full_at: None, changes: VecDeque::new(), changed: 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.rule.limit()
    }

    pub(super) fn most(&self) -> usize {
        *self.range.end()
    }

    /// Returns `true` if all permits were in use at some time since an attempt began, as far as ends of attempts show.
    pub(super) fn was_full_since(&mut self, began: Duration, now: Duration, is_full: bool) -> bool {
        if is_full {
            self.full_at = Some(now);
        }
        self.full_at.is_some_and(|full_at| full_at >= began)
    }

    /// Notes the end of an attempt, which may change the limit.
    pub(super) fn note(&mut self, end: &End) {
        let from = self.limit();
        let Some(cause) = self.rule.note(end) else { return };
        let why = match cause {
            Cause::Growth => LimitChange::Growth,
            Cause::Queue => LimitChange::Queue,
            Cause::Measurement => LimitChange::Measurement,
            Cause::Overload => LimitChange::Overload,
        };
        self.record(from, self.limit(), why);
    }

    /// Replaces the limit. Returns the new one, which is within the range.
    pub(super) fn replace(&mut self, permits: usize, now: Duration) -> usize {
        self.rule.replace(permits.clamp(*self.range.start(), *self.range.end()), now);
        self.limit()
    }

    pub(super) fn record(&mut self, from: usize, to: usize, why: LimitChange) {
        if from == to {
            return;
        }
        if self.changes.len() == KEPT_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { from, to, why });
        self.changed += 1;
    }

    /// Returns the number of all changes so far.
    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns the changes after the first `seen` ones.
    pub(super) fn changes_after(&self, seen: u64) -> impl Iterator<Item = Change> + '_ {
        let unseen = usize::try_from(self.changed - seen).unwrap_or(usize::MAX);
        self.changes.iter().copied().skip(self.changes.len().saturating_sub(unseen))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may")]
mod tests;
