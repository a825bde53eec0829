//! A call that is under way, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::RestateError;
use super::answer::output;
use super::call::Call;
use super::reply::{Fault, Reply};
use crate::context::ItemContext;

impl Call {
    /// Has the handler run, or waits for it where it runs already, or takes the outcome that is kept.
    pub(super) async fn run<T: DeserializeOwned>(self, cx: &ItemContext) -> Result<T, RestateError> {
        let pending = Pending::new(self);
        let call = pending.call();
        let answered = if call.engine.admin.is_some() {
            tokio::select! {
                biased;
                answered = call.answer(cx) => answered,
                // With a grace there is time to see the end of it.
                () = cx.cancellation_token().cancelled() => return output(&pending.cancel().await?),
            }
        } else {
            call.answer(cx).await
        };
        // What the ingress has answered, or never had, leaves nothing behind.
        if !matches!(&answered, Err(Fault::Unreachable { is_sent: true, .. })) {
            pending.disarm();
        }
        output(&answered?)
    }
}

/// A call that is under way. If it is dropped before it is over, it is cancelled in the engine.
#[derive(Debug)]
pub(super) struct Pending {
    call: Arc<Call>,
    /// Where it is cancelled: a future may be dropped anywhere.
    runtime: Handle,
    is_over: bool,
    /// Dropped last, when what cancels it is counted already.
    _counted: TaskTrackerToken,
}

impl Pending {
    pub(super) fn new(call: Call) -> Self {
        let _counted = call.engine.calls.token();
        Self { call: Arc::new(call), runtime: Handle::current(), is_over: false, _counted }
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// There is nothing in the engine that could be cancelled.
    pub(super) fn disarm(mut self) {
        self.is_over = true;
    }

    /// Cancels it, and says what has become of it. Goes on where this is dropped.
    pub(super) async fn cancel(mut self) -> Result<Reply, RestateError> {
        self.is_over = true;
        self.start().await.map_err(|error| Fault::unanswered(Duration::ZERO, error))?
    }

    fn start(&self) -> JoinHandle<Result<Reply, RestateError>> {
        let call = Arc::clone(&self.call);
        self.call.engine.calls.spawn_on(async move { call.cancel().await }, &self.runtime)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_over && self.call.engine.admin.is_some() {
            self.start();
        }
    }
}
