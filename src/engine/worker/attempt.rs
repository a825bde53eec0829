//! One attempt: its limit, its poll and its panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tracing::Span;

use super::super::caught_drop::log_drop;
use super::super::scheduler::clock::{Clock, deadline};
use crate::config::Config;
use crate::outcome::{ItemError, TimeoutScope};
use crate::rt::Instant;

use super::blocking::Unwound;
use crate::panic_payload::{Payload, into_message};

/// The time limit of an attempt, as far as it is known. Most attempts end before more than their start is needed, so the
/// limit is computed when an attempt first has to wait.
pub(in super::super) enum AttemptDeadline {
    /// It has no limit.
    Unlimited,
    /// It started at this time.
    Begun(Instant),
    /// It started at this time or later, because the attempts before it may have delayed it. It has not waited yet. If its
    /// first poll stalls the thread, its limit starts at the end of that poll.
    BegunSince(Instant),
    /// It has this limit.
    Until(Limit),
    /// Its limit has passed, its token is cancelled, and it has until this time to end.
    Grace(Limit, Instant),
}

/// The earlier of the two limits of an attempt.
#[derive(Clone, Copy)]
pub(in super::super) struct Limit {
    start: Instant,
    limit: Duration,
    scope: TimeoutScope,
    /// `true` if the start is the latest possible one.
    is_latest: bool,
}

impl AttemptDeadline {
    /// Returns the limit of an attempt at an item that started at `first`. If both limits end at the same time, returns the
    /// limit of the attempt.
    pub(in super::super) fn limit(&self, config: &Config, first: Option<Instant>) -> Option<Limit> {
        let now = match *self {
            Self::Unlimited => return None,
            Self::Begun(now) | Self::BegunSince(now) => now,
            Self::Until(limit) | Self::Grace(limit, _) => return Some(limit),
        };
        let begin = |start, limit, scope| Limit { start, limit, scope, is_latest: false };
        if first == Some(now) {
            return config.first_limit.map(|(limit, scope)| begin(now, limit, scope));
        }
        let of_attempt = config.timeout_per_attempt.map(|limit| begin(now, limit, TimeoutScope::Attempt));
        let of_item =
            config.timeout_per_item.map(|limit| begin(first.unwrap_or(now), limit, TimeoutScope::Item));
        of_attempt.into_iter().chain(of_item).min_by_key(Limit::deadline)
    }
}

impl Limit {
    pub(in super::super) fn deadline(&self) -> Instant {
        deadline(self.start, self.limit)
    }

    /// Returns the limit, given that the attempt or the item may have started later than recorded.
    pub(in super::super) fn latest(self, clock: &Clock) -> Self {
        if self.is_latest {
            self
        } else {
            Self { start: clock.latest_start(self.start), is_latest: true, ..self }
        }
    }

    pub(in super::super) fn error<E>(&self, attempts: u32) -> ItemError<E> {
        ItemError::TimedOut { limit: self.limit, scope: self.scope, attempts }
    }
}

/// Returns the error of an attempt that has panicked with this payload.
#[cold]
pub(in super::super) fn panic_error<E>(payload: Payload, attempts: u32) -> ItemError<E> {
    let message = match payload.downcast::<Unwound>().map(|unwound| *unwound) {
        Ok(Unwound::ShutDown) => return interrupted(),
        Ok(Unwound::NoThread(message)) => return ItemError::Faulted { message, attempts },
        Ok(Unwound::Panicked(message)) => message,
        Err(payload) => into_message(payload),
    };
    ItemError::Panicked { message, attempts }
}

/// Returns the mark of an attempt that the shutdown of its runtime has ended, which is not a failure of its item. A separate
/// type would cost every item a few instructions.
pub(in super::super) fn interrupted<E>() -> ItemError<E> {
    ItemError::Faulted { message: String::new(), attempts: 0 }
}

/// Polls an attempt and drops it when it ends. A panic ends it as well.
#[inline(always)]
pub(in super::super) fn poll_caught<F, T, E>(
    mut attempt: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
    attempts: u32,
) -> Poll<Result<T, ItemError<E>>>
where
    F: Future<Output = Result<T, E>>,
{
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let Some(future) = attempt.as_mut().as_pin_mut() else { return Poll::Pending };
        future.poll(cx)
    }));
    match polled {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(output))) => {
            drop_caught(attempt);
            Poll::Ready(Ok(output))
        }
        Ok(Poll::Ready(Err(error))) => {
            drop_caught(attempt);
            Poll::Ready(Err(ItemError::Failed { error, attempts }))
        }
        Err(payload) => {
            drop_caught(attempt);
            Poll::Ready(Err(panic_error(payload, attempts)))
        }
    }
}

/// Drops an attempt. A panic in its destructor is logged and does not change the result of the attempt.
fn drop_caught<F>(mut attempt: Pin<&mut Option<F>>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| attempt.set(None))) {
        log_drop(payload, "the future of an attempt");
    }
}

/// Drops an attempt in the span of its item.
#[cold]
pub(in super::super) fn drop_in_span<F>(span: &Span, attempt: Pin<&mut Option<F>>) {
    let _entered = span.enter();
    drop_caught(attempt);
}
