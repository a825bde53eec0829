//! Hashes a tree of files, several at once: the SHA-256 of every regular file and of every link to one, in the format
//! of `sha256sum`, sorted by path.
//!
//! ```text
//! cargo run --release --example hash_files -- <dir> > sums
//! sha256sum -c --quiet sums
//! ```
//!
//! It shows a source that is pulled lazily, blocking work that stops when it is cancelled, and one account for every
//! end: success, failure, and Ctrl-C. Exit codes: 0 if enough files were hashed, 1 if not, 2 for invalid arguments.

mod arguments;
mod files;

use std::cell::RefCell;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_map_task::{Event, MapTaskResult};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::files::{Found, Sum, hash, walk, write_name, write_sum};

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let token = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(token.clone()));
    let settled = Arc::new(AtomicUsize::new(0));
    tokio::spawn(show_progress(Arc::clone(&settled)));

    // The files are listed while the run is in progress, so their number is known only at the end. The ratio is
    // judged then. Without --fail-fast every file is tried.
    let found = RefCell::new(Vec::new());
    let run = arguments
        .task()
        .over(walk(&arguments.dir).inspect(|file| found.borrow_mut().push(Arc::clone(file))))
        .map_with_context(|cx, file| async move {
            // The thread cannot be dropped with this future, so it gets the token.
            let stop = cx.cancellation_token().clone();
            tokio::task::spawn_blocking(move || hash(&file, &stop)).await?
        })
        .retry_if(|error| !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied))
        .observe(|event: &Event<'_>| {
            if let Event::ItemSettled { .. } = event {
                settled.fetch_add(1, Relaxed);
            }
        })
        .cancellation_token(token);
    let mut complaints = Vec::new();
    let result = run.await.unwrap_or_else(|error| {
        complaints.push(error.to_string());
        error.into_partial()
    });
    let found = found.borrow();
    if let Err(error) = print_sums(&found, &result) {
        complaints.push(format!("cannot print the sums: {error}"));
    }
    // An error is ignored: stderr may be closed.
    let _ = print_account(&found, &result, &complaints);
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(i32::from(!complaints.is_empty()))
}

fn print_sums(found: &[Arc<Found>], result: &MapTaskResult<Sum, io::Error>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (file, sum) in found.iter().zip(&result.results) {
        if let Some(sum) = sum {
            write_sum(&mut out, sum, &file.path)?;
        }
    }
    out.flush()
}

/// Prints the files that failed, the error of the run, and the account.
fn print_account(
    found: &[Arc<Found>],
    result: &MapTaskResult<Sum, io::Error>,
    complaints: &[String],
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stderr().lock());
    for (file, error) in result.errors.iter().filter_map(|(index, error)| Some((found.get(*index)?, error))) {
        write_name(&mut out, &file.path)?;
        writeln!(out, ": {error}")?;
    }
    for complaint in complaints {
        writeln!(out, "{complaint}")?;
    }
    writeln!(out, "{}", result.summary)?;
    out.flush()
}

/// The first Ctrl-C stops the run, which still prints its account. A second one ends the program.
async fn cancel_on_ctrl_c(token: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        token.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

async fn show_progress(settled: Arc<AtomicUsize>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = writeln!(io::stderr(), "files so far: {}", settled.load(Relaxed));
    }
}
