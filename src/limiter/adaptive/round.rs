//! The durations of a round: of attempts that began and ended under the same limit.

/// A round has at least this many durations.
const LEAST: usize = 24;

#[derive(Debug, Default)]
pub(crate) struct Round {
    durations: Vec<f64>,
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
        self.durations.push(duration);
        self.permits += f64::from(weight);
        self.full += usize::from(is_full);
        if self.durations.len() < LEAST || self.permits < permits {
            return None;
        }
        let Self { mut durations, full, .. } = std::mem::take(self);
        durations.sort_by(f64::total_cmp);
        let count = durations.len();
        let middle = durations.get(count / 4..count - count / 4)?;
        let width = middle.last()? - middle.first()?;
        Some(Taken {
            duration: middle.iter().sum::<f64>() / middle.len() as f64,
            noise: width / (count as f64).sqrt(),
            was_full: full * 2 > count,
        })
    }
}
