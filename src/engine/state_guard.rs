//! Access to the state of a run.

use std::mem;
use std::task::Waker;

use super::items::{Items, Release};
use super::scheduler::Later;
use super::scheduler::Scheduler;
use super::state::{AnyState, State};
use crate::lock::{BackOff, lock_with_back_off, try_lock};
use crate::rt::{Mutex, MutexGuard};

/// The state, locked when it is first needed.
pub(super) struct StateGuard<'a, I: Release + ?Sized> {
    state: &'a Mutex<State<I>>,
    guard: Option<MutexGuard<'a, State<I>>>,
    back_off: BackOff,
}

impl<'a, I: Release + ?Sized> StateGuard<'a, I> {
    pub(super) fn new(state: &'a Mutex<State<I>>) -> Self {
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
    pub(super) fn get(&mut self) -> &mut State<I> {
        self.guard.get_or_insert_with(|| lock_with_back_off(self.state, self.back_off))
    }

    /// Unlocks the state before the caller's code runs, if workers are parallel. If the driver polls the workers, the lock
    /// is held for the rest of the worker's poll: no code that an attempt can reach needs it.
    #[inline]
    pub(super) fn release(&mut self, parallel: bool) {
        if parallel {
            self.unlock();
        }
    }

    /// Unlocks the state, then does the work that is not allowed while it is locked. It wakes the driver and the task that
    /// waits for an outcome, which the caller may poll within this call. It drops parts of the shared limit, which wakes the
    /// drivers of other runs.
    #[inline]
    pub(super) fn unlock(&mut self) {
        let Some(mut state) = self.guard.take() else { return };
        if let Some(wakes) = state.scheduler.take_wakes() {
            drop(state);
            wakes.finish();
        }
    }
}

/// The work that has to be done after the state is unlocked.
struct Wakes {
    later: Later,
    wakers: [Option<Waker>; 2],
}

impl Wakes {
    #[cold]
    fn finish(self) {
        drop(self.later);
        self.wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Scheduler {
    #[inline]
    fn take_wakes(&mut self) -> Option<Wakes> {
        let is_due = self.wakes_driver || self.wakes_taker.is_some() || !self.permits.later().is_empty();
        is_due.then(|| self.collect_wakes())
    }

    #[cold]
    fn collect_wakes(&mut self) -> Wakes {
        let driver = mem::take(&mut self.wakes_driver).then(|| self.driver.clone());
        let later = mem::take(self.permits.later());
        Wakes { later, wakers: [self.wakes_taker.take(), driver] }
    }
}

/// The state, locked by the driver. It is unlocked as a worker unlocks it when this is dropped.
///
/// A worker's [`StateGuard`] has no destructor, because that costs each poll of a worker a few instructions.
pub(super) struct DriverGuard<'a, 'b>(StateGuard<'a, dyn Items + 'b>);

impl<'a, 'b> DriverGuard<'a, 'b> {
    pub(super) fn new(state: &'a AnyState<'b>) -> Self {
        Self(StateGuard::new(state))
    }

    pub(super) fn get(&mut self) -> &mut State<dyn Items + 'b> {
        self.0.get()
    }
}

impl Drop for DriverGuard<'_, '_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// Takes back the permits of a dropped run, unless a worker has locked its state at this moment.
pub(super) fn abandon<I: Release + ?Sized>(state: &Mutex<State<I>>) {
    let Some(guard) = try_lock(state) else { return };
    let mut guard = StateGuard { state, guard: Some(guard), back_off: BackOff::Short };
    guard.get().scheduler.abandon();
    guard.unlock();
}
