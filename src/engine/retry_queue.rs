//! The items that wait for their retry.

use super::retry_schedule::{RetrySchedule, Ticket};
use crate::rt::Instant;

/// Items between two attempts. [`RetrySchedule`] decides which is next; this keeps the items.
///
/// It holds fewer than `look_ahead` and `concurrency` together: admission stops at `look_ahead`, and only the attempts
/// that run at that moment can still join.
pub(super) struct RetryQueue<J> {
    schedule: RetrySchedule,
    slots: Vec<Option<J>>,
    free: Vec<usize>,
}

/// An item whose retry may start.
pub(super) struct Due<J> {
    pub(super) job: J,
    ticket: Ticket,
}

impl<J> Default for RetryQueue<J> {
    fn default() -> Self {
        Self { schedule: RetrySchedule::default(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<J> RetryQueue<J> {
    /// The number of items that wait.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.schedule.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.schedule.len() == 0
    }

    /// Above 0 if retries may start.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.schedule.ready()
    }

    /// The item whose delay was over first.
    pub(super) fn peek_due(&self) -> Option<&J> {
        self.peek(self.schedule.peek_due()?)
    }

    /// The first item without a delay.
    pub(super) fn peek_immediate(&self) -> Option<&J> {
        self.peek(self.schedule.peek_immediate()?)
    }

    /// See [`RetrySchedule::is_turn_of_immediate`].
    pub(super) fn is_turn_of_immediate(&self, admitted: usize) -> bool {
        self.schedule.is_turn_of_immediate(admitted)
    }

    /// Puts an item aside until a time. After `give_up` it is not tried again.
    pub(super) fn park(&mut self, job: J, until: Instant, give_up: Option<Instant>) {
        let slot = self.store(job);
        self.schedule.park(slot, until, give_up);
    }

    /// Puts an item aside whose retry has no delay, after so many new items were admitted.
    pub(super) fn park_immediate(&mut self, job: J, give_up: Option<Instant>, admitted: usize) {
        let slot = self.store(job);
        self.schedule.park_immediate(slot, give_up, admitted);
    }

    /// Moves the items whose delay is over to those that may start.
    pub(super) fn release(&mut self, now: Instant) {
        self.schedule.release(now);
    }

    /// Takes the item whose delay was over first.
    pub(super) fn pop_due(&mut self) -> Option<Due<J>> {
        let ticket = self.schedule.pop_due()?;
        self.take(ticket)
    }

    /// Takes the first item without a delay.
    pub(super) fn pop_immediate(&mut self, admitted: usize) -> Option<Due<J>> {
        let ticket = self.schedule.pop_immediate(admitted)?;
        self.take(ticket)
    }

    /// Puts an item back that was taken and has not started.
    pub(super) fn put_back(&mut self, due: Due<J>) {
        let slot = self.store(due.job);
        self.schedule.put_back(slot, due.ticket);
    }

    /// Takes an item that did not start before it had to give up.
    pub(super) fn pop_given_up(&mut self, now: Instant) -> Option<J> {
        let slot = self.schedule.pop_given_up(now)?;
        self.empty(slot)
    }

    /// The time at which [`release`](Self::release) or [`pop_given_up`](Self::pop_given_up) is to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.schedule.next_deadline()
    }

    /// Forgets all items.
    pub(super) fn clear(&mut self) {
        self.schedule.clear();
        self.slots.clear();
        self.free.clear();
    }

    fn peek(&self, slot: usize) -> Option<&J> {
        self.slots.get(slot)?.as_ref()
    }

    fn store(&mut self, job: J) -> usize {
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(job);
            }
            return slot;
        }
        self.slots.push(Some(job));
        self.slots.len() - 1
    }

    fn take(&mut self, ticket: Ticket) -> Option<Due<J>> {
        self.empty(ticket.slot).map(|job| Due { job, ticket })
    }

    fn empty(&mut self, slot: usize) -> Option<J> {
        self.free.push(slot);
        self.slots.get_mut(slot)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(jobs: &[char]) -> RetryQueue<char> {
        let mut waiting = RetryQueue::default();
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
        let mut waiting = RetryQueue::default();
        waiting.park_immediate('a', Some(now + second), 1);
        waiting.park('b', now, Some(now + 2 * second));
        waiting.release(now);
        assert_eq!((waiting.pop_given_up(now), waiting.next_deadline()), (None, Some(now + second)));
        assert_eq!(waiting.pop_given_up(now + second), Some('a'));
        assert_eq!(waiting.pop_given_up(now + second), None);
        assert_eq!((waiting.len(), waiting.next_deadline()), (1, Some(now + 2 * second)));
    }
}
