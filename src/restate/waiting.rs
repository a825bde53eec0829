//! Waits for the outcome of an invocation, whatever becomes of the connections to the ingress.

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use super::health::Trouble;
use super::reply::{Fault, Reply, beginning};
use super::server::Server;
use super::tries::{Failure, Tries, Try, failed};

/// An answer to a question that waits for an outcome.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Whether the engine may have an invocation that this is not the end of.
    pub(super) leaves_one: bool,
}

impl Server {
    /// Sends a request that is answered when an invocation has ended.
    ///
    /// A connection that ends before that is no outage where the engine has the invocation. `peek` asks for that: it is
    /// answered at once, with the outcome if there is one.
    pub(super) async fn outcome(
        &self,
        request: &Request<Full<Bytes>>,
        peek: &Request<Full<Bytes>>,
        deadline: Option<Instant>,
    ) -> Result<Answer, Fault> {
        let mut tries = Tries::default();
        loop {
            let began = Instant::now();
            let failure = match self.attempt(request.clone()).await {
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
                    self.health.note(Trouble::Cut, failure.began, &failure.error, self.retry_time());
                    sleep(tries.cut(began.elapsed())).await;
                }
                _ => self.wait(&mut tries, failure, deadline).await?,
            }
        }
    }

    /// The answer to a question that the server answers at once.
    async fn peek(&self, peek: &Request<Full<Bytes>>, may_have_it: bool) -> Option<Reply> {
        if !may_have_it {
            return None;
        }
        match self.ask(peek.clone()).await {
            Try::Ended(ended) => ended.ok(),
            Try::Failed(_) => None,
        }
    }

    /// If the engine was away and does not know a handler now, its workers may be registered soon.
    fn unregistered(&self, reply: &Reply) -> Option<Failure> {
        if !reply.is_not_found() || !self.health.is_back_for_less_than(self.retry_time()) {
            return None;
        }
        let error = format!("the engine was away, and answers now: {}", beginning(&reply.body));
        Some(failed(Trouble::Unregistered, Instant::now(), false, error))
    }
}

impl Answer {
    fn new(reply: Reply, tries: &Tries) -> Self {
        // A proxy may refuse a call after an earlier try of it has come through.
        let leaves_one = !reply.is_outcome() && tries.is_sent;
        Self { reply, leaves_one }
    }
}
