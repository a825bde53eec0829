//! A client for the servers of tests.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

/// A client with its own pool of connections.
#[derive(Debug, Clone)]
pub(crate) struct Client(legacy::Client<HttpConnector, Body>);

impl Client {
    pub(crate) fn new() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    #[cfg(feature = "http")]
    pub(crate) async fn get(&self, url: &str) -> (StatusCode, HeaderMap, Bytes) {
        self.send(Request::get(url), Body::empty()).await
    }

    pub(crate) async fn post(&self, url: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, Bytes) {
        self.send(Request::post(url).header("content-type", "application/json"), body.into()).await
    }

    /// Sends a request, and reads the answer whole.
    async fn send(
        &self,
        request: axum::http::request::Builder,
        body: Body,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let (head, body) = self.0.request(request.body(body).unwrap()).await.unwrap().into_parts();
        (head.status, head.headers, to_bytes(Body::new(body), usize::MAX).await.unwrap())
    }
}
