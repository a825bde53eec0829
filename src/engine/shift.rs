//! The time of a lane that runs by itself: when its attempts begin, and when it has had its share of a poll.

use std::time::Duration;

use tokio::time::Instant;

use super::clock::RESOLUTION;

/// How many attempts one poll of the driver may begin, or how many lanes that run by themselves it may call, before
/// it yields to its executor; and how many attempts one poll of such a lane.
pub(super) const STARTS_PER_POLL: u32 = 128;

/// How long one poll may begin one attempt after another before the lane yields to its executor.
const LONGEST_POLL: Duration = Duration::from_micros(100);

/// How many short attempts may begin by one reading of the clock.
const USES_OF_A_READING: u32 = 8;

/// Attempts that took no longer than this between two readings are short.
const SHORT: Duration = Duration::from_micros(20);

/// What one poll of a lane has done so far.
///
/// It reads the clock before each attempt, or, while attempts are short, before every eighth: a reading costs more
/// than an empty item does.
#[derive(Debug)]
pub(super) struct Shift {
    began: Instant,
    reading: Instant,
    uses_left: u32,
    turns: u32,
}

impl Shift {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, reading: now, uses_left: 1, turns: 0 }
    }

    /// Begins another turn, with the time of it.
    pub(super) fn turn(&mut self, exact: bool) -> Instant {
        self.turns += 1;
        if self.uses_left == 0 || exact {
            self.read();
        }
        self.uses_left -= 1;
        self.reading
    }

    fn read(&mut self) {
        let now = Instant::now();
        self.uses_left = if now - self.reading > SHORT { 1 } else { USES_OF_A_READING };
        self.reading = now;
    }

    /// Whether the lane has had its share. Where the clock is paused, only the number of attempts counts.
    pub(super) fn is_over(&mut self) -> bool {
        if self.uses_left == 0 {
            self.read();
        }
        self.turns >= STARTS_PER_POLL || self.reading - self.began > LONGEST_POLL
    }

    /// When an attempt has begun that was dated so and has to wait now: at that time, or, if others before it may
    /// have taken long, now.
    pub(super) fn latest_start(dated: Instant) -> Instant {
        let now = Instant::now();
        if now - dated > RESOLUTION { now } else { dated }
    }
}
