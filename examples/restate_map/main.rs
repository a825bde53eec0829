//! Hashes a tree of files on as many machines as run the example `restate_worker`, and prints the SHA-256 of every
//! regular file in the format of `sha256sum`, sorted by path. Only the paths are sent, so the workers must reach the
//! same tree.
//!
//! ```text
//! cargo run --release --features restate --example restate_map -- /srv/files --admin http://localhost:9070 \
//!     --run-id "sums-$(date +%F)" > sums
//! (cd /srv/files && sha256sum -c --quiet) < sums
//! ```
//!
//! While that runs, press Ctrl-C, or `kill -9` it, the server or a worker. The same command again has what was done
//! before from the engine, and only the rest is read. The guide's page `past_one_machine` has the whole picture.
//!
//! It exits with 0 where no more files failed than `--max-failures` allows, with 1 where more did or the run did not
//! come to its end, and with 2 on bad arguments.

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

/// What a worker answers.
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
            // What the worker refuses, may not read or cannot find would only be so again.
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
                // The engine knows a file by its place in the run only.
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
    // The calls that this has given up are cancelled by tasks that would end with `main`.
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

/// Every regular file, relative to the tree; sorted, because the run knows each by its place. Links are not followed.
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

/// Lines as `sha256sum` writes them. A name that would not fit on a line is escaped, and the line says so with a
/// backslash before the sum.
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

/// The first Ctrl-C ends the run, which still gives its account; a second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

/// One line on stderr. Whoever has closed it does not want to know.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
