//! Hashes a tree of files, several at once: the SHA-256 of every regular file and of every link to one, in the format
//! of `sha256sum`, sorted by path. Each line is printed as soon as it and all lines before it are ready.
//!
//! ```text
//! cargo run --release --example hash_files -- <dir> > sums
//! sha256sum -c --quiet sums
//! cargo run --release --example hash_files --features report -- --report run.html <dir> > sums
//! ```
//!
//! It shows a source that is pulled lazily, blocking work that stops when it is cancelled, results in the order of the
//! input, a bar, and one account for every end: success, failure, and Ctrl-C. Exit codes: 0 if enough files were hashed,
//! 1 if not, 2 for invalid arguments, 130 after Ctrl-C.

mod arguments;
mod bar;
mod files;
#[cfg_attr(not(feature = "report"), path = "no_report.rs")]
mod report;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::process::exit;
use std::sync::Arc;

use async_map_task::{FailureReason, ItemError, ItemOutcome, RunError, Summary};
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::bar::Bar;
use crate::files::{Found, Sum, hash, walk, write_name, write_sum};

#[tokio::main]
async fn main() {
    let (arguments, task, report) = Arguments::parse_with_task();
    let token = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(token.clone()));
    let bar = Bar::new();
    bar.count(&arguments);

    // The files are listed while the run is in progress, so their number is known only at the end. The ratio is
    // judged then. Without --fail-fast every file is tried.
    let listed = RefCell::new(Listed::default());
    let ended = task
        .over(walk(&arguments.dir).inspect(|file| listed.borrow_mut().files.push_back(Arc::clone(file))))
        .map_with_context(|cx, file| {
            let bar = bar.clone();
            async move {
                // The thread cannot be dropped with this future, so it gets the token.
                let stop = cx.cancellation_token().clone();
                tokio::task::spawn_blocking(move || hash(&file, &stop, &bar)).await?
            }
        })
        .retry_if(|error| !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied))
        .label(|file| file.path.display().to_string())
        .error_text(|error| error.to_string())
        .cancellation_token(token)
        .ordered()
        .try_for_each(async |outcome| {
            bar.add_file();
            let file = listed.borrow_mut().take(outcome.index);
            file.map_or(Ok(()), |file| print(&file, outcome, &bar))
        })
        .await;
    bar.clear();
    // An error is ignored: stderr may be closed. A return would wait for all blocking threads, and one of them may hang in
    // a read.
    let _ = print_account(&ended);
    if let Some(Err(error)) = report.map(|report| report.write()) {
        let _ = writeln!(io::stderr(), "hash_files: {error}");
        exit(1);
    }
    exit(exit_code(&ended))
}

/// The files that were listed and not printed yet.
#[derive(Default)]
struct Listed {
    /// The index of the first one.
    first: usize,
    files: VecDeque<Arc<Found>>,
}

impl Listed {
    /// Takes the file with this index. The outcomes come in the order of the files. A file without an outcome was cancelled.
    fn take(&mut self, index: usize) -> Option<Arc<Found>> {
        let skipped = index - self.first;
        self.first = index + 1;
        self.files.drain(..skipped);
        self.files.pop_front()
    }
}

/// Prints the sum of a file, or why there is none.
fn print(file: &Found, outcome: ItemOutcome<Sum, io::Error>, bar: &Bar) -> io::Result<()> {
    match outcome.result {
        Ok(sum) => bar.with_stdout(|| write_sum(&mut io::stdout().lock(), &sum, &file.path)),
        Err(error) => {
            // Stderr may be closed.
            let _ = bar.with_stderr(|| print_failure(file, &error));
            Ok(())
        }
    }
}

fn print_failure(file: &Found, error: &ItemError<io::Error>) -> io::Result<()> {
    let mut err = io::stderr().lock();
    write_name(&mut err, &file.path)?;
    writeln!(err, ": {error}")
}

/// Prints the error of the run, and the account.
fn print_account(ended: &Result<Summary, RunError>) -> io::Result<()> {
    let mut err = io::stderr().lock();
    let summary = match ended {
        Ok(summary) => summary,
        Err(error) => {
            match error.reason() {
                FailureReason::Sink(error) => writeln!(err, "hash_files: cannot print the sums: {error}")?,
                _ => writeln!(err, "{error}")?,
            }
            error.summary()
        }
    };
    writeln!(err, "{summary}")
}

fn exit_code(ended: &Result<Summary, RunError>) -> i32 {
    match ended {
        Ok(_) => 0,
        Err(error) if error.is_cancelled() => 130,
        Err(_) => 1,
    }
}

/// The first Ctrl-C stops the run, which still prints its account. A second one ends the program.
async fn cancel_on_ctrl_c(token: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        token.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        exit(130);
    }
}
