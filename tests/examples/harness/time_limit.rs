//! The time limit of a test.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than any test takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The interval at which a test checks the state of another process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The time at which a test fails, if it still waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimit {
    end: Instant,
}

impl TimeLimit {
    pub(crate) fn start() -> Self {
        Self { end: Instant::now() + LIMIT }
    }

    /// Waits until the condition holds.
    #[track_caller]
    pub(crate) fn until(self, what: &str, is_so: impl FnMut() -> bool) {
        assert!(self.comes(is_so), "it has not come to this within {LIMIT:?}: {what}");
    }

    /// Waits until the condition holds, and returns `false` at the limit.
    pub(crate) fn comes(self, mut is_so: impl FnMut() -> bool) -> bool {
        while !is_so() {
            if Instant::now() >= self.end {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }
}
