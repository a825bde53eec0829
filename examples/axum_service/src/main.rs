//! A service that fetches lists of URLs. Jobs run in the background. Requests own their run, which ends with the
//! connection. All of them share one limiter.
//!
//! ```text
//! cargo run --release -p axum_service          # then open http://127.0.0.1:3000
//!
//! curl localhost:3000/jobs --json '["http://example.com/", "http://example.org/"]'
//! curl localhost:3000/jobs --json '{"generate": 500, "delay_ms": 200, "busy": 0.1, "drop": 0.05, "gone": 0.02}'
//! curl localhost:3000/jobs/1                          # the progress
//! curl -N localhost:3000/jobs/1/events                # the progress, told as it changes
//! curl -N localhost:3000/jobs/1/results               # a line for each item, from the first on, as they settle
//! curl -X POST localhost:3000/jobs/1/pause            # or resume, or drain
//! curl localhost:3000/jobs/1/concurrency --json '{"concurrency": 64}'
//! curl -X DELETE localhost:3000/jobs/1                # stop now
//! curl 'localhost:3000/map?generate=20&delay_ms=500'  # Ctrl-C here cancels the run there
//! curl localhost:3000/limiter --json '{"permits": 8}' # for all jobs and requests together
//! curl localhost:3000/health
//! ```
//!
//! On Ctrl-C or SIGTERM it accepts no more requests, lets running attempts finish, and ends.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

mod api;
mod fetch;
mod flaky;
mod job;
mod jobs;
mod order;
mod record;
mod reply;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_map_task::Limiter;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Service, router};
use crate::jobs::Jobs;

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
    let service = Arc::new(Service {
        client: fetch::client()?,
        limiter: Limiter::new(arguments.permits.into()),
        jobs: Jobs::default(),
        origin: origin.clone(),
    });

    let stop = CancellationToken::new();
    let server = axum::serve(listener, router(Arc::clone(&service)))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    println!("listening on {origin}");

    stop_signal().await?;
    stop.cancel();
    service.jobs.close();
    let everything = async {
        service.jobs.ended().await;
        server.await?
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
