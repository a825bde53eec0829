//! The arguments, and the task and the rows that they ask for.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::AsyncMapTask;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::manifest::{Row, read_manifest};

/// Verifies the files of a list that sha256sum has written. Started again with the same --run, it goes on.
#[derive(Debug, Parser)]
#[command(name = "resume_batch")]
pub(crate) struct Arguments {
    /// The list, as sha256sum prints it
    manifest: PathBuf,
    /// The SQLite file that remembers what was done, made if absent
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The id of the run: the same id goes on, a new one verifies everything
    #[arg(long)]
    pub(crate) run: String,
    /// How many files are read at once [default: one for each core]
    #[arg(long)]
    concurrency: Option<usize>,
    /// How many seconds a killed process keeps the run from others
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
            // A file that is not well is no reason to leave the others unread.
            .min_success_ratio(0.0)
            .build()
            .unwrap_or_else(|error| refuse(&error.to_string()))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        read_manifest(&self.manifest).unwrap_or_else(|error| refuse(&format!("{error:#}")))
    }
}

/// The end of the program: what cannot be done with the arguments is told like any other mistake in them.
fn refuse(error: &str) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}
