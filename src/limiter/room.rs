//! The keys of a keyed limiter that are not used any more, and the tasks that wait until a new key fits.

use std::collections::BTreeSet;
use std::mem;
use std::task::Waker;

use super::numbered::Numbered;
use crate::lock::lock;
use crate::rt::{Mutex, MutexGuard};

/// An allocation for up to eight times this many keys is kept, even if few of them are in use.
const SMALL: usize = 32;

/// Identifies a key without its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId {
    /// Distinguishes keys with the same hash, and a key from itself after it was forgotten. It is never used twice.
    pub(crate) number: u64,
    pub(crate) hash: u64,
}

/// The part of a keyed limiter that does not know the type of its keys. It knows which of them are not used any more, and which
/// tasks wait until a new key fits.
///
/// A key that is not used any more may still have to recover from its rate or a hold. So the task that is the first in the
/// queue decides: it is woken for each such key, forgets it if it is idle, and waits for its time if it is not. No other task
/// needs a timer. When the first leaves the queue, the next one is woken, and decides from then on.
pub(crate) struct Room {
    state: Mutex<State>,
}

/// No code of the caller's runs while this is locked: a waker is cloned, woken and dropped after the lock is released.
struct State {
    /// The keys that were not used any more when they were added.
    unused: Vec<KeyId>,
    waiting: Numbered<Waiting>,
    /// The hashes of the keys that tasks wait for, with the numbers of the tasks.
    by_hash: BTreeSet<(u64, u64)>,
    next_number: u64,
}

struct Waiting {
    /// The hash of the key that the task waits for, if it waits for one key only.
    hash: Option<u64>,
    waker: Waker,
}

impl Room {
    pub(crate) fn new() -> Self {
        let state =
            State { unused: Vec::new(), waiting: Numbered::new(), by_hash: BTreeSet::new(), next_number: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Adds a key that is not used any more, and wakes the task that decides if it is idle.
    pub(super) fn add_unused(&self, id: KeyId) {
        let mut state = self.lock();
        state.unused.push(id);
        let waker = state.take_first_waker();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Removes a key that was not used any more when it was added.
    pub(crate) fn take_unused(&self) -> Option<KeyId> {
        let mut state = self.lock();
        let id = state.unused.pop()?;
        // As in `numbered.rs`: most of the keys have to leave before the allocation changes again.
        let least = state.unused.len().max(SMALL);
        if state.unused.capacity() > 8 * least {
            state.unused.shrink_to(2 * least);
        }
        Some(id)
    }

    /// Adds a task at the end of the queue. Returns its number.
    pub(crate) fn join(&self, hash: Option<u64>, waker: Waker) -> u64 {
        let mut state = self.lock();
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push(number, Waiting { hash, waker });
        state.by_hash.extend(hash.map(|hash| (hash, number)));
        number
    }

    /// Replaces the waker of a task. The task checks for room after that, so no wake-up is lost.
    pub(crate) fn renew(&self, number: u64, waker: Waker) {
        let mut state = self.lock();
        let old = state.waiting.get_mut(number).map(|waiting| mem::replace(&mut waiting.waker, waker));
        drop(state);
        drop(old);
    }

    /// Removes a task from the queue. If it was the first one, the next is woken.
    pub(crate) fn leave(&self, number: u64) {
        let mut state = self.lock();
        let was_first = state.waiting.first_number() == Some(number);
        let left = state.waiting.remove(number);
        if let Some(hash) = left.as_ref().and_then(|waiting| waiting.hash) {
            state.by_hash.remove(&(hash, number));
        }
        let waker = if was_first { state.take_first_waker() } else { None };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        drop(left);
    }

    /// Returns the number of the first task in the queue.
    pub(crate) fn first(&self) -> Option<u64> {
        self.lock().waiting.first_number()
    }

    /// Takes the wakers of the tasks that wait for a key with this hash, except for the task that has added it. Its limiter
    /// exists now, so they need no room.
    pub(crate) fn take_wakers_of(&self, hash: u64, except: Option<u64>) -> Wakers {
        let mut state = self.lock();
        let State { waiting, by_hash, .. } = &mut *state;
        let numbers = by_hash.range((hash, 0)..=(hash, u64::MAX)).map(|(_, number)| *number);
        let numbers = numbers.filter(|number| Some(*number) != except);
        Wakers(numbers.filter_map(|number| waiting.get_mut(number).map(Waiting::take_waker)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
impl Room {
    pub(crate) fn unused(&self) -> usize {
        self.lock().unused.len()
    }
}

/// Tasks that are woken when this is dropped, where nothing is locked.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Drop for Wakers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl State {
    fn take_first_waker(&mut self) -> Option<Waker> {
        let number = self.waiting.first_number()?;
        self.waiting.get_mut(number).map(Waiting::take_waker)
    }
}

impl Waiting {
    /// The task is polled after it was woken, and has its waker replaced then.
    fn take_waker(&mut self) -> Waker {
        mem::replace(&mut self.waker, Waker::noop().clone())
    }
}
