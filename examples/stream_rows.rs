//! Streams the rows of an endless table in constant memory. The source is fast, and the reader of the rows is slow.
//!
//! ```text
//! cargo run --release --example stream_rows > rows.csv             # until Ctrl-C
//! cargo run --release --example stream_rows -- --rows 1000000 > rows.csv
//! cargo run --release --example stream_rows | less                 # a reader that takes its time
//! ```
//!
//! It shows `try_for_each` with a sink that waits. The rows are created one at a time, when a permit is free. So at most
//! twice the concurrency of them exist at once. The program prints its resident memory on stderr at intervals. Ctrl-C and
//! `--rows` end it with an account and exit code 0. A reader that closes the pipe ends it with exit code 1.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_map_task::{AsyncMapTask, BoxError, FailureReason};
use clap::Parser;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const CONCURRENCY: usize = 16;
/// While `look_ahead` rows wait for the sink, no other row is started, and running ones can still join them. One more row
/// is in the sink.
const AHEAD_LIMIT: u64 = 2 * CONCURRENCY as u64;
const BATCH: u64 = 1_000;

/// Prints the rows of an endless table as CSV.
#[derive(Debug, Parser)]
#[command(name = "stream_rows")]
struct Arguments {
    /// Number of rows [default: endless]
    #[arg(long)]
    rows: Option<u64>,
    /// Number of rows after which the memory use is printed
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    tell_every: u64,
    /// Milliseconds that the sink waits after every 1000 rows, like a slow disk or network
    #[arg(long, default_value_t = 1)]
    wait_ms: u64,
}

/// A row of the source.
#[derive(Debug, Clone)]
struct Order {
    id: u64,
    pieces: u64,
    cents_a_piece: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));
    match print_rows(arguments, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn print_rows(arguments: Arguments, stop: CancellationToken) -> anyhow::Result<()> {
    // All rows take about the same time, so few finished rows wait for the one before them.
    let task = AsyncMapTask::builder()
        .name("stream_rows")
        .concurrency(CONCURRENCY)
        .look_ahead(CONCURRENCY)
        .build()?;
    // Rows are written one after the other. The compiler cannot know that, so a lock is necessary.
    let out = Mutex::new(BufWriter::new(tokio::io::stdout()));
    let (made, written, most_ahead) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let run = task
        .over(orders(arguments.rows).inspect(|_| {
            made.set(made.get() + 1);
            most_ahead.set(most_ahead.get().max(made.get() - written.get()));
        }))
        .map(line)
        .ordered()
        .cancellation_token(stop)
        .try_for_each(async |outcome| {
            let mut out = out.lock().await;
            out.write_all(outcome.result?.as_bytes()).await?;
            written.set(written.get() + 1);
            if written.get() % BATCH == 0 {
                out.flush().await?;
                sleep(Duration::from_millis(arguments.wait_ms)).await;
            }
            if written.get() % arguments.tell_every == 0 {
                tell(&format!("{} rows, {}", written.get(), resident_memory()));
            }
            Ok::<_, BoxError>(())
        })
        .await;

    tell(&run.as_ref().unwrap_or_else(|error| error.summary()).to_string());
    tell(&format!("maximum of rows ahead: {} of at most {AHEAD_LIMIT}", most_ahead.get()));
    if let Err(error) = run {
        // The normal end of an endless table.
        let is_cancelled = matches!(error.reason(), FailureReason::Cancelled);
        ensure!(is_cancelled, error);
    }
    out.into_inner().flush().await.context("cannot write the last rows")
}

/// Returns the table. Each row is created when it is pulled.
fn orders(rows: Option<u64>) -> impl Iterator<Item = Order> {
    let ids = (1..).take_while(move |id| rows.is_none_or(|rows| *id <= rows));
    ids.map(|id| Order { id, pieces: id % 7 + 1, cents_a_piece: id % 10_000 * 7_919 % 10_000 })
}

/// Processes a row. It could call a service here. The rows would still come in their order.
async fn line(order: Order) -> Result<String, Infallible> {
    let Order { id, pieces, cents_a_piece } = order;
    let total = pieces * cents_a_piece;
    Ok(format!("{id},{pieces},{cents_a_piece},{}.{:02}\n", total / 100, total % 100))
}

/// Returns the resident memory of this process.
fn resident_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match status.lines().find_map(|line| line.strip_prefix("VmRSS:")) {
        Some(size) => format!("{} resident", size.trim()),
        None => "the resident memory is unknown: /proc/self/status does not contain it".to_owned(),
    }
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first Ctrl-C stops the run, which still prints its account. A second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
