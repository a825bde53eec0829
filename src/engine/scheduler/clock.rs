//! The clock of the driver: Tokio's clock, read rarely.

use crate::rt::Instant;
use std::mem;
use std::time::Duration;

/// How many times one reading may be used.
const USES_OF_A_READING: u32 = 32;

/// The resolution of Tokio's timers.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// A reading that is not older than this is as good as a new one.
pub(in super::super) const RESOLUTION: Duration = Duration::from_micros(100);

/// How many stalls are stored separately.
const STALLS: usize = 32;

/// Provides the time at a fraction of the cost of a reading.
///
/// A reading is kept for the rest of the driver's poll or for [`USES_OF_A_READING`] uses. So an attempt with this start time
/// may have started later, by as long as items have stalled the thread before the next reading. Long stalls are stored, and
/// [`latest_start`](Self::latest_start) includes them. A limit that is computed from there never ends early.
#[derive(Debug)]
pub(in super::super) struct Clock {
    /// `true` if each call reads the clock, because the callers are not all within one poll.
    exact: bool,
    reading: Instant,
    /// The first reading of this poll of the driver.
    first: Option<Instant>,
    /// How many times the reading may still be used.
    uses_left: u32,
    /// In ascending order of time.
    stalls: Vec<Stall>,
}

/// A period in which the clock was not read for up to `longest`.
#[derive(Debug)]
struct Stall {
    from: Instant,
    to: Instant,
    longest: Duration,
}

impl Clock {
    pub(in super::super) fn new(reading: Instant, exact: bool) -> Self {
        Self { exact, reading, first: None, uses_left: 0, stalls: Vec::with_capacity(STALLS + 1) }
    }

    /// Returns the time, or the last reading of it.
    #[inline]
    pub(in super::super) fn coarse(&mut self) -> Instant {
        if self.uses_left == 0 {
            return self.read();
        }
        self.uses_left -= 1;
        self.reading
    }

    /// Returns the last reading, for a caller that runs right after it.
    pub(in super::super) fn last(&self) -> Instant {
        self.reading
    }

    /// Reads the clock.
    pub(in super::super) fn read(&mut self) -> Instant {
        let now = Instant::now();
        if self.exact {
            return now;
        }
        let before = mem::replace(&mut self.reading, now);
        if self.first.is_some() && now > before + RESOLUTION {
            self.record_stall(before, now);
        }
        self.first.get_or_insert(now);
        self.uses_left = USES_OF_A_READING;
        now
    }

    /// Ends a poll of the driver: the next one may be much later. Returns how long the poll has taken since its first
    /// reading, if there was one.
    pub(in super::super) fn end_poll(&mut self) -> Option<Duration> {
        let first = self.first?;
        let now = self.read();
        (self.first, self.uses_left) = (None, 0);
        Some(now - first)
    }

    /// Returns the latest time at which an attempt with this recorded start can have started.
    pub(in super::super) fn latest_start(&self, start: Instant) -> Instant {
        let known = self.stalls.iter().find(|stall| stall.from <= start && start < stall.to);
        known.map_or(start, |stall| start + stall.longest)
    }

    #[cold]
    fn record_stall(&mut self, from: Instant, to: Instant) {
        let longest = to - from;
        if let Some(last) = self.stalls.last_mut() {
            // Two stalls that no timer can tell apart become one.
            if longest.max(last.longest) < TIMER_RESOLUTION {
                (last.to, last.longest) = (to, longest.max(last.longest));
                return;
            }
        }
        self.stalls.push(Stall { from, to, longest });
        if self.stalls.len() > STALLS {
            // The two neighbours that differ least become one, so that a long stall stays separate.
            let lengths = self.stalls.windows(2).map(|pair| match pair {
                [one, other] => one.longest.abs_diff(other.longest),
                _ => Duration::MAX,
            });
            if let Some((at, _)) = lengths.enumerate().min_by_key(|(_, difference)| *difference) {
                let later = self.stalls.remove(at + 1);
                if let Some(earlier) = self.stalls.get_mut(at) {
                    earlier.to = later.to;
                    earlier.longest = earlier.longest.max(later.longest);
                }
            }
        }
    }
}

/// Returns `start + limit`. The limit is capped at 30 years, so that the sum does not overflow.
pub(in super::super) fn deadline(start: Instant, limit: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    start + limit.min(NEVER)
}

/// Returns the earlier of two times, or the only one.
pub(in super::super) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stall_delays_only_the_starts_within_it() {
        let mut clock = Clock::new(Instant::now(), false);
        let millis = Duration::from_millis;
        let first = clock.coarse();
        tokio::time::advance(millis(50)).await;
        // It started at some time in these 50 ms, and its recorded start is their beginning.
        assert_eq!(clock.coarse(), first);
        let second = clock.read();
        assert_eq!((clock.latest_start(first), clock.latest_start(second)), (second, second));
        clock.end_poll();
        tokio::time::advance(millis(10_000)).await;
        let third = clock.coarse();
        clock.end_poll();
        assert_eq!((clock.latest_start(second), clock.latest_start(third)), (second, third));
    }

    #[tokio::test(start_paused = true)]
    async fn only_similar_stalls_are_merged() {
        let mut clock = Clock::new(Instant::now(), false);
        let mut starts = Vec::new();
        for n in 0..1_000 {
            let start = clock.coarse();
            let longest = Duration::from_micros(if n == 70 { 10_000_000 } else { 200 + n % 7 });
            tokio::time::advance(longest).await;
            clock.read();
            clock.end_poll();
            starts.push((start, start + longest));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(clock.stalls.len() <= STALLS);
        for (n, (start, end)) in starts.into_iter().enumerate() {
            let latest = clock.latest_start(start);
            assert!(latest >= end, "{n} ends early");
            assert!(
                n == 70 || latest - start < Duration::from_millis(1),
                "{n} ends late by {:?}",
                latest - end
            );
        }
    }
}
