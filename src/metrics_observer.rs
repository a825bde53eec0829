//! An observer that counts the events of runs for the crate `metrics`.

mod series;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use self::series::Series;
use crate::observe::{Event, Observer};
use crate::outcome::Origin;
use crate::result::Completion;

/// Counts attempts, items and runs through the facade of the crate [`metrics`], for the exporter that the program installs.
///
/// Needs the feature `metrics`. Pass it to [`observer`](crate::AsyncMapTaskBuilder::observer) of a task, or to
/// [`observe`](crate::MapRun::observe) of one run. One observer can serve any number of tasks and runs at the same time.
///
/// | metric | type | labels | value |
/// |---|---|---|---|
/// | `async_map_task_attempts_total` | counter | | attempts that started, retries included |
/// | `async_map_task_retries_total` | counter | | attempts that started and are not the first of their item |
/// | `async_map_task_attempt_failures_total` | counter | `kind` | attempts that failed, followed by a retry or not |
/// | `async_map_task_items_total` | counter | `outcome`, `origin` | items that settled |
/// | `async_map_task_runs_total` | counter | `outcome` | runs that ended |
/// | `async_map_task_attempts_in_flight` | gauge | | attempts that have started and not ended |
/// | `async_map_task_items_waiting_for_retry` | gauge | | items between a failed attempt and their next one |
/// | `async_map_task_runs_active` | gauge | | runs that were polled and have not ended |
/// | `async_map_task_limit` | gauge | | the number of permits of an [adaptive](crate::LimiterBuilder::adaptive) limiter, from its first change on |
/// | `async_map_task_attempt_duration_seconds` | histogram | `outcome` | the time of an attempt |
/// | `async_map_task_item_duration_seconds` | histogram | `outcome` | the time from the start of an item's first attempt until it settled, delays included; only items of origin `ran` |
/// | `async_map_task_permit_wait_seconds` | histogram | | how long an attempt was ready and could not start, in most cases for want of a permit; 0 for those that started at once. See `waited` of [`AttemptStarted`](Event::AttemptStarted) |
///
/// Durations are in seconds. An item that waits for a permit or a retry budget before its retry counts as waiting.
///
/// | label | values |
/// |---|---|
/// | `task` | the text of [`for_task`](Self::for_task); with [`new`](Self::new), no metric has this label |
/// | `kind` | `error`, `timeout`, `panic`, `fault`: [`FailureKind::as_str`](crate::FailureKind::as_str) |
/// | `outcome` of attempts and items | `success`, `failure` |
/// | `outcome` of runs | `all`, `early_success`, `cancelled`, `timed_out`, `failed`: the [`Completion`] of the run; `dropped` |
/// | `origin` | `ran`, `cached`, `recovered`, `carried`: the [`Origin`] of the result |
///
/// So the number of series is bounded: at most 26 for each text of `for_task`. No label contains an item, its label or an
/// error.
///
/// The name of the task is not read. A task without a name has the type name of its map function, such as
/// `app::sync::{{closure}}`. It is the same for all closures of a function, and it changes when code moves. Pass the name to
/// `for_task` instead.
///
/// # Dropped runs
///
/// A run that is dropped emits no [`RunFinished`](Event::RunFinished), and an attempt that is cut off emits no end. Each run of a
/// task therefore has its own part of the observer; see [`Observer::for_run`]. When the run ends or is dropped, this part takes what it has
/// added to the three gauges back. So they return to zero after every end, and a dropped run counts with the outcome `dropped`. A run
/// that ends with a panic of its source, its options or an observer counts as dropped, too.
///
/// An attempt that was cut off counts in `attempts_total` only: it is neither a success nor a failure. A function of
/// [`map_blocking`](crate::Over::map_blocking) that runs over its time limit is not in flight any more, although it still
/// occupies a thread. A run that was never polled does not count.
///
/// If runs share one observer without `for_run`, the gauges may be too high until the last of them has ended. After a dropped run,
/// they stay too high until the observer is dropped. This concerns an `Arc` of the observer that several runs get through `observe`,
/// and an observer of your own that calls [`on_event`](Observer::on_event) of this one and does not pass on `for_run`. Give each
/// run a clone instead: a clone has the same metrics, takes back only what it has added itself, and is cheap.
///
/// # Cost
///
/// All metrics are registered and described when the observer is created, with the recorder that is installed then.
/// Create it after the exporter; without one, its metrics go nowhere for good. An event looks nothing up and allocates
/// nothing. It updates at most five metrics and two numbers of the observer.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, MetricsObserver};
///
/// // Before this, once: install an exporter, such as that of `metrics-exporter-prometheus`.
/// let task = AsyncMapTask::builder()
///     .name("resize")
///     .observer(MetricsObserver::for_task("resize"))
///     .build()?;
/// task.run(0..10, |n| async move { Ok::<_, String>(n) }).await?;
/// // The exporter has: async_map_task_items_total{task="resize",outcome="success",origin="ran"} 10
/// # Ok(())
/// # }
/// ```
#[doc(alias("prometheus", "metric", "counter", "gauge", "histogram"))]
pub struct MetricsObserver {
    series: Arc<Series>,
    open: Open,
}

/// What one observer has added to the gauges and not taken back.
#[derive(Debug, Default)]
struct Open {
    runs: AtomicU64,
    attempts: AtomicU64,
    waiting: AtomicU64,
    /// Items whose last attempt has failed and that have not settled yet.
    failing: AtomicU64,
}

impl MetricsObserver {
    /// Registers the metrics without the label `task`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, MetricsObserver};
    ///
    /// let metrics = MetricsObserver::new();
    /// let task = AsyncMapTask::default();
    /// let work = |n| async move { Ok::<_, String>(n) };
    /// task.over(0..10).map(work).observe(metrics.clone()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Self {
        Self::with(Arc::new(Series::register(None)))
    }

    /// Registers the metrics with the label `task`. Use a fixed text: each one adds series to the exporter.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, MetricsObserver};
    ///
    /// let resize = AsyncMapTask::builder().observer(MetricsObserver::for_task("resize")).build()?;
    /// let upload = AsyncMapTask::builder().observer(MetricsObserver::for_task("upload")).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_task(name: impl Into<String>) -> Self {
        Self::with(Arc::new(Series::register(Some(name.into()))))
    }

    fn with(series: Arc<Series>) -> Self {
        Self { series, open: Open::default() }
    }

    fn start_attempt(&self, attempt: u32, waited: Duration) {
        self.series.attempts.increment(1);
        self.series.permit_waits.record(waited);
        add_one(&self.open.attempts, &self.series.attempts_in_flight);
        if attempt > 1 {
            self.series.retries.increment(1);
            take_one(&self.open.waiting, &self.series.items_waiting);
        }
    }

    fn settle_failure(&self) {
        // An item whose last attempt was to be retried settles while it waits: its time limit has passed.
        if !take(&self.open.failing) {
            take_one(&self.open.waiting, &self.series.items_waiting);
        }
    }

    fn finish_run(&self, completion: Completion) {
        self.series.runs_by(completion).increment(1);
        take_one(&self.open.runs, &self.series.runs_active);
        // Attempts that were cut off, and items that no longer wait, have no event. If other runs share this observer, it
        // is not known which of them are theirs.
        if self.open.runs.load(Relaxed) == 0 {
            self.close();
        }
    }

    /// Takes back what is left in the gauges of attempts and items.
    fn close(&self) {
        take_all(&self.open.attempts, &self.series.attempts_in_flight);
        take_all(&self.open.waiting, &self.series.items_waiting);
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        let series = &*self.series;
        match *event {
            Event::RunStarted { .. } => add_one(&self.open.runs, &series.runs_active),
            Event::AttemptStarted { attempt, waited, .. } => self.start_attempt(attempt, waited),
            Event::AttemptSucceeded { elapsed, .. } => {
                series.attempt_durations.success.record(elapsed);
                take_one(&self.open.attempts, &series.attempts_in_flight);
            }
            Event::AttemptFailed { elapsed, kind, retry_in, .. } => {
                series.attempt_failures.of(kind).increment(1);
                series.attempt_durations.failure.record(elapsed);
                take_one(&self.open.attempts, &series.attempts_in_flight);
                match retry_in {
                    Some(_) => add_one(&self.open.waiting, &series.items_waiting),
                    None => {
                        self.open.failing.fetch_add(1, Relaxed);
                    }
                }
            }
            Event::ItemSettled { elapsed, origin, failure, .. } => {
                series.items_by(origin, failure.is_some()).increment(1);
                if origin == Origin::Ran {
                    series.item_durations.by(failure.is_some()).record(elapsed);
                }
                if failure.is_some() {
                    self.settle_failure();
                }
            }
            Event::RunFinished { summary, .. } => self.finish_run(summary.completion),
            Event::LimitChanged { to, .. } => series.limit.set(to as f64),
            Event::ItemStarted { .. } | Event::RunStopping { .. } => {}
        }
    }

    /// Returns an observer with the same metrics, and gauges that end with the run.
    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        Some(Arc::new(self.clone()))
    }
}

/// A clone has the same metrics. It knows nothing of the runs of the original.
impl Clone for MetricsObserver {
    fn clone(&self) -> Self {
        Self::with(Arc::clone(&self.series))
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsObserver")
            .field("task", &self.series.task)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

/// Ends the runs that have not ended: they were dropped.
impl Drop for MetricsObserver {
    fn drop(&mut self) {
        let dropped = take_all(&self.open.runs, &self.series.runs_active);
        if dropped > 0 {
            self.series.runs_dropped.increment(dropped);
        }
        self.close();
    }
}

fn add_one(open: &AtomicU64, gauge: &metrics::Gauge) {
    open.fetch_add(1, Relaxed);
    gauge.increment(1.0);
}

/// Takes one back, if there is one.
fn take(open: &AtomicU64) -> bool {
    open.fetch_update(Relaxed, Relaxed, |open| open.checked_sub(1)).is_ok()
}

fn take_one(open: &AtomicU64, gauge: &metrics::Gauge) {
    if take(open) {
        gauge.decrement(1.0);
    }
}

/// Returns how many there were.
fn take_all(open: &AtomicU64, gauge: &metrics::Gauge) -> u64 {
    let left = open.swap(0, Relaxed);
    if left > 0 {
        gauge.decrement(left as f64);
    }
    left
}
