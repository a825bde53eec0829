//! How the crate locks its mutexes.

use crate::rt::{Mutex, MutexGuard};
use std::hint::spin_loop;
use std::sync::{PoisonError, TryLockError};

/// The longest time that a [`BackOff`] waits before another try, in pauses of the processor: about eight microseconds on
/// today's machines. After that, the thread sleeps until the mutex is free.
const MOST_PAUSES: u32 = 256;

/// How a thread waits for a mutex that several threads lock again and again, each for a few dozen nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackOff {
    /// After work of some length. The mutex will be free in a moment, so the thread tries again immediately.
    Short,
    /// Again and again, with next to nothing in between; the holder of the mutex most likely does the same. A thread that
    /// tried again immediately would get the mutex whenever the holder releases it for a moment. With the mutex it would get
    /// all data that the holder has just written. The two would pass both to and fro for a few nanoseconds of work each. So
    /// the thread lets the holder continue, for two microseconds at first.
    Long,
}

impl BackOff {
    /// Returns how long the thread waits before its first try. The wait doubles before each further try.
    fn first_pauses(self) -> u32 {
        match self {
            Self::Short => 1,
            Self::Long => 64,
        }
    }
}

/// Locks a mutex. If a panic of the caller's code has poisoned it, that panic is already being passed on, and the guarded
/// value is still consistent.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that several threads lock again and again.
#[inline]
pub(crate) fn lock_with_back_off<T: ?Sized>(mutex: &Mutex<T>, back_off: BackOff) -> MutexGuard<'_, T> {
    try_lock(mutex).unwrap_or_else(|| wait(mutex, back_off))
}

/// Locks a mutex, unless it is locked at this moment.
#[inline]
pub(crate) fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cold]
fn wait<T: ?Sized>(mutex: &Mutex<T>, back_off: BackOff) -> MutexGuard<'_, T> {
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
