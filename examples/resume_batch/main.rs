//! Verifies the files of a list that `sha256sum` has written, as `sha256sum -c` does, in a run that can be killed at
//! any moment: started again, it goes on where it was.
//!
//! ```text
//! find /usr -type f -exec sha256sum {} + > sums
//! cargo run --release --features sqlite --example resume_batch -- sums --store runs.db --run "nightly-$(date +%F)"
//! ```
//!
//! While that runs, press Ctrl-C, or `kill -9` it. The same command again says what it knows of the run, waits until
//! the lease of a killed process is over, prints what was verified before, and reads only the rest. Files that
//! were not well are read again, so that it can be used once more when they have been put right.
//!
//! It shows `recover` with a `SqliteStore`, a checkpoint in files that take long (a file is read on from the
//! section where it was, not from its start), and what an operator asks: `store.run(id)`. It exits with 0
//! where every file is well, with 1 where one is not or the run did not come to its end, and with 2 on bad arguments.

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
    // A return would wait for all blocking threads, and one may be in a read that is never answered.
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

/// The first Ctrl-C ends the run, which still gives its account; a second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
