//! The progress of a run, and its control from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::lock::lock;
use crate::rt::{AtomicBool, AtomicUsize, Instant, Mutex, MutexGuard};
use crate::signals::Signals;

/// The progress of a run, as [`MapHandle::progress`](crate::MapHandle::progress) and
/// [`MapStream::progress`](crate::MapStream::progress) return it.
///
/// All its numbers are of one moment. The first report already has the total that the source promises. A run may be
/// gone because it has ended, panicked, was dropped or lost its runtime. It then has nothing running or waiting, and
/// its time stands still.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of items, if the source has promised it or has ended.
    pub total: Option<usize>,
    /// The number of items that have succeeded.
    pub successes: usize,
    /// The number of items that have failed.
    pub failures: usize,
    /// The number of successes that an earlier run of the same id has left.
    pub recovered: usize,
    /// The number of successes of the run that this one repeats.
    pub carried: usize,
    /// The number of successes that are cached outputs of equal items.
    pub cached: usize,
    /// The number of attempts that are running.
    pub running: usize,
    /// The number of items that wait for their next attempt.
    pub waiting_for_retry: usize,
    /// The number of retries that were made.
    pub retries: usize,
    /// The time from the run's first poll to now, or to when it was gone.
    pub elapsed: Duration,
    /// The estimated time that the rest will take at the same rate: `elapsed / ran * (total - settled)`. Settled
    /// items are those that have succeeded or failed, and `ran` is the number of them that were not recovered, carried
    /// over or cached. `None` while there is no total or no item has run to its end; zero once the run is gone.
    pub eta: Option<Duration>,
}

impl Progress {
    /// Returns the number of items that have settled: they have succeeded or failed.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let mut handle = task.over(0..10).map(|n| async move { if n % 5 == 0 { Err("no") } else { Ok(n) } }).spawn();
    /// (&mut handle).await?;
    /// assert_eq!(handle.progress().settled(), 10); // 8 successes and 2 failures
    /// # Ok(())
    /// # }
    /// ```
    pub fn settled(&self) -> usize {
        self.successes + self.failures
    }

    /// Fills in the fields that depend on the time.
    fn at(mut self, elapsed: Duration) -> Self {
        let settled = self.settled();
        self.elapsed = elapsed;
        let ran = settled - self.recovered - self.carried - self.cached;
        self.eta = self.total.filter(|_| ran > 0).map(|total| {
            let left = total.saturating_sub(settled);
            Duration::try_from_secs_f64(elapsed.as_secs_f64() / ran as f64 * left as f64)
                .unwrap_or(Duration::MAX)
        });
        self
    }
}

/// The state that a run shares with its handle or stream.
#[derive(Debug)]
pub(crate) struct Control {
    signals: Arc<Signals>,
    /// The concurrency that was set last; 0 if the run has taken it.
    concurrency: AtomicUsize,
    /// The largest concurrency that was set.
    most: AtomicUsize,
    report: Mutex<Report>,
    /// Set once a receiver of every change has been requested.
    watched: AtomicBool,
    watch: watch::Receiver<Progress>,
}

#[derive(Debug)]
struct Report {
    started: Option<Instant>,
    ended: Option<Duration>,
    latest: Progress,
}

impl Control {
    /// Creates the control of a run with the total that its source has promised.
    pub(crate) fn new(total: Option<usize>) -> (Arc<Self>, Reporter) {
        let latest = Progress { total, ..Progress::default() };
        let (sender, watch) = watch::channel(latest.clone());
        let control = Arc::new(Self {
            signals: Arc::default(),
            concurrency: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            report: Mutex::new(Report { started: None, ended: None, latest }),
            watched: AtomicBool::new(false),
            watch,
        });
        let reporter = Reporter { control: Arc::clone(&control), sender };
        (control, reporter)
    }

    pub(crate) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    pub(crate) fn set_concurrency(&self, concurrency: usize) {
        self.most.fetch_max(concurrency, Ordering::Release);
        self.concurrency.store(concurrency, Ordering::Release);
        self.signals.resize();
    }

    pub(crate) fn progress(&self) -> Progress {
        self.report().now()
    }

    /// Returns a receiver of every later change. The channel closes when the run ends.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.watched.store(true, Ordering::Release);
        // The next report may be far away.
        self.signals.notify();
        let mut watch = self.watch.clone();
        watch.mark_unchanged();
        watch
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        lock(&self.report)
    }
}

impl Report {
    fn now(&self) -> Progress {
        let elapsed = self.ended.or_else(|| self.started.map(|started| started.elapsed()));
        let progress = self.latest.clone().at(elapsed.unwrap_or_default());
        let eta = if self.ended.is_some() { Some(Duration::ZERO) } else { progress.eta };
        Progress { eta, ..progress }
    }
}

/// The run's end of a [`Control`]: receives signals and reports. It is dropped with the run, and then closes the
/// report.
#[derive(Debug)]
pub(crate) struct Reporter {
    control: Arc<Control>,
    sender: watch::Sender<Progress>,
}

impl Reporter {
    pub(crate) fn signals(&self) -> &Arc<Signals> {
        &self.control.signals
    }

    /// Returns the concurrency that was set since the last call, and the largest that was ever set.
    pub(crate) fn new_concurrency(&self) -> Option<(usize, usize)> {
        match self.control.concurrency.swap(0, Ordering::AcqRel) {
            0 => None,
            concurrency => Some((concurrency, self.control.most.load(Ordering::Acquire))),
        }
    }

    pub(crate) fn start(&self, now: Instant) {
        self.control.report().started = Some(now);
    }

    pub(crate) fn report(&self, latest: Progress) {
        let mut report = self.control.report();
        report.latest = latest;
        if self.control.watched.load(Ordering::Acquire) {
            let now = report.now();
            drop(report);
            self.sender.send_if_modified(|known| {
                let counts = |progress: &Progress| progress.clone().at(Duration::ZERO);
                let changed = counts(known) != counts(&now);
                *known = now;
                changed
            });
        }
    }

    /// Sends the last report, with or without a receiver.
    pub(crate) fn end(self, latest: Progress, elapsed: Duration) {
        self.close(self.control.report(), latest, elapsed);
    }

    fn close(&self, mut report: MutexGuard<'_, Report>, latest: Progress, elapsed: Duration) {
        (report.latest, report.ended) = (latest, Some(elapsed));
        let last = report.now();
        drop(report);
        self.sender.send_replace(last);
    }
}

/// A run that is gone is not running, for whatever reason it ended.
impl Drop for Reporter {
    fn drop(&mut self) {
        let report = self.control.report();
        if report.ended.is_none() {
            let elapsed = report.started.map_or(Duration::ZERO, |started| started.elapsed());
            let latest = Progress { running: 0, waiting_for_retry: 0, ..report.latest.clone() };
            self.close(report, latest, elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eta_follows_from_the_settled_items() {
        let of = |total, successes, failures| {
            Progress { total, successes, failures, ..Progress::default() }.at(Duration::from_secs(10)).eta
        };
        assert_eq!(of(Some(100), 15, 5), Some(Duration::from_secs(40)));
        assert_eq!(of(Some(20), 20, 0), Some(Duration::ZERO));
        assert_eq!(of(Some(20), 0, 0), None);
        assert_eq!(of(None, 20, 0), None);
        let known =
            Progress { total: Some(100), successes: 91, recovered: 60, cached: 30, ..Progress::default() };
        assert_eq!(known.at(Duration::from_secs(61)).eta, Some(Duration::from_secs(9 * 61)));
        assert_eq!(of(Some(usize::MAX), 1, 0), Some(Duration::MAX));
    }
}
