//! One call of a handler.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};

use super::RestateError;
use super::answer::was_stopped;
use super::engine::Engine;
use super::name::Name;
use super::reply::Fault;
use super::target::Target;
use super::waiting::Answer;
use crate::context::ItemContext;
use crate::error::ConfigError;

/// How many keys an item may have. Each has been failed or stopped under but the last.
pub(super) const MOST_KEYS: u32 = 10_000;

/// All that is sent for one attempt at an item, as often as it must be.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) engine: Arc<Engine>,
    pub(super) target: Arc<Target>,
    pub(super) name: Name,
    /// The number of its key.
    pub(super) number: u32,
    /// What the engine knows it by: it runs once, however often it is sent.
    pub(super) key: HeaderValue,
    pub(super) item: Bytes,
}

impl Call {
    /// The same call under the key with another number.
    pub(super) fn numbered(&self, number: u32) -> Result<Self, ConfigError> {
        Ok(Self { key: self.name.key(number)?, number, ..self.clone() })
    }

    /// The number of the key for this attempt. The keys are numbered by the outcomes that the engine keeps: it is the first
    /// one that has neither been stopped nor had a failure that an earlier attempt of this run has seen.
    pub(super) async fn number(&self, cx: &ItemContext) -> Result<u32, RestateError> {
        let mut seen = self.name.earlier();
        if seen == 0 {
            return Ok(self.name.first());
        }
        let mut number = 1;
        while number < MOST_KEYS {
            let peek = self.numbered(number)?.ask(&self.target.output);
            let reply = match self.engine.ingress.reach(&peek, cx.deadline()).await {
                // An output that is too large is one.
                Err(Fault::TooLarge { .. }) => return Ok(number),
                reply => reply?,
            };
            if !reply.is_outcome() || reply.is_output() {
                return Ok(number);
            }
            if !was_stopped(&reply) {
                if seen == 0 {
                    return Ok(number);
                }
                seen -= 1;
            }
            number += 1;
        }
        Ok(number)
    }

    /// Sends it until it is answered.
    pub(super) async fn answer(&self, cx: &ItemContext) -> Result<Answer, Fault> {
        let (call, peek) = (self.request(&self.target.call), self.ask(&self.target.output));
        self.engine.ingress.outcome(&call, &peek, cx.deadline()).await
    }

    /// A request with the item and its key.
    pub(super) fn request(&self, uri: &Uri) -> Request<Full<Bytes>> {
        let mut request = self.engine.ingress.request(Method::POST, uri.clone(), self.item.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", self.key.clone());
        request
    }

    /// A question about the call, which begins nothing.
    pub(super) fn ask(&self, uri: &Uri) -> Request<Full<Bytes>> {
        let question = self.target.question(&self.key);
        let mut request = self.engine.ingress.request(Method::POST, uri.clone(), question);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}
