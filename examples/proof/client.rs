//! The map function of the claims: one request for one item, on a real connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use crate::server::Server;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the server answers {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the connection failed: {0}")]
    Connection(#[from] legacy::Error),
    #[error("the answer is not the number of an item: {0}")]
    Answer(String),
}

impl FetchError {
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status != StatusCode::GONE)
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A client with its own pool of connections. It counts the calls of the map function, also those whose request does not
/// reach the server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Body>,
    address: SocketAddr,
    calls: Arc<Calls>,
}

/// Counts the calls of the map function.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    begun: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Calls {
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    pub(crate) fn most_running(&self) -> usize {
        self.most_running.load(Relaxed)
    }
}

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { http, address: server.address(), calls: Arc::default() }
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Fetches an item. The server answers with its number.
    pub(crate) async fn fetch(&self, item: usize) -> Result<usize, FetchError> {
        let _call = Call::begin(&self.calls);
        let mut request = Request::new(Body::empty());
        // It cannot fail: an address and a number are a valid URI.
        *request.uri_mut() =
            format!("http://{}/items/{item}", self.address).parse().map_err(|_| bad("no URI"))?;
        let (head, body) = self.http.request(request).await?.into_parts();
        let text = to_bytes(Body::new(body), 1_024).await.map_err(|error| bad(error.to_string()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status { status: head.status, retry_after: seconds(&head.headers) });
        }
        text.parse().map_err(|_| FetchError::Answer(text))
    }
}

fn bad(why: impl Into<String>) -> FetchError {
    FetchError::Answer(why.into())
}

/// Reads the header `Retry-After`. The feature `http` of the crate has `retry_after_header`, which also reads dates.
fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A call that is running. It ends when it is dropped, finished or not.
struct Call<'a>(&'a Calls);

impl<'a> Call<'a> {
    fn begin(calls: &'a Calls) -> Self {
        calls.begun.fetch_add(1, Relaxed);
        let running = calls.running.fetch_add(1, Relaxed) + 1;
        calls.most_running.fetch_max(running, Relaxed);
        Self(calls)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}
