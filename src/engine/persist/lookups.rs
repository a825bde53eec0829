//! Outputs of equal items that are known from a cache.

use std::fmt::Display;
use std::task::{Context, Poll};

use tracing::warn;

use crate::error::BoxError;

/// Looks up outputs of equal items and stores new ones, outside the run. The driver polls it. It never fails: an output that
/// cannot be read counts as absent, and one that cannot be written is not stored.
pub(crate) trait CacheBackend: Send {
    /// Starts the look-up of an item.
    fn look_up(&mut self, index: usize, item_hash: String);

    /// Returns the next item that was looked up, with the output if there is one.
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<String>)>;

    /// Stores the output of an item that was looked up.
    fn keep(&mut self, index: usize, output: String);

    /// Releases an item that was looked up and has no output to store.
    fn release(&mut self, index: usize);

    /// Returns `true` if another item may be looked up while `free` permits are free.
    fn has_room(&self, free: usize) -> bool;

    /// Returns `true` if an item is looked up, without those that wait for the computations of others.
    fn is_looking_up(&self) -> bool;

    /// Ready once everything is written and no claim blocks other runs any more.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Computes the hash that identifies an item.
pub(crate) type HashItem<I> = Box<dyn Fn(&I) -> Result<String, BoxError> + Send>;

type Encode<T> = fn(usize, &T) -> Result<String, BoxError>;
type Decode<T> = fn(usize, &str) -> Result<T, BoxError>;

/// The items of a run that are looked up before they start.
pub(crate) struct Lookups<I, T> {
    name: String,
    hash: HashItem<I>,
    encode: Encode<T>,
    decode: Decode<T>,
    backend: Box<dyn CacheBackend>,
}

impl<I, T> Lookups<I, T> {
    pub(crate) fn new(
        name: String,
        hash: HashItem<I>,
        (encode, decode): (Encode<T>, Decode<T>),
        backend: Box<dyn CacheBackend>,
    ) -> Self {
        Self { name, hash, encode, decode, backend }
    }

    /// Returns `true` if another item may be looked up.
    pub(in super::super) fn has_room(&self, free: usize) -> bool {
        self.backend.has_room(free)
    }

    /// Returns `true` if an item is looked up, without those that wait for other runs.
    pub(in super::super) fn is_looking_up(&self) -> bool {
        self.backend.is_looking_up()
    }

    /// Returns the hash of an item, or `None` if it cannot be looked up.
    pub(in super::super) fn hash(&self, index: usize, item: &I) -> Option<String> {
        match (self.hash)(item) {
            Ok(hash) => Some(hash),
            Err(error) => {
                self.log_warning(
                    index,
                    "the key of the item cannot be hashed, the item is not cached",
                    &error,
                );
                None
            }
        }
    }

    /// Starts the look-up of an item.
    pub(in super::super) fn look_up(&mut self, index: usize, hash: String) {
        self.backend.look_up(index, hash);
    }

    /// Returns the next item that was looked up, and the text of its output if there is one.
    pub(in super::super) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<String>)> {
        self.backend.poll_found(cx)
    }

    /// Returns the output of an item that was found, unless its text cannot be read.
    pub(in super::super) fn decode(&mut self, index: usize, text: &str) -> Option<T> {
        match (self.decode)(index, text) {
            Ok(output) => {
                self.backend.release(index);
                Some(output)
            }
            Err(error) => {
                self.log_warning(index, "cached output has another type, will be computed again", &error);
                None
            }
        }
    }

    /// Stores the output of an item.
    pub(in super::super) fn keep(&mut self, index: usize, output: &T) {
        match (self.encode)(index, output) {
            Ok(text) => self.backend.keep(index, text),
            Err(error) => {
                self.log_warning(index, "the output cannot be serialized, it is not cached", &error);
                self.backend.release(index);
            }
        }
    }

    /// Releases an item that has failed.
    pub(in super::super) fn release(&mut self, index: usize) {
        self.backend.release(index);
    }

    pub(in super::super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.backend.poll_closed(cx)
    }

    fn log_warning(&self, index: usize, what: &str, error: &dyn Display) {
        warn!(target: "async_map_task", task = self.name, index, %error, "{what}");
    }
}
