//! The arguments, and the task that is built from them.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// Prints the SHA-256 of every file in a tree, in the format of sha256sum.
#[derive(Debug, Parser)]
#[command(name = "hash_files")]
pub(crate) struct Arguments {
    /// The folder to search, with its subfolders
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Maximum number of files that are hashed at once [default: one for each core]
    #[arg(long)]
    concurrency: Option<usize>,
    /// Maximum number of retries of a file
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// Time limit of one attempt at a file [default: no limit]
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// Minimum ratio of the files that must succeed, between 0 and 1
    #[arg(long, default_value_t = 1.0)]
    min_success_ratio: f64,
    /// Stop at the first file that fails
    #[arg(long)]
    fail_fast: bool,
}

impl Arguments {
    /// Returns the task. A value that the task refuses ends the program, like any other invalid argument.
    pub(crate) fn task(&self) -> AsyncMapTask {
        self.build().unwrap_or_else(|error| Self::command().error(ErrorKind::ValueValidation, error).exit())
    }

    fn build(&self) -> Result<AsyncMapTask, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let builder = AsyncMapTask::builder()
            .name("hash_files")
            .concurrency(self.concurrency.unwrap_or(cores))
            .retries(self.retries)
            .min_success_ratio(self.min_success_ratio)
            .fail_fast(self.fail_fast);
        match self.timeout_ms {
            Some(limit) => builder.timeout_per_attempt(Duration::from_millis(limit)).build(),
            None => builder.build(),
        }
    }
}
