//! `GET /flaky`: an unreliable endpoint. It delays, refuses for a while, hangs, and closes connections.

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

/// The time for which a request hangs if its client does not give up before.
const HANG: Duration = Duration::from_secs(30);

/// The maximum mean delay.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The probabilities of each kind of answer. All other answers are successes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mood {
    item: usize,
    /// The mean delay. Each delay is between half of it and 1.5 times it.
    delay_ms: u64,
    /// The ratio of 503 with `Retry-After`.
    busy: f64,
    /// The ratio of answers that come after the client has given up.
    hang: f64,
    /// The ratio of answers that break off in the middle.
    drop: f64,
    /// The ratio of 410, which no retry can fix.
    gone: f64,
}

pub(crate) async fn flaky(Query(mood): Query<Mood>) -> Response {
    sleep(Duration::from_millis(mood.delay_ms).min(MAX_DELAY).mul_f64(0.5 + random())).await;
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

/// The cumulative sums of the ratios.
fn up_to<const N: usize>(shares: [f64; N]) -> [f64; N] {
    let mut sum = 0.0;
    shares.map(|share| {
        sum += share;
        sum
    })
}

/// Uniform in `[0, 1]`. The standard library seeds its hash maps at random, which suffices here.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
