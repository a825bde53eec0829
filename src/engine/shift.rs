//! The time of a lane that runs by itself: when its attempts begin, and when it has had its share of a poll.

use std::mem;
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
#[derive(Debug, Default)]
pub(super) struct Shift {
    readings: Option<Readings>,
    turns: u32,
}

#[derive(Debug)]
struct Readings {
    first: Instant,
    last: Instant,
    /// Whether nothing was dated by the last one yet.
    is_new: bool,
    /// How many attempts may still be dated by it.
    uses_left: u32,
}

/// When an attempt begins.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) at: Instant,
    /// Whether it may in truth begin later, by as much as the attempts before it have taken.
    pub(super) or_later: bool,
}

impl Shift {
    /// Begins another turn, with the time of it.
    pub(super) fn turn(&mut self, exact: bool) -> Start {
        self.turns += 1;
        let readings = match &mut self.readings {
            Some(readings) => {
                if exact || readings.uses_left == 0 {
                    readings.read();
                }
                readings
            }
            none => none.insert(Readings::first()),
        };
        readings.uses_left -= 1;
        Start { at: readings.last, or_later: !mem::take(&mut readings.is_new) }
    }

    /// Whether the lane has had its share. Where the clock is paused, only the number of attempts counts.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(readings) = &mut self.readings else { return false };
        if readings.uses_left == 0 {
            readings.read();
        }
        self.turns >= STARTS_PER_POLL || readings.last > readings.first + LONGEST_POLL
    }

    /// When an attempt has begun that was dated so and has to wait now: at that time, or, if others before it may
    /// have taken long, now.
    pub(super) fn latest_start(dated: Instant) -> Instant {
        let now = Instant::now();
        if now - dated > RESOLUTION { now } else { dated }
    }
}

impl Readings {
    fn first() -> Self {
        let now = Instant::now();
        Self { first: now, last: now, is_new: true, uses_left: 1 }
    }

    fn read(&mut self) {
        let now = Instant::now();
        self.uses_left = if now > self.last + SHORT { 1 } else { USES_OF_A_READING };
        (self.last, self.is_new) = (now, true);
    }
}
