//! Verifies the files in a list of `sha256sum`, as `sha256sum -c` does. The run can be killed at any moment. Started
//! again, it continues.
//!
//! ```text
//! find /usr -type f -exec sha256sum {} + > sums
//! cargo run --release --features sqlite --example resume_batch -- sums --store runs.db --run "nightly-$(date +%F)"
//! ```
//!
//! While it runs, press Ctrl-C, or `kill -9` it. The same command then prints the state of the run, waits until the
//! lease of a killed process expires, and prints the earlier outcomes. It reads only the other files. Files that
//! failed are read again, so run it once more after they were repaired.
//!
//! It shows `recover` with a `SqliteStore`, and checkpoints in long items: a file is read on from its last section,
//! not from its start. It also shows `store.run(id)`, the state of a run for operators. Exit codes: 0 if all files
//! are verified, 1 if not or if the run did not complete, 2 for invalid arguments.

mod arguments;
mod file;
mod manifest;
mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_map_task::store::{SqliteStore, Store};
use async_map_task::{FailureReason, Recovery, Summary};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::file::verify;
use crate::report::{Counts, describe, print, show_progress, tell};

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));
    let code = match verify_all(&arguments, stop).await {
        Ok(summary) => i32::from(summary.successes < summary.total),
        Err(error) => {
            tell(&format!("{error:#}"));
            1
        }
    };
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(code)
}

async fn verify_all(arguments: &Arguments, stop: CancellationToken) -> Result<Summary> {
    let (task, rows) = (arguments.task(), arguments.rows());
    let store = SqliteStore::open(&arguments.store).await.context("cannot open the store")?;
    tell(&describe(&arguments.run, store.run(&arguments.run).await?.as_ref()));

    let counts = Arc::new(Counts::default());
    tokio::spawn(show_progress(Arc::clone(&counts), rows.len()));
    let lease = Duration::from_secs(arguments.lease);
    let recovery = Recovery::run(&arguments.run).lease(lease).wait_for_holder(lease + Duration::from_secs(1));
    let run = task
        .over(&rows)
        .map_with_context(|cx, row| verify(row, cx.checkpoint(), &counts))
        .retry_if(|error| error.may_pass())
        .recover(&store, recovery)
        .cancellation_token(stop)
        .ordered()
        .try_for_each(|outcome| print(&rows, outcome, &counts));
    match run.await {
        Ok(summary) => {
            tell(&summary.to_string());
            Ok(summary)
        }
        Err(error) => {
            tell(&error.summary().to_string());
            if let FailureReason::Cancelled = error.reason() {
                tell("to continue, start it again with the same --run");
            }
            Err(error.into())
        }
    }
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
