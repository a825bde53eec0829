//! Work that goes on in another task or on another thread, and still speaks to `tracing` as if it were here.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::Span;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

pin_project! {
    /// A future that is polled in the span and with the subscriber of whoever has made it.
    pub(crate) struct InContext<F> {
        pub(crate) span: Span,
        pub(crate) dispatch: Option<Dispatch>,
        #[pin]
        pub(crate) future: F,
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        in_context(this.dispatch.as_ref(), || {
            let _entered = this.span.enter();
            this.future.poll(cx)
        })
    }
}

impl<F> fmt::Debug for InContext<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InContext").field("span", &self.span).finish_non_exhaustive()
    }
}

/// A future for another task, which is polled in the span and with the subscriber that are current here.
pub(crate) fn in_current_context<F: Future>(future: F) -> InContext<F> {
    InContext { span: Span::current(), dispatch: current_dispatch(), future }
}

/// The subscriber of this thread, where there is one: another thread may have none, or another.
pub(crate) fn current_dispatch() -> Option<Dispatch> {
    dispatcher::get_default(|dispatch| (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone()))
}

/// Calls a function with this subscriber, where there is one.
pub(crate) fn in_context<R>(dispatch: Option<&Dispatch>, f: impl FnOnce() -> R) -> R {
    match dispatch {
        Some(dispatch) => dispatcher::with_default(dispatch, f),
        None => f(),
    }
}
