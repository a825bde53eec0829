//! A bound on the number of attempts begun, as arithmetic: no clock, no lock.

use std::time::Duration;

use crate::error::ConfigError;

/// The longest period of a rate.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// A rate of `count` starts per `period`, of which up to `burst` may come at once after a pause.
///
/// This is the generic cell rate algorithm in its form "virtual scheduling" (ITU-T I.371, annex A). A start is due one
/// `period / count` after the one before it, and each start moves the time of the next. A start may come earlier than its time
/// by as much as `burst - 1` starts take.
///
/// Times are since the creation of the limiter. They are counted in `1 / count` nanoseconds, so that no rounding adds up. In this
/// unit, a start needs no division, unless it has waited for its time.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    count: u32,
    /// The time from one start to the next, in this unit: as many as the period has nanoseconds.
    interval: u64,
    burst: u32,
    /// The theoretical time of the next start.
    next: u128,
}

impl Rate {
    /// # Errors
    ///
    /// Returns an error if a value is not allowed.
    pub(super) fn new(count: u32, period: Duration, burst: u32) -> Result<Self, ConfigError> {
        if count == 0 {
            return Err(ConfigError::new("rate", count, "at least 1 per period"));
        }
        if period.is_zero() || period > LONGEST_PERIOD {
            let allowed = "per a period above 0 and at most 24 hours";
            return Err(ConfigError::new("rate", format_args!("per {period:?}"), allowed));
        }
        if burst == 0 {
            return Err(ConfigError::new("burst", burst, "at least 1"));
        }
        let interval = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { count, interval, burst, next: 0 })
    }

    pub(super) fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns `true` if an attempt of this weight may start at this time.
    pub(super) fn is_due(&self, weight: u32, now: Duration) -> bool {
        self.scaled_due(weight) <= self.scaled(now)
    }

    /// Returns the earliest time at which an attempt of this weight may start.
    pub(super) fn due(&self, weight: u32) -> Duration {
        let nanos = self.scaled_due(weight).div_ceil(u128::from(self.count));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn scaled_due(&self, weight: u32) -> u128 {
        self.next.saturating_sub(self.intervals(self.burst.saturating_sub(weight)))
    }

    /// Returns the time from which a whole burst may start, as if none had been counted.
    pub(super) fn recovered_at(&self) -> Duration {
        self.due(self.burst)
    }

    /// Counts the attempt that was counted last as one that starts at this time, which is later.
    pub(super) fn redate(&mut self, at: Duration) {
        self.next = self.next.max(self.scaled(at) + self.intervals(1));
    }

    /// Counts an attempt of this weight that starts at this time.
    pub(super) fn take(&mut self, weight: u32, at: Duration) {
        self.next = self.next.max(self.scaled(at)) + self.intervals(weight);
    }

    /// Takes back an attempt that was counted and has not started.
    pub(super) fn untake(&mut self, weight: u32) {
        self.next = self.next.saturating_sub(self.intervals(weight));
    }

    /// Allows one start at this time, and the others after it at the pace of the rate.
    pub(super) fn forbid_burst(&mut self, at: Duration) {
        self.next = self.next.max(self.scaled(at) + self.intervals(self.burst - 1));
    }

    /// Returns another rate. Starts that were counted are still counted.
    pub(super) fn changed(&self, to: Self, now: Duration) -> Self {
        let counted = self.next.saturating_sub(self.scaled(now));
        let next = to.scaled(now) + counted * to.intervals(1) / self.intervals(1);
        Self { next, ..to }
    }

    /// Returns the time that this many starts take.
    fn intervals(&self, starts: u32) -> u128 {
        u128::from(starts) * u128::from(self.interval)
    }

    fn scaled(&self, time: Duration) -> u128 {
        time.as_nanos() * u128::from(self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The algorithm as I.371 states it, in exact fractions of a nanosecond, with one step for each token.
    struct Reference {
        interval: (u128, u128),
        burst: u32,
        next: u128,
    }

    impl Reference {
        /// Returns `true` if a start of this weight at this time conforms, and counts it then.
        fn conforms(&mut self, weight: u32, nanos: u128) -> bool {
            let (interval, scale) = self.interval;
            let tolerance = (u128::from(self.burst) - u128::from(weight.min(self.burst))) * interval;
            let now = nanos * scale;
            let conforms = self.next <= now + tolerance;
            if conforms {
                (0..weight).for_each(|_| self.next = self.next.max(now) + interval);
            }
            conforms
        }
    }

    proptest! {
        /// A start is due at the first nanosecond at which it conforms. A start that is taken back has not been counted.
        #[test]
        fn rule_38_a_start_is_due_when_it_conforms(
            count in 1..2_000_u32,
            period in 1..100_000_000_000_u64,
            burst in 1..20_u32,
            steps in prop::collection::vec((1..25_u32, 0..200_000_000_u64, any::<bool>()), 1..60),
        ) {
            let mut rate = Rate::new(count, Duration::from_nanos(period), burst).unwrap();
            let mut reference = Reference { interval: (period.into(), count.into()), burst, next: 0 };
            let mut now = 0;
            for (weight, pause, leaves) in steps {
                let (due, nano) = (rate.due(weight), Duration::from_nanos(1));
                prop_assert!(rate.is_due(weight, due) && !due.checked_sub(nano).is_some_and(|early| rate.is_due(weight, early)));
                let due = due.as_nanos();
                if due > now {
                    prop_assert!(!reference.conforms(weight, due - 1));
                }
                if leaves {
                    rate.take(weight, Duration::from_nanos(due as u64));
                    rate.untake(weight);
                    // Only a pause before it, which counts for nothing beyond the burst, is forgotten.
                    reference.next = reference.next.max(due * u128::from(count));
                    continue;
                }
                now = now.max(due);
                prop_assert!(reference.conforms(weight, now));
                rate.take(weight, Duration::from_nanos(now as u64));
                now += u128::from(pause);
            }
        }
    }

    #[test]
    fn rule_38_starts_are_evenly_spaced_after_a_burst() {
        let mut rate = Rate::new(3, Duration::from_secs(1), 2).unwrap();
        let mut starts = Vec::new();
        for _ in 0..8 {
            let due = rate.due(1).max(Duration::from_secs(10));
            rate.take(1, due);
            starts.push(due.as_nanos() - 10_000_000_000);
        }
        // No rounding adds up: the last two are exactly a second apart from those three before them.
        let expected =
            [0, 0, 333_333_334, 666_666_667, 1_000_000_000, 1_333_333_334, 1_666_666_667, 2_000_000_000];
        assert_eq!(starts, expected);
    }

    #[test]
    fn rule_38_a_new_rate_counts_the_starts_before_it() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::new(10, second, 10).unwrap();
        (0..10).for_each(|_| rate.take(1, second));
        assert_eq!(rate.due(1), second + second / 10);
        let slower = rate.changed(Rate::new(1, second, 10).unwrap(), second);
        assert_eq!((slower.due(1), slower.due(10)), (2 * second, 11 * second));
        let idle = Rate::new(10, second, 10).unwrap().changed(Rate::new(1, second, 10).unwrap(), second);
        assert!(idle.due(10) <= second);
    }

    #[test]
    fn a_rate_must_be_a_rate() {
        let error = |count, period, burst| Rate::new(count, period, burst).unwrap_err().to_string();
        let second = Duration::from_secs(1);
        assert_eq!(error(0, second, 1), "rate must be at least 1 per period, got 0");
        assert_eq!(
            error(1, Duration::ZERO, 1),
            "rate must be per a period above 0 and at most 24 hours, got per 0ns"
        );
        assert_eq!(error(1, second, 0), "burst must be at least 1, got 0");
        assert!(Rate::new(u32::MAX, LONGEST_PERIOD, u32::MAX).is_ok());
        assert!(Rate::new(1, LONGEST_PERIOD + second, 1).is_err());
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let mut rate = Rate::new(u32::MAX, LONGEST_PERIOD, u32::MAX).unwrap();
        let late = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        for _ in 0..3 {
            let due = rate.due(u32::MAX).max(late);
            rate.take(u32::MAX, due);
        }
        let changed = rate.changed(Rate::new(1, LONGEST_PERIOD, u32::MAX).unwrap(), late);
        assert!(changed.due(1) > late);
    }
}
