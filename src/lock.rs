//! How the crate locks its mutexes.

use crate::rt::{Mutex, MutexGuard};
use std::hint::spin_loop;
use std::sync::{PoisonError, TryLockError};

/// The longest that a [`BackOff`] keeps away before it looks again, in pauses of the processor: some eight microseconds
/// on today's machines. After that it goes to sleep over the mutex.
const MOST_PAUSES: u32 = 256;

/// How somebody comes to a mutex that several threads want time and again, each for a few dozen nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackOff {
    /// After work of some length. The mutex is free again in a moment, so it looks at once.
    Short,
    /// Time and again, with next to nothing in between, and so, most likely, does whoever has it. One who looks at once
    /// then gets it whenever the other lets go of it for a moment, and with it all that the other has just written, so
    /// that the two hand it to and fro for a few nanoseconds of work each. So it lets the other have his turn, for two
    /// microseconds at first.
    Long,
}

impl BackOff {
    /// How long it keeps away before its first look; before each further look it is twice as long.
    fn first_pauses(self) -> u32 {
        match self {
            Self::Short => 1,
            Self::Long => 64,
        }
    }
}

/// Locks a mutex. A panic of the caller's that has poisoned it is on its way out by itself, and what the mutex
/// guards is whole all the same.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that several threads want time and again.
#[inline]
pub(crate) fn lock_with_back_off<T>(mutex: &Mutex<T>, back_off: BackOff) -> MutexGuard<'_, T> {
    try_lock(mutex).unwrap_or_else(|| wait(mutex, back_off))
}

#[inline]
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cold]
fn wait<T>(mutex: &Mutex<T>, back_off: BackOff) -> MutexGuard<'_, T> {
    let mut pauses = back_off.first_pauses();
    while pauses <= MOST_PAUSES {
        (0..pauses).for_each(|_| spin_loop());
        if let Some(guard) = try_lock(mutex) {
            return guard;
        }
        pauses *= 2;
    }
    lock(mutex)
}
