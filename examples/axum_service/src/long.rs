//! The answers that may take long: events, results, `/map` and `/flaky`. They have a limit below that of the
//! connections, so that `/health` and all orders find a connection however many clients read streams.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;

use crate::api::Service;
use crate::connections::MAX_CONNECTIONS;
use crate::reply::{ApiError, while_sent};

/// The maximum number of long answers at once. The rest of the connections is for short ones.
const MAX_LONG: usize = MAX_CONNECTIONS / 4 * 3;

/// A permit for each long answer.
pub(crate) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_LONG))
}

/// Refuses a long answer if there are too many.
pub(crate) async fn limit(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let place = Arc::clone(&service.long)
        .try_acquire_owned()
        .map_err(|_| ApiError::busy(format!("at most {MAX_LONG} streams and maps can be open at once")))?;
    Ok(while_sent(next.run(request).await, place))
}
