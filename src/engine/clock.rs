//! The driver's clock: Tokio's, read rarely.

use std::time::Duration;

use tokio::time::Instant;

/// How many times one reading may be used.
const USES_OF_A_READING: u32 = 32;

/// Gives the time for a fraction of the price of reading it.
///
/// A reading is kept for the rest of the driver's poll or for [`USES_OF_A_READING`] uses. So what is
/// timed from it may in truth have begun later, by at most [`slack`](Self::slack): the longest time
/// the driver ever ran between two readings. A limit that has passed by the clock is given that much
/// more before it counts. So a limit never ends early; it ends late by no more than the items
/// themselves have held up the thread.
#[derive(Debug, Default)]
pub(super) struct Clock {
    reading: Option<Instant>,
    uses: u32,
    slack: Duration,
}

impl Clock {
    /// The time, at most [`slack`](Self::slack) ago.
    #[inline]
    pub(super) fn coarse(&mut self) -> Instant {
        match self.reading {
            Some(reading) if self.uses < USES_OF_A_READING => {
                self.uses += 1;
                reading
            }
            _ => self.read(),
        }
    }

    /// The time now.
    pub(super) fn read(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(before) = self.reading.replace(now) {
            self.slack = self.slack.max(now.saturating_duration_since(before));
        }
        self.uses = 0;
        now
    }

    /// Ends a poll of the driver: what comes next may be long after.
    pub(super) fn rest(&mut self) {
        if self.reading.is_some() {
            self.read();
            self.reading = None;
        }
    }

    /// By how much a coarse time can be too early.
    pub(super) fn slack(&self) -> Duration {
        self.slack
    }
}

/// `start + limit`, but never so late that it is no time any more: 30 years are as good as never.
pub(super) fn deadline(start: Instant, limit: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    start + limit.min(NEVER)
}
