//! The store of a run: a commit log, cache lookups, both or neither.

use std::fmt;
use std::task::{Context, Poll};

use super::super::wraps::wraps;
use super::commit_log::CommitLog;
use super::lookups::Lookups;
use super::previous::Previous;

/// The store of a run, or none.
pub trait Persist<I, T, E> {
    /// `true` if the run stores its successes outside its result. The compiler removes code that other runs do not need.
    const KEEPS: bool;

    /// Returns the commit log and the cache lookups, if there is a store.
    fn durability(&mut self) -> Option<&mut Durability<I, T, E>>;

    /// Adds a store to the run.
    fn into_durability(self) -> Durability<I, T, E>;
}

#[cfg(feature = "store")]
wraps! {
    /// A run with [`recover`](crate::MapRun::recover) or [`cache`](crate::MapRun::cache), and its map function.
    Durable<W, C> {
        Call: C,
        Hooks: W::Hooks,
        Mode: W::Mode,
        Sink: W::Sink,
        Outcomes: W::Outcomes,
        Store: Durability<W::Item, W::Output, W::Error>,
    }
}

wraps! {
    /// A run with [`redo`](crate::MapRun::redo).
    Redo<W> {
        Call: W::Call,
        Hooks: W::Hooks,
        Mode: W::Mode,
        Sink: W::Sink,
        Outcomes: W::Outcomes,
        Store: Durability<W::Item, W::Output, W::Error>,
    }
}

/// The run has no store.
#[derive(Debug)]
pub struct NoStore;

impl<I, T, E> Persist<I, T, E> for NoStore {
    const KEEPS: bool = false;

    #[inline(always)]
    fn durability(&mut self) -> Option<&mut Durability<I, T, E>> {
        None
    }

    fn into_durability(self) -> Durability<I, T, E> {
        Durability::default()
    }
}

impl<I, T, E> Persist<I, T, E> for Durability<I, T, E> {
    const KEEPS: bool = true;

    fn durability(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn into_durability(self) -> Self {
        self
    }
}

/// The durability of a run, its cache lookups, and what it has of an earlier run.
pub struct Durability<I, T, E> {
    /// Makes successes durable before they count.
    pub(crate) commit_log: Option<Box<CommitLog<I, T, E>>>,
    /// Looks up and stores outputs of equal items.
    pub(crate) cache: Option<Box<Lookups<I, T>>>,
    /// The outputs of the run that this one repeats.
    pub(crate) previous: Option<Previous<T>>,
}

/// Nothing is used.
impl<I, T, E> Default for Durability<I, T, E> {
    fn default() -> Self {
        Self { commit_log: None, cache: None, previous: None }
    }
}

impl<I, T, E> Durability<I, T, E> {
    /// Returns `true` if something is stored under the name of the task.
    pub(in super::super) fn is_named(&self) -> bool {
        self.commit_log.is_some() || self.cache.is_some()
    }

    /// Returns `true` if another item may be pulled while `free` permits are free.
    pub(in super::super) fn has_room(&self, free: usize) -> bool {
        self.commit_log.as_ref().is_none_or(|commit_log| commit_log.has_room())
            && self.cache.as_ref().is_none_or(|cache| cache.has_room(free))
    }

    /// Ready once the store holds nothing of the run. `reason` is the reason why the run did not succeed.
    pub(in super::super) fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()> {
        let cached = self.cache.as_mut().map_or(Poll::Ready(()), |cache| cache.poll_closed(cx));
        let Some(commit_log) = &mut self.commit_log else { return cached };
        let closed = commit_log.poll_closed(cx, reason);
        if cached.is_ready() { closed } else { Poll::Pending }
    }
}

impl<I, T, E> fmt::Debug for Durability<I, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recovers, caches) = (self.commit_log.is_some(), self.cache.is_some());
        f.debug_struct("Durability").field("recovers", &recovers).field("caches", &caches).finish()
    }
}
