//! The facts of an item and its current attempt: index, weight, number, start and span.

use std::mem;
use std::time::Duration;

use tracing::Span;

use super::trace::{ItemName, renew_item_span};
use crate::outcome::{ItemError, ItemOutcome, Origin};
use crate::rt::Instant;

/// An item on its way through its attempts, without the item itself.
pub(super) struct Job {
    pub(super) index: usize,
    /// The number of the current attempt; the first is 1. While the item waits, the number of the last attempt.
    pub(super) attempt: u32,
    /// How many permits each of its attempts takes.
    pub(super) weight: u32,
    /// The start of the first attempt, if it is needed.
    pub(super) started: Option<Instant>,
    /// If the run has observers: since when the current attempt runs, or the next one waits for permits.
    pub(super) attempt_since: Option<Instant>,
    /// The label of the item, once it is needed.
    pub(super) label: Option<String>,
    /// The text of the error of its last attempt, if errors have texts.
    pub(super) error_text: Option<Box<str>>,
    pub(super) span: Span,
}

/// An item that shares the call of another item.
pub(super) struct Other {
    /// The slot in which it waits until the call is made.
    pub(super) slot: usize,
    pub(super) job: Job,
}

impl Job {
    /// Returns the job of an empty attempt slot.
    pub(super) fn none() -> Self {
        Self::new(0, 0)
    }

    /// Returns the job of an item that was pulled.
    pub(super) fn new(index: usize, weight: u32) -> Self {
        let (started, attempt_since, label, error_text) = Default::default();
        Self { index, attempt: 0, weight, started, attempt_since, label, error_text, span: Span::none() }
    }

    /// Returns the job of the first attempt at an item, which has `started`.
    pub(super) fn first(index: usize, weight: u32, started: Option<Instant>) -> Self {
        let mut job = Self { started, attempt: 1, ..Self::new(index, weight) };
        renew_item_span(&mut job.span, index);
        job
    }

    /// Replaces the job by one of a new item, with its first attempt.
    #[inline]
    pub(super) fn renew(&mut self, index: usize, weight: u32) {
        (self.index, self.weight, self.attempt, self.started) = (index, weight, 1, None);
        renew_item_span(&mut self.span, index);
    }

    /// Replaces the job by one that has waited for its next attempt.
    pub(super) fn resume(&mut self, waiting: Self) {
        if waiting.attempt == 0 {
            self.renew(waiting.index, waiting.weight);
            self.attempt_since = waiting.attempt_since;
        } else {
            *self = waiting;
            self.attempt = self.attempt.saturating_add(1);
        }
    }

    /// Records the start of an attempt.
    #[inline]
    pub(super) fn begin_at(&mut self, start: Instant) {
        self.started.get_or_insert(start);
        self.attempt_since = Some(start);
    }

    /// Corrects the start of an attempt that has not waited yet, and that of the item, unless this is a part of a larger call.
    #[inline]
    pub(super) fn correct_start(&mut self, start: Instant, is_part: bool) {
        if self.attempt == 1 && !is_part {
            self.started = Some(start);
        }
        self.attempt_since = Some(start);
    }

    /// Returns the outcome of the item, which has run for this long.
    #[inline(always)]
    pub(super) fn outcome<T, E>(
        &self,
        elapsed: Duration,
        label: Option<String>,
        result: Result<T, ItemError<E>>,
    ) -> ItemOutcome<T, E> {
        let Self { index, attempt: attempts, .. } = *self;
        ItemOutcome { index, attempts, elapsed, origin: Origin::Ran, not_retried: None, label, result }
    }

    /// Returns the index and the label of the item.
    pub(super) fn name(&self) -> ItemName<'_> {
        (self.index, self.label.as_deref())
    }

    /// Takes the job out of its attempt slot.
    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::none())
    }
}
