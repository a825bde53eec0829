//! A report of a run: a page to look at, and the same as JSON.

mod failures;
mod grid;
mod histogram;
mod index_hash;
mod limits;
mod page;
mod phase;
mod record;
mod rows;
mod slowest;
mod snapshot;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use self::record::{Record, nanos};
use self::snapshot::Snapshot;
use crate::lock::lock;
use crate::observe::{Event, Observer};
use crate::rt::{AtomicU8, AtomicUsize, Mutex, MutexGuard};

/// Records a run, and writes it as a page to look at or as JSON.
///
/// Needs the feature `report`. Pass its [`observer`](Self::observer) to [`observe`](crate::MapRun::observe). The page is one
/// HTML file without scripts and without links to other files, for light and dark screens. It shows when each attempt ran and
/// how many ran at once, the throughput, the waits for retries, the durations with their percentiles, the failures by kind and
/// text, the slowest items, the settings, and the end of the run in words.
///
/// Failures are grouped by the text of their error if the run has [`error_text`](crate::MapRun::error_text), and items are named
/// if it has [`label`](crate::MapRun::label). In a run of [batches](crate::Over::map_batches), a permit is that of a call, and an
/// attempt is that of an item. A call that is split keeps its row until its last part has ended. Labels and texts are in the page as they are: it is as confidential as they are.
///
/// # One run
///
/// A report has one run: the first one that starts with one of its observers. It can be written at any time, also while the run is in
/// progress, and after the run was dropped. Later runs are counted, and the page states their number.
/// A clone is the same report.
///
/// # Memory
///
/// The memory is bounded: about 5 MiB for 100,000 attempts or more, and less for fewer. Of a run with more attempts, the list of attempts is a
/// sample of the items: one in 2, 4, 8 and so on, with all attempts of each. The report states it. Everything else is computed from all
/// attempts. Percentiles are exact to 1.6%. At most 200 different texts of errors are counted apart; texts that differ only in
/// numbers count as one. Running attempts, and items that wait for a retry, take some more memory each.
///
/// # Cost
///
/// An attempt that is recorded costs about 140 ns more, half of them for two readings of the clock that any observer causes. The
/// recorder locks a mutex that only a report which is being written contends for.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, RunReport};
///
/// let report = RunReport::new();
/// let task = AsyncMapTask::builder().name("parse").allow_failures().build()?;
/// task.over(["1", "2", "x"])
///     .map(|text| async move { text.parse::<u32>() })
///     .label(|text| text.to_string())
///     .error_text(|error| error.to_string())
///     .observe(report.observer())
///     .await?;
///
/// let page = report.to_html();
/// assert!(page.contains("invalid digit found in string"));
/// # let path = std::env::temp_dir().join(format!("run-report-{}.html", std::process::id()));
/// // The file is small, but writing it blocks: in a service, use `spawn_blocking` or `tokio::fs`.
/// report.write_html(&path)?;
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct RunReport(Arc<Shared>);

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    /// The number of runs that have started. Only the first is recorded.
    runs: AtomicUsize,
}

impl RunReport {
    /// Creates a report without a run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an observer that records a run in this report.
    ///
    /// It is for [`observe`](crate::MapRun::observe) of a run. As the [`observer`](crate::AsyncMapTaskBuilder::observer) of a task, it
    /// records the first run of the task.
    pub fn observer(&self) -> RunRecorder {
        RunRecorder::new(&self.0)
    }

    /// Returns the page as HTML.
    pub fn to_html(&self) -> String {
        page::render(&self.snapshot())
    }

    /// Returns the report as JSON.
    ///
    /// All times are in seconds, and those of attempts and columns are since the start of the run. The fields are those of the page. New ones may be added; a
    /// program must ignore fields that it does not know.
    pub fn to_json(&self) -> String {
        self.snapshot().to_json()
    }

    /// Writes the page to a file. A file that exists is replaced.
    ///
    /// # Errors
    ///
    /// The error of the file system, with the path.
    pub fn write_html(&self, path: impl AsRef<Path>) -> io::Result<()> {
        write(path.as_ref(), &self.to_html())
    }

    /// Writes the report as JSON to a file; see [`to_json`](Self::to_json). A file that exists is replaced.
    ///
    /// # Errors
    ///
    /// The error of the file system, with the path.
    pub fn write_json(&self, path: impl AsRef<Path>) -> io::Result<()> {
        write(path.as_ref(), &self.to_json())
    }

    /// Copies what is needed, so that the run does not wait for the page.
    fn snapshot(&self) -> Snapshot {
        let record = lock(&self.0.record).clone();
        Snapshot::new(&record, self.0.runs.load(Relaxed).saturating_sub(1))
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| {
        io::Error::new(error.kind(), format!("the report cannot be written to {}: {error}", path.display()))
    })
}

impl fmt::Debug for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = lock(&self.0.record);
        f.debug_struct("RunReport").field("run", &record.name).field("phase", &record.phase).finish()
    }
}

/// Its run has not started.
const WAITS: u8 = 0;
/// Its run is the one of the report.
const RECORDS: u8 = 1;
/// The report has another run.
const IGNORES: u8 = 2;

/// Records a run in a [`RunReport`]; returned by [`RunReport::observer`].
pub struct RunRecorder {
    report: Arc<Shared>,
    role: AtomicU8,
    success: Success,
}

/// An attempt that has succeeded, until the next event. In most cases, that is the end of its item, and both are recorded under one
/// lock. The events of a run come one after another.
struct Success {
    /// `usize::MAX` if there is none.
    index: AtomicUsize,
    attempt: AtomicU32,
    /// In nanoseconds.
    elapsed: AtomicU64,
}

impl RunRecorder {
    fn new(report: &Arc<Shared>) -> Self {
        let success = Success {
            index: AtomicUsize::new(usize::MAX),
            attempt: AtomicU32::new(0),
            elapsed: AtomicU64::new(0),
        };
        Self { report: Arc::clone(report), role: AtomicU8::new(WAITS), success }
    }

    /// Locks the record, with everything that has happened in it.
    fn lock(&self) -> MutexGuard<'_, Record> {
        let mut record = lock(&self.report.record);
        let Success { index, attempt, elapsed } = &self.success;
        let succeeded = index.load(Relaxed);
        if succeeded != usize::MAX {
            index.store(usize::MAX, Relaxed);
            record.succeed(succeeded, attempt.load(Relaxed), elapsed.load(Relaxed));
        }
        record
    }
}

impl Observer for RunRecorder {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::RunStarted { .. } = event {
            let is_first = self.report.runs.fetch_add(1, Relaxed) == 0;
            self.role.store(if is_first { RECORDS } else { IGNORES }, Relaxed);
        }
        if self.role.load(Relaxed) != RECORDS {
            return;
        }
        match *event {
            Event::ItemStarted { .. } => {}
            Event::AttemptSucceeded { index, attempt, elapsed } => {
                if self.success.index.load(Relaxed) != usize::MAX {
                    drop(self.lock());
                }
                self.success.attempt.store(attempt, Relaxed);
                self.success.elapsed.store(nanos(elapsed), Relaxed);
                self.success.index.store(index, Relaxed);
            }
            _ => self.lock().record(event),
        }
    }

    /// Returns a recorder for this run of a task, so that runs at the same time are told apart.
    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        Some(Arc::new(Self::new(&self.report)))
    }
}

/// Ends the record of a run that was dropped.
impl Drop for RunRecorder {
    fn drop(&mut self) {
        if self.role.load(Relaxed) == RECORDS {
            self.lock().end_dropped();
        }
    }
}

impl fmt::Debug for RunRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunRecorder").finish_non_exhaustive()
    }
}
