//! An item on its way.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::Span;

use super::Types;
use super::attempt::Watch;
use crate::context::Signal;
use crate::outcome::ItemError;

/// An item on its way through its attempts.
pub(super) struct Job<I> {
    pub(super) index: usize,
    /// The number of the attempt under way; the first is 1.
    pub(super) attempt: u32,
    /// The item once more, where another attempt may follow.
    pub(super) kept: Option<I>,
    /// When the first attempt began, where somebody needs to know.
    pub(super) started: Option<Instant>,
    pub(super) span: Span,
}

/// An item that waits for its next attempt.
pub(super) struct Retry<I, E> {
    pub(super) job: Job<I>,
    pub(super) item: I,
    pub(super) error: ItemError<E>,
}

/// Where a lane keeps the attempt that it makes. An attempt is built in place and stays there.
pub(super) struct Desk<'a, W: Types> {
    pub(super) job: &'a mut Option<Job<W::Item>>,
    pub(super) attempt: Pin<&'a mut Option<W::Future>>,
    pub(super) watch: &'a mut Watch,
    pub(super) signal: &'a mut Arc<Signal>,
}

/// What became of an attempt.
pub(super) type Ended<W> = Result<<W as Types>::Output, ItemError<<W as Types>::Error>>;
