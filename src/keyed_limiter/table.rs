//! A hash map that never calls the hash function of its keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

/// An allocation for up to eight times this many entries is kept, even if few of them are in use.
const SMALL: usize = 32;

/// Entries by the hash of their key. The caller computes the hashes and compares the keys.
///
/// Two keys with the same hash of 64 bits are rare, unless the caller's `Hash` is bad. One of them is in the map, the others are
/// in a list. So only a bad `Hash` makes the table slow, as it does in every hash map.
pub(super) struct Table<E> {
    by_hash: HashMap<u64, E, BuildHasherDefault<AsIs>>,
    /// Entries with a hash that another entry had when they were inserted.
    others: Vec<(u64, E)>,
}

/// Hashes a hash to itself.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// It is not called, because a hash is a `u64`.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<E> Table<E> {
    pub(super) fn new() -> Self {
        Self { by_hash: HashMap::default(), others: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len() + self.others.len()
    }

    /// Returns the entry with this hash that matches. If `matches` panics, nothing has changed.
    pub(super) fn get(&self, hash: u64, matches: impl Fn(&E) -> bool) -> Option<&E> {
        let others = || self.others.iter().filter(|(other, _)| *other == hash).map(|(_, entry)| entry);
        self.by_hash
            .get(&hash)
            .filter(|entry| matches(entry))
            .or_else(|| others().find(|entry| matches(entry)))
    }

    /// As [`get`](Self::get).
    pub(super) fn get_mut(&mut self, hash: u64, matches: impl Fn(&E) -> bool) -> Option<&mut E> {
        if let Some(entry) = self.by_hash.get_mut(&hash).filter(|entry| matches(entry)) {
            return Some(entry);
        }
        let mut others = self.others.iter_mut().filter(|(other, _)| *other == hash).map(|(_, entry)| entry);
        others.find(|entry| matches(entry))
    }

    /// Adds an entry with a key that is not in the table.
    pub(super) fn insert(&mut self, hash: u64, entry: E) {
        match self.by_hash.entry(hash) {
            Entry::Vacant(free) => {
                free.insert(entry);
            }
            Entry::Occupied(_) => self.others.push((hash, entry)),
        }
    }

    /// Removes the entry with this hash that matches, and returns memory after the table has become small.
    pub(super) fn remove(&mut self, hash: u64, matches: impl Fn(&E) -> bool) -> Option<E> {
        let removed = if self.by_hash.get(&hash).is_some_and(&matches) {
            self.by_hash.remove(&hash)
        } else {
            let at = self.others.iter().position(|(other, entry)| *other == hash && matches(entry))?;
            Some(self.others.swap_remove(at).1)
        };
        // As in `limiter/numbered.rs`: most of the entries have to leave before the allocation changes again.
        let least = self.by_hash.len().max(SMALL);
        if self.by_hash.capacity() > 8 * least {
            self.by_hash.shrink_to(2 * least);
        }
        if self.others.capacity() > 8 * self.others.len().max(SMALL) {
            self.others.shrink_to(2 * self.others.len());
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_the_same_hash_are_told_apart() {
        let mut table = Table::new();
        for (hash, key) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            assert!(table.get(hash, |entry| *entry == key).is_none());
            table.insert(hash, key);
        }
        assert_eq!(table.len(), 4);
        assert_eq!(table.remove(1, |entry| *entry == "a"), Some("a"));
        assert_eq!(table.remove(1, |entry| *entry == "a"), None);
        // The place of the first one is taken again, and the others are found as before.
        table.insert(1, "e");
        for key in ["b", "d", "e"] {
            assert_eq!(table.get(1, |entry| *entry == key), Some(&key));
            assert_eq!(table.get_mut(1, |entry| *entry == key), Some(&mut { key }));
            assert!(table.get(2, |entry| *entry == key).is_none());
            assert_eq!(table.remove(1, |entry| *entry == key), Some(key));
        }
        assert_eq!((table.len(), table.remove(2, |_| true)), (1, Some("c")));
    }

    #[test]
    fn memory_is_returned_after_a_large_table_has_become_small() {
        let mut table = Table::new();
        (0..100_000).for_each(|key| table.insert(key, key));
        (0..1_000).for_each(|key| table.insert(0, key + 100_000));
        for key in 1..100_000 {
            assert_eq!(table.remove(key, |entry| *entry == key), Some(key));
            let most = 16 * table.by_hash.len().max(SMALL);
            assert!(table.by_hash.capacity() <= most, "room for {}", table.by_hash.capacity());
        }
        (0..1_000).for_each(|key| assert!(table.remove(0, |entry| *entry == key + 100_000).is_some()));
        assert_eq!((table.len(), table.others.capacity() <= 8 * SMALL), (1, true));
    }
}
