//! One call to a handler.

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

/// How many keys an item may have. Under each key but the last, the item has failed or was stopped.
pub(super) const MAX_KEYS: u32 = 10_000;

/// Everything that is sent for one attempt at an item, once or more often.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) engine: Arc<Engine>,
    pub(super) target: Arc<Target>,
    pub(super) name: Name,
    /// The number of its key.
    pub(super) number: u32,
    /// The idempotency key. A call runs once, however often it is sent under this key.
    pub(super) key: HeaderValue,
    pub(super) item: Bytes,
}

impl Call {
    /// Returns the same call under the key with another number.
    pub(super) fn numbered(&self, number: u32) -> Result<Self, ConfigError> {
        Ok(Self { key: self.name.key(number)?, number, ..self.clone() })
    }

    /// Finds the number of the key for this attempt. The keys are numbered by the outcomes that the engine keeps. The number
    /// is the first one that was not stopped and has no failure that an earlier attempt of this run has seen.
    pub(super) async fn find_number(&self, cx: &ItemContext) -> Result<u32, RestateError> {
        let mut seen = self.name.earlier_attempts();
        if seen == 0 {
            return Ok(self.name.first_number());
        }
        let mut number = 1;
        while number < MAX_KEYS {
            let peek = self.numbered(number)?.query(&self.target.output);
            let reply = match self.engine.ingress.send(&peek, cx.deadline()).await {
                // An output that is too large is an output, too.
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

    /// Sends the call until it is answered.
    pub(super) async fn answer(&self, cx: &ItemContext) -> Result<Answer, Fault> {
        let (call, peek) = (self.request(&self.target.call), self.query(&self.target.output));
        self.engine.ingress.outcome(&call, &peek, cx.deadline()).await
    }

    /// Creates a request that contains the item and its key.
    pub(super) fn request(&self, uri: &Uri) -> Request<Full<Bytes>> {
        let mut request = self.engine.ingress.request(Method::POST, uri.clone(), self.item.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", self.key.clone());
        request
    }

    /// Creates a query about the call. It starts nothing.
    pub(super) fn query(&self, uri: &Uri) -> Request<Full<Bytes>> {
        let body = self.target.query(&self.key);
        let mut request = self.engine.ingress.request(Method::POST, uri.clone(), body);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}
