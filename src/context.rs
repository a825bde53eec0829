//! What the map function may ask about the attempt that it makes.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

#[cfg(feature = "store")]
use crate::checkpoint::Checkpoint;
use crate::rt::Instant;

/// What the map function may ask about the attempt that it makes; see
/// [`map_with_context`](crate::Over::map_with_context). A clone speaks of the same attempt.
#[derive(Debug, Clone)]
pub struct ItemContext {
    pub(crate) index: usize,
    pub(crate) attempt: u32,
    pub(crate) is_last_attempt: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) signal: Arc<Signal>,
    #[cfg(feature = "store")]
    pub(crate) checkpoint: Checkpoint,
}

impl ItemContext {
    pub(crate) fn new(
        index: usize,
        attempt: u32,
        is_last_attempt: bool,
        deadline: Option<Instant>,
        signal: Arc<Signal>,
    ) -> Self {
        Self {
            index,
            attempt,
            is_last_attempt,
            deadline,
            signal,
            #[cfg(feature = "store")]
            checkpoint: Checkpoint::NONE,
        }
    }

    /// The item's place in the input, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The number of this attempt; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether no retry can follow, whatever this attempt returns.
    pub fn is_last_attempt(&self) -> bool {
        self.is_last_attempt
    }

    /// When this attempt will be stopped: the earliest of the limits per attempt, per item and per run.
    /// `None` where none is set.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// A token that is cancelled when this attempt should stop: because it ran out of time, because the
    /// run is stopping, or because the run was dropped. It is not cancelled when the attempt ends by itself.
    ///
    /// With [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace) the attempt has that long to
    /// end after the token was cancelled; without, it is dropped at once, and the token tells only
    /// what the attempt started elsewhere, such as a spawned task.
    pub fn cancellation_token(&self) -> &CancellationToken {
        self.signal.token()
    }

    /// The state that an earlier attempt at this item has saved, and where to save it: for items that take long and
    /// would rather go on than begin again. It needs [`recover`](crate::MapRun::recover).
    #[cfg(feature = "store")]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint.clone()
    }
}

/// The token of one attempt, made when somebody first asks for it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    token: OnceLock<CancellationToken>,
}

impl Signal {
    fn token(&self) -> &CancellationToken {
        self.token.get_or_init(CancellationToken::new)
    }

    /// Cancels the token, and makes it for that only where somebody may still ask for it.
    pub(crate) fn cancel(this: &Arc<Self>) {
        match this.token.get() {
            Some(token) => token.cancel(),
            None if Arc::strong_count(this) > 1 => this.token().cancel(),
            None => {}
        }
    }

    /// A signal for the next attempt: this one, where nobody else holds it any more.
    pub(crate) fn renew(this: &mut Arc<Self>) {
        match Arc::get_mut(this) {
            Some(signal) => signal.token = OnceLock::new(),
            None => *this = Arc::default(),
        }
    }
}
