//! Reads the body of a request as a whole, within a time limit and two limits of memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use futures::StreamExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::reply::ApiError;

/// The maximum number of bytes of a request.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// The maximum number of bytes of all requests together.
const MAX_BODIES: usize = 64 << 20;

/// The time for a whole body. A limit for each part would let a client send one byte a minute for ever.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The memory for bodies: a permit for each byte. Only bytes that have arrived count, so a client cannot reserve memory
/// by announcing a long body.
pub(crate) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }
}

impl Bodies {
    /// Returns the request with its body in memory, and the permits for this memory.
    pub(crate) async fn read(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Request, OwnedSemaphorePermit), ApiError> {
        let (parts, body) = request.into_parts();
        let Ok(read) = timeout(BODY_LIMIT, self.read_body(Body::new(body))).await else {
            let message = format!("the body did not arrive within {BODY_LIMIT:?}");
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
        };
        let (bytes, memory) = read?;
        Ok((Request::from_parts(parts, Body::from(bytes)), memory))
    }

    async fn read_body(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
        let (mut bytes, mut memory) = (Vec::new(), self.reserve(0)?);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))?;
            if bytes.len() + chunk.len() > MAX_BODY {
                let message = format!("the body must have at most {MAX_BODY} bytes");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            memory.merge(self.reserve(chunk.len())?);
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.into(), memory))
    }

    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(permits)
            .map_err(|_| ApiError::busy("the bodies of other requests take all memory for bodies"))
    }
}
