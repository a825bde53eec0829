//! Cancels, in the engine, a call that is no longer awaited.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use super::RestateError;
use super::answer::{failure, was_stopped};
use super::call::{Call, MAX_KEYS};
use super::cancelling::Ongoing;
use super::reply::{Fault, Reply, excerpt};
use super::server::{ADMIN, INGRESS};
use crate::error::ConfigError;

/// How long the engine may take to kill an invocation.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a call may be on its way, for example in the buffers of a proxy, before the engine has it.
const LATE: Duration = Duration::from_secs(5);

/// The permit to cancel one call. `Err` if the semaphore is closed, which never happens.
type CancelPermit<'a> = Result<SemaphorePermit<'a>, AcquireError>;

/// The end of an invocation that was cancelled.
struct Ended {
    /// `true` if it had ended before the cancellation.
    was_before: bool,
    reply: Reply,
}

impl Call {
    /// Ends the invocation, and returns its answer.
    pub(super) async fn cancel(&self, ongoing: Ongoing) -> Result<Reply, RestateError> {
        let ended = self.try_cancel(ongoing).await;
        if let Err(error) = &ended {
            self.record_uncancelled(error);
        }
        ended
    }

    /// Ends the invocation of the item under this key or a later one, if there is one. Another coordinator may have started
    /// it before it died.
    pub(super) async fn cancel_others(&self, ongoing: Ongoing) {
        let ended = self.cancel_from(self.number).await;
        drop(ongoing);
        if let Err(error) = &ended {
            self.record_uncancelled(error);
        }
    }

    fn record_uncancelled(&self, error: &RestateError) {
        if may_go_on(error) {
            self.engine.uncancelled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(key = ?self.key, %error, "failed to cancel an invocation, it may still run");
        }
    }

    /// Ends the invocation. Its key then keeps either the outcome that it had before, or the fact that it was stopped.
    async fn try_cancel(&self, ongoing: Ongoing) -> Result<Reply, RestateError> {
        let mut ongoing = Some(ongoing);
        let ended = self.end_invocation(&mut ongoing).await?;
        self.clear(&ended).await?;
        if ended.was_before && was_stopped(&ended.reply) && !self.name.is_of_one_call() {
            // The call would have taken the next key, which another coordinator may have taken.
            self.cancel_from(self.number + 1).await?;
        }
        Ok(ended.reply)
    }

    /// Clears an error of the handler's own that is a consequence of the cancellation, because it is not an outcome of the
    /// item.
    async fn clear(&self, ended: &Ended) -> Result<(), RestateError> {
        let Ended { was_before, reply } = ended;
        if !was_before && !reply.is_output() && !was_stopped(reply) {
            self.command(reply.invocation_id(), "purge", None).await?;
        }
        Ok(())
    }

    /// Ends the invocation of the item under the first of these keys that keeps no failure.
    async fn cancel_from(&self, first: u32) -> Result<(), RestateError> {
        let deadline = self.engine.ingress.deadline();
        let permit = self.engine.cancel_permits.acquire().await;
        for number in first..=MAX_KEYS {
            let call = self.numbered(number)?;
            let reply = match self.engine.ingress.send(&call.query(&call.target.output), deadline).await {
                // An output that is too large is an output, too.
                Err(Fault::TooLarge { .. }) => return Ok(()),
                reply => reply?,
            };
            if reply.is_not_ready() {
                let id = call.look_up(deadline).await?.invocation_id;
                return call.clear(&call.end_known(id, permit, deadline).await?).await;
            }
            if !reply.is_outcome() || reply.is_output() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ends the invocation.
    async fn end_invocation(&self, ongoing: &mut Option<Ongoing>) -> Result<Ended, RestateError> {
        // The retry time starts before the wait for a permit. So all calls together wait once for an unavailable server.
        let deadline = self.engine.ingress.deadline();
        let mut permit = self.engine.cancel_permits.acquire().await;
        let Entered { invocation_id: id, status } = self.enter(deadline).await?;
        if status.as_deref() == Some(NEW) {
            drop(permit);
            self.wait_for_late_calls(ongoing).await;
            permit = self.engine.cancel_permits.acquire().await;
        }
        self.end_known(id, permit, deadline).await
    }

    /// Ends an invocation that the engine has.
    async fn end_known(
        &self,
        id: String,
        permit: CancelPermit<'_>,
        deadline: Option<Instant>,
    ) -> Result<Ended, RestateError> {
        let status = self.command(&id, "cancel", deadline).await?;
        match status {
            StatusCode::NOT_FOUND => return self.end_unknown(&id, deadline).await,
            // It had not started, and the engine has forgotten it.
            StatusCode::OK => return Err(stopped(id)),
            _ => {}
        }
        // A handler may take long to end, and other cancellations must not wait for it.
        drop(permit);
        let reply = match timeout(self.engine.kill_after, self.end(&id)).await {
            Ok(ended) => ended?,
            Err(_) => self.kill(&id).await?,
        };
        Ok(Ended { was_before: status == StatusCode::CONFLICT, reply })
    }

    /// Waits while the call may still be on its way. Until its invocation is cancelled, a late call starts nothing.
    ///
    /// A later attempt is not delayed. Either it uses the same key, so that a late call is the same as its own, or it has
    /// another key.
    async fn wait_for_late_calls(&self, ongoing: &mut Option<Ongoing>) {
        if self.name.is_of_one_call() {
            *ongoing = None;
        }
        match ongoing {
            // The wait ends at the limit or earlier. Both are enough.
            Some(ongoing) => drop(timeout(LATE, ongoing.wanted()).await),
            None => sleep(LATE).await,
        }
    }

    /// Makes sure that the engine has the call, and returns the id of its invocation.
    ///
    /// It is not known if the engine has the call. So it is sent again, with a delayed start. If the engine does not have
    /// it, it accepts it now and ignores the first one from then on. The answer contains the id in both cases.
    async fn enter(&self, deadline: Option<Instant>) -> Result<Entered, RestateError> {
        let ingress = &self.engine.ingress;
        let accepted = ingress.send(&self.request(&self.target.send), deadline).await?;
        if accepted.is_not_found() {
            // The handler is not registered, so the engine accepts no call to it. It may have an earlier one.
            return self.look_up(deadline).await;
        }
        let entered: Option<Entered> = serde_json::from_slice(&accepted.body).ok();
        entered
            .filter(|entered| entered.invocation_id == accepted.invocation_id())
            .ok_or_else(|| failure(&accepted, INGRESS))
    }

    /// Returns the id of the invocation, even if there is none.
    async fn look_up(&self, deadline: Option<Instant>) -> Result<Entered, RestateError> {
        let found = self.engine.ingress.send(&self.query(&self.target.lookup), deadline).await?;
        serde_json::from_slice(&found.body).map_err(|_| not_the_engine(&found))
    }

    async fn kill(&self, id: &str) -> Result<Reply, RestateError> {
        tracing::info!(invocation = id, "killing an invocation that did not end after its cancellation");
        let _permit = self.engine.cancel_permits.acquire().await;
        self.command(id, "kill", None).await?;
        let ended = timeout(KILL_TIMEOUT, self.end(id)).await;
        ended.unwrap_or_else(|_| {
            let source = format!("invocation {id} still runs after it was killed").into();
            Err(RestateError::Unavailable { server: ADMIN, since: KILL_TIMEOUT, tries: 1, source })
        })
    }

    /// Returns the end of an invocation that the admin API does not know. Either there is none, or the two URLs lead to two
    /// engines.
    async fn end_unknown(&self, id: &str, deadline: Option<Instant>) -> Result<Ended, RestateError> {
        let ingress = &self.engine.ingress;
        let reply = ingress.send(&self.invocation_request(id, "output")?, deadline).await?;
        if reply.is_outcome() {
            return Ok(Ended { was_before: true, reply });
        }
        if reply.is_not_found() {
            return Err(failure(&reply, INGRESS));
        }
        let message = format!(
            "invocation {id} is unknown here, but the ingress knows it; check that both URLs lead to the same engine"
        );
        Err(RestateError::Rejected { server: ADMIN, status: 404, message })
    }

    /// Waits for the end of the invocation.
    async fn end(&self, id: &str) -> Result<Reply, RestateError> {
        let (attach, peek) = (self.invocation_request(id, "attach")?, self.invocation_request(id, "output")?);
        Ok(self.engine.ingress.outcome(&attach, &peek, None).await?.reply)
    }

    /// Creates a request for an invocation.
    fn invocation_request(&self, id: &str, operation: &str) -> Result<Request<Full<Bytes>>, ConfigError> {
        let ingress = &self.engine.ingress;
        Ok(ingress.request(Method::GET, ingress.uri(&format!("/restate/{operation}/{id}"))?, Bytes::new()))
    }

    /// Sends a command for the invocation to the admin API. If the invocation is over, or unknown, that is an answer, too.
    async fn command(
        &self,
        id: &str,
        command: &str,
        deadline: Option<Instant>,
    ) -> Result<StatusCode, RestateError> {
        let Some(admin) = &self.engine.admin else { return Ok(StatusCode::NOT_FOUND) };
        let uri = admin.uri(&format!("/invocations/{id}/{command}"))?;
        let reply = admin.send(&admin.request(Method::PATCH, uri, Bytes::new()), deadline).await?;
        match reply.status {
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {}
            status if status.is_success() => {}
            _ => return Err(failure(&reply, ADMIN)),
        }
        Ok(reply.status)
    }
}

/// Returns the error for an answer without an id. The engine always answers with the id, so another program has answered.
fn not_the_engine(reply: &Reply) -> RestateError {
    let (status, message) = (reply.status.as_u16(), excerpt(&reply.body));
    RestateError::NotRestate { server: INGRESS, status, message }
}

/// Returns the error of an invocation that never started.
fn stopped(invocation_id: String) -> RestateError {
    RestateError::Cancelled { message: "cancelled".to_owned(), invocation_id }
}

/// The answer of the engine to a call with a delayed start, or to a query for the id of a call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entered {
    invocation_id: String,
    status: Option<String>,
}

/// The status of a call that the engine did not have before.
const NEW: &str = "Accepted";

/// Returns `true` if an invocation may still be running, given the error of its cancellation.
fn may_go_on(error: &RestateError) -> bool {
    use RestateError::{Cancelled, NotFound, TooLarge};
    // It has ended with an output that is too large to read, it had not started, or the engine has none.
    !matches!(error, TooLarge { .. } | Cancelled { .. } | NotFound { .. })
}
