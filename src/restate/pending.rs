//! A call that is running, and the meaning of its end.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::RestateError;
use super::answer::{output, was_stopped_before};
use super::call::{Call, MAX_KEYS};
use super::cancelling::Ongoing;
use super::reply::{Fault, Reply};
use super::server::INGRESS;
use crate::context::ItemContext;

impl Call {
    /// Runs the handler, waits for it if it is running already, or takes the outcome that is kept.
    pub(super) async fn run<T: DeserializeOwned>(self, cx: &ItemContext) -> Result<T, RestateError> {
        // Between two keys no call is pending, but the attempt is still running.
        let _counted = self.engine.calls.token();
        self.engine.cancelling.wait_for(&self.item_name()).await;
        let mut number = Pending::new(self.clone()).find_number(cx).await?;
        loop {
            let reply = Pending::new(self.numbered(number)?).end(cx).await?;
            // An earlier run was stopped, and this item with it. Its end is not an outcome, and has used up the key.
            let is_spent = was_stopped_before(&reply) && number < MAX_KEYS;
            // If this attempt has stopped the call itself, the answer is its own.
            if !is_spent || cx.cancellation_token().is_cancelled() {
                return output(&reply);
            }
            number += 1;
        }
    }

    /// Returns the name that the calls of all attempts at the item share.
    fn item_name(&self) -> String {
        format!("{}/{}", self.target.name(), self.name.item)
    }
}

/// A call that is running. If this is dropped before the call is over, the call is cancelled in the engine.
#[derive(Debug)]
struct Pending {
    call: Arc<Call>,
    /// The runtime of the task that cancels the call. The future itself may be dropped outside any runtime.
    runtime: Handle,
    is_over: bool,
    /// `true` once its key is known, so that it may have been sent.
    has_key: bool,
    /// Dropped last, when the task that cancels the call is counted already.
    _counted: TaskTrackerToken,
}

impl Pending {
    fn new(call: Call) -> Self {
        let _counted = call.engine.calls.token();
        Self { call: Arc::new(call), runtime: Handle::current(), is_over: false, has_key: true, _counted }
    }

    /// Finds the number of its key.
    async fn find_number(mut self, cx: &ItemContext) -> Result<u32, RestateError> {
        self.has_key = false;
        let number = self.call.find_number(cx).await;
        self.is_over = true;
        number
    }

    /// Sends the call, and returns the answer.
    async fn end(mut self, cx: &ItemContext) -> Result<Reply, RestateError> {
        let call = Arc::clone(&self.call);
        let answered = if call.engine.admin.is_some() {
            tokio::select! {
                biased;
                answered = call.answer(cx) => answered,
                // With a grace there is time to wait for the end of the call.
                () = cx.cancellation_token().cancelled() => return self.cancel().await,
            }
        } else {
            call.answer(cx).await
        };
        // It is over if the engine has nothing that could be cancelled.
        self.is_over = match &answered {
            Ok(answer) => !answer.leaves_one,
            Err(fault) => !matches!(fault, Fault::Unreachable { is_sent: true, .. }),
        };
        Ok(answered?.reply)
    }

    /// Cancels the call, and returns its end. The task that cancels continues if this is dropped.
    async fn cancel(mut self) -> Result<Reply, RestateError> {
        self.is_over = true;
        self.start().await.map_err(|error| RestateError::Unavailable {
            server: INGRESS,
            since: Duration::ZERO,
            tries: 1,
            source: error.into(),
        })?
    }

    fn start(&self) -> JoinHandle<Result<Reply, RestateError>> {
        let (call, ongoing) = self.cancelling();
        self.call.engine.calls.spawn_on(async move { call.cancel(ongoing).await }, &self.runtime)
    }

    fn start_without_key(&self) {
        let (call, ongoing) = self.cancelling();
        self.call.engine.calls.spawn_on(async move { call.cancel_others(ongoing).await }, &self.runtime);
    }

    fn cancelling(&self) -> (Arc<Call>, Ongoing) {
        let call = Arc::clone(&self.call);
        let ongoing = call.engine.cancelling.begin(call.item_name());
        (call, ongoing)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over || self.call.engine.admin.is_none() {
            return;
        }
        if self.has_key {
            self.start();
        } else {
            self.start_without_key();
        }
    }
}
