//! A lane's way to the core.

use std::sync::{Mutex, MutexGuard};

use super::core::Core;
use super::{Mode, Types};
use crate::lock::{Visit, lock_patiently};

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

    #[inline(always)]
    pub(super) fn get(&mut self) -> &mut Core<W> {
        self.guard.get_or_insert_with(|| lock_patiently(self.core, self.visit))
    }

    /// Lets others have it before the caller's code runs. Where lanes are polled by the driver there are no others,
    /// and the lane keeps it for the rest of its poll: nothing that an attempt can reach wants it.
    #[inline]
    pub(super) fn release(&mut self) {
        if W::Mode::SPAWNED {
            self.guard = None;
        }
    }
}
