//! A bar of `indicatif` that follows a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use indicatif::ProgressBar;

use crate::count::Count;
use crate::engine::Plan;
use crate::observe::{Event, Observer};
use crate::run::MapRun;

impl<R: Plan> MapRun<R> {
    /// Shows the progress of the run with a bar of [`indicatif`]. The default is no bar. Needs the feature `indicatif`, and
    /// version 0.18 of that crate.
    ///
    /// The length is the number of items, if the source knows it or [`with_total`](crate::Over::with_total) names it. Otherwise
    /// the bar keeps its length. The position is the number of items that have succeeded or failed, with those that were
    /// recovered, cached or carried. The message has the failures and the retries, such as `2 failed, 5 retries`, and changes only
    /// with them. It begins with `stopping` while a run that stops before its end waits for its running items.
    ///
    /// When the run succeeds, the bar ends as its [finish style] says; by default it is removed. If the
    /// run does not succeed, the bar is [abandoned] at its position. The same applies to a run in the background
    /// and to a stream. A run that is dropped leaves the bar as it is, until its last handle is dropped.
    ///
    /// The bar is drawn at most 20 times a second, on stderr, and only if that is a terminal. Bars of several runs go into a
    /// [`MultiProgress`]. Other lines on the terminal belong into [`suspend`]. If the run has several bars, each of them
    /// follows it.
    ///
    /// [`indicatif`]: https://docs.rs/indicatif/0.18
    /// [finish style]: https://docs.rs/indicatif/0.18/indicatif/struct.ProgressBar.html#method.with_finish
    /// [abandoned]: https://docs.rs/indicatif/0.18/indicatif/struct.ProgressBar.html#method.abandon
    /// [`MultiProgress`]: https://docs.rs/indicatif/0.18/indicatif/struct.MultiProgress.html
    /// [`suspend`]: https://docs.rs/indicatif/0.18/indicatif/struct.ProgressBar.html#method.suspend
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use indicatif::{ProgressBar, ProgressStyle};
    ///
    /// let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {per_sec} {eta} {msg}")?;
    /// let bar = ProgressBar::no_length().with_style(style);
    /// let result = AsyncMapTask::default()
    ///     .over(0..1_000)
    ///     .map(|n| async move { Ok::<_, String>(n) })
    ///     .progress_with(bar.clone())
    ///     .await?;
    /// assert_eq!((bar.position(), bar.length()), (1_000, Some(1_000)));
    /// assert!(bar.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("progress bar", "indicatif"))]
    pub fn progress_with(self, bar: ProgressBar) -> Self {
        // An observer of this run only, beside those of its task and its own.
        self.with_options(|options| Arc::make_mut(&mut options.config).observers.add(Follower::new(bar)))
    }
}

/// Passes the events of a run to a bar.
struct Follower {
    bar: ProgressBar,
    is_stopping: AtomicBool,
    failures: AtomicUsize,
    retries: AtomicUsize,
}

impl Follower {
    fn new(bar: ProgressBar) -> Self {
        let (failures, retries) = Default::default();
        Self { bar, is_stopping: AtomicBool::new(false), failures, retries }
    }

    /// Counts a failure or a retry, and shows both numbers.
    fn count(&self, counter: &AtomicUsize) {
        counter.fetch_add(1, Relaxed);
        self.show();
    }

    /// Shows the message.
    fn show(&self) {
        let failures = self.failures.load(Relaxed);
        let retries = Count(self.retries.load(Relaxed), "retry");
        let parts = [
            self.is_stopping.load(Relaxed).then(|| "stopping".to_owned()),
            (failures > 0).then(|| format!("{failures} failed")),
            (retries.0 > 0).then(|| retries.to_string()),
        ];
        self.bar.set_message(parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
    }
}

impl Observer for Follower {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::RunStarted { total: Some(total), .. } => self.bar.set_length(*total as u64),
            Event::AttemptFailed { retry_in: Some(_), .. } => self.count(&self.retries),
            Event::ItemSettled { failure, .. } => {
                if failure.is_some() {
                    self.count(&self.failures);
                }
                self.bar.inc(1);
            }
            Event::RunStopping { .. } => {
                self.is_stopping.store(true, Relaxed);
                self.show();
            }
            Event::RunFinished { reason: None, .. } => self.bar.finish_using_style(),
            Event::RunFinished { reason: Some(_), .. } => self.bar.abandon(),
            _ => {}
        }
    }
}
