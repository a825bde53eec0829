//! The limiter of one key of a keyed limiter, and the count of its uses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::room::{KeyId, Room};
use super::state::State;
use super::{Limiter, Shared};
use crate::rt::{AtomicBool, AtomicUsize, Instant, Mutex};

/// The limiter of one key, as the keyed limiter keeps it.
///
/// All other code has a [`Limiter`]: [`limiter`](Self::limiter) creates one, and each clone of that is counted, also in a
/// permit or a ticket. So a key without a counted clone has no permit in use and no request that waits, and no other thread can
/// create a clone.
pub(crate) struct KeyLimiter {
    /// It is not counted.
    shared: Arc<Shared>,
    id: KeyId,
}

/// The count of the clones of a key's limiter. The last one that is dropped reports the key as unused.
pub(super) struct KeyUses {
    count: AtomicUsize,
    /// `true` from a report of the key until the keyed limiter looks at it. So each key is reported once, however often it is
    /// used meanwhile.
    is_reported: AtomicBool,
    id: KeyId,
    room: Arc<Room>,
}

impl KeyLimiter {
    /// Creates the limiter of a key, with the settings of another one. That is only a model: it was never used.
    pub(crate) fn like(model: &Limiter, id: KeyId, room: &Arc<Room>) -> Self {
        let state = Mutex::new(model.lock().new_like_this());
        let (count, is_reported, room) = (AtomicUsize::new(0), AtomicBool::new(false), Arc::clone(room));
        let uses = Some(KeyUses { count, is_reported, id, room });
        Self { shared: Arc::new(Shared { state, uses, is_adaptive: false }), id }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    /// Returns a counted clone.
    pub(crate) fn limiter(&self) -> Limiter {
        Limiter::of(&self.shared)
    }

    /// Looks at the key: returns `true` if there is a counted clone. The last one reports the key then, as if it had not been
    /// reported before.
    pub(crate) fn is_used(&self) -> bool {
        self.shared.uses.as_ref().is_some_and(KeyUses::look)
    }

    /// Returns the time from which neither the rate nor a hold distinguishes the limiter from a new one. `None` if there is no
    /// such time to wait for.
    pub(crate) fn recovered_at(&self) -> Option<Instant> {
        self.shared.lock().recovered_at()
    }

    pub(crate) fn in_use(&self) -> usize {
        self.shared.lock().in_use
    }

    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl KeyUses {
    /// Counts a clone.
    pub(super) fn add(&self) {
        // The first one is created under the lock of the map, and the others from clones that exist.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a clone that is dropped.
    pub(super) fn remove(&self) {
        // A permit was returned before, and a ticket has left the queue. After the count is 0, the keyed limiter may forget the
        // key at any time. The report then names a key that does not exist any more, which has no effect.
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_reported.swap(true, Ordering::AcqRel) {
            self.room.add_unused(self.id);
        }
    }

    /// Returns `true` if there is a clone.
    fn look(&self) -> bool {
        // The order matters: a clone that is dropped after the swap is reported again, and one that was dropped before is not in
        // the count.
        self.is_reported.swap(false, Ordering::AcqRel);
        self.count.load(Ordering::Acquire) > 0
    }
}

impl Clone for Limiter {
    fn clone(&self) -> Self {
        Self::of(&self.shared)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.shared.uses.iter().for_each(KeyUses::remove);
    }
}

/// # Keys
impl Limiter {
    fn of(shared: &Arc<Shared>) -> Self {
        shared.uses.iter().for_each(KeyUses::add);
        Self { shared: Arc::clone(shared) }
    }

    /// Creates the model of the limiters of [`KeyedLimiter::new`](crate::KeyedLimiter::new).
    pub(crate) fn model(permits: usize) -> Self {
        Self::with_state(State::new(permits, "KeyedLimiter::new(0)"))
    }
}
