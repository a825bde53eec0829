//! How the crate locks its mutexes.

use std::hint::spin_loop;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// How often [`lock_patiently`] looks at a mutex that another thread holds before it goes to sleep over it.
const LOOKS: u32 = 5;

/// How long it keeps away before its first look, in pauses of the processor: half a microsecond on today's
/// machines. Before each further look it keeps away for twice as long.
const FIRST_PAUSES: u32 = 16;

/// Locks a mutex. A panic of the caller's that has poisoned it is on its way out by itself, and what the mutex
/// guards is whole all the same.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that several threads want time and again, each for a few dozen nanoseconds.
///
/// Whoever waits for it keeps away from it for a while, and for longer each time. One who watches it instead gets it whenever the other lets go
/// of it for a moment, and with it all that the other has just written, so that the two hand it to and fro at the
/// price of a few messages between their cores each time.
#[inline]
pub(crate) fn lock_patiently<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    try_lock(mutex).unwrap_or_else(|| wait(mutex))
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
fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for look in 0..LOOKS {
        (0..FIRST_PAUSES << look).for_each(|_| spin_loop());
        if let Some(guard) = try_lock(mutex) {
            return guard;
        }
    }
    lock(mutex)
}
