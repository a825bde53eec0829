//! The end, in the engine, of a call that nobody waits for any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::RestateError;
use super::answer::failure;
use super::call::Call;
use super::reply::{Fault, Reply, beginning};

/// How long the engine may take to end what it was told to kill.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

impl Call {
    /// Ends the invocation, and says what it has come to.
    pub(super) async fn cancel(&self) -> Result<Reply, RestateError> {
        let ended = self.try_cancel().await;
        if let Some(error) = ended.as_ref().err().filter(|error| may_go_on(error)) {
            self.engine.uncancelled.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(key = ?self.key, %error, "an invocation could not be cancelled, and may go on");
        }
        ended
    }

    async fn try_cancel(&self) -> Result<Reply, RestateError> {
        // A server that is away is waited for once, and not again by each that waits for a place.
        let deadline = self.engine.ingress.deadline();
        let place = self.engine.places.acquire().await;
        // Whether the engine has the call, nobody knows. So it is sent again, to be run later: either the engine has it,
        // or it takes it now and will not take the first one any more. This gives its name in both cases.
        let accepted = self.engine.ingress.reach(&self.request(&self.target.send), deadline).await?;
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
        let has_ended = self.tell(id, "cancel", deadline).await? == StatusCode::CONFLICT;
        // A handler may take long to end, and others are not to wait for it.
        drop(place);
        let ended = match timeout(self.engine.kill_after, self.end(id)).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::info!(invocation = id, "an invocation that does not heed its cancelling is killed");
                let _place = self.engine.places.acquire().await;
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

/// Whether an invocation may go on, given why it could not be cancelled.
fn may_go_on(error: &RestateError) -> bool {
    // It has ended, with an output that is too large to be read; or the engine has no such handler, and took no call.
    !matches!(error, RestateError::TooLarge { .. } | RestateError::NotFound { .. })
}
