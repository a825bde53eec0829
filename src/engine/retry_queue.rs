//! The items that wait for their retry.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

use super::clock::earliest;
use crate::rt::Instant;

/// Items between two attempts: first until their delay is over, then until they may start.
///
/// It holds fewer than `look_ahead` and `concurrency` together: admission stops at `look_ahead`, and only the attempts
/// that run at that moment can still join.
pub(super) struct RetryQueue<J> {
    delayed: BinaryHeap<Delayed<J>>,
    /// The delay of these is over. Ordered by the time at which it was over.
    due: VecDeque<Due<J>>,
    /// These have no delay. Ordered by the time at which their last attempt ended.
    immediate: VecDeque<Due<J>>,
    /// How many items wait.
    held: usize,
    /// The number of new items that had been admitted when the last immediate retry was taken.
    last_immediate: usize,
    /// The earliest `give_up` among those that may start, or earlier.
    next_give_up: Option<Instant>,
    order: u64,
}

struct Delayed<J> {
    until: Instant,
    job: Due<J>,
}

/// An item whose retry may start.
pub(super) struct Due<J> {
    pub(super) job: J,
    /// After this time it is not tried again.
    give_up: Option<Instant>,
    /// The number of new items that had been admitted when its last attempt ended, if its retry has no delay.
    immediate: Option<usize>,
    /// What `last_immediate` was when it was taken.
    before: usize,
    /// The place among its like.
    order: u64,
}

impl<J> RetryQueue<J> {
    pub(super) fn new() -> Self {
        Self {
            delayed: BinaryHeap::new(),
            due: VecDeque::new(),
            immediate: VecDeque::new(),
            held: 0,
            last_immediate: 0,
            next_give_up: None,
            order: 0,
        }
    }

    /// The number of items that wait.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.held
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Above 0 if retries may start.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.due.len() | self.immediate.len()
    }

    /// The item whose delay was over first.
    pub(super) fn peek_due(&self) -> Option<&J> {
        self.due.front().map(|due| &due.job)
    }

    /// The first item without a delay.
    pub(super) fn peek_immediate(&self) -> Option<&J> {
        self.immediate.front().map(|due| &due.job)
    }

    /// Returns `true` if the first item without a delay comes before the next new item. At least one new item is admitted
    /// after its last attempt and after the last retry of its kind, so that such retries cannot starve new items.
    pub(super) fn is_turn_of_immediate(&self, admitted: usize) -> bool {
        let turn = |due: &Due<J>| due.immediate.is_some_and(|mark| admitted > mark.max(self.last_immediate));
        self.immediate.front().is_some_and(turn)
    }

    /// Puts an item aside until a time. After `give_up` it is not tried again.
    pub(super) fn park(&mut self, job: J, until: Instant, give_up: Option<Instant>) {
        let order = self.next_order();
        self.delayed.push(Delayed { until, job: Due { job, give_up, immediate: None, before: 0, order } });
    }

    /// Puts an item aside whose retry has no delay, after so many new items were admitted.
    pub(super) fn park_immediate(&mut self, job: J, give_up: Option<Instant>, admitted: usize) {
        let order = self.next_order();
        self.next_give_up = earliest(self.next_give_up, give_up);
        self.immediate.push_back(Due { job, give_up, immediate: Some(admitted), before: 0, order });
    }

    fn next_order(&mut self) -> u64 {
        self.held += 1;
        self.order += 1;
        self.order
    }

    /// Moves the items whose delay is over to those that may start.
    pub(super) fn release(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|next| next.until <= now) {
            if let Some(Delayed { job, .. }) = self.delayed.pop() {
                self.next_give_up = earliest(self.next_give_up, job.give_up);
                let order = self.next_order();
                self.held -= 1;
                self.due.push_back(Due { order, ..job });
            }
        }
    }

    /// Takes the item whose delay was over first.
    pub(super) fn pop_due(&mut self) -> Option<Due<J>> {
        let due = self.due.pop_front()?;
        self.held -= 1;
        Some(due)
    }

    /// Takes the first item without a delay.
    pub(super) fn pop_immediate(&mut self, admitted: usize) -> Option<Due<J>> {
        let due = self.immediate.pop_front()?;
        self.held -= 1;
        let before = mem::replace(&mut self.last_immediate, admitted);
        Some(Due { before, ..due })
    }

    /// Puts an item back that was taken and has not started.
    pub(super) fn put_back(&mut self, due: Due<J>) {
        let queue = if due.immediate.is_some() {
            self.last_immediate = self.last_immediate.min(due.before);
            &mut self.immediate
        } else {
            &mut self.due
        };
        let at = queue.partition_point(|other| other.order < due.order);
        queue.insert(at, due);
        self.held += 1;
    }

    /// Takes an item that did not start before it had to give up.
    pub(super) fn pop_given_up(&mut self, now: Instant) -> Option<J> {
        if self.next_give_up.is_none_or(|give_up| give_up > now) {
            return None;
        }
        let is_late = |due: &Due<J>| due.give_up.is_some_and(|give_up| give_up <= now);
        let late = [&mut self.due, &mut self.immediate].into_iter().filter_map(|queue| {
            let at = queue.iter().position(is_late)?;
            Some((queue.get(at)?.order, at, queue))
        });
        if let Some(due) = late.min_by_key(|(order, ..)| *order).and_then(|(_, at, queue)| queue.remove(at)) {
            self.held -= 1;
            return Some(due.job);
        }
        let left = self.due.iter().chain(&self.immediate);
        self.next_give_up = left.fold(None, |next, due| earliest(next, due.give_up));
        None
    }

    /// The time at which [`release`](Self::release) or [`pop_given_up`](Self::pop_given_up) is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // It may be the time of an item that has started meanwhile.
        let give_up = self.next_give_up.filter(|_| self.ready() > 0);
        earliest(self.delayed.peek().map(|next| next.until), give_up)
    }

    /// Forgets all items.
    pub(super) fn clear(&mut self) {
        self.delayed.clear();
        self.due.clear();
        self.immediate.clear();
        self.held = 0;
        self.next_give_up = None;
    }
}

// The heap yields its greatest element first, so the order is reversed. Ties go to the item that was parked first.
impl<J> Ord for Delayed<J> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.until, other.job.order).cmp(&(self.until, self.job.order))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(jobs: &[char]) -> RetryQueue<char> {
        let mut waiting = RetryQueue::new();
        jobs.iter().for_each(|job| waiting.park_immediate(*job, None, 1));
        waiting
    }

    fn take(waiting: &mut RetryQueue<char>, admitted: usize) -> char {
        waiting.pop_immediate(admitted).unwrap().job
    }

    #[test]
    fn each_immediate_retry_comes_after_a_new_item() {
        let mut waiting = parked(&['a', 'b']);
        assert!(!waiting.is_turn_of_immediate(1), "none was admitted since");
        assert!(waiting.is_turn_of_immediate(2));
        assert_eq!(take(&mut waiting, 2), 'a');
        assert!(!waiting.is_turn_of_immediate(2), "one new item lets one retry start");
        assert!(waiting.is_turn_of_immediate(3));
        assert_eq!(take(&mut waiting, 3), 'b');
        waiting.park_immediate('b', None, 3);
        assert!(!waiting.is_turn_of_immediate(3));
        assert_eq!((waiting.len(), waiting.is_turn_of_immediate(4)), (1, true));
    }

    #[test]
    fn items_that_are_put_back_have_their_former_place() {
        let mut waiting = parked(&['a', 'b', 'c']);
        let (first, second) = (waiting.pop_immediate(2).unwrap(), waiting.pop_immediate(3).unwrap());
        assert_eq!(waiting.len(), 1);
        assert!(!waiting.is_turn_of_immediate(3));
        waiting.put_back(first);
        waiting.put_back(second);
        assert!(waiting.is_turn_of_immediate(2), "as if none had been taken");
        let order: Vec<_> = (4..7).map(|admitted| take(&mut waiting, admitted)).collect();
        assert_eq!((order, waiting.is_empty()), (vec!['a', 'b', 'c'], true));
    }

    #[test]
    fn retries_without_a_delay_give_up_in_time_too() {
        let now = Instant::now();
        let second = std::time::Duration::from_secs(1);
        let mut waiting = RetryQueue::new();
        waiting.park_immediate('a', Some(now + second), 1);
        waiting.park('b', now, Some(now + 2 * second));
        waiting.release(now);
        assert_eq!((waiting.pop_given_up(now), waiting.next_deadline()), (None, Some(now + second)));
        assert_eq!(waiting.pop_given_up(now + second), Some('a'));
        assert_eq!(waiting.pop_given_up(now + second), None);
        assert_eq!((waiting.len(), waiting.next_deadline()), (1, Some(now + 2 * second)));
    }
}
