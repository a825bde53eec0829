//! The end, in the engine, of a call that nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::RestateError;
use super::answer::failure;
use super::call::Call;
use super::reply::{Fault, Reply, beginning};

/// How long the engine may take to end what it was told to kill.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

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

impl Call {
    async fn cancel(&self) -> Result<Reply, RestateError> {
        let engine = &self.engine;
        let _place = engine.places.acquire().await;
        let ended = self.try_cancel().await;
        if let Err(error) = &ended {
            engine.uncancelled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(key = ?self.key, %error, "an invocation could not be cancelled, and may go on");
        }
        ended
    }

    async fn try_cancel(&self) -> Result<Reply, RestateError> {
        // Whether the engine has the call, nobody knows. So it is sent again, to be run later: either the engine has it,
        // or it takes it now and will not take the first one any more. This gives its name in both cases.
        let accepted = self.engine.ingress.reach(&self.request(&self.target.send), None).await?;
        if !accepted.status.is_success() {
            return Err(failure(&accepted));
        }
        let id = accepted.invocation_id();
        if id.is_empty() {
            return Err(RestateError::Rejected {
                status: accepted.status.as_u16(),
                message: beginning(&accepted.body),
            });
        }
        let has_ended = self.tell(id, "cancel", None).await? == StatusCode::CONFLICT;
        let ended = match timeout(self.engine.kill_after, self.end(id)).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::info!(invocation = id, "an invocation that does not heed its cancelling is killed");
                self.tell(id, "kill", None).await?;
                let ended = timeout(KILL_TIMEOUT, self.end(id)).await;
                ended.map_err(|error| Fault::unanswered(KILL_TIMEOUT, error))??
            }
        };
        // What it came to before is its outcome. What it came to because of this is none.
        if !has_ended && !ended.status.is_success() {
            self.tell(id, "purge", None).await?;
        }
        Ok(ended)
    }

    /// Waits for the end of the invocation.
    async fn end(&self, invocation_id: &str) -> Result<Reply, RestateError> {
        let ingress = &self.engine.ingress;
        let uri = ingress.uri(&format!("/restate/attach/{invocation_id}"))?;
        Ok(ingress.reach(&ingress.request(Method::GET, uri, Bytes::new()), None).await?)
    }

    /// Makes the engine forget an outcome, so that the same key runs again. Says whether it has.
    pub(super) async fn forget(&self, invocation_id: &str, deadline: Option<Instant>) -> bool {
        self.tell(invocation_id, "purge", deadline).await.is_ok_and(|status| status.is_success())
    }

    /// Has the admin API do something to the invocation; that it is over, or not there, is an answer, too.
    async fn tell(
        &self,
        invocation_id: &str,
        what: &str,
        deadline: Option<Instant>,
    ) -> Result<StatusCode, RestateError> {
        let Some(admin) = &self.engine.admin else { return Ok(StatusCode::NOT_FOUND) };
        let uri = admin.uri(&format!("/invocations/{invocation_id}/{what}"))?;
        let reply = admin.reach(&admin.request(Method::PATCH, uri, Bytes::new()), deadline).await?;
        match reply.status {
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {}
            status if status.is_success() => {}
            _ => return Err(failure(&reply)),
        }
        Ok(reply.status)
    }
}
