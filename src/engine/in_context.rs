//! Work in another task or on another thread, with the `tracing` context of the task that created it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::Span;
use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;

pin_project! {
    /// A future that is polled in the span and with the subscriber of the task that created it.
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

/// Wraps a future for another task. It is polled in the span and with the subscriber that are current here.
pub(crate) fn in_current_context<F: Future>(future: F) -> InContext<F> {
    InContext { span: Span::current(), dispatch: current_dispatch(), future }
}

/// Returns the subscriber of this thread, if there is one. Another thread may have none, or a different one.
pub(crate) fn current_dispatch() -> Option<Dispatch> {
    dispatcher::get_default(|dispatch| (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone()))
}

/// Calls a function with this subscriber, if there is one.
pub(crate) fn in_context<R>(dispatch: Option<&Dispatch>, f: impl FnOnce() -> R) -> R {
    match dispatch {
        Some(dispatch) => dispatcher::with_default(dispatch, f),
        None => f(),
    }
}
