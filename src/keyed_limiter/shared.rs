//! What the clones of a keyed limiter share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use super::keys::Keys;
use super::waiter::Waiter;
use crate::limiter::{KeyLimiter, Limiter, Room, Wakers};
use crate::lock::lock;
use crate::rt::{Instant, Mutex, MutexGuard};

/// How many keys a call looks at that may be idle, if it does not need room. Each call makes at most one key unused. So if
/// each looks at more than one, the number of keys that wait to be looked at becomes smaller.
const LOOKS: usize = 8;

/// A lock of `keys` may be followed by one of `room`, or by one of the state of a limiter. Nothing is locked after these.
pub(super) struct Shared<K> {
    /// Hashes the keys, without a lock.
    hasher: RandomState,
    /// The limiter of each key is made like this one.
    model: Limiter,
    pub(super) max_keys: usize,
    room: Arc<Room>,
    keys: Mutex<Keys<K>>,
}

/// Which new keys may be added.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entrance {
    /// A key of the task with this number in the queue for room, if it is the first one. `None` is a task that is not in the
    /// queue; it may add its key if the queue is empty.
    InTurn(Option<u64>),
    /// Every key for which there is room.
    Room,
    /// A key that is held back, also if there is no room.
    Hold,
}

impl Entrance {
    /// Returns the number of the task in the queue.
    fn number(self) -> Option<u64> {
        match self {
            Self::InTurn(number) => number,
            Self::Room | Self::Hold => None,
        }
    }
}

impl<K> Shared<K> {
    pub(super) fn new(model: Limiter, max_keys: usize) -> Self {
        let (room, keys) = (Arc::new(Room::new()), Mutex::new(Keys::new()));
        Self { hasher: RandomState::new(), model, max_keys, room, keys }
    }

    /// Returns a task that waits for room, before it has joined the queue.
    pub(super) fn waiter(&self, hash: Option<u64>) -> Waiter {
        Waiter::new(&self.room, hash)
    }

    fn lock(&self) -> MutexGuard<'_, Keys<K>> {
        lock(&self.keys)
    }

    /// Returns `true` if the caller may add a key.
    fn is_open(&self, keys: &Keys<K>, entrance: Entrance) -> bool {
        match entrance {
            Entrance::InTurn(number) => keys.len() < self.max_keys && self.room.first() == number,
            Entrance::Room => keys.len() < self.max_keys,
            Entrance::Hold => keys.len() < self.max_keys.saturating_mul(2),
        }
    }

    /// Forgets all idle keys, and returns the number of the others.
    pub(super) fn count_keys(&self) -> usize {
        let mut keys = self.lock();
        let forgotten = keys.forget_idle(&self.room, usize::MAX, 0);
        let len = keys.len();
        drop(keys);
        drop(forgotten);
        len
    }

    /// Forgets idle keys.
    ///
    /// # Errors
    ///
    /// Returns the next time at which a key may become idle if there is no room for a new key, or the task with this number is not
    /// the first in the queue.
    pub(super) fn has_room(&self, number: Option<u64>) -> Result<(), Option<Instant>> {
        let mut keys = self.lock();
        let forgotten = keys.forget_idle(&self.room, LOOKS, self.max_keys);
        let is_open = self.is_open(&keys, Entrance::InTurn(number));
        let next_time = keys.next_time();
        drop(keys);
        drop(forgotten);
        if is_open { Ok(()) } else { Err(next_time) }
    }
}

impl<K: Hash> Shared<K> {
    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl<K: Eq + Hash> Shared<K> {
    /// Returns a number of a key's limiter; 0 if the key is not remembered.
    pub(super) fn look(&self, key: &K, number: impl Fn(&KeyLimiter) -> usize) -> usize {
        let hash = self.hash(key);
        self.lock().get(hash, key).map_or(0, number)
    }

    /// Returns a counted clone of the limiter of a key that is remembered.
    pub(super) fn known(&self, key: &K) -> Option<Limiter> {
        let hash = self.hash(key);
        self.lock().get(hash, key).map(KeyLimiter::limiter)
    }
}

impl<K: Eq + Clone> Shared<K> {
    /// Returns a counted clone of the limiter of a key, and the tasks that have waited for it. Adds the key if it is new and the entrance allows it, and forgets idle
    /// keys.
    ///
    /// # Errors
    ///
    /// Returns the next time at which a key may become idle if the key is new and cannot be added. If the task is the first in
    /// the queue, all other keys that may be idle have been looked at then.
    pub(super) fn limiter(
        &self,
        hash: u64,
        key: &K,
        entrance: Entrance,
    ) -> Result<(Limiter, Wakers), Option<Instant>> {
        let mut new = None;
        loop {
            let mut keys = self.lock();
            let found = keys.get(hash, key).map(KeyLimiter::limiter);
            let forgotten = keys.forget_idle(&self.room, LOOKS, self.max_keys);
            if found.is_some() || !self.is_open(&keys, entrance) {
                let next_time = keys.next_time();
                drop(keys);
                drop(forgotten);
                return found.map(|limiter| (limiter, Wakers::default())).ok_or(next_time);
            }
            if let Some((key, limiter)) = new.take() {
                let limiter = keys.insert(key, limiter);
                let wakers = self.room.take_wakers_of(hash, entrance.number());
                drop(keys);
                drop(forgotten);
                return Ok((limiter, wakers));
            }
            let id = keys.new_id(hash);
            drop(keys);
            drop(forgotten);
            // The key is cloned without the lock. Much can change meanwhile, so everything is checked again.
            new = Some((key.clone(), KeyLimiter::like(&self.model, id, &self.room)));
        }
    }
}

#[cfg(test)]
impl<K> Shared<K> {
    pub(super) fn is_locked(&self) -> bool {
        crate::lock::try_lock(&self.keys).is_none()
    }

    /// Returns the number of keys and of their times, without forgetting any.
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.lock().sizes()
    }

    /// Returns the number of keys that are reported as unused.
    pub(super) fn reports(&self) -> usize {
        self.room.unused()
    }
}
