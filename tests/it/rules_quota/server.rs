//! A server on loopback that refuses requests, and logs all of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::stalls::Stalls;
use crate::support::{millis, workers};

/// A quota on the arrivals: any interval t sees at most `burst + t x rate` of them.
///
/// It is that sentence: it compares each interval that ends with a new arrival. It shares no arithmetic with the crate.
#[derive(Debug)]
pub(super) struct Quota {
    rate: f64,
    burst: f64,
    admitted: Vec<Instant>,
}

impl Quota {
    pub(super) fn new(per_second: u32, burst: f64) -> Self {
        Self { rate: per_second.into(), burst, admitted: Vec::new() }
    }

    /// Returns `true` if the quota admits an arrival at this time, and counts it then.
    pub(super) fn admits(&mut self, at: Instant) -> bool {
        self.admitted.push(at);
        let allowed = |from: &Instant| self.burst + (at - *from).as_secs_f64() * self.rate;
        let admits =
            (1..).zip(self.admitted.iter().rev()).all(|(count, from)| f64::from(count) <= allowed(from));
        if !admits {
            self.admitted.pop();
        }
        admits
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) is_refused: bool,
}

/// A server with a thread of its own. It ends when this is dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    /// Returns `true` if an arrival at this time is admitted.
    admits: Mutex<Box<dyn FnMut(Instant) -> bool + Send>>,
    /// The time from an arrival that is admitted to its answer.
    answer_after: Duration,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Server {
    pub(super) fn start(
        answer_after: Duration,
        stalls: &Stalls,
        admits: impl FnMut(Instant) -> bool + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            admits: Mutex::new(Box::new(admits)),
            answer_after,
            arrivals: Mutex::default(),
        });
        let app = axum::Router::new().route("/", get(answer)).with_state(Arc::clone(&shared));
        let runtime = workers(1);
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(stalls.clone().watch());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, shared, _runtime: runtime }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns all arrivals so far, in order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let is_refused = {
        let mut admits = shared.admits.lock().unwrap();
        let at = Instant::now();
        let is_refused = !admits(at);
        shared.arrivals.lock().unwrap().push(Arrival { at, is_refused });
        is_refused
    };
    if is_refused {
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")]).into_response();
    }
    if !shared.answer_after.is_zero() {
        sleep(shared.answer_after).await;
    }
    StatusCode::OK.into_response()
}

/// The check of the check: a quota admits its own rate for ever, and a rate that is slightly higher only for a while.
#[test]
fn the_quota_admits_its_rate_and_no_more() {
    let start = Instant::now();
    let refused_first = |per_second: f64| {
        let mut quota = Quota::new(400, 20.5);
        (0..2_000).find(|n| !quota.admits(start + Duration::from_secs_f64(f64::from(*n) / per_second)))
    };
    assert_eq!(refused_first(400.0), None);
    // One arrival in 11 is too many: the burst is used up after 11 x 19.5 others.
    assert_eq!(refused_first(440.0), Some(215));

    let mut quota = Quota::new(400, 20.5);
    assert_eq!((0..30).filter(|_| quota.admits(start)).count(), 20);
    assert_eq!((0..30).filter(|_| quota.admits(start + millis(10))).count(), 4, "one each 2.5 ms");
}
