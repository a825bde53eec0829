//! `GET /flaky`: an endpoint as one meets them. It delays, refuses for a while, hangs, and hangs up.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::sleep;

/// For how long a request hangs whose client does not give up before.
const HANG: Duration = Duration::from_secs(30);

/// What to expect of an answer: the shares are probabilities, and what they leave is a good answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mood {
    item: usize,
    /// The mean delay; each one is between half of it and three halves.
    delay_ms: u64,
    /// The share of 503 with `Retry-After`.
    busy: f64,
    /// The share that is answered when nobody waits any more.
    hang: f64,
    /// The share of answers that break off in the middle.
    drop: f64,
    /// The share of 410, which no retry can mend.
    gone: f64,
}

pub(crate) async fn flaky(Query(mood): Query<Mood>) -> Response {
    sleep(Duration::from_millis(mood.delay_ms).mul_f64(0.5 + random())).await;
    let [busy, hang, drop, gone] = up_to([mood.busy, mood.hang, mood.drop, mood.gone]);
    match random() {
        draw if draw < busy => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], "busy\n").into_response()
        }
        draw if draw < hang => {
            sleep(HANG).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        draw if draw < drop => {
            let half = stream::once(async { Ok("the first half of ") });
            let broken = stream::once(async {
                sleep(Duration::from_millis(5)).await;
                Err(io::Error::other("connection closed on request"))
            });
            Body::from_stream(half.chain(broken)).into_response()
        }
        draw if draw < gone => (StatusCode::GONE, "gone\n").into_response(),
        _ => format!("item {}\n", mood.item).into_response(),
    }
}

/// The sum of each share and of those before it.
fn up_to<const N: usize>(shares: [f64; N]) -> [f64; N] {
    let mut sum = 0.0;
    shares.map(|share| {
        sum += share;
        sum
    })
}

/// Uniform in `[0, 1]`: the standard library seeds its hash maps at random, and that is random enough here.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
