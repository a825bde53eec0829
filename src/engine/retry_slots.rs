//! The items that wait for their retry.

use super::scheduler::retries::Ticket;

/// Keeps items between two attempts. The [`RetrySchedule`](super::scheduler::retries::RetrySchedule) decides which is next.
///
/// It holds fewer items than `look_ahead` and `concurrency` together. Admission stops at `look_ahead`, and only the attempts
/// that run at that moment can still be added.
pub(super) struct RetrySlots<J> {
    slots: Vec<Option<J>>,
    free: Vec<usize>,
}

/// An item with a retry that may start.
pub(super) struct Due<J> {
    pub(super) job: J,
    pub(super) ticket: Ticket,
}

impl<J> Default for RetrySlots<J> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<J> RetrySlots<J> {
    /// Stores an item. Returns its slot.
    pub(super) fn keep(&mut self, job: J) -> usize {
        let Some(slot) = self.free.pop() else {
            self.slots.push(Some(job));
            return self.slots.len() - 1;
        };
        if let Some(free) = self.slots.get_mut(slot) {
            *free = Some(job);
        }
        slot
    }

    /// Takes the item out of a slot.
    pub(super) fn take(&mut self, slot: usize) -> Option<J> {
        let job = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(job)
    }

    /// Drops all items.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_slot_is_used_again() {
        let mut slots = RetrySlots::default();
        assert_eq!((slots.keep('a'), slots.keep('b')), (0, 1));
        assert_eq!((slots.take(0), slots.take(0)), (Some('a'), None));
        assert_eq!((slots.keep('c'), slots.keep('d')), (0, 2));
        assert_eq!((slots.take(1), slots.take(0), slots.take(2)), (Some('b'), Some('c'), Some('d')));
    }
}
