//! The endpoints of the service: one function each.

use std::sync::Arc;

use async_map_task::Limiter;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::middleware::from_fn_with_state;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::fetch::Fetcher;
use crate::flaky::flaky;
use crate::job::{Asked, Job, Status};
use crate::jobs::Jobs;
use crate::map::map;
use crate::metrics::{Metrics, TEXT_FORMAT};
use crate::order::{Order, check_concurrency};
use crate::reply::ApiError;
use crate::{long, origin};

/// The page loads nothing except from this service. No other page may show it in a frame, and trick its user into
/// clicks on its buttons.
const PAGE_POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; frame-ancestors 'none'; \
                           style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The state that all requests share.
pub(crate) struct Service {
    /// Fetches the URLs of clients.
    pub(crate) clients_fetcher: Fetcher,
    /// Fetches the generated URLs. They are of the service itself, which usually has an internal address.
    pub(crate) own_fetcher: Fetcher,
    /// The limiter of all jobs and requests, in addition to their own concurrency.
    pub(crate) limiter: Limiter,
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Metrics,
    /// The address of the service's own `/flaky` endpoint.
    pub(crate) origin: String,
    /// The names of the service, in addition to its addresses and `localhost`.
    pub(crate) hosts: Vec<String>,
    /// A permit for each item of a map.
    pub(crate) map_items: Arc<Semaphore>,
    /// A permit for each long answer.
    pub(crate) long: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn fetcher(&self, order: &Order) -> &Fetcher {
        if order.is_generated() { &self.own_fetcher } else { &self.clients_fetcher }
    }
}

type Shared = State<Arc<Service>>;
type Answer<T> = Result<T, ApiError>;

pub(crate) fn router(service: Arc<Service>) -> Router {
    let long = Router::new()
        .route("/flaky", get(flaky))
        .route("/map", get(map))
        .route("/jobs/{id}/events", get(events))
        .route("/jobs/{id}/results", get(results))
        .route_layer(from_fn_with_state(Arc::clone(&service), long::limit));
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/limiter", post(resize))
        .route("/jobs", get(list).post(start))
        .route("/jobs/{id}", get(status).delete(cancel))
        .route("/jobs/{id}/pause", post(pause))
        .route("/jobs/{id}/resume", post(resume))
        .route("/jobs/{id}/drain", post(drain))
        .route("/jobs/{id}/concurrency", post(set_concurrency))
        .merge(long)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "this path does not exist"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not support this method")
        })
        .layer(from_fn_with_state(Arc::clone(&service), origin::check))
        .with_state(service)
}

async fn page() -> impl IntoResponse {
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(include_str!("page.html")))
}

/// Starts a job, which continues without a client.
async fn start(
    State(service): Shared,
    body: Result<Json<Value>, JsonRejection>,
) -> Answer<impl IntoResponse> {
    let order = order(body?.0)?;
    let urls = order.urls(&service.origin)?;
    let job = service.jobs.add(|names| {
        let task = order.task(format!("job {}", names.number), &service.limiter, &service.metrics.jobs)?;
        Ok(Job::start(names, &task, urls, service.fetcher(&order)))
    })?;
    let location = format!("/jobs/{}", job.names().id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(job.status())))
}

/// A plain list is an order with URLs and no settings.
fn order(body: Value) -> Answer<Order> {
    let body = if body.is_array() { json!({ "urls": body }) } else { body };
    serde_json::from_value(body).map_err(ApiError::unprocessable)
}

/// Lists every job, with its id. So this is for those who may control all jobs. A service with several users puts a
/// login before it.
async fn list(State(service): Shared) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "jobs": service.jobs.list() })))
}

async fn status(State(service): Shared, Path(id): Path<String>) -> Answer<Json<Status>> {
    Ok(Json(service.jobs.get(&id)?.status()))
}

async fn events(State(service): Shared, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    let events = service.jobs.get(&id)?.events();
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn results(State(service): Shared, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    let lines = service.jobs.get(&id)?.record().lines();
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)))
}

async fn cancel(State(service): Shared, Path(id): Path<String>) -> Answer<Json<Status>> {
    ask(&service, &id, Asked::Cancel)
}

async fn pause(State(service): Shared, Path(id): Path<String>) -> Answer<Json<Status>> {
    ask(&service, &id, Asked::Pause)
}

async fn resume(State(service): Shared, Path(id): Path<String>) -> Answer<Json<Status>> {
    ask(&service, &id, Asked::Run)
}

async fn drain(State(service): Shared, Path(id): Path<String>) -> Answer<Json<Status>> {
    ask(&service, &id, Asked::Drain)
}

fn ask(service: &Service, id: &str, wish: Asked) -> Answer<Json<Status>> {
    let job = service.jobs.get(id)?;
    told(&job, job.ask(wish))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Places {
    concurrency: usize,
}

async fn set_concurrency(
    State(service): Shared,
    Path(id): Path<String>,
    places: Result<Json<Places>, JsonRejection>,
) -> Answer<Json<Status>> {
    let Json(Places { concurrency }) = places?;
    check_concurrency(concurrency)?;
    let job = service.jobs.get(&id)?;
    told(&job, job.set_concurrency(concurrency))
}

/// Returns the status of a job after a command, or an error if the job did not accept the command.
fn told(job: &Job, heeded: bool) -> Answer<Json<Status>> {
    let status = job.status();
    if heeded {
        Ok(Json(status))
    } else {
        let message = format!("too late: the state of job {} is {}", job.names().number, status.state);
        Err(ApiError::new(StatusCode::CONFLICT, message))
    }
}

/// Returns the state of the service for operators.
async fn health(State(service): Shared) -> Json<Value> {
    let (alive, kept) = service.jobs.counts();
    Json(json!({
        "limiter": { "permits": service.limiter.permits(), "in_use": service.limiter.in_use() },
        "jobs": { "alive": alive, "kept": kept },
        "tasks": Handle::current().metrics().num_alive_tasks(),
    }))
}

/// Returns the metrics of all runs for Prometheus. The answer is short: its size does not depend on the number of runs.
async fn metrics(State(service): Shared) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT), (CACHE_CONTROL, "no-store")], service.metrics.text())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permits {
    permits: usize,
}

/// Changes the limit of the whole service. Running attempts continue.
async fn resize(state: Shared, permits: Result<Json<Permits>, JsonRejection>) -> Answer<Json<Value>> {
    let Json(Permits { permits }) = permits?;
    if !(1..=4_096).contains(&permits) {
        return Err(ApiError::unprocessable(format!("permits must be between 1 and 4096, got {permits}")));
    }
    state.limiter.set_permits(permits);
    Ok(health(state).await)
}
