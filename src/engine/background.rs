//! A run in a task of its own, and the future with which a handle or a stream awaits its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot::Receiver;

use super::drop_notice::DropNotice;
use super::ending::Ending;
use super::in_context::in_current_context;
use super::output::sink::NoSink;
use super::running::{Running, Setup};
use super::user::source::Source;
use super::{Drive, Plan, Rest};
use crate::panic_payload::Payload;
use crate::progress::Control;
use crate::rt::{JoinError, JoinHandle, spawn};

/// A run that is ready to be spawned.
pub(crate) struct Background<W: Plan> {
    /// Declared first, so that nothing is sent if both fields are dropped.
    dropped: Receiver<Ending<Rest<W>>>,
    running: Running<W, NoSink>,
}

impl<W: Drive> Background<W>
where
    Rest<W>: Default + Send + 'static,
{
    /// Prepares a run for a task of its own. Also returns its name and its control.
    pub(crate) fn new(setup: Option<Setup<W>>) -> (Self, String, Arc<Control>) {
        let total = setup.as_ref().and_then(|setup| setup.source.promised_total());
        let name = setup.as_ref().map_or_else(String::new, |setup| setup.options.name().to_owned());
        let (control, reporter) = Control::new(total);
        let (notice, dropped) = DropNotice::new(name.clone(), total);
        let setup = setup.map(|mut setup| {
            setup.options.reporter = Some(reporter);
            setup.notice = Some(Box::new(notice));
            setup
        });
        (Self { dropped, running: Running::new(setup, NoSink) }, name, control)
    }

    /// Spawns the run.
    ///
    /// # Panics
    ///
    /// Panics if there is no current runtime.
    pub(crate) fn spawn(self) -> RunTask<Rest<W>>
    where
        Running<W, NoSink>: Send + 'static,
    {
        let Self { dropped, running } = self;
        RunTask { task: spawn(in_current_context(running)), dropped, is_dropped: false }
    }
}

impl<W: Plan> fmt::Debug for Background<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("running", &self.running).finish_non_exhaustive()
    }
}

/// The end of a run in another task. `Err` is a panic of the run.
///
/// If the runtime of that task is shut down, the ending comes from the dropped run. It may arrive later than the end of the
/// task, because workers of the run may be in the middle of a poll.
#[derive(Debug)]
pub(crate) struct RunTask<R> {
    task: JoinHandle<Ending<R>>,
    dropped: Receiver<Ending<R>>,
    is_dropped: bool,
}

impl<R> RunTask<R> {
    /// Drops the run without an ending.
    pub(crate) fn abort(&mut self) {
        self.dropped.close();
        self.task.abort();
    }
}

impl<R: Default> Future for RunTask<R> {
    type Output = Result<Ending<R>, Payload>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_dropped {
            match ready!(Pin::new(&mut self.task).poll(cx)).map_err(JoinError::try_into_panic) {
                Ok(ending) => return Poll::Ready(Ok(ending)),
                Err(Ok(payload)) => return Poll::Ready(Err(payload)),
                Err(Err(_)) => self.is_dropped = true,
            }
        }
        let ending = ready!(Pin::new(&mut self.dropped).poll(cx));
        // There is always an ending: only a task that ends withdraws the notice.
        Poll::Ready(Ok(ending.unwrap_or_else(|_| Ending::not_begun(String::new(), 0))))
    }
}
