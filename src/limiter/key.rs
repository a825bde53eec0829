//! The limiter of one key of a keyed limiter, and the count of its uses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Limiter;
use super::room::{KeyId, Room};
use super::state::State;
use crate::rt::{AtomicUsize, Instant};

/// The limiter of one key, as the keyed limiter keeps it.
///
/// All other code has a counted clone: [`limiter`](Self::limiter) creates one, and each clone of that is counted, also in a
/// permit or a ticket. So a key without a counted clone has no permit in use and no request that waits, and no other thread can
/// create a clone.
pub(crate) struct KeyLimiter {
    /// It is not counted.
    limiter: Limiter,
    uses: Arc<Uses>,
}

/// The count of the clones of a key's limiter.
struct Uses {
    count: AtomicUsize,
    id: KeyId,
    room: Arc<Room>,
}

/// Counts as one use of a key's limiter. The last one that is dropped reports the key as unused.
pub(super) struct KeyUse {
    uses: Arc<Uses>,
}

impl KeyLimiter {
    pub(crate) fn new(limiter: Limiter, id: KeyId, room: &Arc<Room>) -> Self {
        let uses = Uses { count: AtomicUsize::new(0), id, room: Arc::clone(room) };
        Self { limiter, uses: Arc::new(uses) }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.uses.id
    }

    /// Returns a counted clone.
    pub(crate) fn limiter(&self) -> Limiter {
        let state = Arc::clone(&self.limiter.state);
        Limiter { state, key_use: Some(KeyUse::new(&self.uses)) }
    }

    /// Returns `true` if there is a counted clone.
    pub(crate) fn is_used(&self) -> bool {
        self.uses.count.load(Ordering::Acquire) > 0
    }

    /// Returns the time from which neither the rate nor a hold distinguishes the limiter from a new one. `None` if there is no
    /// such time to wait for.
    pub(crate) fn recovered_at(&self) -> Option<Instant> {
        self.limiter.lock().recovered_at()
    }

    pub(crate) fn in_use(&self) -> usize {
        self.limiter.in_use()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.limiter.waiting()
    }
}

impl KeyUse {
    fn new(uses: &Arc<Uses>) -> Self {
        // The first use is created under the lock of the map, and the others from uses that exist.
        uses.count.fetch_add(1, Ordering::Relaxed);
        Self { uses: Arc::clone(uses) }
    }
}

impl Clone for KeyUse {
    fn clone(&self) -> Self {
        Self::new(&self.uses)
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        // A permit was returned before, and a ticket has left the queue. After the count is 0, the keyed limiter may forget the
        // key at any time. The report then names a key that does not exist any more, which has no effect.
        if self.uses.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.uses.room.add_unused(self.uses.id);
        }
    }
}

/// # Keys
impl Limiter {
    /// Creates the model of the limiters of [`KeyedLimiter::new`](crate::KeyedLimiter::new).
    pub(crate) fn model(permits: usize) -> Self {
        Self::with_state(State::new(permits, "KeyedLimiter::new(0)"))
    }

    /// Creates another limiter with the settings of this one, which is only a model: it was never used.
    pub(crate) fn like(model: &Self) -> Self {
        let state = model.lock().new_like_this();
        Self::with_state(state)
    }
}
