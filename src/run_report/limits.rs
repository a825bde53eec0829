//! The changes of adaptive limiters during a run.

use crate::observe::LimitChange;

/// How many changes are kept. If there are more, every second one is left out, again and again.
const KEPT: usize = 4_096;

/// A change of the number of permits, at a time in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) at: u64,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) why: LimitChange,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Limits(Vec<Change>);

impl Limits {
    pub(super) fn record(&mut self, change: Change) {
        if self.0.len() == KEPT {
            let mut keeps = false;
            self.0.retain(|_| {
                keeps = !keeps;
                keeps
            });
        }
        self.0.push(change);
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_are_bounded_and_spread_over_the_run() {
        let mut limits = Limits::default();
        for at in 0..20_000 {
            limits.record(Change { at, from: 1, to: 2, why: LimitChange::Growth });
        }
        let times: Vec<_> = limits.changes().iter().map(|change| change.at).collect();
        assert!((KEPT / 2..=KEPT).contains(&times.len()) && times.is_sorted());
        assert_eq!((times.first(), times.last()), (Some(&0), Some(&19_999)));
    }
}
