//! An embeddings API on a port of this machine, with the limits and the failures of a real one.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::texts::{MAX_INPUTS, MAX_TEXT, MAX_TOKENS, tokens};

/// The time for which a refused client must send nothing.
const HOLD: Duration = Duration::from_secs(1);

/// Requests that the client has sent before it could see the refusal.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// The time that a model takes.
const DELAY: Duration = Duration::from_millis(50);

const DIMENSIONS: usize = 8;

pub(crate) struct Server {
    url: String,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    requests: usize,
    refused: usize,
    failed: usize,
    too_long: usize,
    too_large: usize,
    texts: usize,
    refused_at: Option<Instant>,
    during_hold: usize,
}

#[derive(Debug, Deserialize)]
struct Request {
    input: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/v1/embeddings", listener.local_addr()?);
        let record = Arc::new(Mutex::new(Record::default()));
        let router = Router::new().route("/v1/embeddings", post(answer)).with_state(Arc::clone(&record));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { url, record })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// The record of the server.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = lock(&self.record);
        write!(
            f,
            "the server saw: {} requests, of which {} refused (429), {} failed (500), {} with a text that is too long (400), \
             {} too large (400); {} texts embedded, {} requests during a hold",
            record.requests,
            record.refused,
            record.failed,
            record.too_long,
            record.too_large,
            record.texts,
            record.during_hold
        )
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(record): State<Arc<Mutex<Record>>>, Json(request): Json<Request>) -> Response {
    if let Some(refusal) = lock(&record).add(&request.input) {
        return refusal;
    }
    sleep(DELAY).await;
    let data = request.input.iter().enumerate();
    // The order is not part of the contract.
    let data: Vec<_> =
        data.rev().map(|(at, text)| json!({ "index": at, "embedding": embedding(text) })).collect();
    Json(json!({ "object": "list", "data": data })).into_response()
}

impl Record {
    /// Adds a request. Returns the answer if it is not accepted: if it breaks a limit, and now and then in any case.
    fn add(&mut self, input: &[String]) -> Option<Response> {
        self.requests += 1;
        let (now, number) = (Instant::now(), self.requests);
        let is_held = |at: Instant| (at + ON_THE_WAY..at + HOLD).contains(&now);
        self.during_hold += usize::from(self.refused_at.is_some_and(is_held));
        if number % 25 == 5 {
            self.refused += 1;
            self.refused_at = Some(now);
            let seconds = HOLD.as_secs().to_string();
            return Some(
                (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], "slow down").into_response(),
            );
        }
        if number % 17 == 9 {
            self.failed += 1;
            return Some((StatusCode::INTERNAL_SERVER_ERROR, "try again").into_response());
        }
        if input.len() > MAX_INPUTS || input.iter().map(|text| tokens(text)).sum::<u32>() > MAX_TOKENS {
            self.too_large += 1;
            return Some((StatusCode::BAD_REQUEST, "too many inputs or tokens").into_response());
        }
        if let Some(long) = input.iter().find(|text| tokens(text) > MAX_TEXT) {
            self.too_long += 1;
            let message = format!("an input has {} tokens, at most {MAX_TEXT} are allowed", tokens(long));
            return Some((StatusCode::BAD_REQUEST, message).into_response());
        }
        self.texts += input.len();
        None
    }
}

/// Returns a vector of length 1 that depends on the letters of the text. A real model also knows their meaning.
fn embedding(text: &str) -> Vec<f32> {
    let mut sums = [0_f32; DIMENSIONS];
    for (at, byte) in text.bytes().enumerate() {
        for (sum, dimension) in sums.iter_mut().zip(0_u8..) {
            *sum += f32::from(byte >> dimension & 1) * (1.0 + (at % 7) as f32);
        }
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f32>().sqrt().max(1.0);
    sums.map(|sum| sum / length).to_vec()
}
