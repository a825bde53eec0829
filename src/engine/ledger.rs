//! Successes that count once they are durable, and those of an earlier run.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::cache::Cache;
use crate::error::BoxError;
use crate::outcome::{ItemError, Origin};

/// How many records may be on their way to the keeper, beside those of the items that run, and with how many bytes of text
/// no further item starts.
const MOST_UNKEPT: usize = 1_024;
const MOST_UNKEPT_BYTES: usize = 16 << 20;

/// Keeps records, elsewhere and in groups. It is polled by the driver.
pub(crate) trait Keeper: Send {
    /// Ready once it is known whether the item at this index has succeeded before. The indices ascend.
    fn poll_known(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;

    /// The record of the item at this index, where it has succeeded before.
    fn recall(&mut self, index: usize) -> Option<Entry>;

    /// Takes a record.
    fn keep(&mut self, entry: Entry);

    /// How many more of the records, in their order, are durable now.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BoxError>>;

    /// Lets go of what it holds, with the reason why the run did not succeed.
    fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()>;
}

/// The record of one item.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) index: usize,
    pub(crate) item_hash: String,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    /// The output as text, or why the item failed.
    pub(crate) result: Result<String, String>,
}

/// What a run does beside running its items.
pub(crate) struct Keeping<I, T, E> {
    /// Makes successes durable before they count.
    pub(crate) ledger: Option<Box<Ledger<I, T, E>>>,
    /// Knows outputs of equal items.
    pub(crate) cache: Option<Box<Cache<I, T>>>,
}

/// Nothing is done.
impl<I, T, E> Default for Keeping<I, T, E> {
    fn default() -> Self {
        Self { ledger: None, cache: None }
    }
}

impl<I, T, E> Keeping<I, T, E> {
    /// Whether another item may be pulled, where so many places are free.
    pub(super) fn has_room(&self, free: usize) -> bool {
        self.ledger.as_ref().is_none_or(|ledger| ledger.has_room())
            && self.cache.as_ref().is_none_or(|cache| cache.has_room(free))
    }

    /// How many items have been pulled and not started, because they are looked up.
    pub(super) fn pending(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.pending())
    }

    /// How many successes are not durable yet.
    pub(super) fn unkept_successes(&self) -> usize {
        self.ledger.as_ref().map_or(0, |ledger| ledger.unkept_successes)
    }
}

/// How items and what becomes of them are written; an error names the item by its index.
#[derive(Debug)]
pub(crate) struct Codec<I, T, E> {
    pub(crate) hash: fn(usize, &I) -> Result<String, BoxError>,
    pub(crate) encode: fn(usize, &T) -> Result<String, BoxError>,
    pub(crate) decode: fn(usize, &str) -> Result<T, BoxError>,
    pub(crate) describe: fn(&ItemError<E>) -> String,
}

/// A success that is not durable yet, or was of an earlier run.
pub(super) struct Success<T> {
    pub(super) index: usize,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    pub(super) origin: Origin,
    pub(super) output: T,
}

/// What is known of an item from an earlier run.
pub(super) enum Recalled<T> {
    /// Nothing that counts.
    Nothing,
    /// It has succeeded, with another content.
    Changed,
    /// It has succeeded, with an output of another type.
    Unreadable(BoxError),
    /// It has succeeded.
    Success(Success<T>),
}

/// The successes of a run on their way to being durable.
pub(crate) struct Ledger<I, T, E> {
    codec: Codec<I, T, E>,
    keeper: Box<dyn Keeper>,
    /// Of the items that have been pulled and not settled.
    hashes: HashMap<usize, String>,
    /// What was handed to the keeper and is not durable, in that order.
    unkept: VecDeque<Unkept<T>>,
    /// How many bytes of text that is.
    unkept_bytes: usize,
    /// How many of those are successes.
    unkept_successes: usize,
    /// How many of the first of those are durable.
    kept: usize,
    /// Nothing is kept any more.
    has_failed: bool,
}

/// A record on its way to the keeper.
struct Unkept<T> {
    /// `None` where the item has failed.
    success: Option<Success<T>>,
    /// The length of its text.
    bytes: usize,
}

impl<I, T, E> Ledger<I, T, E> {
    pub(crate) fn new(codec: Codec<I, T, E>, keeper: Box<dyn Keeper>) -> Self {
        let (hashes, unkept) = Default::default();
        Self {
            codec,
            keeper,
            hashes,
            unkept,
            unkept_bytes: 0,
            unkept_successes: 0,
            kept: 0,
            has_failed: false,
        }
    }

    /// Whether so few records are on their way that another item may start.
    pub(super) fn has_room(&self) -> bool {
        self.unkept.len() < MOST_UNKEPT && self.unkept_bytes < MOST_UNKEPT_BYTES
    }

    /// Ready once it is known whether the next item has succeeded before.
    pub(super) fn poll_known(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let polled = self.keeper.poll_known(index, cx);
        if let Poll::Ready(Err(_)) = polled {
            self.has_failed = true;
            if let Poll::Ready(Ok(kept)) = self.keeper.poll_kept(cx) {
                self.kept += kept;
            }
        }
        polled
    }

    /// What is known of an item from an earlier run.
    ///
    /// # Errors
    ///
    /// Where the item cannot be hashed.
    pub(super) fn recall(&mut self, index: usize, item: &I) -> Result<Recalled<T>, BoxError> {
        let hash = (self.codec.hash)(index, item)?;
        let recalled = match self.keeper.recall(index) {
            None => Recalled::Nothing,
            Some(entry) if entry.item_hash != hash => Recalled::Changed,
            Some(Entry { attempts, elapsed, result, .. }) => match result {
                Err(_) => Recalled::Nothing,
                Ok(text) => match (self.codec.decode)(index, &text) {
                    Ok(output) => {
                        let origin = Origin::Recovered;
                        return Ok(Recalled::Success(Success { index, attempts, elapsed, origin, output }));
                    }
                    Err(error) => Recalled::Unreadable(error),
                },
            },
        };
        self.hashes.insert(index, hash);
        Ok(recalled)
    }

    /// Hands the record of a success to the keeper, and the success back where that cannot be.
    pub(super) fn keep_success(&mut self, success: Success<T>) -> Result<(), (Success<T>, BoxError)> {
        if self.has_failed {
            return Err((success, "the store has failed before".into()));
        }
        let text = match (self.codec.encode)(success.index, &success.output) {
            Ok(text) => text,
            Err(error) => return Err((success, error)),
        };
        let bytes = self.keep(success.index, success.attempts, success.elapsed, Ok(text));
        self.unkept.push_back(Unkept { success: Some(success), bytes });
        self.unkept_successes += 1;
        Ok(())
    }

    /// Hands the record of a failure to the keeper.
    pub(super) fn keep_failure(&mut self, index: usize, elapsed: Duration, error: &ItemError<E>) {
        if !self.has_failed {
            let bytes = self.keep(index, error.attempts(), elapsed, Err((self.codec.describe)(error)));
            self.unkept.push_back(Unkept { success: None, bytes });
        }
    }

    /// Hands a record to the keeper, and returns the length of its text.
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
        self.keeper.keep(Entry { index, item_hash, attempts, elapsed, result });
        bytes
    }

    /// Takes the next record that was handed to the keeper.
    fn pop_unkept(&mut self) -> Option<Option<Success<T>>> {
        let Unkept { success, bytes } = self.unkept.pop_front()?;
        self.unkept_bytes -= bytes;
        self.unkept_successes -= usize::from(success.is_some());
        Some(success)
    }

    /// The next success that is durable, or why the keeper keeps nothing any more.
    pub(super) fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Success<T>, BoxError>> {
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
            match ready!(self.keeper.poll_kept(cx)) {
                Ok(kept) => self.kept += kept,
                Err(error) => {
                    self.has_failed = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// The next success that is no longer waited for, because the keeper has failed or its time is over.
    pub(super) fn give_up(&mut self) -> Option<Success<T>> {
        self.has_failed = true;
        while let Some(unkept) = self.pop_unkept() {
            if unkept.is_some() {
                return unkept;
            }
        }
        None
    }

    /// Whether every record is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.unkept.is_empty()
    }

    /// Lets go of what the keeper holds.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()> {
        self.keeper.poll_closed(cx, reason)
    }
}
