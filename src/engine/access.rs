//! A lane's way to the core.

use std::mem;
use std::sync::{Mutex, MutexGuard};

use super::core::Core;
use super::{Mode, Types};
use crate::lock::{Visit, lock_patiently};

/// The core, locked once it is needed.
pub(super) struct Access<'a, W: Types> {
    core: &'a Mutex<Core<W>>,
    guard: Option<MutexGuard<'a, Core<W>>>,
    next: Visit,
}

impl<'a, W: Types> Access<'a, W> {
    pub(super) fn new(core: &'a Mutex<Core<W>>) -> Self {
        Self { core, guard: None, next: Visit::First }
    }

    #[inline(always)]
    pub(super) fn get(&mut self) -> &mut Core<W> {
        self.guard
            .get_or_insert_with(|| lock_patiently(self.core, mem::replace(&mut self.next, Visit::Again)))
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
