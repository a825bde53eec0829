//! The end, in the engine, of a call that nobody waits for any more.

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
use super::call::{Call, MOST_KEYS};
use super::cancelling::Ongoing;
use super::reply::{Fault, Reply, beginning};
use super::server::{ADMIN, INGRESS};
use crate::error::ConfigError;

/// How long the engine may take to end what it was told to kill.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// For how long a call may still be on its way that the engine does not have yet, as in the buffers of a proxy.
const LATE: Duration = Duration::from_secs(5);

/// Room for one that is cancelled; nothing if it is closed, which it never is.
type Place<'a> = Result<SemaphorePermit<'a>, AcquireError>;

/// What an invocation has come to that was told to end.
struct Ended {
    /// Before it was told.
    was_before: bool,
    reply: Reply,
}

impl Call {
    /// Ends the invocation, and says what it has come to.
    pub(super) async fn cancel(&self, ongoing: Ongoing) -> Result<Reply, RestateError> {
        let ended = self.try_cancel(ongoing).await;
        if let Err(error) = &ended {
            self.note_uncancelled(error);
        }
        ended
    }

    /// Ends the invocation that the item has, under this key or a later one, if there is one. Another coordinator may have called it,
    /// and have died.
    pub(super) async fn cancel_others(&self, ongoing: Ongoing) {
        let ended = self.cancel_from(self.number).await;
        drop(ongoing);
        if let Err(error) = &ended {
            self.note_uncancelled(error);
        }
    }

    fn note_uncancelled(&self, error: &RestateError) {
        if may_go_on(error) {
            self.engine.uncancelled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(key = ?self.key, %error, "an invocation could not be cancelled, and may go on");
        }
    }

    /// Ends the invocation, and leaves under its key either the outcome that it had before, or that it was stopped.
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

    /// Clears the handler's own error, to which it has come because it was cancelled: that is no outcome of the item.
    async fn clear(&self, ended: &Ended) -> Result<(), RestateError> {
        let Ended { was_before, reply } = ended;
        if !was_before && !reply.is_output() && !was_stopped(reply) {
            self.tell(reply.invocation_id(), "purge", None).await?;
        }
        Ok(())
    }

    /// Ends the invocation of the item under the first of these keys that keeps no failure.
    async fn cancel_from(&self, first: u32) -> Result<(), RestateError> {
        let deadline = self.engine.ingress.deadline();
        let place = self.engine.places.acquire().await;
        for number in first..=MOST_KEYS {
            let call = self.numbered(number)?;
            let reply = match self.engine.ingress.reach(&call.ask(&call.target.output), deadline).await {
                // An output that is too large is one.
                Err(Fault::TooLarge { .. }) => return Ok(()),
                reply => reply?,
            };
            if reply.is_not_ready() {
                let id = call.look_up(deadline).await?.invocation_id;
                return call.clear(&call.end_known(id, place, deadline).await?).await;
            }
            if !reply.is_outcome() || reply.is_output() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ends the invocation.
    async fn end_invocation(&self, ongoing: &mut Option<Ongoing>) -> Result<Ended, RestateError> {
        // A server that is away is waited for once, and not again by each that waits for a place.
        let deadline = self.engine.ingress.deadline();
        let mut place = self.engine.places.acquire().await;
        let Entered { invocation_id: id, status } = self.enter(deadline).await?;
        if status.as_deref() == Some(NEW) {
            drop(place);
            self.outlast_late_calls(ongoing).await;
            place = self.engine.places.acquire().await;
        }
        self.end_known(id, place, deadline).await
    }

    /// Ends an invocation that the engine has.
    async fn end_known(
        &self,
        id: String,
        place: Place<'_>,
        deadline: Option<Instant>,
    ) -> Result<Ended, RestateError> {
        let told = self.tell(&id, "cancel", deadline).await?;
        match told {
            StatusCode::NOT_FOUND => return self.not_there(&id, deadline).await,
            // It had not begun, and the engine has forgotten it.
            StatusCode::OK => return Err(stopped(id)),
            _ => {}
        }
        // A handler may take long to end, and others are not to wait for it.
        drop(place);
        let reply = match timeout(self.engine.kill_after, self.end(&id)).await {
            Ok(ended) => ended?,
            Err(_) => self.kill(&id).await?,
        };
        Ok(Ended { was_before: told == StatusCode::CONFLICT, reply })
    }

    /// Waits while the call may be late on its way: until its invocation is cancelled, it begins nothing.
    ///
    /// A later attempt is not held up. It takes the same key, so that a late call is the same as its own; or it has another key.
    async fn outlast_late_calls(&self, ongoing: &mut Option<Ongoing>) {
        if self.name.is_of_one_call() {
            *ongoing = None;
        }
        match ongoing {
            // Its end is enough, however it ends.
            Some(ongoing) => drop(timeout(LATE, ongoing.wanted()).await),
            None => sleep(LATE).await,
        }
    }

    /// Has the engine know the call, and returns the id of its invocation.
    ///
    /// Whether the engine has the call is not known. So it is sent again, to be run later: either the engine has it, or it takes
    /// it now and does not take the first one any more. This gives its id in both cases.
    async fn enter(&self, deadline: Option<Instant>) -> Result<Entered, RestateError> {
        let ingress = &self.engine.ingress;
        let accepted = ingress.reach(&self.request(&self.target.send), deadline).await?;
        if accepted.is_not_found() {
            // The handler is not registered any more, or never was, and takes no call. It may have one.
            return self.look_up(deadline).await;
        }
        let entered: Option<Entered> = serde_json::from_slice(&accepted.body).ok();
        entered
            .filter(|entered| entered.invocation_id == accepted.invocation_id())
            .ok_or_else(|| failure(&accepted, INGRESS))
    }

    /// The id of the invocation, whether there is one or not.
    async fn look_up(&self, deadline: Option<Instant>) -> Result<Entered, RestateError> {
        let found = self.engine.ingress.reach(&self.ask(&self.target.lookup), deadline).await?;
        serde_json::from_slice(&found.body).map_err(|_| not_the_engine(&found))
    }

    async fn kill(&self, id: &str) -> Result<Reply, RestateError> {
        tracing::info!(invocation = id, "an invocation that does not heed its cancelling is killed");
        let _place = self.engine.places.acquire().await;
        self.tell(id, "kill", None).await?;
        let ended = timeout(KILL_TIMEOUT, self.end(id)).await;
        ended.unwrap_or_else(|_| {
            let source = format!("invocation {id} goes on after it was killed").into();
            Err(RestateError::Unavailable { server: ADMIN, since: KILL_TIMEOUT, tries: 1, source })
        })
    }

    /// The admin API does not know an invocation. Either there is none, or the two URLs lead to two engines.
    async fn not_there(&self, id: &str, deadline: Option<Instant>) -> Result<Ended, RestateError> {
        let ingress = &self.engine.ingress;
        let reply = ingress.reach(&self.about(id, "output")?, deadline).await?;
        if reply.is_outcome() {
            return Ok(Ended { was_before: true, reply });
        }
        if reply.is_not_found() {
            return Err(failure(&reply, INGRESS));
        }
        let message =
            format!("it does not know invocation {id}, which the ingress has: is it the same engine's?");
        Err(RestateError::Rejected { server: ADMIN, status: 404, message })
    }

    /// Waits for the end of the invocation.
    async fn end(&self, id: &str) -> Result<Reply, RestateError> {
        let (attach, peek) = (self.about(id, "attach")?, self.about(id, "output")?);
        Ok(self.engine.ingress.outcome(&attach, &peek, None).await?.reply)
    }

    /// A question about an invocation.
    fn about(&self, id: &str, what: &str) -> Result<Request<Full<Bytes>>, ConfigError> {
        let ingress = &self.engine.ingress;
        Ok(ingress.request(Method::GET, ingress.uri(&format!("/restate/{what}/{id}"))?, Bytes::new()))
    }

    /// Has the admin API do something to the invocation; that it is over, or not there, is an answer, too.
    async fn tell(
        &self,
        id: &str,
        what: &str,
        deadline: Option<Instant>,
    ) -> Result<StatusCode, RestateError> {
        let Some(admin) = &self.engine.admin else { return Ok(StatusCode::NOT_FOUND) };
        let uri = admin.uri(&format!("/invocations/{id}/{what}"))?;
        let reply = admin.reach(&admin.request(Method::PATCH, uri, Bytes::new()), deadline).await?;
        match reply.status {
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => {}
            status if status.is_success() => {}
            _ => return Err(failure(&reply, ADMIN)),
        }
        Ok(reply.status)
    }
}

/// The engine always has an answer to the question for the id of a call, so this one is another's.
fn not_the_engine(reply: &Reply) -> RestateError {
    let (status, message) = (reply.status.as_u16(), beginning(&reply.body));
    RestateError::NotRestate { server: INGRESS, status, message }
}

/// The end of an invocation that never began.
fn stopped(invocation_id: String) -> RestateError {
    RestateError::Cancelled { message: "cancelled".to_owned(), invocation_id }
}

/// What the engine says to a call that is to run later, or to a question for the id of one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entered {
    invocation_id: String,
    status: Option<String>,
}

/// The status of a call that the engine did not have before.
const NEW: &str = "Accepted";

/// Whether an invocation may go on, given why it could not be cancelled.
fn may_go_on(error: &RestateError) -> bool {
    use RestateError::{Cancelled, NotFound, TooLarge};
    // It has ended, with an output that is too large to be read; or it had not begun; or the engine has none.
    !matches!(error, TooLarge { .. } | Cancelled { .. } | NotFound { .. })
}
