//! The time slice of a parallel worker: the start times of its attempts, and the length of its polls.

use std::time::Duration;

use super::super::scheduler::STARTS_PER_POLL;
use super::super::scheduler::clock::RESOLUTION;
use crate::lock::BackOff;
use crate::rt::Instant;

/// How long one poll may start one attempt after another before the worker yields to its executor.
const LONGEST_POLL: Duration = Duration::from_micros(100);

/// How many short attempts may use one reading of the clock.
const USES_OF_A_READING: u32 = 8;

/// Attempts are short if they took no longer than this between two readings.
const SHORT: Duration = Duration::from_micros(20);

/// If attempts take no longer than this on average, a worker locks the state again before another one has done much.
const VERY_SHORT: Duration = Duration::from_micros(1);

/// The progress of one poll of a worker.
///
/// It reads the clock before each attempt or, while attempts are short, before every eighth: a reading costs more than an
/// empty item does.
#[derive(Debug, Default)]
pub(in super::super) struct TimeSlice {
    readings: Option<Readings>,
    attempts: u32,
}

#[derive(Debug)]
struct Readings {
    first: Instant,
    last: Instant,
    /// How many attempts may use the last reading, and how many may still use it.
    uses: u32,
    uses_left: u32,
    /// `true` if the attempts between the last two readings were very short.
    are_very_short: bool,
}

impl TimeSlice {
    /// Starts another attempt. Returns its start time, or an earlier one, by at most the length of the attempts since the
    /// last reading.
    pub(in super::super) fn start_attempt(&mut self, exact: bool) -> Instant {
        self.attempts += 1;
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
        readings.last
    }

    /// Returns `true` if the time slice is over. If the clock is paused, only the number of attempts counts.
    pub(in super::super) fn is_over(&mut self) -> bool {
        let Some(readings) = &mut self.readings else { return false };
        if readings.uses_left == 0 {
            readings.read();
        }
        self.attempts >= STARTS_PER_POLL || readings.last > readings.first + LONGEST_POLL
    }

    /// Returns how the worker waits for the state after an attempt.
    pub(in super::super) fn back_off(&self) -> BackOff {
        match &self.readings {
            Some(Readings { are_very_short: true, .. }) => BackOff::Long,
            _ => BackOff::Short,
        }
    }

    /// Returns the start of the limit of an attempt that waits for the first time. It is `dated`, or now if the thread was
    /// stalled since then, by the attempt itself or by those before it. In one task, the clock of the driver does the same.
    pub(in super::super) fn latest_start(dated: Instant) -> Instant {
        let now = Instant::now();
        if now - dated > RESOLUTION { now } else { dated }
    }
}

impl Readings {
    fn first() -> Self {
        let now = Instant::now();
        Self { first: now, last: now, uses: 1, uses_left: 1, are_very_short: false }
    }

    fn read(&mut self) {
        let now = Instant::now();
        let elapsed = now - self.last;
        self.are_very_short = elapsed < VERY_SHORT * (self.uses - self.uses_left);
        self.uses = if elapsed > SHORT { 1 } else { USES_OF_A_READING };
        (self.last, self.uses_left) = (now, self.uses);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_very_short_attempts_get_the_long_back_off() {
        let mut slice = TimeSlice::default();
        assert_eq!(slice.back_off(), BackOff::Short, "it comes from elsewhere");
        let mut back_off_after = async |attempts, length| {
            for _ in 0..attempts {
                slice.start_attempt(false);
                advance(length).await;
                slice.is_over();
            }
            slice.back_off()
        };
        assert_eq!(back_off_after(1, Duration::from_nanos(900)).await, BackOff::Long);
        assert_eq!(back_off_after(USES_OF_A_READING, Duration::from_nanos(1_100)).await, BackOff::Short);
        assert_eq!(back_off_after(USES_OF_A_READING, Duration::from_nanos(900)).await, BackOff::Long);
        assert_eq!(
            back_off_after(USES_OF_A_READING, SHORT).await,
            BackOff::Short,
            "read after each from here on"
        );
        assert_eq!(back_off_after(1, Duration::from_nanos(900)).await, BackOff::Long);
    }
}
