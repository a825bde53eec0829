//! An adaptive limiter and fixed ones against a real server: axum on the loopback, with a pool of workers behind a queue.
//! `cargo bench -p benches --bench adaptive_server`, three minutes. The table is for `results/adaptive.md`.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark may")]

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_map_task::{AsyncMapTask, Limiter};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, serve};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const WORKERS: u32 = 8;
const SERVICE_MILLIS: u64 = 100;
/// A refusal takes this long, so that the requests that follow do not use all the CPU time.
const REFUSAL: Duration = Duration::from_millis(20);
/// Requests that wait at a server which refuses.
const DEPTH: usize = 16;
const LENGTH: Duration = Duration::from_secs(60);
/// The first seconds do not count.
const WARM_UP: Duration = Duration::from_secs(10);
/// The capacity is cut to a quarter between these times.
const CUT: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Queues,
    Refuses,
    IsCut,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queues => "8 workers behind a queue",
            Self::Refuses => "the same, 503 above 16 that wait",
            Self::IsCut => "the same, 2 workers for 20 s",
        })
    }
}

/// A pool of workers behind a queue.
struct Pool {
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    number: AtomicUsize,
    depth: usize,
}

impl Pool {
    async fn serve(&self) -> StatusCode {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.depth && self.workers.available_permits() == 0
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            sleep(REFUSAL).await;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let _worker = self.workers.acquire().await.expect("it is never closed");
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        // From half the usual time to one and a half times, in a fixed order.
        let number = self.number.fetch_add(1, Ordering::Relaxed) as u64;
        sleep(Duration::from_millis(SERVICE_MILLIS / 2 + number * 37 % (SERVICE_MILLIS + 1))).await;
        StatusCode::OK
    }
}

async fn start(kind: Kind) -> (SocketAddr, Arc<Pool>) {
    let pool = Arc::new(Pool {
        workers: Arc::new(Semaphore::new(WORKERS as usize)),
        waiting: AtomicUsize::new(0),
        number: AtomicUsize::new(0),
        depth: if kind == Kind::Queues { usize::MAX } else { DEPTH },
    });
    let answer = async |State(pool): State<Arc<Pool>>| pool.serve().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let app = Router::new().route("/", get(answer)).with_state(Arc::clone(&pool));
    tokio::spawn(async move { serve(listener, app).await });
    if kind == Kind::IsCut {
        let workers = Arc::clone(&pool.workers);
        tokio::spawn(async move {
            sleep(CUT.0).await;
            let taken = workers.acquire_many(WORKERS * 3 / 4).await.expect("it is never closed");
            sleep(CUT.1 - CUT.0).await;
            drop(taken);
        });
    }
    (address, pool)
}

/// The end of a request: when, after how long, and if it was refused.
type Ends = Mutex<Vec<(Duration, Duration, bool)>>;

async fn measure(kind: Kind, limiter: Limiter) -> String {
    let (address, _pool) = start(kind).await;
    let task = AsyncMapTask::builder()
        .concurrency(500)
        .limiter(&limiter)
        .allow_failures()
        .accept_partial(true)
        .run_timeout(LENGTH)
        .build()
        .expect("the configuration is valid");
    let client = Client::builder().no_proxy().build().expect("the client is valid");
    let ends = Ends::default();
    let begun = Instant::now();
    let call = async |_: u64| {
        let sent = Instant::now();
        let answer = client.get(format!("http://{address}/")).send().await;
        let is_refused = !answer.is_ok_and(|answer| answer.status().is_success());
        let end = (begun.elapsed(), sent.elapsed(), is_refused);
        ends.lock().expect("no thread panics").push(end);
        if is_refused { Err("refused") } else { Ok(()) }
    };
    let run = task.over(0..u64::MAX).map(call).overload(|_| true);
    let summary = run.for_each(async |_| {}).await.expect("a partial run is accepted");
    assert!(summary.successes > 0);
    let ends = ends.lock().expect("no thread panics");
    row(&ends, limiter.permits())
}

fn row(ends: &[(Duration, Duration, bool)], permits: usize) -> String {
    let counted: Vec<_> = ends.iter().filter(|(at, ..)| *at >= WARM_UP).collect();
    let mut durations: Vec<f64> = counted
        .iter()
        .filter(|(.., refused)| !refused)
        .map(|(_, took, _)| took.as_secs_f64() * 1e3)
        .collect();
    durations.sort_by(f64::total_cmp);
    let median = durations.get(durations.len() / 2).copied().unwrap_or(f64::NAN);
    let per_second = durations.len() as f64 / (LENGTH - WARM_UP).as_secs_f64();
    let refused = 100.0 * (counted.len() - durations.len()) as f64 / counted.len() as f64;
    format!("{per_second:.0} | {median:.0} ms | {refused:.2}% | {permits}")
}

fn main() {
    // `cargo test` runs benchmarks too, and measures nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("| server | limit | requests/s | median | refused | permits at the end |");
    println!("|---|---|---|---|---|---|");
    for kind in [Kind::Queues, Kind::Refuses, Kind::IsCut] {
        let adaptive = Limiter::builder().adaptive(1..=200).build().expect("the range is valid");
        let limits = [
            ("**adaptive**", adaptive),
            ("8, right", Limiter::new(8)),
            ("2, a quarter", Limiter::new(2)),
            ("32, four times", Limiter::new(32)),
        ];
        // All of them at once, each with a server of its own: they wait most of the time.
        let rows = runtime.block_on(futures::future::join_all(
            limits.map(|(name, limiter)| async move { (name, measure(kind, limiter).await) }),
        ));
        for (name, row) in rows {
            println!("| {kind} | {name} | {row} |");
        }
    }
}
