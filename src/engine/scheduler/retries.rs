//! Decides when retries may start, and in which order. It contains no items, only the slots in which they are kept.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

use super::clock::earliest;
use crate::rt::Instant;

/// Retries that wait: first for the end of their delay, then for their start.
#[derive(Debug, Default)]
pub(in super::super) struct RetrySchedule {
    delayed: BinaryHeap<Delayed>,
    /// Retries with a delay that is over, in the order in which their delays ended.
    due: VecDeque<Ticket>,
    /// Retries without a delay, in the order in which their last attempts ended.
    immediate: VecDeque<Ticket>,
    /// How many retries wait.
    held: usize,
    /// The number of admitted new items when the last immediate retry was taken.
    last_immediate: usize,
    /// The earliest `give_up` of the retries that may start, or an earlier time.
    next_give_up: Option<Instant>,
    order: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Delayed {
    until: Instant,
    ticket: Ticket,
}

/// The position of a retry in the schedule.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Ticket {
    /// The slot in which its item is kept.
    pub(in super::super) slot: usize,
    /// How many permits it needs.
    weight: u32,
    /// After this time, the retry is not made any more.
    give_up: Option<Instant>,
    /// The number of admitted new items when its last attempt ended, if it has no delay.
    immediate: Option<usize>,
    /// The value of `last_immediate` before it was taken.
    before: usize,
    /// The position among the retries of its kind.
    order: u64,
}

impl RetrySchedule {
    /// Returns the number of retries that wait.
    #[inline]
    pub(in super::super) fn len(&self) -> usize {
        self.held
    }

    /// Returns a number above 0 if retries may start.
    #[inline]
    pub(in super::super) fn ready(&self) -> usize {
        self.due.len() | self.immediate.len()
    }

    /// Returns the weight of the retry that has been due for longest.
    pub(in super::super) fn due(&self) -> Option<u32> {
        self.due.front().map(|ticket| ticket.weight)
    }

    /// Returns the weight of the first retry without a delay.
    pub(in super::super) fn immediate(&self) -> Option<u32> {
        self.immediate.front().map(|ticket| ticket.weight)
    }

    /// Returns `true` if the first retry without a delay comes before the next new item. At least one new item is admitted
    /// after its last attempt and after the last retry of its kind. So these retries cannot starve new items.
    pub(in super::super) fn is_turn_of_immediate(&self, admitted: usize) -> bool {
        let turn =
            |ticket: &Ticket| ticket.immediate.is_some_and(|mark| admitted > mark.max(self.last_immediate));
        self.immediate.front().is_some_and(turn)
    }

    /// Adds a retry that may start at `until`. It is not made after `give_up`.
    pub(in super::super) fn park(
        &mut self,
        slot: usize,
        weight: u32,
        until: Instant,
        give_up: Option<Instant>,
    ) {
        let order = self.next_order();
        self.delayed.push(Delayed {
            until,
            ticket: Ticket { slot, weight, give_up, immediate: None, before: 0, order },
        });
    }

    /// Adds a retry without a delay, after `admitted` new items were admitted.
    pub(in super::super) fn park_immediate(
        &mut self,
        slot: usize,
        weight: u32,
        give_up: Option<Instant>,
        admitted: usize,
    ) {
        let order = self.next_order();
        self.next_give_up = earliest(self.next_give_up, give_up);
        self.immediate.push_back(Ticket {
            slot,
            weight,
            give_up,
            immediate: Some(admitted),
            before: 0,
            order,
        });
    }

    fn next_order(&mut self) -> u64 {
        self.held += 1;
        self.order += 1;
        self.order
    }

    /// Moves the retries with a delay that is over to those that may start.
    pub(in super::super) fn release(&mut self, now: Instant) {
        while self.delayed.peek().is_some_and(|next| next.until <= now) {
            if let Some(Delayed { ticket, .. }) = self.delayed.pop() {
                self.next_give_up = earliest(self.next_give_up, ticket.give_up);
                let order = self.next_order();
                self.held -= 1;
                self.due.push_back(Ticket { order, ..ticket });
            }
        }
    }

    /// Takes the retry that has been due for longest.
    pub(in super::super) fn pop_due(&mut self) -> Option<Ticket> {
        let ticket = self.due.pop_front()?;
        self.held -= 1;
        Some(ticket)
    }

    /// Takes the first retry without a delay.
    pub(in super::super) fn pop_immediate(&mut self, admitted: usize) -> Option<Ticket> {
        let ticket = self.immediate.pop_front()?;
        self.held -= 1;
        let before = mem::replace(&mut self.last_immediate, admitted);
        Some(Ticket { before, ..ticket })
    }

    /// Puts back a retry that was taken and has not started.
    pub(in super::super) fn put_back(&mut self, ticket: Ticket) {
        let queue = if ticket.immediate.is_some() {
            self.last_immediate = self.last_immediate.min(ticket.before);
            &mut self.immediate
        } else {
            &mut self.due
        };
        self.next_give_up = earliest(self.next_give_up, ticket.give_up);
        let at = queue.partition_point(|other| other.order < ticket.order);
        queue.insert(at, ticket);
        self.held += 1;
    }

    /// Takes a retry that did not start before its `give_up`. Returns its slot.
    pub(in super::super) fn pop_given_up(&mut self, now: Instant) -> Option<usize> {
        if self.next_give_up.is_none_or(|give_up| give_up > now) {
            return None;
        }
        let is_late = |ticket: &Ticket| ticket.give_up.is_some_and(|give_up| give_up <= now);
        let late = [&mut self.due, &mut self.immediate].into_iter().filter_map(|queue| {
            let at = queue.iter().position(is_late)?;
            Some((queue.get(at)?.order, at, queue))
        });
        let first = late.min_by_key(|(order, ..)| *order);
        if let Some(ticket) = first.and_then(|(_, at, queue)| queue.remove(at)) {
            self.held -= 1;
            return Some(ticket.slot);
        }
        let left = self.due.iter().chain(&self.immediate);
        self.next_give_up = left.fold(None, |next, ticket| earliest(next, ticket.give_up));
        None
    }

    /// Returns the time at which [`release`](Self::release) or [`pop_given_up`](Self::pop_given_up) must be called next.
    pub(in super::super) fn next_deadline(&self) -> Option<Instant> {
        // It may be the time of a retry that has started since.
        let give_up = self.next_give_up.filter(|_| self.ready() > 0);
        earliest(self.delayed.peek().map(|next| next.until), give_up)
    }

    /// Drops all retries. Returns the slots of their items.
    pub(in super::super) fn clear(&mut self) -> Vec<usize> {
        let delayed = self.delayed.drain().map(|delayed| delayed.ticket);
        let tickets = delayed.chain(self.due.drain(..)).chain(self.immediate.drain(..));
        let slots = tickets.map(|ticket| ticket.slot).collect();
        self.held = 0;
        self.next_give_up = None;
        slots
    }
}

// The heap yields its greatest element first, so the order is reversed. Ties go to the retry that was parked first.
impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.until, other.ticket.order).cmp(&(self.until, self.ticket.order))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(slots: &[usize]) -> RetrySchedule {
        let mut retries = RetrySchedule::default();
        slots.iter().for_each(|slot| retries.park_immediate(*slot, 1, None, 1));
        retries
    }

    fn take(retries: &mut RetrySchedule, admitted: usize) -> usize {
        retries.pop_immediate(admitted).unwrap().slot
    }

    #[test]
    fn each_immediate_retry_comes_after_a_new_item() {
        let mut retries = parked(&[7, 8]);
        assert!(!retries.is_turn_of_immediate(1), "none was admitted since");
        assert!(retries.is_turn_of_immediate(2));
        assert_eq!(take(&mut retries, 2), 7);
        assert!(!retries.is_turn_of_immediate(2), "one new item lets one retry start");
        assert!(retries.is_turn_of_immediate(3));
        assert_eq!(take(&mut retries, 3), 8);
        retries.park_immediate(8, 1, None, 3);
        assert!(!retries.is_turn_of_immediate(3));
        assert_eq!((retries.len(), retries.is_turn_of_immediate(4)), (1, true));
    }

    #[test]
    fn retries_that_are_put_back_have_their_former_place() {
        let mut retries = parked(&[7, 8, 9]);
        let (first, second) = (retries.pop_immediate(2).unwrap(), retries.pop_immediate(3).unwrap());
        assert_eq!(retries.len(), 1);
        assert!(!retries.is_turn_of_immediate(3));
        retries.put_back(first);
        retries.put_back(second);
        assert!(retries.is_turn_of_immediate(2), "as if none had been taken");
        let order: Vec<_> = (4..7).map(|admitted| take(&mut retries, admitted)).collect();
        assert_eq!((order, retries.len()), (vec![7, 8, 9], 0));
    }

    #[test]
    fn retries_without_a_delay_give_up_in_time_too() {
        let now = Instant::now();
        let second = std::time::Duration::from_secs(1);
        let mut retries = RetrySchedule::default();
        retries.park_immediate(7, 1, Some(now + second), 1);
        retries.park(8, 1, now, Some(now + 2 * second));
        retries.release(now);
        assert_eq!((retries.pop_given_up(now), retries.next_deadline()), (None, Some(now + second)));
        assert_eq!(retries.pop_given_up(now + second), Some(7));
        assert_eq!(retries.pop_given_up(now + second), None);
        assert_eq!((retries.len(), retries.next_deadline()), (1, Some(now + 2 * second)));
    }

    #[test]
    fn a_retry_that_is_put_back_late_gives_up_too() {
        let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
        let mut retries = RetrySchedule::default();
        retries.park_immediate(7, 1, Some(now + second), 1);
        let taken = retries.pop_immediate(2).unwrap();
        assert_eq!(retries.pop_given_up(now + second), None, "it is to start");
        retries.put_back(taken);
        assert_eq!(retries.next_deadline(), Some(now + second));
        assert_eq!(retries.pop_given_up(now + second), Some(7));
    }
}
