//! Items that wait for an attempt.

use crate::outcome::ItemError;

use super::job::Job;

/// An item that was pulled and waits for its first attempt, or for the next one.
pub(super) struct Kept<I, E> {
    /// It is always there while this is in a slot.
    pub(super) item: Option<I>,
    pub(super) job: Job,
    /// The error of its last attempt.
    pub(super) error: Option<ItemError<E>>,
}

/// Keeps values in numbered slots. The scheduler refers to an item by its slot.
///
/// It holds fewer items than `look_ahead` and `concurrency` together, and those that are looked up or wait for permits.
pub(super) struct Slots<K> {
    slots: Vec<Option<K>>,
    free: Vec<usize>,
}

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<K> Slots<K> {
    /// Stores a value. Returns its slot.
    pub(super) fn keep(&mut self, value: K) -> usize {
        let Some(slot) = self.free.pop() else {
            self.slots.push(Some(value));
            return self.slots.len() - 1;
        };
        if let Some(free) = self.slots.get_mut(slot) {
            *free = Some(value);
        }
        slot
    }

    /// Returns the number of slots, whether they are free or not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the value in a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut K> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Takes the value out of a slot.
    pub(super) fn take(&mut self, slot: usize) -> Option<K> {
        let value = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(value)
    }
}

impl<I, E> Slots<Kept<I, E>> {
    /// Takes the item out of a slot. The rest, which is large, is dropped without a copy.
    pub(super) fn take_item(&mut self, slot: usize) -> Option<I> {
        let place = self.slots.get_mut(slot)?;
        let item = place.as_mut()?.item.take();
        *place = None;
        self.free.push(slot);
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_slot_is_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.keep('a'), slots.keep('b')), (0, 1));
        assert_eq!((slots.take(0), slots.take(0)), (Some('a'), None));
        assert_eq!((slots.keep('c'), slots.keep('d')), (0, 2));
        assert_eq!(slots.get_mut(1), Some(&mut 'b'));
        assert_eq!(slots.get_mut(3), None);
        assert_eq!((slots.take(1), slots.take(0), slots.take(2)), (Some('b'), Some('c'), Some('d')));
    }
}
