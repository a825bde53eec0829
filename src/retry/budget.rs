//! The arithmetic of a retry budget. Time is a number of milliseconds, which the caller reads from a clock.

use std::collections::VecDeque;

use crate::decimal::Decimal;

/// The first attempts and the retries of the last `length` milliseconds, and the limit on the retries.
///
/// An event at millisecond `t` counts until millisecond `t + length - 1`. There is at most one entry for a millisecond, so
/// there are at most `length` entries.
#[derive(Debug)]
pub(crate) struct Window {
    ratio: Decimal,
    /// How many retries are granted in each window without any first attempt.
    base: u64,
    length: u64,
    /// The latest time so far. Time never goes back.
    now: u64,
    /// In ascending order of time.
    entries: VecDeque<Entry>,
    /// The sum over all entries.
    first_attempts: u64,
    /// The sum over all entries.
    retries: u64,
}

/// The events of one millisecond.
#[derive(Debug)]
struct Entry {
    at: u64,
    first_attempts: u64,
    retries: u64,
}

impl Window {
    /// Creates an empty window of `length` milliseconds, at least 1.
    pub(crate) fn new(ratio: Decimal, min_per_second: u32, length: u64) -> Self {
        let base = u64::from(min_per_second) * length / 1_000;
        Self { ratio, base, length, now: 0, entries: VecDeque::new(), first_attempts: 0, retries: 0 }
    }

    /// Counts a first attempt that begins now.
    pub(crate) fn count_first_attempt(&mut self, now: u64) {
        self.advance(now);
        self.count(1, 0);
    }

    /// Grants a retry and charges it. Returns `false` if the budget is spent.
    pub(crate) fn grant(&mut self, now: u64) -> bool {
        self.advance(now);
        let has_room = self.allows(self.first_attempts, self.retries);
        if has_room {
            self.count(0, 1);
        }
        has_room
    }

    /// Returns the first millisecond, from the latest time so far on, at which the budget has room if no other event is counted
    /// until then. `None` if it never has room without a first attempt.
    pub(crate) fn next_room(&self) -> Option<u64> {
        let (mut first_attempts, mut retries) = (self.first_attempts, self.retries);
        if self.allows(first_attempts, retries) {
            return Some(self.now);
        }
        for entry in &self.entries {
            first_attempts -= entry.first_attempts;
            retries -= entry.retries;
            if self.allows(first_attempts, retries) {
                return Some(entry.at + self.length);
            }
        }
        None
    }

    /// Returns the numbers of first attempts and of retries in the window.
    pub(crate) fn counts(&mut self, now: u64) -> (u64, u64) {
        self.advance(now);
        (self.first_attempts, self.retries)
    }

    /// Returns `true` if one more retry is within the limit.
    fn allows(&self, first_attempts: u64, retries: u64) -> bool {
        self.ratio.floor_of(first_attempts) + u128::from(self.base) > u128::from(retries)
    }

    /// Drops the events that do not count any more. Runs with different clocks may share a budget, so `now` may be before the
    /// latest time; then the latest time counts.
    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(entry) = self.entries.front().filter(|entry| entry.at + self.length <= self.now) {
            self.first_attempts -= entry.first_attempts;
            self.retries -= entry.retries;
            self.entries.pop_front();
        }
    }

    /// Counts events at the latest time.
    fn count(&mut self, first_attempts: u64, retries: u64) {
        self.first_attempts += first_attempts;
        self.retries += retries;
        match self.entries.back_mut() {
            Some(last) if last.at == self.now => {
                last.first_attempts += first_attempts;
                last.retries += retries;
            }
            _ => self.entries.push_back(Entry { at: self.now, first_attempts, retries }),
        }
    }
}

#[cfg(test)]
mod tests;
