//! The budget of one poll of the driver.

use std::time::Duration;

use crate::rt::Instant;

/// How many parallel workers one poll of the driver may wake or open before it yields to its executor. Also how many
/// attempts one poll of such a worker may start.
pub(in super::super) const STARTS_PER_POLL: u32 = 128;

/// How many steps one poll may take, or more if there are more workers. A step starts an attempt or polls a worker.
const STEPS: u32 = 512;

/// How long one poll may start one attempt after another.
const LONGEST_POLL: Duration = Duration::from_micros(100);

/// The largest number of short steps between two readings of the clock.
const MOST_STEPS: u32 = 32;

/// Steps are short if they took no longer than this between two readings.
const SHORT: Duration = Duration::from_micros(10);

/// Limits one poll of the driver in time and, because the clock may be paused, in steps.
#[derive(Debug)]
pub(in super::super) struct PollBudget {
    /// How many steps are left before the next reading of the clock.
    steps_left: u32,
    /// How many steps are allowed between two readings: few if steps take long.
    stride: u32,
    /// How many steps are left in this poll, without `steps_left`.
    reserve: u32,
    /// How many steps this poll was granted.
    granted: u32,
    /// The first and the last reading of the clock in this poll.
    readings: Option<(Instant, Instant)>,
}

impl PollBudget {
    pub(in super::super) fn new() -> Self {
        Self { steps_left: 0, stride: 1, reserve: 0, granted: 0, readings: None }
    }

    /// Begins a poll of the driver.
    pub(in super::super) fn begin_poll(&mut self, workers: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        self.reserve = STEPS.max(workers.saturating_mul(2));
        (self.steps_left, self.granted, self.readings) = (0, 0, None);
        if self.stride == MOST_STEPS {
            self.grant();
        }
    }

    /// Returns `true` if the clock must be read often, because steps take long.
    pub(in super::super) fn are_steps_long(&self) -> bool {
        self.stride < MOST_STEPS
    }

    /// Returns `true` if there is budget left. It does not read the clock.
    #[inline(always)]
    pub(in super::super) fn is_left(&self) -> bool {
        self.steps_left > 0
    }

    #[inline(always)]
    pub(in super::super) fn spend(&mut self) {
        self.steps_left -= 1;
    }

    /// Ends a poll of the driver that took this long. If a poll takes few steps, only this call measures their length.
    pub(in super::super) fn end_poll(&mut self, took: Duration) {
        let steps = self.granted - self.steps_left;
        self.adapt(took <= SHORT * steps.div_ceil(MOST_STEPS));
    }

    fn adapt(&mut self, is_short: bool) {
        self.stride = if is_short { (self.stride * 2).min(MOST_STEPS) } else { (self.stride / 8).max(1) };
    }

    /// Takes a reading of the clock. Returns `true` if there is budget left.
    #[cold]
    pub(in super::super) fn renew(&mut self, now: Instant) -> bool {
        if let Some((first, last)) = self.readings {
            self.adapt(now - last <= SHORT);
            if now - first > LONGEST_POLL {
                self.reserve = 0;
            }
        }
        self.readings = Some((self.readings.map_or(now, |(first, _)| first), now));
        self.grant();
        self.steps_left > 0
    }

    fn grant(&mut self) {
        self.steps_left = self.stride.min(self.reserve);
        self.reserve -= self.steps_left;
        self.granted += self.steps_left;
    }
}
