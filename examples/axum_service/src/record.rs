//! The outcomes of a job, recorded when they happen.
//!
//! The record is a text of JSON lines that only grows: one line for each settled item, and a last line for the run.
//! Each reader has its own position in the text. So a late reader gets all lines from the start, and a slow reader
//! delays no other. The text is bounded by the number of items and the length of their URLs. When the run ends or is
//! dropped, its observer is dropped and the text is closed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_map_task::{Event, FailureKind, FailureReason, Observer, Summary};
use axum::body::Bytes;
use futures::Stream;
use futures::stream::unfold;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fetch::{FetchError, Fetched};
use crate::reply::milliseconds;

/// The maximum number of bytes that a reader takes at once.
const PIECE: usize = 64 * 1024;

/// The last answer to each item that has not settled. An [`Event`] cannot contain it, because it has no type
/// parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<HashMap<usize, String>>>);

impl Answers {
    pub(crate) fn note(&self, index: usize, answer: &Result<Fetched, FetchError>) {
        let text = match answer {
            Ok(Fetched { status, bytes }) => format!("status {status}, {bytes} bytes"),
            Err(error) => error.to_string(),
        };
        self.lock().insert(index, text);
    }

    fn take(&self, index: usize) -> Option<String> {
        self.lock().remove(&index)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of an item.
#[derive(Serialize)]
struct Settled<'a> {
    index: usize,
    url: Option<&'a str>,
    outcome: &'static str,
    detail: Option<String>,
    attempts: u32,
    elapsed_ms: u64,
}

/// The last line.
#[derive(Serialize)]
struct Ended<'a> {
    end: &'static str,
    reason: Option<&'a str>,
    account: String,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) at: Instant,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) summary: Summary,
}

/// The observer that writes the record. The text stays open until it is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    urls: Vec<Arc<str>>,
    answers: Answers,
    text: watch::Sender<Vec<u8>>,
    end: Arc<OnceLock<End>>,
}

/// The side that reads. It outlives the run.
#[derive(Debug)]
pub(crate) struct Record {
    text: watch::Receiver<Vec<u8>>,
    end: Arc<OnceLock<End>>,
}

pub(crate) fn record(urls: Vec<Arc<str>>, answers: Answers) -> (Recorder, Record) {
    let (sender, text) = watch::channel(Vec::new());
    let end = Arc::default();
    (Recorder { urls, answers, text: sender, end: Arc::clone(&end) }, Record { text, end })
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::ItemSettled { index, attempts, elapsed, failure, .. } => {
                let answer = self.answers.take(*index);
                self.write(&Settled {
                    index: *index,
                    url: self.urls.get(*index).map(AsRef::as_ref),
                    outcome: failure.map_or("success", FailureKind::as_str),
                    // A timeout has no answer. An existing one belongs to an earlier attempt.
                    detail: answer.filter(|_| *failure != Some(FailureKind::TimedOut)),
                    attempts: *attempts,
                    elapsed_ms: milliseconds(*elapsed),
                });
            }
            Event::RunFinished { summary, reason, .. } => {
                let end = self.end.get_or_init(|| End {
                    at: Instant::now(),
                    state: match reason {
                        None => "succeeded",
                        Some(FailureReason::Cancelled) => "cancelled",
                        Some(_) => "failed",
                    },
                    reason: reason.map(ToString::to_string),
                    summary: (*summary).clone(),
                });
                self.write(&Ended {
                    end: end.state,
                    reason: end.reason.as_deref(),
                    account: summary.to_string(),
                });
            }
            _ => {}
        }
    }
}

impl Recorder {
    fn write(&self, line: &impl Serialize) {
        self.text.send_modify(|text| {
            // Strings and numbers are written into memory, which cannot fail.
            let _ = serde_json::to_writer(&mut *text, line);
            text.push(b'\n');
        });
    }
}

impl Record {
    /// The end of the run. `None` while it is running, and if it was dropped.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.text.has_changed().is_err()
    }

    /// Waits until nothing more will be written.
    pub(crate) async fn closed(&self) {
        let mut text = self.text.clone();
        while text.changed().await.is_ok() {}
    }

    /// Returns the text from its first line to its last, at the speed of the reader and of the run.
    pub(crate) fn lines(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        unfold((self.text.clone(), 0), |(mut text, from)| async move {
            loop {
                let piece = piece(&text.borrow_and_update(), from);
                if !piece.is_empty() {
                    let to = from + piece.len();
                    return Some((Ok(piece), (text, to)));
                }
                text.changed().await.ok()?;
            }
        })
    }
}

fn piece(text: &[u8], from: usize) -> Bytes {
    let to = text.len().min(from + PIECE);
    text.get(from..to).map_or_else(Bytes::new, Bytes::copy_from_slice)
}
