//! A hold, as arithmetic: no clock, no lock.

use std::time::Duration;

/// A time in which nothing starts, and the tenth of it that follows, in which waiting attempts start one after another.
///
/// Times are since the creation of the limiter.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    end: Duration,
    length: Duration,
    /// How many attempts have started since its end.
    granted: usize,
}

impl Hold {
    pub(super) fn new(now: Duration, length: Duration) -> Self {
        Self { end: now.saturating_add(length), length, granted: 0 }
    }

    pub(super) fn end(&self) -> Duration {
        self.end
    }

    /// Returns the earliest time of the next start, if `permits` attempts may run at once.
    pub(super) fn due(&self, permits: usize) -> Duration {
        let tenth = (self.length / 10).as_nanos();
        let share = tenth * self.granted.min(permits) as u128 / (permits.max(1) as u128);
        self.end + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// Returns the time from which it delays nothing any more.
    pub(super) fn over_at(&self) -> Duration {
        self.end.saturating_add(self.length / 10)
    }

    /// Returns `true` if it delays nothing any more.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.over_at()
    }

    /// Counts a start.
    pub(super) fn take(&mut self) {
        self.granted += 1;
    }

    /// Takes back an attempt that was counted and has not started.
    pub(super) fn untake(&mut self) {
        self.granted = self.granted.saturating_sub(1);
    }
}
