//! The result of a run: every result by its input index, and the account of the whole run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::count::Count;
use crate::outcome::ItemError;

/// The results of a run by input index, the errors, and the account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapTaskResult<T, E> {
    /// `results[i]` belongs to input `i`: `Some` if that item succeeded, `None` if it did not.
    ///
    /// The length is [`total`](Self::total), with one exception. A run that stops early has empty slots for items
    /// that were never started. If these would take more than 256 MiB, as those of an endless range would, they are
    /// left out. They are the last ones.
    pub results: Vec<Option<T>>,
    /// The items that failed, and only those, by input index.
    pub errors: BTreeMap<usize, ItemError<E>>,
    /// The account of the run.
    pub summary: Summary,
}

impl<T, E> MapTaskResult<T, E> {
    /// Returns the number of items that succeeded.
    pub fn successes(&self) -> usize {
        self.summary.successes
    }

    /// Returns the number of items that failed.
    pub fn failures(&self) -> usize {
        self.summary.failures
    }

    /// Returns the number of items that started and did not settle.
    pub fn cancelled(&self) -> usize {
        self.summary.cancelled
    }

    /// Returns the number of items that were known and never started.
    pub fn not_started(&self) -> usize {
        self.summary.not_started
    }

    /// Returns the number of items: the sum of the four counts above.
    pub fn total(&self) -> usize {
        self.summary.total
    }

    /// Returns the fraction of all items that succeeded, from 0 to 1. It is 1.0 if there were none.
    pub fn success_ratio(&self) -> f64 {
        self.summary.success_ratio()
    }

    /// Returns the results of the items that succeeded, in input order. If `T` is itself an `Option`, a `None` counts
    /// as a success.
    pub fn successful_results(&self) -> impl Iterator<Item = &T> {
        self.results.iter().flatten()
    }

    /// Returns the results of the items that succeeded, in input order, by value.
    pub fn into_successful_results(self) -> Vec<T> {
        // Unlike `flatten`, this collects in place.
        #[expect(clippy::filter_map_identity, reason = "see above")]
        self.results.into_iter().filter_map(|result| result).collect()
    }
}

/// The account of one run in numbers, always with `total = successes + failures + cancelled + not_started`.
///
/// Its `Display` form is one line for a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The number of items.
    pub total: usize,
    /// The number of items that succeeded.
    pub successes: usize,
    /// The number of items that failed.
    pub failures: usize,
    /// The number of items that started and did not settle.
    pub cancelled: usize,
    /// The number of items that were known, from the source or from its exact size hint, and never started.
    pub not_started: usize,
    /// The number of retries: all attempts after the first of their item.
    pub retries: usize,
    /// The number of attempts that exceeded a time limit.
    pub timeouts: usize,
    /// The number of attempts that panicked.
    pub panics: usize,
    /// The number of successes that an earlier run of the same id has left.
    pub recovered: usize,
    /// The number of successes that are cached outputs of equal items.
    pub cached: usize,
    /// The number of items that ran again because their content differs from that of their success in an earlier run
    /// of the same id.
    pub changed: usize,
    /// The time from the run's first poll to its end.
    pub elapsed: Duration,
}

impl Summary {
    /// Returns the fraction of all items that succeeded, from 0 to 1. It is 1.0 if there were none.
    pub fn success_ratio(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.successes as f64 / self.total as f64 }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            total,
            successes,
            failures,
            cancelled,
            not_started,
            retries,
            timeouts,
            panics,
            elapsed,
            ..
        } = self;
        write!(
            f,
            "{} in {elapsed:.3?}: {successes} succeeded, {failures} failed, {cancelled} cancelled, \
             {not_started} not started; {}, {}, {}",
            Count(*total, "item"),
            Count(*retries, "retry"),
            Count(*timeouts, "timeout"),
            Count(*panics, "panic"),
        )?;
        for (count, what) in [
            (self.recovered, "recovered"),
            (self.cached, "cached"),
            (self.changed, "changed since an earlier run"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_and_gives_what_it_holds() {
        let summary = Summary {
            total: 20,
            successes: 5,
            failures: 8,
            cancelled: 3,
            not_started: 4,
            retries: 5,
            timeouts: 6,
            panics: 7,
            elapsed: Duration::from_micros(1_234_567),
            ..Summary::default()
        };
        let text = "20 items in 1.235s: 5 succeeded, 8 failed, 3 cancelled, 4 not started; \
                    5 retries, 6 timeouts, 7 panics";
        assert_eq!(summary.to_string(), text);
        let durable = Summary { recovered: 1, cached: 2, changed: 3, ..summary.clone() };
        let more = format!("{text}, 1 recovered, 2 cached, 3 changed since an earlier run");
        assert_eq!(durable.to_string(), more);
        let errors = BTreeMap::from([(1, ItemError::Failed { error: "no", attempts: 1 })]);
        let result = MapTaskResult { results: vec![Some(None), None, Some(Some('c'))], errors, summary };
        let counts = [result.successes(), result.failures(), result.cancelled(), result.not_started()];
        assert_eq!((counts, result.total()), ([5, 8, 3, 4], 20));
        assert!((result.success_ratio() - 0.25).abs() < 1e-12);
        assert_eq!(result.successful_results().collect::<Vec<_>>(), [&None, &Some('c')]);
        assert_eq!(result.into_successful_results(), [None, Some('c')]);
        assert!((Summary::default().success_ratio() - 1.0).abs() < 1e-12);
    }
}
