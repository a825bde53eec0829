//! Waits for the outcome of an invocation, even if connections to the ingress break.

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use super::health::Trouble;
use super::reply::{Fault, Reply, excerpt};
use super::server::Server;
use super::tries::{Failure, Tries, Try, failed};

/// The answer to a request that waits for an outcome.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// `true` if the engine may have an invocation, and this answer is not its outcome.
    pub(super) leaves_one: bool,
}

impl Server {
    /// Sends a request that is answered when an invocation has ended.
    ///
    /// A connection that breaks before that is not an outage if the engine has the invocation. The request `peek` finds that
    /// out: it is answered immediately, with the outcome if there is one.
    pub(super) async fn outcome(
        &self,
        request: &Request<Full<Bytes>>,
        peek: &Request<Full<Bytes>>,
        deadline: Option<Instant>,
    ) -> Result<Answer, Fault> {
        let mut tries = Tries::default();
        loop {
            let began = Instant::now();
            let failure = match self.try_once(request.clone()).await {
                Try::Ended(Ok(reply)) => {
                    let answer = Answer::new(reply, &tries);
                    let Some(failure) = self.unregistered(&answer.reply) else { return Ok(answer) };
                    match self.wait(&mut tries, failure, deadline).await {
                        Ok(()) => continue,
                        Err(_) => return Ok(answer),
                    }
                }
                Try::Ended(Err(fault)) => return Err(fault),
                Try::Failed(failure) => failure,
            };
            match self.peek(peek, failure.is_sent).await {
                Some(reply) if reply.is_outcome() => return Ok(Answer::new(reply, &tries)),
                Some(reply) if reply.is_not_ready() => {
                    self.health.record(Trouble::Cut, failure.began, &failure.error, self.retry_time());
                    sleep(tries.cut(began.elapsed())).await;
                }
                _ => self.wait(&mut tries, failure, deadline).await?,
            }
        }
    }

    /// Returns the answer to `peek`. Returns `None` if the request was not sent, so that the server cannot have it.
    async fn peek(&self, peek: &Request<Full<Bytes>>, is_sent: bool) -> Option<Reply> {
        if !is_sent {
            return None;
        }
        match self.try_in_time(peek.clone()).await {
            Try::Ended(ended) => ended.ok(),
            Try::Failed(_) => None,
        }
    }

    /// Returns a failure if the server does not know the handler after an outage. Its workers may be registered again soon.
    fn unregistered(&self, reply: &Reply) -> Option<Failure> {
        if !reply.is_not_found() || !self.health.came_back_within(self.retry_time()) {
            return None;
        }
        let error =
            format!("the engine is available again, but does not know the handler: {}", excerpt(&reply.body));
        Some(failed(Trouble::Unregistered, Instant::now(), false, error))
    }
}

impl Answer {
    fn new(reply: Reply, tries: &Tries) -> Self {
        // A proxy may refuse a call although an earlier try of it has reached the engine.
        let leaves_one = !reply.is_outcome() && tries.is_sent;
        Self { reply, leaves_one }
    }
}
