//! The context of an attempt, for the map function.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

#[cfg(feature = "store")]
use crate::checkpoint::Checkpoint;
use crate::rt::Instant;

/// The context of an attempt, passed to the function of [`map_with_context`](crate::Over::map_with_context). A clone
/// refers to the same attempt.
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

    /// Returns the item's position in the input, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of this attempt. The first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns `true` if no retry can follow, whatever this attempt returns.
    pub fn is_last_attempt(&self) -> bool {
        self.is_last_attempt
    }

    /// Returns the time at which this attempt will be stopped: the earliest of the limits per attempt, per item and
    /// per run. `None` if none is set.
    #[doc(alias("timeout"))]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns a token that is cancelled when this attempt should stop. The cause is a time limit that the attempt
    /// exceeded, or that the run stops or was dropped. The token is not cancelled if the attempt ends normally.
    ///
    /// With [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace) the attempt has that time to end after the
    /// token was cancelled. Without it, the attempt is dropped immediately. The token then reaches only work that the
    /// attempt has started elsewhere, such as a spawned task.
    pub fn cancellation_token(&self) -> &CancellationToken {
        self.signal.token()
    }

    /// Returns the checkpoint of this item: the state that an earlier attempt has saved, and the means to save a new
    /// one. Use it for long items that should resume instead of starting again. It needs
    /// [`recover`](crate::MapRun::recover).
    #[doc(alias("save progress", "resume"))]
    #[cfg(feature = "store")]
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint.clone()
    }
}

/// The token of one attempt, created on first use.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    token: OnceLock<CancellationToken>,
}

impl Signal {
    fn token(&self) -> &CancellationToken {
        self.token.get_or_init(CancellationToken::new)
    }

    /// Cancels the token. If there is none yet, creates it only if it can still be requested.
    pub(crate) fn cancel(this: &Arc<Self>) {
        match this.token.get() {
            Some(token) => token.cancel(),
            None if Arc::strong_count(this) > 1 => this.token().cancel(),
            None => {}
        }
    }

    /// Makes a signal for the next attempt. It reuses this one if nothing else holds it.
    pub(crate) fn renew(this: &mut Arc<Self>) {
        match Arc::get_mut(this) {
            Some(signal) => signal.token = OnceLock::new(),
            None => *this = Arc::default(),
        }
    }
}
