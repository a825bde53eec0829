//! One call of a handler.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};

use super::answer::was_stopped_before;
use super::engine::Engine;
use super::reply::{Fault, Reply};
use super::target::Target;
use crate::context::ItemContext;

/// All that is sent for one attempt at an item, as often as it must be.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) engine: Arc<Engine>,
    pub(super) target: Arc<Target>,
    /// What the engine knows it by: it runs once, however often it is sent.
    pub(super) key: HeaderValue,
    pub(super) item: Bytes,
}

impl Call {
    /// Sends it until it is answered.
    pub(super) async fn answer(&self, cx: &ItemContext) -> Result<Reply, Fault> {
        let request = self.request(&self.target.call);
        let ingress = &self.engine.ingress;
        let reply = ingress.reach(&request, cx.deadline()).await?;
        // An earlier run was stopped, and this item with it; or its coordinator died before it had cleared it away.
        if was_stopped_before(&reply) && self.forget(reply.invocation_id(), cx.deadline()).await {
            return ingress.reach(&request, cx.deadline()).await;
        }
        Ok(reply)
    }

    /// A request with the item and its key.
    pub(super) fn request(&self, uri: &Uri) -> Request<Full<Bytes>> {
        let mut request = self.engine.ingress.request(Method::POST, uri.clone(), self.item.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", self.key.clone());
        request
    }
}
