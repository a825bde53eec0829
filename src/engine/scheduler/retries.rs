//! Decides when retries may start, and in which order. It contains no items, only the slots in which they are kept.

#[cfg(test)]
mod tests;

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
    /// Parts of batches that have failed as a whole. The last one starts first.
    parts: Vec<Ticket>,
    /// Retries that the retry budget has not granted, in the order in which their last attempts ended.
    refused: VecDeque<Delayed>,
    /// The time at which the retry budget is asked again, at the latest, if there are refused retries. `None` if it has to be
    /// computed: a retry was granted or has joined the empty queue, so the former time does not count any more.
    next_grant: Option<Instant>,
    /// How many retries wait.
    held: usize,
    /// The number of admitted new items when the last immediate retry was taken.
    last_immediate: usize,
    /// The earliest `give_up` of the retries that may start and of those that were refused, or an earlier time.
    next_give_up: Option<Instant>,
    order: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Delayed {
    until: Instant,
    ticket: Ticket,
}

/// A retry that did not start before its `give_up`.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct GivenUp {
    pub(in super::super) slot: usize,
    /// `true` if the retry budget has not granted it.
    pub(in super::super) is_refused: bool,
}

/// The position of a retry in the schedule.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Ticket {
    /// The slot in which its item is kept.
    pub(in super::super) slot: usize,
    /// How many permits it needs.
    pub(super) weight: u32,
    /// After this time, the retry is not made any more.
    pub(super) give_up: Option<Instant>,
    /// The number of admitted new items when its last attempt ended, if it has no delay.
    immediate: Option<usize>,
    /// The value of `last_immediate` before it was taken.
    before: usize,
    /// The position among the retries of its kind.
    order: u64,
    /// If it is a call for several items: the others.
    group: Option<Group>,
}

/// The other items of a call that has failed as a whole, and is made again for exactly these.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Group {
    /// The slots of the items.
    pub(in super::super) others: Vec<usize>,
    /// `true` if the call is for a part of a larger one, and continues the attempts of its items.
    pub(in super::super) is_part: bool,
}

impl Ticket {
    /// Returns the other items of a call that is made again.
    pub(in super::super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    fn is_part(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_part)
    }

    /// Returns the number of its items.
    fn items(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.others.len()) + 1
    }
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
        self.due.len() | self.immediate.len() | self.parts.len()
    }

    /// Returns `true` if a call that is made again is the next to start.
    pub(in super::super) fn is_group_next(&self) -> bool {
        !self.parts.is_empty() || self.due.front().is_some_and(|ticket| ticket.group.is_some())
    }

    /// Returns how many retries may start, without the parts of batches.
    pub(in super::super) fn due_and_immediate(&self) -> usize {
        self.due.len() + self.immediate.len()
    }

    /// Returns the slots of the retries that may start, without the parts of batches.
    pub(in super::super) fn due_and_immediate_slots(&self) -> impl Iterator<Item = usize> {
        self.due.iter().chain(&self.immediate).map(|ticket| ticket.slot)
    }

    /// Returns the weight of the part of a batch that starts next.
    pub(in super::super) fn part(&self) -> Option<u32> {
        self.parts.last().map(|ticket| ticket.weight)
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
            ticket: Ticket { slot, weight, give_up, immediate: None, before: 0, order, group: None },
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
            group: None,
        });
    }

    /// Adds a call that is made again at `until`. Without a grant of the retry budget, it waits for one.
    pub(in super::super) fn park_group(
        &mut self,
        slot: usize,
        group: Group,
        until: Instant,
        is_granted: bool,
    ) {
        let order = self.next_order();
        self.held += group.others.len();
        let ticket =
            Ticket { slot, weight: 1, give_up: None, immediate: None, before: 0, order, group: Some(group) };
        if !is_granted {
            self.push_refused(Delayed { until, ticket });
        } else if ticket.is_part() {
            self.parts.push(ticket);
        } else {
            self.delayed.push(Delayed { until, ticket });
        }
    }

    /// Adds a retry that the retry budget has not granted. Once it is, the retry may start at `until`.
    pub(in super::super) fn park_refused(
        &mut self,
        slot: usize,
        weight: u32,
        until: Instant,
        give_up: Option<Instant>,
    ) {
        let order = self.next_order();
        self.next_give_up = earliest(self.next_give_up, give_up);
        let ticket = Ticket { slot, weight, give_up, immediate: None, before: 0, order, group: None };
        self.push_refused(Delayed { until, ticket });
    }

    fn push_refused(&mut self, refused: Delayed) {
        if self.refused.is_empty() {
            self.next_grant = None;
        }
        self.refused.push_back(refused);
    }

    /// Returns `true` if there are retries that the retry budget has not granted.
    pub(in super::super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Marks the first refused retry as granted. Returns `true` if its delay is not over.
    pub(in super::super) fn grant_first(&mut self, now: Instant) -> bool {
        let Some(granted) = self.refused.pop_front() else { return false };
        self.next_grant = None;
        let is_early = granted.until > now;
        if is_early {
            self.delayed.push(granted);
        } else {
            self.push_due(granted.ticket);
        }
        is_early
    }

    /// Returns the time at which the retry budget is asked again.
    pub(in super::super) fn next_grant(&self) -> Option<Instant> {
        self.next_grant
    }

    /// Sets the time at which the retry budget is asked again.
    pub(in super::super) fn set_next_grant(&mut self, next: Option<Instant>) {
        self.next_grant = next;
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
                self.push_due(ticket);
            }
        }
    }

    fn push_due(&mut self, ticket: Ticket) {
        if ticket.is_part() {
            return self.parts.push(ticket);
        }
        self.next_give_up = earliest(self.next_give_up, ticket.give_up);
        let order = self.next_order();
        self.held -= 1;
        self.due.push_back(Ticket { order, ..ticket });
    }

    /// Takes the part of a batch that starts next.
    pub(in super::super) fn pop_part(&mut self) -> Option<Ticket> {
        let ticket = self.parts.pop()?;
        self.held -= ticket.items();
        Some(ticket)
    }

    /// Takes the retry that has been due for longest.
    pub(in super::super) fn pop_due(&mut self) -> Option<Ticket> {
        let ticket = self.due.pop_front()?;
        self.held -= ticket.items();
        Some(ticket)
    }

    /// As [`pop_due`](Self::pop_due), if it is a retry of one item.
    pub(in super::super) fn pop_due_alone(&mut self) -> Option<Ticket> {
        self.due.front().filter(|ticket| ticket.group.is_none())?;
        self.pop_due()
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
        self.held += ticket.items();
        if ticket.is_part() {
            return self.parts.push(ticket);
        }
        let queue = if ticket.immediate.is_some() {
            self.last_immediate = self.last_immediate.min(ticket.before);
            &mut self.immediate
        } else {
            &mut self.due
        };
        self.next_give_up = earliest(self.next_give_up, ticket.give_up);
        let at = queue.partition_point(|other| other.order < ticket.order);
        queue.insert(at, ticket);
    }

    /// Returns `true` if a retry that may start has a time after which it is not made.
    #[inline]
    pub(in super::super) fn may_be_late(&self) -> bool {
        self.next_give_up.is_some() && self.ready() > 0
    }

    /// Takes a retry that did not start before its `give_up`.
    pub(in super::super) fn pop_given_up(&mut self, now: Instant) -> Option<GivenUp> {
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
            return Some(GivenUp { slot: ticket.slot, is_refused: false });
        }
        let late = self.refused.iter().position(|refused| is_late(&refused.ticket));
        if let Some(Delayed { ticket, .. }) = late.and_then(|at| self.refused.remove(at)) {
            self.held -= 1;
            return Some(GivenUp { slot: ticket.slot, is_refused: true });
        }
        let refused = self.refused.iter().map(|refused| &refused.ticket);
        let left = self.due.iter().chain(&self.immediate).chain(refused);
        self.next_give_up = left.fold(None, |next, ticket| earliest(next, ticket.give_up));
        None
    }

    /// Returns the time at which [`release`](Self::release) or [`pop_given_up`](Self::pop_given_up) must be called next, or the
    /// retry budget must be asked again.
    pub(in super::super) fn next_deadline(&self) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        // It may be the time of a retry that has started since.
        let give_up = self.next_give_up.filter(|_| self.ready() > 0 || self.has_refused());
        let grant = self.next_grant.filter(|_| self.has_refused());
        earliest(self.delayed.peek().map(|next| next.until), earliest(give_up, grant))
    }

    /// Drops all retries. Returns the slots of their items.
    pub(in super::super) fn clear(&mut self) -> Vec<usize> {
        let delayed = self.delayed.drain().chain(self.refused.drain(..)).map(|delayed| delayed.ticket);
        let tickets = delayed.chain(self.due.drain(..)).chain(self.immediate.drain(..));
        let tickets = tickets.chain(self.parts.drain(..));
        let slots_of =
            |ticket: Ticket| ticket.group.into_iter().flat_map(|group| group.others).chain([ticket.slot]);
        let slots = tickets.flat_map(slots_of).collect();
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
