//! A lane's way to the core.

use std::mem;
use std::sync::TryLockError;
use std::task::Waker;

use super::core::Core;
use super::gate::Left;
use super::{Mode, Types};
use crate::lock::{Visit, lock_patiently};
use crate::rt::{Mutex, MutexGuard};

/// The core, locked once it is needed.
pub(super) struct Access<'a, W: Types> {
    core: &'a Mutex<Core<W>>,
    guard: Option<MutexGuard<'a, Core<W>>>,
    visit: Visit,
}

impl<'a, W: Types> Access<'a, W> {
    pub(super) fn new(core: &'a Mutex<Core<W>>) -> Self {
        Self { core, guard: None, visit: Visit::Once }
    }

    /// How the lane comes to it from here on.
    #[inline]
    pub(super) fn come(&mut self, visit: Visit) {
        self.visit = visit;
    }

    /// Whether the lane has been to the core and has kept it.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.guard.is_some()
    }

    #[inline(always)]
    pub(super) fn get(&mut self) -> &mut Core<W> {
        self.guard.get_or_insert_with(|| lock_patiently(self.core, self.visit))
    }

    /// Lets others have it before the caller's code runs. Where lanes are polled by the driver there are no others,
    /// and the lane keeps it for the rest of its poll: nothing that an attempt can reach wants it.
    #[inline]
    pub(super) fn release(&mut self) {
        if W::Mode::SPAWNED {
            self.unlock();
        }
    }

    /// Unlocks the core, then does what must not be done while it is locked: wakes the driver and the task that waits
    /// for an outcome, which the caller may poll in the very call, and gives up parts of the shared limit, which wakes the
    /// drivers of other runs.
    #[inline]
    fn unlock(&mut self) {
        let Some(mut core) = self.guard.take() else { return };
        if core.wakes_driver || core.wakes_taker.is_some() || !core.gate.left().is_empty() {
            let driver = mem::take(&mut core.wakes_driver).then(|| core.driver.clone());
            let (left, taker) = (mem::take(core.gate.left()), core.wakes_taker.take());
            drop(core);
            finish(left, [taker, driver]);
        }
    }
}

#[cold]
fn finish(left: Vec<Left>, wakers: [Option<Waker>; 2]) {
    drop(left);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// The core, locked by the driver. It is unlocked as a lane unlocks it when this is dropped.
///
/// A lane's [`Access`] has no destructor of its own, because that costs each poll of a lane a few instructions.
pub(super) struct Locked<'a, W: Types>(Access<'a, W>);

impl<'a, W: Types> Locked<'a, W> {
    pub(super) fn new(core: &'a Mutex<Core<W>>) -> Self {
        Self(Access::new(core))
    }

    /// The core, unless it is locked at this moment.
    pub(super) fn try_new(core: &'a Mutex<Core<W>>) -> Option<Self> {
        let guard = match core.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Self(Access { core, guard: Some(guard), visit: Visit::Once }))
    }

    pub(super) fn get(&mut self) -> &mut Core<W> {
        self.0.get()
    }

    /// Lets the lanes have it where they are polled by others.
    pub(super) fn release(&mut self) {
        self.0.release();
    }
}

impl<W: Types> Drop for Locked<'_, W> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}
