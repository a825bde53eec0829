//! One job: a run in the background, the last command that it received, and its record.

use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, MapHandle};
use axum::response::sse::Event;
use futures::Stream;
use futures::stream::unfold;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::fetch::{FetchError, Fetcher};
use crate::mask;
use crate::record::{Answers, End, Record, record};
use crate::reply::milliseconds;

/// The minimum time between two events to one client.
const EVENT_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Run,
    Pause,
    Drain,
    Cancel,
}

/// The names of a job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Names {
    /// 128 random bits, in hexadecimal digits. The id is all that a client needs to read or stop a job, so that it must
    /// not be possible to guess it. It is not written to the log.
    pub(crate) id: String,
    /// Counts the jobs, for people and for the log. No request accepts it.
    pub(crate) number: u64,
}

pub(crate) struct Job {
    names: Names,
    total: usize,
    /// The results are in the record, so the run keeps none.
    handle: MapHandle<(), FetchError>,
    asked: watch::Sender<Asked>,
    record: Record,
}

/// A job as a client sees it.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    #[serde(flatten)]
    names: Names,
    pub(crate) state: &'static str,
    reason: Option<String>,
    total: usize,
    successes: usize,
    failures: usize,
    running: usize,
    waiting_for_retry: usize,
    retries: usize,
    cancelled: usize,
    not_started: usize,
    elapsed_ms: u64,
    eta_ms: Option<u64>,
}

impl Job {
    /// Must be called within the runtime of the run.
    pub(crate) fn start(names: Names, task: &AsyncMapTask, urls: Vec<Arc<str>>, fetcher: &Fetcher) -> Self {
        let (total, answers) = (urls.len(), Answers::default());
        let (recorder, record) = record(urls.iter().map(mask::url).collect(), answers.clone());
        let fetcher = fetcher.clone();
        let handle = task
            .over(urls)
            .map_with_context(move |cx, url: Arc<str>| {
                let (fetcher, answers) = (fetcher.clone(), answers.clone());
                async move {
                    let answer = fetcher.fetch(&url).await;
                    answers.note(cx.index(), &answer);
                    answer.map(|_| ())
                }
            })
            .retry_if(|error| error.is_transient())
            .retry_after(|error| error.retry_after())
            .observe(recorder)
            .spawn();
        Self { names, total, handle, asked: watch::Sender::new(Asked::Run), record }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn is_over(&self) -> bool {
        self.record.is_closed()
    }

    /// Passes a command to the run. Returns `false` if that is not possible, because the run is stopping.
    pub(crate) fn ask(&self, wish: Asked) -> bool {
        if self.is_over() {
            return false;
        }
        self.asked.send_if_modified(|asked| {
            let possible = match wish {
                Asked::Run | Asked::Pause => matches!(asked, Asked::Run | Asked::Pause),
                Asked::Drain => *asked != Asked::Cancel,
                Asked::Cancel => true,
            };
            if possible {
                *asked = wish;
                match wish {
                    Asked::Run => self.handle.resume(),
                    Asked::Pause => self.handle.pause(),
                    Asked::Drain => self.handle.drain(),
                    Asked::Cancel => self.handle.cancel(),
                }
            }
            possible
        })
    }

    /// Changes the concurrency. Returns `false` if the job is over.
    pub(crate) fn set_concurrency(&self, concurrency: usize) -> bool {
        let alive = !self.is_over();
        if alive {
            self.handle.set_concurrency(concurrency);
        }
        alive
    }

    pub(crate) fn status(&self) -> Status {
        // Read before the recorded end, because the end is recorded first.
        let is_over = self.is_over();
        let progress = self.handle.progress();
        let mut status = Status {
            names: self.names.clone(),
            state: match *self.asked.borrow() {
                _ if is_over => "lost",
                Asked::Run => "running",
                Asked::Pause => "paused",
                Asked::Drain => "draining",
                Asked::Cancel => "cancelling",
            },
            reason: None,
            total: self.total,
            successes: progress.successes,
            failures: progress.failures,
            running: progress.running,
            waiting_for_retry: progress.waiting_for_retry,
            retries: progress.retries,
            cancelled: 0,
            not_started: 0,
            elapsed_ms: milliseconds(progress.elapsed),
            eta_ms: progress.eta.map(milliseconds),
        };
        if let Some(End { state, reason, summary, .. }) = self.record.end() {
            (status.state, status.reason) = (state, reason.clone());
            (status.successes, status.failures) = (summary.successes, summary.failures);
            (status.running, status.waiting_for_retry) = (0, 0);
            (status.cancelled, status.not_started) = (summary.cancelled, summary.not_started);
            (status.retries, status.elapsed_ms) = (summary.retries, milliseconds(summary.elapsed));
            status.eta_ms = None;
        }
        status
    }

    /// Returns the status now and after each change, at most every [`EVENT_INTERVAL`], and then an event named `end`.
    /// A slow reader misses intermediate values and delays no other reader.
    pub(crate) fn events(self: Arc<Self>) -> impl Stream<Item = Result<Event, axum::Error>> {
        let (progress, mut asked) = (self.handle.watch(), self.asked.subscribe());
        asked.mark_changed();
        unfold(Some((self, progress, asked)), |state| async move {
            let (job, mut progress, mut asked) = state?;
            tokio::select! {
                biased;
                () = job.record.closed() => {}
                Ok(()) = asked.changed() => {}
                Ok(()) = progress.changed() => {}
            }
            sleep(EVENT_INTERVAL).await;
            asked.mark_unchanged();
            progress.mark_unchanged();
            let is_over = job.is_over();
            let event = Event::default().event(if is_over { "end" } else { "progress" });
            Some((event.json_data(job.status()), (!is_over).then_some((job, progress, asked))))
        })
    }
}
