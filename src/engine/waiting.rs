//! The items that wait for their retry.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use tokio::time::Instant;

use super::clock::earliest;

/// Items between two attempts: first until their delay is over, then until there is a place.
///
/// It holds no more than twice `concurrency` of them: admission stops at `concurrency`, and only the
/// attempts that were then running can still join.
pub(super) struct Waiting<J> {
    delayed: BinaryHeap<Delayed<J>>,
    due: VecDeque<Due<J>>,
    /// The earliest `give_up` among `due`, or earlier.
    next_give_up: Option<Instant>,
    order: u64,
}

struct Delayed<J> {
    until: Instant,
    /// Ties go to the item that was parked first.
    order: u64,
    job: Due<J>,
}

struct Due<J> {
    give_up: Option<Instant>,
    job: J,
}

impl<J> Waiting<J> {
    pub(super) fn new() -> Self {
        Self { delayed: BinaryHeap::new(), due: VecDeque::new(), next_give_up: None, order: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.delayed.len() + self.due.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn count_due(&self) -> usize {
        self.due.len()
    }

    /// One of the items that may start next, counted from the first.
    pub(super) fn peek_due(&self, nth: usize) -> Option<&J> {
        self.due.get(nth).map(|due| &due.job)
    }

    /// Puts an item aside until a time. After `give_up` it is not tried again.
    pub(super) fn park(&mut self, job: J, until: Instant, give_up: Option<Instant>) {
        self.delayed.push(Delayed { until, order: self.order, job: Due { give_up, job } });
        self.order += 1;
    }

    /// Moves the items whose delay is over to those that may start.
    pub(super) fn release(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|next| next.until <= now) {
            if let Some(Delayed { job, .. }) = self.delayed.pop() {
                self.next_give_up = earliest(self.next_give_up, job.give_up);
                self.due.push_back(job);
            }
        }
    }

    /// The item that may start next.
    pub(super) fn pop_due(&mut self) -> Option<J> {
        self.due.pop_front().map(|due| due.job)
    }

    /// An item that found no place before it had to give up.
    pub(super) fn pop_given_up(&mut self, now: Instant) -> Option<J> {
        if self.next_give_up.is_none_or(|give_up| give_up > now) {
            return None;
        }
        let found = self.due.iter().position(|due| due.give_up.is_some_and(|give_up| give_up <= now));
        match found {
            Some(at) => self.due.remove(at).map(|due| due.job),
            None => {
                self.next_give_up = self.due.iter().fold(None, |next, due| earliest(next, due.give_up));
                None
            }
        }
    }

    /// When [`release`](Self::release) or [`pop_given_up`](Self::pop_given_up) should be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // It may be the time of an item that has found its place meanwhile.
        let give_up = self.next_give_up.filter(|_| self.has_due());
        earliest(self.delayed.peek().map(|next| next.until), give_up)
    }

    /// Forgets all items.
    pub(super) fn clear(&mut self) {
        self.delayed.clear();
        self.due.clear();
        self.next_give_up = None;
    }
}

// The heap gives the greatest first, so the order is turned round.
impl<J> Ord for Delayed<J> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.until, other.order).cmp(&(self.until, self.order))
    }
}

impl<J> PartialOrd for Delayed<J> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<J> PartialEq for Delayed<J> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<J> Eq for Delayed<J> {}
