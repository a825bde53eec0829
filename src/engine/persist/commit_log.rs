//! Successes that count once they are durable, and the successes of an earlier run.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::error::BoxError;
use crate::outcome::{ItemError, ItemOutcome, Origin};

/// The most records on their way to the journal, besides those of the running items. The second bound counts the bytes of
/// their text. No further item starts while one of them is reached.
const MOST_UNKEPT: usize = 1_024;
const MOST_UNKEPT_BYTES: usize = 16 << 20;

/// Stores records in groups, outside the run. The driver polls it.
pub(crate) trait Journal: Send {
    /// Ready once it is known if the item at this index has succeeded before. The indices ascend.
    fn poll_known(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;

    /// Returns the record of the item at this index, if it has succeeded before.
    fn recall(&mut self, index: usize) -> Option<Entry>;

    /// Takes a record to store.
    fn keep(&mut self, entry: Entry);

    /// Returns how many more of the records are durable now, in their order.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BoxError>>;

    /// Releases the store. `reason` is the reason why the run did not succeed.
    fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()>;
}

/// The record of one item.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) index: usize,
    pub(crate) item_hash: String,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    /// The output as text, or the reason why the item failed.
    pub(crate) result: Result<String, String>,
}

/// The text forms of items and their results. An error names the item by its index.
#[derive(Debug)]
pub(crate) struct Codec<I, T, E> {
    pub(crate) hash: fn(usize, &I) -> Result<String, BoxError>,
    pub(crate) encode: fn(usize, &T) -> Result<String, BoxError>,
    pub(crate) decode: fn(usize, &str) -> Result<T, BoxError>,
    pub(crate) describe: fn(&ItemError<E>) -> String,
}

/// A success that is not durable yet, or that comes from an earlier run.
pub(in super::super) struct Success<I, T> {
    /// The item, if it may have to be given back, because its success is not durable yet.
    pub(in super::super) item: Option<I>,
    pub(in super::super) label: Option<String>,
    pub(in super::super) index: usize,
    pub(in super::super) attempts: u32,
    pub(in super::super) elapsed: Duration,
    pub(in super::super) origin: Origin,
    pub(in super::super) output: T,
}

impl<I, T> Success<I, T> {
    /// Returns the success of an item that did not run.
    pub(in super::super) fn without_run(index: usize, origin: Origin, output: T) -> Self {
        let (item, label, attempts, elapsed) = Default::default();
        Self { item, label, index, attempts, elapsed, origin, output }
    }

    pub(in super::super) fn into_outcome<E>(self) -> ItemOutcome<T, E> {
        let Self { label, index, attempts, elapsed, origin, output, .. } = self;
        ItemOutcome { index, attempts, elapsed, origin, not_retried: None, label, result: Ok(output) }
    }
}

/// The result of an item in an earlier run.
pub(in super::super) enum Recalled<I, T> {
    /// It has no success.
    Nothing,
    /// It has succeeded, with a different content.
    Changed,
    /// It has succeeded, with an output of another type.
    Unreadable(BoxError),
    /// It has succeeded.
    Success(Success<I, T>),
}

/// The successes of a run on their way to the store.
pub(crate) struct CommitLog<I, T, E> {
    codec: Codec<I, T, E>,
    journal: Box<dyn Journal>,
    /// The hashes of the items that were pulled and have not settled.
    hashes: HashMap<usize, String>,
    /// The records that the journal has taken and that are not durable, in that order.
    unkept: VecDeque<Unkept<I, T>>,
    /// How many bytes of text these are.
    unkept_bytes: usize,
    /// How many of the first of these are durable.
    kept: usize,
    /// `true` if nothing is stored any more.
    has_failed: bool,
}

/// A record on its way to the journal.
struct Unkept<I, T> {
    /// `None` if the item has failed.
    success: Option<Success<I, T>>,
    /// The length of its text.
    bytes: usize,
}

impl<I, T, E> CommitLog<I, T, E> {
    pub(crate) fn new(codec: Codec<I, T, E>, journal: Box<dyn Journal>) -> Self {
        let (hashes, unkept) = Default::default();
        Self { codec, journal, hashes, unkept, unkept_bytes: 0, kept: 0, has_failed: false }
    }

    /// Returns `true` if so few records are on their way that another item may start.
    pub(in super::super) fn has_room(&self) -> bool {
        self.unkept.len() < MOST_UNKEPT && self.unkept_bytes < MOST_UNKEPT_BYTES
    }

    /// Ready once it is known if the next item has succeeded before.
    pub(in super::super) fn poll_known(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let polled = self.journal.poll_known(index, cx);
        if let Poll::Ready(Err(_)) = polled {
            self.has_failed = true;
            if let Poll::Ready(Ok(kept)) = self.journal.poll_kept(cx) {
                self.kept += kept;
            }
        }
        polled
    }

    /// Returns the result of an item in an earlier run.
    ///
    /// # Errors
    ///
    /// Returns an error if the item cannot be hashed.
    pub(in super::super) fn recall(&mut self, index: usize, item: &I) -> Result<Recalled<I, T>, BoxError> {
        let hash = (self.codec.hash)(index, item)?;
        let recalled = match self.journal.recall(index) {
            None => Recalled::Nothing,
            Some(entry) if entry.item_hash != hash => Recalled::Changed,
            Some(Entry { attempts, elapsed, result, .. }) => match result {
                Err(_) => Recalled::Nothing,
                Ok(text) => match (self.codec.decode)(index, &text) {
                    Ok(output) => {
                        let success = Success::without_run(index, Origin::Recovered, output);
                        return Ok(Recalled::Success(Success { attempts, elapsed, ..success }));
                    }
                    Err(error) => Recalled::Unreadable(error),
                },
            },
        };
        self.hashes.insert(index, hash);
        Ok(recalled)
    }

    /// Passes the record of a success to the journal. Returns the success if that is not possible.
    pub(in super::super) fn keep_success(
        &mut self,
        success: Success<I, T>,
    ) -> Result<(), (Success<I, T>, BoxError)> {
        if self.has_failed {
            return Err((success, "an earlier write to the store failed".into()));
        }
        let text = match (self.codec.encode)(success.index, &success.output) {
            Ok(text) => text,
            Err(error) => return Err((success, error)),
        };
        let bytes = self.keep(success.index, success.attempts, success.elapsed, Ok(text));
        self.unkept.push_back(Unkept { success: Some(success), bytes });
        Ok(())
    }

    /// Passes the record of a failure to the journal.
    pub(in super::super) fn keep_failure(&mut self, index: usize, elapsed: Duration, error: &ItemError<E>) {
        if !self.has_failed {
            let bytes = self.keep(index, error.attempts(), elapsed, Err((self.codec.describe)(error)));
            self.unkept.push_back(Unkept { success: None, bytes });
        }
    }

    /// Passes a record to the journal, and returns the length of its text.
    fn keep(
        &mut self,
        index: usize,
        attempts: u32,
        elapsed: Duration,
        result: Result<String, String>,
    ) -> usize {
        let item_hash = self.hashes.remove(&index).unwrap_or_default();
        let (Ok(text) | Err(text)) = &result;
        let bytes = text.len();
        self.unkept_bytes += bytes;
        self.journal.keep(Entry { index, item_hash, attempts, elapsed, result });
        bytes
    }

    /// Removes the first record that the journal has taken.
    fn pop_unkept(&mut self) -> Option<Option<Success<I, T>>> {
        let Unkept { success, bytes } = self.unkept.pop_front()?;
        self.unkept_bytes -= bytes;
        Some(success)
    }

    /// Returns the next success that is durable, or the reason why the journal stores nothing any more.
    pub(in super::super) fn poll_kept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Success<I, T>, BoxError>> {
        loop {
            while self.kept > 0 {
                self.kept -= 1;
                if let Some(success) = self.pop_unkept().flatten() {
                    return Poll::Ready(Ok(success));
                }
            }
            if self.has_failed {
                return Poll::Pending;
            }
            match ready!(self.journal.poll_kept(cx)) {
                Ok(kept) => self.kept += kept,
                Err(error) => {
                    self.has_failed = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Returns the next success that is no longer awaited, because the journal has failed or has no more time.
    pub(in super::super) fn give_up(&mut self) -> Option<Success<I, T>> {
        self.has_failed = true;
        while let Some(unkept) = self.pop_unkept() {
            if unkept.is_some() {
                return unkept;
            }
        }
        None
    }

    /// Returns `true` if every record is durable.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.unkept.is_empty()
    }

    /// Makes the journal release the store.
    pub(in super::super) fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()> {
        self.journal.poll_closed(cx, reason)
    }
}
