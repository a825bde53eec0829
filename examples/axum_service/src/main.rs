//! A service that fetches lists of URLs. Jobs run in the background. Requests own their run, which ends with the
//! connection. All of them share one limiter.
//!
//! ```text
//! cargo run --release -p axum_service          # then open http://127.0.0.1:3000
//!
//! curl localhost:3000/jobs --json '["http://example.com/", "http://example.org/"]'
//! curl localhost:3000/jobs --json '{"generate": 500, "delay_ms": 200, "busy": 0.1, "drop": 0.05, "gone": 0.02}'
//! curl localhost:3000/jobs                            # every job, the newest first; JOB below is an id of these
//! curl localhost:3000/jobs/JOB                        # the progress
//! curl -N localhost:3000/jobs/JOB/events              # the progress, told as it changes
//! curl -N localhost:3000/jobs/JOB/results             # a line for each item, from the first on, as they settle
//! curl -X POST localhost:3000/jobs/JOB/pause          # or resume, or drain
//! curl localhost:3000/jobs/JOB/concurrency --json '{"concurrency": 64}'
//! curl -X DELETE localhost:3000/jobs/JOB              # stop now
//! curl 'localhost:3000/map?generate=20&delay_ms=500'  # Ctrl-C here cancels the run there
//! curl localhost:3000/limiter --json '{"permits": 8}' # for all jobs and requests together
//! curl localhost:3000/health
//! curl localhost:3000/metrics                         # for Prometheus
//! ```
//!
//! On Ctrl-C or SIGTERM it accepts no more requests, lets running attempts finish, and ends.
//!
//! # What it shows
//!
//! - A run in the background with commands, progress and a record of its outcomes: `job`, `jobs`, `record`.
//! - A run within a request: `map`. Endpoints and their errors: `api`, `order`, `reply`.
//! - Requests to servers that fail, with retries: `fetch`, and `flaky` to try it.
//! - Metrics of all runs for Prometheus: `metrics`.
//! - The limits of a service that strangers can reach: the other files.
//!
//! # Limits
//!
//! | | limit | above it |
//! |---|---|---|
//! | header, and idle connection | 5 s, 32 KiB | the connection is closed; 431 if the header is too long |
//! | body | 10 s, 1 MiB | 408, 413 |
//! | all bodies together | 64 MiB | 503 |
//! | connections | 768 | the one that has waited longest for a whole request is closed |
//! | streams, maps and `/flaky` together | 576 | 503; the other connections are for short answers |
//! | items of one map, of all maps | 1,000, 20,000 | 413, 503 |
//! | URLs of one job | 10,000 | 422 |
//! | running jobs, ended jobs | 256, 256 | 503; the job that ended first is deleted |
//! | `Host` and `Origin` | the service's own | 421, 403 |
//! | fetched addresses | public ones | the item fails |
//!
//! A 503 has the header `Retry-After`. Two things are missing, which a proxy in front can add: TLS, and a login. Without
//! a login, everyone who reaches the service can list and stop all jobs. So it listens on 127.0.0.1 by default.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

mod api;
mod body;
mod connections;
mod fetch;
mod flaky;
mod internal;
mod job;
mod jobs;
mod long;
mod map;
mod mask;
mod metrics;
mod order;
mod origin;
mod record;
mod reply;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_map_task::Limiter;
use clap::Parser;
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Service, router};
use crate::fetch::{Fetcher, Reach};
use crate::jobs::Jobs;
use crate::metrics::{Metrics, UPKEEP_INTERVAL};

/// The time that jobs and connections have to end after the signal. Then they are dropped.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Fetches lists of URLs, with a page to watch it.
#[derive(Debug, Parser)]
#[command(name = "axum_service")]
struct Arguments {
    /// The address to listen on; port 0 means any free port
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Maximum number of running requests of all jobs together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    permits: u16,
    /// A name of the service, as its clients write it in the header Host. Can be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Fetch from internal addresses as well, for tests and demonstrations
    #[arg(long)]
    allow_internal: bool,
    /// The log level: error, warn, info or debug
    #[arg(long, default_value = "info")]
    log: tracing::Level,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_max_level(arguments.log).with_writer(io::stderr).init();
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let origin = format!("http://{}", listener.local_addr()?);
    let reach = if arguments.allow_internal { Reach::Anywhere } else { Reach::Public };
    let service = Arc::new(Service {
        clients_fetcher: Fetcher::new(Client::builder(), reach)?,
        own_fetcher: Fetcher::new(Client::builder(), Reach::Anywhere)?,
        limiter: Limiter::new(arguments.permits.into()),
        jobs: Jobs::default(),
        metrics: Metrics::install().context("cannot install the metrics")?,
        origin: origin.clone(),
        hosts: arguments.hosts,
        map_items: map::places(),
        long: long::places(),
    });

    let stop = CancellationToken::new();
    let server = tokio::spawn(serve::serve(listener, router(Arc::clone(&service)), stop.clone()));
    println!("listening on {origin}");

    tokio::select! {
        biased;
        signal = stop_signal() => signal?,
        () = service.metrics.upkeep(UPKEEP_INTERVAL) => {}
    }
    stop.cancel();
    service.jobs.close();
    let everything = async {
        service.jobs.ended().await;
        server.await
    };
    match timeout(SHUTDOWN_LIMIT, everything).await {
        Ok(ended) => ended.context("the server failed")?,
        Err(_) => tracing::warn!("dropped the requests that did not end within {SHUTDOWN_LIMIT:?}"),
    }
    println!("ended");
    Ok(())
}

async fn stop_signal() -> io::Result<()> {
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted,
        terminated = terminated() => terminated,
    }
}

#[cfg(unix)]
async fn terminated() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

/// Other systems have only Ctrl-C.
#[cfg(not(unix))]
async fn terminated() -> io::Result<()> {
    std::future::pending().await
}
