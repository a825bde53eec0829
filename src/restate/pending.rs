//! A call that is under way, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::RestateError;
use super::answer::{output, was_stopped_before};
use super::call::{Call, MOST_KEYS};
use super::cancelling::Ongoing;
use super::reply::{Fault, Reply};
use super::server::INGRESS;
use crate::context::ItemContext;

impl Call {
    /// Has the handler run, or waits for it where it runs already, or takes the outcome that is kept.
    pub(super) async fn run<T: DeserializeOwned>(self, cx: &ItemContext) -> Result<T, RestateError> {
        // Between two keys no call is pending, and the attempt goes on.
        let _counted = self.engine.calls.token();
        self.engine.cancelling.over(&self.item_name()).await;
        let mut number = Pending::new(self.clone()).number(cx).await?;
        loop {
            let reply = Pending::new(self.numbered(number)?).end(cx).await?;
            // An earlier run was stopped, and this item with it: what is left of it is no outcome, and has used up the key.
            let is_spent = was_stopped_before(&reply) && number < MOST_KEYS;
            // Unless this attempt has stopped it itself.
            if !is_spent || cx.cancellation_token().is_cancelled() {
                return output(&reply);
            }
            number += 1;
        }
    }

    /// What the calls of all attempts at the item have in common.
    fn item_name(&self) -> String {
        format!("{}/{}", self.target.name(), self.name.item)
    }
}

/// A call that is under way. If it is dropped before it is over, it is cancelled in the engine.
#[derive(Debug)]
struct Pending {
    call: Arc<Call>,
    /// Where it is cancelled: a future may be dropped anywhere.
    runtime: Handle,
    is_over: bool,
    /// Whether it is sent, or its key is looked for.
    has_key: bool,
    /// Dropped last, when what cancels it is counted already.
    _counted: TaskTrackerToken,
}

impl Pending {
    fn new(call: Call) -> Self {
        let _counted = call.engine.calls.token();
        Self { call: Arc::new(call), runtime: Handle::current(), is_over: false, has_key: true, _counted }
    }

    /// Looks for the number of its key.
    async fn number(mut self, cx: &ItemContext) -> Result<u32, RestateError> {
        self.has_key = false;
        let number = self.call.number(cx).await;
        self.is_over = true;
        number
    }

    /// Sends the call, and returns what it has come to.
    async fn end(mut self, cx: &ItemContext) -> Result<Reply, RestateError> {
        let call = Arc::clone(&self.call);
        let answered = if call.engine.admin.is_some() {
            tokio::select! {
                biased;
                answered = call.answer(cx) => answered,
                // With a grace there is time to see the end of it.
                () = cx.cancellation_token().cancelled() => return self.cancel().await,
            }
        } else {
            call.answer(cx).await
        };
        // Whether there is nothing in the engine that could be cancelled.
        self.is_over = match &answered {
            Ok(answer) => !answer.leaves_one,
            Err(fault) => !matches!(fault, Fault::Unreachable { is_sent: true, .. }),
        };
        Ok(answered?.reply)
    }

    /// Cancels it, and says what has become of it. Goes on where this is dropped.
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
