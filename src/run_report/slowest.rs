//! The items that took the longest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::failures::shorten;

/// How many items are kept.
const KEPT: usize = 20;

/// An item, ordered by its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slow {
    /// The time from the start of the first attempt until the item settled, in nanoseconds.
    pub(super) elapsed: u64,
    pub(super) index: usize,
    pub(super) attempts: u32,
    pub(super) has_failed: bool,
    pub(super) label: Option<String>,
}

/// Keeps the slowest items.
#[derive(Debug, Clone, Default)]
pub(super) struct Slowest(BinaryHeap<Reverse<Slow>>);

impl Slowest {
    #[inline]
    pub(super) fn record(
        &mut self,
        elapsed: u64,
        index: usize,
        attempts: u32,
        has_failed: bool,
        label: Option<&str>,
    ) {
        if self.0.len() == KEPT && self.0.peek().is_some_and(|Reverse(fastest)| elapsed <= fastest.elapsed) {
            return;
        }
        let label = label.map(shorten);
        self.0.push(Reverse(Slow { elapsed, index, attempts, has_failed, label }));
        if self.0.len() > KEPT {
            self.0.pop();
        }
    }

    /// Returns the items, the slowest first.
    pub(super) fn items(&self) -> Vec<Slow> {
        let mut items: Vec<_> = self.0.iter().map(|Reverse(slow)| slow.clone()).collect();
        items.sort_unstable_by(|one, other| other.cmp(one));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_kept() {
        let mut slowest = Slowest::default();
        for n in 0..1_000_usize {
            slowest.record(n as u64 * 7_919 % 1_000, n, 1, false, None);
        }
        let times: Vec<_> = slowest.items().iter().map(|slow| slow.elapsed).collect();
        assert_eq!(times, (980..1_000).rev().collect::<Vec<_>>());
    }
}
