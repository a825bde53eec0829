//! The calls of a run that makes one call for several items: how many items join a call, and how long it waits for them.

use std::time::Duration;

use super::Scheduler;
use super::clock::deadline;
use super::retries::Group;
use super::retry_wait::{Refusal, Wait};
use crate::rt::Instant;

/// The options of a run of batches.
#[derive(Debug, Clone)]
pub(crate) struct BatchOptions {
    /// How many items a call takes at most.
    pub(crate) size: usize,
    /// How much the items of a call may weigh together. An item that weighs more has a call of its own.
    pub(crate) most_weight: Option<u32>,
    /// How long a call waits for more items after it could start.
    pub(crate) wait: Duration,
    /// `true` if a call that has failed as a whole, and is not retried, is split until the items that fail alone are known.
    pub(crate) splits: bool,
    /// `true` if the items have weights that count permits, which batches do not have.
    pub(crate) is_weighted: bool,
}

impl BatchOptions {
    /// Returns the default options for batches of this size.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, most_weight: None, wait: Duration::ZERO, splits: true, is_weighted: false }
    }
}

/// The options of the batches, and the wait of the next one.
pub(in super::super) struct Batches {
    pub(in super::super) options: BatchOptions,
    /// The time since when the next call could start, if it waits for more items.
    waits_since: Option<Instant>,
}

impl Batches {
    pub(super) fn new(options: BatchOptions) -> Self {
        Self { options, waits_since: None }
    }

    /// Begins the wait of the next call, or continues it. Returns `true` if it is over.
    pub(in super::super) fn has_waited(&mut self, now: Instant) -> bool {
        let since = *self.waits_since.get_or_insert(now);
        now >= deadline(since, self.options.wait)
    }

    /// Ends the wait of a call.
    pub(in super::super) fn end_wait(&mut self) {
        self.waits_since = None;
    }

    /// Returns the time at which the next call starts, if it waits for more items.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.waits_since.map(|since| deadline(since, self.options.wait))
    }
}

/// The room that is left in a call.
pub(in super::super) struct CallRoom {
    items: usize,
    weight: Option<u32>,
}

impl CallRoom {
    pub(in super::super) fn new(options: &BatchOptions) -> Self {
        Self { items: options.size, weight: options.most_weight }
    }

    /// Returns `true` if no item can join.
    pub(in super::super) fn is_full(&self) -> bool {
        self.items == 0 || self.weight == Some(0)
    }

    /// Takes the room for an item. Returns `false` if there is not enough. The first item always has room.
    pub(in super::super) fn take(&mut self, is_first: bool, weight: impl FnOnce() -> u32) -> bool {
        if let Some(left) = self.weight {
            match (left.checked_sub(weight()), is_first) {
                (Some(less), _) => self.weight = Some(less),
                (None, true) => self.weight = Some(0),
                (None, false) => return false,
            }
        }
        self.items -= 1;
        true
    }
}

impl Scheduler {
    /// Returns how many items the running attempts can have.
    pub(in super::super) fn item_capacity(&self) -> usize {
        let size = self.batches.as_ref().map_or(1, |batches| batches.options.size);
        self.permits.capacity().saturating_mul(size)
    }

    /// Returns `true` if calls that have failed as a whole are split.
    pub(in super::super) fn splits_batches(&self) -> bool {
        self.stop.is_none() && self.batches.as_ref().is_some_and(|batches| batches.options.splits)
    }

    /// Returns the time after which an item that started at `started` is not tried any more.
    pub(in super::super) fn give_up_at(&self, started: Option<Instant>) -> Option<Instant> {
        let limit = self.config.timeout_per_item?;
        Some(deadline(self.clock.latest_start(started?), limit))
    }

    /// Adds a call that is made again: after a delay or, for a part of a larger one, before any other call. The part that was
    /// added last starts first.
    pub(in super::super) fn park_group(&mut self, slot: usize, group: Group, wait: &Wait) {
        self.retries.park_group(slot, group, wait.until, wait.is_granted);
        let now = self.clock.read();
        self.retries.release(now);
        if !wait.is_granted {
            self.grant_retries(now);
        }
        self.notify_driver();
    }

    /// Returns the wait of a call for a part of a larger one, or the reason why it is not made.
    pub(in super::super) fn wait_of_part(&mut self) -> Result<Wait, Refusal> {
        let is_granted = self.grant_call()?;
        Ok(Wait { length: Duration::ZERO, until: self.clock.last(), give_up: None, is_granted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(size: usize, most_weight: Option<u32>, weights: &[u32]) -> usize {
        let options = BatchOptions { most_weight, ..BatchOptions::new(size) };
        let mut room = CallRoom::new(&options);
        let mut weights = weights.iter().enumerate();
        let fits = |(at, weight): (usize, &u32)| !room.is_full() && room.take(at == 0, || *weight);
        weights.by_ref().map(fits).take_while(|fits| *fits).count()
    }

    #[test]
    fn a_call_is_full_by_number_or_by_weight() {
        assert_eq!(joined(2, None, &[9, 9, 9]), 2);
        assert_eq!(joined(9, Some(10), &[4, 4, 2, 1]), 3, "exactly full");
        assert_eq!(joined(9, Some(10), &[4, 4, 3, 1]), 2, "a later item that is lighter does not pass");
        assert_eq!(joined(9, Some(10), &[11, 1]), 1, "a heavy item has a call of its own");
        assert_eq!(joined(2, Some(10), &[1, 1, 1]), 2);
    }

    #[test]
    fn a_call_waits_from_the_time_at_which_it_could_start() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let options = BatchOptions { wait: second, ..BatchOptions::new(2) };
        let mut batches = Batches::new(options);
        assert_eq!(batches.next_start(), None);
        assert!(!batches.has_waited(now));
        assert!(!batches.has_waited(now + second / 2));
        assert_eq!(batches.next_start(), Some(now + second));
        assert!(batches.has_waited(now + second));
        batches.end_wait();
        assert_eq!(batches.next_start(), None);
        assert!(!batches.has_waited(now + second));
    }
}
