//! One attempt: its limit, its token, its panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::deadline;
use crate::outcome::{ItemError, TimeoutScope};

/// The time limit of an attempt, and whether it has run out.
pub(super) struct Limit {
    deadline: Instant,
    limit: Duration,
    scope: TimeoutScope,
    /// The limit has passed, the token is cancelled, and the attempt has until the deadline to end.
    in_grace: bool,
}

impl Limit {
    pub(super) fn new(start: Instant, limit: Duration, scope: TimeoutScope) -> Self {
        Self { deadline: deadline(start, limit), limit, scope, in_grace: false }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn in_grace(&self) -> bool {
        self.in_grace
    }

    /// Gives the attempt a last while to end in.
    pub(super) fn begin_grace(&mut self, until: Instant) {
        self.deadline = until;
        self.in_grace = true;
    }

    pub(super) fn error<E>(&self, attempts: u32) -> ItemError<E> {
        ItemError::TimedOut { limit: self.limit, scope: self.scope, attempts }
    }
}

/// Polls an attempt and drops it when it is done. A panic on the way is its end, too.
#[inline]
pub(super) fn poll_caught<F, T, E>(
    mut attempt: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
    attempts: u32,
) -> Poll<Result<T, ItemError<E>>>
where
    F: Future<Output = Result<T, E>>,
{
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let Some(future) = attempt.as_mut().as_pin_mut() else { return Poll::Pending };
        let polled = future.poll(cx);
        if polled.is_ready() {
            attempt.set(None);
        }
        polled
    }));
    match polled {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(|error| ItemError::Failed { error, attempts })),
        Err(payload) => {
            let message = panic_message(&*payload);
            drop_caught(attempt);
            Poll::Ready(Err(ItemError::Panicked { message, attempts }))
        }
    }
}

/// Drops an attempt. A panic in its destructor goes no further: whatever the attempt was dropped for
/// is what became of it.
pub(super) fn drop_caught<F>(mut attempt: Pin<&mut Option<F>>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| attempt.set(None))) {
        tracing::error!(
            target: "async_map_task",
            panic = panic_message(&*payload),
            "the future of an attempt panicked while it was dropped"
        );
    }
}

/// The text of a panic.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}
