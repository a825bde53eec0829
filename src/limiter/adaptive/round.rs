//! The durations of a round: of attempts that began and ended under the same limit.

use std::mem;

/// A round has at least this many durations.
const LEAST: usize = 24;
/// A longer round keeps this many of its durations, the last ones.
const MOST: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Round {
    durations: Vec<f64>,
    /// How many attempts have ended, with how many permits, and how many of them while a request waited for permits.
    count: usize,
    permits: f64,
    full: usize,
}

/// The figures of a round, in seconds.
pub(crate) struct Taken {
    /// The mean of the middle half: long durations of a few items do not count, and two kinds of items do not make it jump as
    /// they do with the median.
    pub(crate) duration: f64,
    /// How far that mean may be off by chance: the width of the middle half over the square root of the number.
    pub(crate) noise: f64,
    /// `true` if most of the attempts ended while more could have begun under a higher limit.
    pub(crate) was_full: bool,
}

impl Round {
    /// Adds a duration. Returns the figures of the round, and begins another, if attempts with this many permits have ended in it.
    pub(crate) fn add(&mut self, duration: f64, weight: u32, is_full: bool, permits: f64) -> Option<Taken> {
        match self.durations.get_mut(self.count % MOST) {
            Some(oldest) => *oldest = duration,
            None => self.durations.push(duration),
        }
        self.count += 1;
        self.permits += f64::from(weight);
        self.full += usize::from(is_full);
        if self.count < LEAST || self.permits < permits {
            return None;
        }
        let Self { mut durations, count, full, .. } = mem::take(self);
        durations.sort_by(f64::total_cmp);
        let kept = durations.len();
        let middle = durations.get(kept / 4..kept - kept / 4)?;
        let width = middle.last()? - middle.first()?;
        Some(Taken {
            duration: middle.iter().sum::<f64>() / middle.len() as f64,
            noise: width / (kept as f64).sqrt(),
            was_full: full * 2 > count,
        })
    }
}
