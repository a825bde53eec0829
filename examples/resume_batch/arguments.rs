//! The arguments, and the task and the rows that are built from them.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::AsyncMapTask;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::manifest::{Row, read_manifest};

/// Verifies the files in a list of sha256sum. Started again with the same --run, it continues.
#[derive(Debug, Parser)]
#[command(name = "resume_batch")]
pub(crate) struct Arguments {
    /// The list, in the format of sha256sum
    manifest: PathBuf,
    /// The SQLite file that stores the outcomes, created if missing
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The id of the run; the id of an earlier run continues it, a new id verifies all files
    #[arg(long)]
    pub(crate) run: String,
    /// Maximum number of files that are read at once [default: one for each core]
    #[arg(long)]
    concurrency: Option<usize>,
    /// Seconds after which another process can continue the run of a killed process
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) lease: u64,
}

impl Arguments {
    pub(crate) fn task(&self) -> AsyncMapTask {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        AsyncMapTask::builder()
            .name("verify_files")
            .concurrency(self.concurrency.unwrap_or(cores))
            .retries(1)
            .retry_delay(Duration::ZERO)
            // A file that fails does not stop the others.
            .min_success_ratio(0.0)
            .build()
            .unwrap_or_else(|error| refuse(&error.to_string()))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        read_manifest(&self.manifest).unwrap_or_else(|error| refuse(&format!("{error:#}")))
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: &str) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}
