//! `GET /map`: a run within a request.
//!
//! Its results are in memory until the answer has been sent. So there is a limit of items for one request, and another
//! for all requests together. A longer list is for a job, which keeps one line for each item.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::api::Service;
use crate::order::Order;
use crate::reply::{ApiError, while_sent};

/// The maximum number of items of one request.
const MAX_ITEMS: usize = 1_000;

/// The maximum number of items of all requests that are being answered.
const MAX_ALL_ITEMS: usize = 20_000;

/// A permit for each item.
pub(crate) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_ALL_ITEMS))
}

/// Awaits a run within the request. When the client disconnects, hyper drops this future, and with it the run. Its
/// connections are closed, and its permits are returned.
pub(crate) async fn map(
    State(service): State<Arc<Service>>,
    query: Result<Query<Order>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(order) = query?;
    let places = reserve(&service.map_items, order.len())?;
    let urls = order.urls(&service.origin)?;
    let task = order.task(String::from("map"), &service.limiter, &service.metrics.maps)?;
    let fetcher = service.fetcher(&order);
    let run = task
        .over(urls)
        .map(|url| async move { fetcher.fetch(&url).await })
        .retry_if(|error| error.is_transient())
        .retry_after(|error| error.retry_after());
    let (status, error, result) = match run.await {
        Ok(result) => (StatusCode::OK, None, result),
        Err(error) => (StatusCode::BAD_GATEWAY, Some(error.to_string()), error.into_partial()),
    };
    let errors: Vec<_> = result
        .errors
        .iter()
        .map(|(index, error)| json!({ "index": index, "error": error.to_string() }))
        .collect();
    let account = result.summary.to_string();
    let body = json!({ "error": error, "account": account, "results": result.results, "errors": errors });
    Ok(while_sent((status, Json(body)).into_response(), places))
}

fn reserve(places: &Arc<Semaphore>, items: usize) -> Result<impl Send + use<>, ApiError> {
    if items > MAX_ITEMS {
        let message = format!("a map has at most {MAX_ITEMS} items, got {items}: start a job instead");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let permits = u32::try_from(items).unwrap_or(u32::MAX);
    Arc::clone(places).try_acquire_many_owned(permits).map_err(|_| {
        ApiError::busy(format!(
            "all maps together have at most {MAX_ALL_ITEMS} items, and {items} more are too many"
        ))
    })
}
