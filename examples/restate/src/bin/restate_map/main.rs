//! Hashes a tree of files on all machines that run the example `restate_worker`. Prints the SHA-256 of every regular
//! file in the format of `sha256sum`, sorted by path. Only the paths are sent, so the workers must have access to the
//! same tree.
//!
//! ```text
//! cargo run --release -p restate-example --bin restate_map -- /srv/files --admin http://localhost:9070 \
//!     --run-id "sums-$(date +%F)" > sums
//! (cd /srv/files && sha256sum -c --quiet) < sums
//! ```
//!
//! While it runs, press Ctrl-C, or `kill -9` it, the server or a worker. The same command then gets the earlier
//! outcomes from the engine, and only the other files are read. The guide's page `past_one_machine` explains the
//! setup.
//!
//! Exit codes: 0 if at most `--max-failures` files failed, 1 if more failed or the run did not complete, 2 for
//! invalid arguments.

mod arguments;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use async_map_task::restate::{Restate, RestateError};
use async_map_task::{AsyncMapTask, FailureReason, MapTaskResult};
use clap::Parser;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use crate::arguments::Arguments;

/// The answer of a worker.
#[derive(Debug, Deserialize)]
struct Checksum {
    path: PathBuf,
    size: u64,
    sha256: String,
}

#[derive(Debug, thiserror::Error)]
enum ChecksumError {
    #[error(transparent)]
    Restate(#[from] RestateError),
    #[error(
        "the run has {found:?} at this index, because the tree has changed since the run started; choose another --run-id"
    )]
    Changed { found: PathBuf },
}

impl ChecksumError {
    fn is_retryable(&self) -> bool {
        match self {
            // A path that a worker refuses, cannot find or may not read would fail again.
            Self::Changed { .. } | Self::Restate(RestateError::Handler { code: 400 | 403 | 404, .. }) => {
                false
            }
            Self::Restate(error) => error.is_retryable(),
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let (task, engine) = arguments.task_and_engine();
    if let Err(error) = hash_all(&arguments, &task, &engine).await {
        tell(&format!("{error:#}"));
        std::process::exit(1);
    }
}

async fn hash_all(arguments: &Arguments, task: &AsyncMapTask, engine: &Restate) -> Result<()> {
    let paths = walk(&arguments.dir).context("cannot list the files")?;
    let mut sha256 = engine.handler::<Checksum>("Checksums", "sha256");
    if let Some(run_id) = &arguments.run_id {
        sha256 = sha256.run_id(run_id);
    }
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));
    let run = task
        .over(&paths)
        .map_with_context(|cx, path| {
            let call = sha256.call(cx, path);
            async move {
                let checksum = call.await?;
                // The engine identifies a file by its index in the run only.
                if checksum.path == *path {
                    Ok(checksum)
                } else {
                    Err(ChecksumError::Changed { found: checksum.path })
                }
            }
        })
        .retry_if(ChecksumError::is_retryable)
        .cancellation_token(stop);
    let ended = run.await;
    // Tasks cancel the calls that were given up. They would end with `main`.
    let uncancelled = engine.settled().await;
    if uncancelled > 0 {
        tell(&format!("failed to cancel {uncancelled} calls in the engine, they may still run"));
    }
    let (verdict, result) = match ended {
        Ok(result) => (Ok(()), result),
        Err(error) => {
            let mut text = error.to_string();
            if arguments.run_id.is_some() && matches!(error.reason(), FailureReason::Cancelled) {
                text += "; to continue, start it again with the same --run-id";
            }
            (Err(Error::msg(text)), error.into_partial())
        }
    };
    print_sums(&result).context("cannot print the sums")?;
    for (path, error) in result.errors.iter().filter_map(|(index, error)| Some((paths.get(*index)?, error))) {
        tell(&format!("{}: {error}", path.display()));
    }
    let bytes: u64 = result.successful_results().map(|checksum| checksum.size).sum();
    tell(&format!("{}; {bytes} bytes", result.summary));
    verdict
}

/// Returns every regular file, relative to the tree. Sorted, because the run identifies each by its index. Links are
/// not followed.
fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            paths.push(entry.path().strip_prefix(dir)?.to_owned());
        }
    }
    Ok(paths)
}

/// Writes lines in the format of `sha256sum`. A name that does not fit on a line is escaped, and a backslash before
/// the sum marks the line.
fn print_sums(result: &MapTaskResult<Checksum, ChecksumError>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for Checksum { path, sha256, .. } in result.successful_results() {
        let name = path.to_string_lossy();
        let escaped = name.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
        let mark = if escaped == name { "" } else { r"\" };
        writeln!(out, "{mark}{sha256}  {escaped}")?;
    }
    out.flush()
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

/// Prints one line on stderr. An error is ignored: stderr may be closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
