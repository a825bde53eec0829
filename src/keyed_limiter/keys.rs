//! The keys that are remembered, and the times at which they become idle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Table;
use crate::limiter::{KeyId, KeyLimiter, Limiter, Room};
use crate::rt::Instant;

/// An allocation for up to eight times this many times is kept, even if few of them are in use.
const SMALL: usize = 32;

/// The keys and their limiters.
///
/// Of the caller's code, only the key's `Eq` runs while this is locked, and only for keys with the same hash. It changes nothing
/// before it has compared the keys, so a panic of `Eq` does no harm.
pub(super) struct Keys<K> {
    table: Table<Entry<K>>,
    /// The times at which unused keys may become idle. A key usually has one, which is not later than the time at which it does
    /// become idle. It has another one after a short hold has replaced a long one, because it then becomes idle earlier.
    times: BinaryHeap<Reverse<(Instant, KeyId)>>,
    next_number: u64,
}

pub(super) struct Entry<K> {
    key: K,
    limiter: KeyLimiter,
    /// The earliest time of the key in `times`.
    timed: Option<Instant>,
}

impl<K> Entry<K> {
    fn has(&self, id: KeyId) -> bool {
        self.limiter.id() == id
    }
}

/// Reads the clock at most once, so that all decisions under one lock use the same time.
#[derive(Default)]
struct Clock(Option<Instant>);

impl Clock {
    fn now(&mut self) -> Instant {
        *self.0.get_or_insert_with(Instant::now)
    }
}

impl<K: Eq> Keys<K> {
    pub(super) fn get(&self, hash: u64, key: &K) -> Option<&KeyLimiter> {
        self.table.get(hash, |entry| entry.key == *key).map(|entry| &entry.limiter)
    }
}

impl<K> Keys<K> {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), times: BinaryHeap::new(), next_number: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the id for a new key with this hash.
    pub(super) fn new_id(&mut self, hash: u64) -> KeyId {
        self.next_number += 1;
        KeyId { hash, number: self.next_number }
    }

    /// Adds a key that is not remembered. Returns a counted clone of its limiter.
    pub(super) fn insert(&mut self, key: K, limiter: KeyLimiter) -> Limiter {
        let counted = limiter.limiter();
        self.table.insert(limiter.id().hash, Entry { key, limiter, timed: None });
        counted
    }

    /// Returns the earliest time at which an unused key may become idle.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.times.peek().map(|Reverse((time, _))| *time)
    }

    /// Forgets idle keys. It looks at `least` keys that may be idle, and at more of them while `bound` keys or more are
    /// remembered. Each key is looked at for a reason: it was not used any more, or its time has come. So this costs each use a
    /// constant number of steps, or O(log n) with a rate or a hold.
    ///
    /// The caller drops the entries after it has released the lock.
    pub(super) fn forget_idle(&mut self, room: &Room, least: usize, bound: usize) -> Vec<Entry<K>> {
        let mut clock = Clock::default();
        let mut forgotten = Vec::new();
        let mut looked_at = 0;
        while looked_at < least || self.len() >= bound {
            let Some(id) = self.take_due(&mut clock).or_else(|| room.take_unused()) else { break };
            forgotten.extend(self.forget_if_idle(id, &mut clock));
            looked_at += 1;
        }
        forgotten
    }

    /// Takes a key that is due.
    fn take_due(&mut self, clock: &mut Clock) -> Option<KeyId> {
        if self.next_time()? > clock.now() {
            return None;
        }
        let Reverse((time, id)) = self.times.pop()?;
        // Most of the times have to go before the allocation changes again.
        let least = self.times.len().max(SMALL);
        if self.times.capacity() > 8 * least {
            self.times.shrink_to(2 * least);
        }
        if let Some(entry) = self.table.get_mut(id.hash, |entry| entry.has(id)) {
            entry.timed = entry.timed.filter(|timed| *timed != time);
        }
        Some(id)
    }

    /// Forgets a key if it is idle. If it only has to recover, it is looked at again when it has recovered. If it is used, it is
    /// looked at again after its last use.
    fn forget_if_idle(&mut self, id: KeyId, clock: &mut Clock) -> Option<Entry<K>> {
        let entry = self.table.get_mut(id.hash, |entry| entry.has(id))?;
        if entry.limiter.is_used() {
            return None;
        }
        if let Some(time) = entry.limiter.recovered_at().filter(|time| *time > clock.now()) {
            // If the key has an earlier time, it is looked at then, and gets this time.
            if entry.timed.is_none_or(|timed| time < timed) {
                entry.timed = Some(time);
                self.times.push(Reverse((time, id)));
            }
            return None;
        }
        self.table.remove(id.hash, |entry| entry.has(id))
    }
}

#[cfg(test)]
impl<K> Keys<K> {
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.table.len(), self.times.len())
    }
}
