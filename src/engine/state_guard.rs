//! Access to the state of a run.

use std::mem;
use std::sync::TryLockError;
use std::task::Waker;

use super::scheduler::permits::Released;
use super::state::State;
use super::{Mode, Types};
use crate::lock::{BackOff, lock_with_back_off};
use crate::rt::{Mutex, MutexGuard};

/// The state, locked when it is first needed.
pub(super) struct StateGuard<'a, W: Types> {
    state: &'a Mutex<State<W>>,
    guard: Option<MutexGuard<'a, State<W>>>,
    back_off: BackOff,
}

impl<'a, W: Types> StateGuard<'a, W> {
    pub(super) fn new(state: &'a Mutex<State<W>>) -> Self {
        Self { state, guard: None, back_off: BackOff::Short }
    }

    /// Sets how the worker waits for the lock from now on.
    #[inline]
    pub(super) fn set_back_off(&mut self, back_off: BackOff) {
        self.back_off = back_off;
    }

    /// Returns `true` if the worker has locked the state and not unlocked it.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.guard.is_some()
    }

    #[inline(always)]
    pub(super) fn get(&mut self) -> &mut State<W> {
        self.guard.get_or_insert_with(|| lock_with_back_off(self.state, self.back_off))
    }

    /// Unlocks the state before the caller's code runs, if workers are parallel. If the driver polls the workers, the lock
    /// is held for the rest of the worker's poll: no code that an attempt can reach needs it.
    #[inline]
    pub(super) fn release(&mut self) {
        if W::Mode::PARALLEL {
            self.unlock();
        }
    }

    /// Unlocks the state, then does the work that is not allowed while it is locked. It wakes the driver and the task that
    /// waits for an outcome, which the caller may poll within this call. It drops parts of the shared limit, which wakes the
    /// drivers of other runs.
    #[inline]
    fn unlock(&mut self) {
        let Some(mut state) = self.guard.take() else { return };
        if state.scheduler.wakes_driver
            || state.scheduler.wakes_taker.is_some()
            || !state.scheduler.permits.released().is_empty()
        {
            let driver = mem::take(&mut state.scheduler.wakes_driver).then(|| state.scheduler.driver.clone());
            let (released, taker) =
                (mem::take(state.scheduler.permits.released()), state.scheduler.wakes_taker.take());
            drop(state);
            finish(released, [taker, driver]);
        }
    }
}

#[cold]
fn finish(released: Vec<Released>, wakers: [Option<Waker>; 2]) {
    drop(released);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// The state, locked by the driver. It is unlocked as a worker unlocks it when this is dropped.
///
/// A worker's [`StateGuard`] has no destructor, because that costs each poll of a worker a few instructions.
pub(super) struct DriverGuard<'a, W: Types>(StateGuard<'a, W>);

impl<'a, W: Types> DriverGuard<'a, W> {
    pub(super) fn new(state: &'a Mutex<State<W>>) -> Self {
        Self(StateGuard::new(state))
    }

    /// Returns the state, unless it is locked at this moment.
    pub(super) fn try_new(state: &'a Mutex<State<W>>) -> Option<Self> {
        let guard = match state.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Self(StateGuard { state, guard: Some(guard), back_off: BackOff::Short }))
    }

    pub(super) fn get(&mut self) -> &mut State<W> {
        self.0.get()
    }

    /// Unlocks the state, if workers are parallel.
    pub(super) fn release(&mut self) {
        self.0.release();
    }
}

impl<W: Types> Drop for DriverGuard<'_, W> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}
