//! An item and its attempts.

use tracing::Span;

use super::retry_slots::Due;
use super::{Types, trace};
use crate::outcome::ItemError;
use crate::rt::Instant;

/// An item on its way through its attempts.
pub(super) struct Job<I> {
    pub(super) index: usize,
    /// The number of the current attempt; the first is 1.
    pub(super) attempt: u32,
    /// How many permits each of its attempts takes.
    pub(super) weight: u32,
    /// A clone of the item, if another attempt may follow.
    pub(super) kept: Option<I>,
    /// The start of the first attempt, if it is needed.
    pub(super) started: Option<Instant>,
    pub(super) span: Span,
}

impl<I> Job<I> {
    /// Returns the job of an empty attempt slot.
    pub(super) fn none() -> Self {
        Self { index: 0, attempt: 0, weight: 0, kept: None, started: None, span: Span::none() }
    }

    /// Replaces the job by one of a new item.
    #[inline]
    pub(super) fn renew(&mut self, index: usize, weight: u32) {
        (self.index, self.weight, self.attempt, self.started) = (index, weight, 1, None);
        trace::renew_item_span(&mut self.span, index);
    }
}

/// An item that waits for its next attempt.
pub(super) struct Retry<I, E> {
    pub(super) job: Job<I>,
    pub(super) item: I,
    pub(super) error: ItemError<E>,
}

/// An item that was pulled and has not started.
pub(super) struct Pulled<I> {
    pub(super) index: usize,
    pub(super) item: I,
    pub(super) weight: u32,
}

/// An attempt that is to start.
pub(super) enum Next<I, E> {
    /// The first of an item.
    New(Pulled<I>),
    Retry(Due<Retry<I, E>>),
}

impl<I, E> Next<I, E> {
    /// Puts the job into the attempt slot, and returns the item for the attempt.
    pub(super) fn prepare(self, job: &mut Job<I>) -> I {
        match self {
            Self::New(Pulled { index, item, weight }) => {
                job.renew(index, weight);
                item
            }
            Self::Retry(due) => {
                let Retry { job: waiting, item, .. } = due.job;
                *job = waiting;
                job.attempt = job.attempt.saturating_add(1);
                item
            }
        }
    }
}

/// The result of an item.
pub(super) type Ended<W> = Result<<W as Types>::Output, ItemError<<W as Types>::Error>>;
