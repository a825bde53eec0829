//! The notice to a handle or a stream that the runtime has dropped its run.

use std::mem;

use tokio::sync::oneshot::{Receiver, Sender, channel};
use tracing::Span;
use tracing::dispatcher::Dispatch;

use super::ending::Ending;
use super::in_context::{current_dispatch, in_context};

/// Sends the ending of a run that is dropped before its end, if a handle or a stream still awaits it.
///
/// It belongs to the run from the start. So it is dropped together with a run that was never polled. Then it sends an ending
/// in which nothing was started.
///
/// Only runs with a handle or a stream have a notice, and only these compile its functions. All runs refer to it through
/// this trait.
pub(crate) trait Notice<R>: Send {
    /// Returns `true` if the ending of a run that is dropped now is awaited.
    fn is_awaited(&self) -> bool;

    /// Sets the span in which the last event of a dropped run is logged.
    fn set_span(&mut self, span: Span);

    /// Drops the notice: the run has ended in another way.
    fn withdraw(&mut self);

    /// Forwards an ending that was logged before the run could return it.
    fn pass_on(&mut self, ending: Ending<R>);

    /// Logs the ending of a run that was dropped, and forwards it.
    fn send(&mut self, ending: Ending<R>);
}

/// The [`Notice`] of a run with a channel for its ending.
#[derive(Debug)]
pub(crate) struct DropNotice<R: Default> {
    /// `None` once there is nothing left to send.
    sender: Option<Sender<Ending<R>>>,
    name: String,
    total: Option<usize>,
    /// The span of the last event of the run, because the run may be dropped on any thread.
    span: Span,
    dispatch: Option<Dispatch>,
}

impl<R: Default> DropNotice<R> {
    /// Creates a notice for the run with this name and promised total.
    pub(crate) fn new(name: String, total: Option<usize>) -> (Self, Receiver<Ending<R>>) {
        let (sender, receiver) = channel();
        let (span, dispatch) = (Span::current(), current_dispatch());
        (Self { sender: Some(sender), name, total, span, dispatch }, receiver)
    }

    fn has_receiver(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    fn log_and_deliver(&mut self, ending: Ending<R>) {
        in_context(self.dispatch.as_ref(), || self.span.in_scope(|| ending.verdict.log()));
        self.deliver(ending);
    }

    fn deliver(&mut self, ending: Ending<R>) {
        if let Some(sender) = self.sender.take() {
            // The receiver may have been dropped since.
            sender.send(ending).ok();
        }
    }
}

impl<R: Send + Default> Notice<R> for DropNotice<R> {
    fn is_awaited(&self) -> bool {
        self.has_receiver()
    }

    fn set_span(&mut self, span: Span) {
        self.span = span;
    }

    fn withdraw(&mut self) {
        self.sender = None;
    }

    fn pass_on(&mut self, ending: Ending<R>) {
        self.deliver(ending);
    }

    fn send(&mut self, ending: Ending<R>) {
        self.log_and_deliver(ending);
    }
}

/// Sends an ending if the run was never polled.
impl<R: Default> Drop for DropNotice<R> {
    fn drop(&mut self) {
        if self.has_receiver() {
            let ending = Ending::not_begun(mem::take(&mut self.name), self.total.unwrap_or(0));
            self.log_and_deliver(ending);
        }
    }
}
