//! The result of a run: every result by its input index, and the account of the whole run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::count::Count;
use crate::outcome::{ItemError, NotRetried};

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
    pub(crate) started: Started,
    pub(crate) notes: Notes,
}

/// What is known of the items without a result, by input index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) labels: BTreeMap<usize, String>,
    pub(crate) not_retried: BTreeMap<usize, NotRetried>,
}

/// Which items of a run have started: all that were pulled, except these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Started {
    /// `true` if the total is only the number of items that were pulled, because the source did not know it.
    pub(crate) may_be_more: bool,
    /// How many items were pulled from the source.
    pub(crate) pulled: usize,
    /// The items that were pulled and have not started, in ascending order.
    pub(crate) except: Vec<usize>,
}

impl Started {
    fn contains(&self, index: usize) -> bool {
        index < self.pulled && self.except.binary_search(&index).is_err()
    }
}

impl<T, E> MapTaskResult<T, E> {
    /// Returns the state of the item at this index. An item that was [`Cancelled`](ItemState::Cancelled) may have had side
    /// effects, and one that was [`NotStarted`](ItemState::NotStarted) has not.
    ///
    /// The states agree with the counts of the [`Summary`]. The time is logarithmic in the number of failures.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, ItemState};
    ///
    /// let task = AsyncMapTask::builder().concurrency(2).fail_fast(true).build()?;
    /// let error = task
    ///     .run([Some(1), Some(0), None, None], |n| async move {
    ///         match n {
    ///             Some(0) => Err("zero"),
    ///             Some(n) => Ok(n),
    ///             None => std::future::pending().await,
    ///         }
    ///     })
    ///     .await
    ///     .unwrap_err();
    /// let states: Vec<_> = (0..4).map(|index| error.partial().state(index)).collect();
    /// assert_eq!(states[..2], [ItemState::Succeeded, ItemState::Failed]);
    /// assert_eq!(error.partial().unfinished().collect::<Vec<_>>(), [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn state(&self, index: usize) -> ItemState {
        if self.results.get(index).is_some_and(Option::is_some) {
            ItemState::Succeeded
        } else if self.errors.contains_key(&index) {
            ItemState::Failed
        } else if self.started.contains(index) {
            ItemState::Cancelled
        } else {
            ItemState::NotStarted
        }
    }

    /// Returns the indices of the items that were cancelled or not started, in ascending order.
    pub fn unfinished(&self) -> impl Iterator<Item = usize> + '_ {
        let is_unfinished =
            |index: &usize| matches!(self.state(*index), ItemState::Cancelled | ItemState::NotStarted);
        (0..self.total()).filter(is_unfinished)
    }

    /// Returns the [label](crate::MapRun::label) of an item without a result: one that failed, was cancelled, or was pulled and
    /// not started. `None` for all other items. A success keeps no label: `results[i]` belongs to input `i`, so `zip` joins the
    /// results with the names that they were made from.
    ///
    /// # Examples
    ///
    /// The services that have not answered within the time of a request, and those that have failed:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::time::Duration;
    ///
    /// # async fn ask(service: &str) -> Result<u32, String> {
    /// #     match service {
    /// #         "prices" => Ok(7),
    /// #         "stock" => Err("down".to_owned()),
    /// #         _ => std::future::pending().await,
    /// #     }
    /// # }
    /// let task = AsyncMapTask::builder()
    ///     .allow_failures()
    ///     .accept_partial(true)
    ///     .run_timeout(Duration::from_millis(200))
    ///     .build()?;
    /// let services = ["prices", "stock", "reviews"];
    /// let answers = task.over(services).map(ask).label(|service| service.to_string()).await?;
    /// let late: Vec<_> = answers.unfinished().filter_map(|index| answers.label(index)).collect();
    /// let failed: Vec<_> = answers.errors.keys().filter_map(|index| answers.label(*index)).collect();
    /// assert_eq!((late, failed), (vec!["reviews"], vec!["stock"]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn label(&self, index: usize) -> Option<&str> {
        self.notes.labels.get(&index).map(String::as_str)
    }

    /// Returns the reason why a failed item was not tried again. `None` for an item that has not failed.
    pub fn not_retried(&self, index: usize) -> Option<NotRetried> {
        self.notes.not_retried.get(&index).copied()
    }

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
    /// The number of items that failed with the error they had because the
    /// [`retry_budget`](crate::AsyncMapTaskBuilder::retry_budget) was spent.
    pub retries_refused: usize,
    /// The number of attempts that exceeded a time limit.
    pub timeouts: usize,
    /// The number of attempts that panicked.
    pub panics: usize,
    /// The number of successes that an earlier run of the same id has left.
    pub recovered: usize,
    /// The number of successes of the run that this one repeats; see [`redo`](crate::MapRun::redo).
    pub carried: usize,
    /// The number of successes that are cached outputs of equal items.
    pub cached: usize,
    /// The number of items that ran again because their content differs from that of their success in an earlier run
    /// of the same id.
    pub changed: usize,
    /// The number of calls in a run of [batches](crate::Over::map_batches), with the calls for parts of batches that were split. It
    /// is 0 in all other runs.
    pub calls: usize,
    /// The time from the run's first poll to its end.
    pub elapsed: Duration,
    /// The reason for the end of the run.
    pub completion: Completion,
}

/// The reason for the end of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Completion {
    /// Every item has settled.
    #[default]
    All,
    /// Enough items had succeeded; see [`early_success`](crate::AsyncMapTaskBuilder::early_success).
    EarlySuccess,
    /// The run was cancelled or drained, or its runtime was shut down.
    Cancelled,
    /// The run did not end within its [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    TimedOut,
    /// Too many items failed, or the run could not continue. Only in the account of an error.
    Failed,
}

/// The state of one item at the end of a run; see [`MapTaskResult::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ItemState {
    /// It has a result.
    Succeeded,
    /// It has an error.
    Failed,
    /// An attempt had started, and the item did not settle. It may have had side effects.
    Cancelled,
    /// No attempt had started, or there is no item at this index.
    NotStarted,
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
        if self.calls > 0 {
            write!(f, ", {}", Count(self.calls, "call"))?;
        }
        for (count, what) in [
            (self.retries_refused, "refused a retry"),
            (self.recovered, "recovered"),
            (self.carried, "carried over"),
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
        let refused = Summary { retries_refused: 2, recovered: 1, ..summary.clone() };
        assert_eq!(refused.to_string(), format!("{text}, 2 refused a retry, 1 recovered"));
        let batches = Summary { calls: 3, recovered: 1, ..summary.clone() };
        assert_eq!(batches.to_string(), format!("{text}, 3 calls, 1 recovered"));
        let durable = Summary { recovered: 1, carried: 4, cached: 2, changed: 3, ..summary.clone() };
        let more = format!("{text}, 1 recovered, 4 carried over, 2 cached, 3 changed since an earlier run");
        assert_eq!(durable.to_string(), more);
        let errors = BTreeMap::from([(1, ItemError::Failed { error: "no", attempts: 1 })]);
        let started = Started { may_be_more: false, pulled: 3, except: Vec::new() };
        let notes = Notes { labels: BTreeMap::from([(1, "b".to_owned())]), ..Notes::default() };
        let result = MapTaskResult {
            results: vec![Some(None), None, Some(Some('c'))],
            errors,
            summary,
            started,
            notes,
        };
        let counts = [result.successes(), result.failures(), result.cancelled(), result.not_started()];
        assert_eq!((counts, result.total()), ([5, 8, 3, 4], 20));
        assert!((result.success_ratio() - 0.25).abs() < 1e-12);
        assert_eq!(result.successful_results().collect::<Vec<_>>(), [&None, &Some('c')]);
        assert_eq!(result.into_successful_results(), [None, Some('c')]);
        assert!((Summary::default().success_ratio() - 1.0).abs() < 1e-12);
    }
}
