//! A server on loopback, with a thread of its own. It notes every request. A request is answered at once, or waits until
//! the claim answers it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// The time for which a claim waits for requests. A request on loopback takes less than a millisecond.
const LIMIT: Duration = Duration::from_secs(20);

/// An answer of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// 200, with the number of the item.
    Ok,
    /// 410, which no retry can fix.
    Gone,
    /// 503, which a retry may fix.
    Busy,
    /// 429, with this `Retry-After` in seconds.
    TooMany(u64),
}

/// A request, as it arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The requests before it.
    pub(crate) number: usize,
    pub(crate) item: usize,
    /// Counted from 1, by the server.
    pub(crate) attempt: usize,
    pub(crate) at: Instant,
}

/// What the server has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) arrivals: Vec<Arrival>,
    /// The requests that have arrived and have no answer yet.
    pub(crate) running: usize,
    /// The maximum of `running`.
    pub(crate) most_running: usize,
    /// The requests that were given up by their client.
    pub(crate) dropped: usize,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: usize,
    item: usize,
    answer: oneshot::Sender<Answer>,
}

impl Seen {
    /// The requests that wait for the claim to answer them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn attempts(&self, item: usize) -> usize {
        self.arrivals.iter().filter(|arrival| arrival.item == item).count()
    }
}

/// Returns the answer to a request, or `None` if it waits for one.
type Policy = dyn FnMut(&Arrival) -> Option<Answer> + Send;

pub(crate) struct Server {
    address: SocketAddr,
    seen: watch::Sender<Seen>,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) async fn start(
        policy: impl FnMut(&Arrival) -> Option<Answer> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on loopback")?;
        let (address, listener) = (listener.local_addr()?, listener.into_std()?);
        let seen = watch::Sender::new(Seen::default());
        let shared = Arc::new(Shared { policy: std::sync::Mutex::new(Box::new(policy)), seen: seen.clone() });
        let router = Router::new().route("/items/{item}", get(answer)).with_state(shared);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener)?, router).await });
        Ok(Self { address, seen, runtime: Some(runtime) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a fact about what the server has seen.
    pub(crate) fn saw<T>(&self, fact: impl FnOnce(&Seen) -> T) -> T {
        fact(&self.seen.borrow())
    }

    /// Waits until the server has seen this. It does not sleep.
    pub(crate) async fn until(&self, what: &str, is_so: impl FnMut(&Seen) -> bool) -> Result<()> {
        let mut seen = self.seen.subscribe();
        if matches!(timeout(LIMIT, seen.wait_for(is_so)).await, Ok(Ok(_))) {
            return Ok(());
        }
        let Seen { arrivals, running, dropped, .. } = &*self.seen.borrow();
        let count = arrivals.len();
        bail!("no {what} in {LIMIT:?}; {count} requests came, {running} run, {dropped} were dropped")
    }

    /// Answers one of the requests that wait, counted from the oldest.
    pub(crate) fn answer(&self, nth: usize, answer: Answer) {
        self.answer_if(answer, |place, _| place == nth);
    }

    /// Answers the request for an item, if it waits.
    pub(crate) fn answer_item(&self, item: usize, answer: Answer) {
        self.answer_if(answer, |_, waiting| waiting.item == item);
    }

    fn answer_if(&self, answer: Answer, mut is_it: impl FnMut(usize, &Waiting) -> bool) {
        self.seen.send_modify(|seen| {
            let found = (0..).zip(&seen.waiting).find(|(place, waiting)| is_it(*place, waiting));
            if let Some(place) = found.map(|(place, _)| place) {
                // The client may have given it up at this moment.
                let _ = seen.waiting.remove(place).answer.send(answer);
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which is not allowed in a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Shared {
    policy: std::sync::Mutex<Box<Policy>>,
    seen: watch::Sender<Seen>,
}

async fn answer(State(shared): State<Arc<Shared>>, Path(item): Path<usize>) -> Response {
    let (open, answer) = Open::begin(shared, item);
    let answer = answer.await;
    open.end();
    match answer {
        Ok(Answer::Ok) => item.to_string().into_response(),
        Ok(Answer::Gone) => StatusCode::GONE.into_response(),
        Ok(Answer::Busy) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Ok(Answer::TooMany(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A request without an answer. Hyper drops it with the connection when the client gives up.
struct Open {
    shared: Arc<Shared>,
    number: usize,
    has_ended: bool,
}

impl Open {
    fn begin(shared: Arc<Shared>, item: usize) -> (Self, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let mut number = 0;
        shared.seen.send_modify(|seen| {
            number = seen.arrivals.len();
            let arrival = Arrival { number, item, attempt: seen.attempts(item) + 1, at: Instant::now() };
            seen.arrivals.push(arrival);
            seen.running += 1;
            seen.most_running = seen.most_running.max(seen.running);
            match shared.policy.lock().ok().and_then(|mut policy| policy(&arrival)) {
                // The receiver is alive.
                Some(answer) => drop(sender.send(answer)),
                None => seen.waiting.push(Waiting { number, item, answer: sender }),
            }
        });
        (Self { shared, number, has_ended: false }, receiver)
    }

    /// Counts the request as answered. This comes before the answer is sent: the client reads it later, so that no request
    /// that this answer allows can be counted together with this one.
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.seen.send_modify(|seen| {
            seen.running -= 1;
            seen.dropped += usize::from(!self.has_ended);
            seen.waiting.retain(|waiting| waiting.number != self.number);
        });
    }
}
