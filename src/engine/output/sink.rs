//! The sink, which takes the outcomes while the run continues.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::error::BoxError;
use crate::outcome::ItemOutcome;

/// Takes outcomes. It is polled together with the work.
pub trait Deliver<T, E> {
    /// `true` if it takes outcomes. The compiler removes code that other runs do not need.
    const TAKES: bool;

    /// Delivers the outcomes that `next` returns. Ready once there are no more.
    fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnMut() -> Option<ItemOutcome<T, E>>,
    ) -> Poll<Result<(), BoxError>>;
}

/// No sink here: outcomes are taken at the end, or by another component.
#[derive(Debug)]
pub struct NoSink;

impl<T, E> Deliver<T, E> for NoSink {
    const TAKES: bool = false;

    fn poll_deliver(
        &mut self,
        _cx: &mut Context<'_>,
        _next: impl FnMut() -> Option<ItemOutcome<T, E>>,
    ) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
}

/// An async function that is called with one outcome after another.
pub(crate) struct Sink<G, Fut> {
    function: G,
    /// The current call. All calls use the same memory.
    call: Pin<Box<Option<Fut>>>,
}

impl<G, Fut> Sink<G, Fut> {
    pub(crate) fn new(function: G) -> Self {
        Self { function, call: Box::pin(None) }
    }
}

impl<T, E, G, Fut> Deliver<T, E> for Sink<G, Fut>
where
    G: FnMut(ItemOutcome<T, E>) -> Fut,
    Fut: Future<Output: Verdict>,
{
    const TAKES: bool = true;

    fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<ItemOutcome<T, E>>,
    ) -> Poll<Result<(), BoxError>> {
        loop {
            if let Some(call) = self.call.as_mut().as_pin_mut() {
                let verdict = ready!(call.poll(cx)).into_result();
                self.call.set(None);
                if verdict.is_err() {
                    return Poll::Ready(verdict);
                }
            }
            let Some(outcome) = next() else { return Poll::Ready(Ok(())) };
            let call = (self.function)(outcome);
            self.call.set(Some(call));
        }
    }
}

/// A return value of the function of a sink.
pub(crate) trait Verdict {
    /// Returns an error if the run must stop.
    fn into_result(self) -> Result<(), BoxError>;
}

/// Returned in [`for_each`](crate::MapRun::for_each).
impl Verdict for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Returned in [`try_for_each`](crate::MapRun::try_for_each).
impl<X: Into<BoxError>> Verdict for Result<(), X> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

impl<G, Fut> fmt::Debug for Sink<G, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}
