//! The arguments, and the task that is built from them.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::report::Report;

/// Prints the SHA-256 of every file below a folder.
///
/// The output is sorted by path and has the format of sha256sum.
/// Files that cannot be read are listed on stderr, and all others are hashed.
/// Press Ctrl-C to stop.
#[derive(Debug, Parser)]
#[command(name = "hash_files", verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The folder to search, with its subfolders
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// How many files are hashed at the same time [default: one for each core]
    #[arg(long, value_name = "FILES")]
    concurrency: Option<usize>,
    /// How often a file is tried again after an error
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    retries: u32,
    /// The longest time for one attempt at a file, in milliseconds [default: no limit]
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// The share of the files that must succeed, from 0 to 1: with 0.95, five of a hundred may fail
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    min_success_ratio: f64,
    /// Stop at the first file that fails
    #[arg(long)]
    fail_fast: bool,
    /// Write a page about the run to this file; needs a program that was built with `--features report`
    #[arg(long, value_name = "HTML")]
    report: Option<PathBuf>,
}

impl Arguments {
    /// Returns the arguments, the task, and its report, if one is to be written. Invalid arguments end the program.
    pub(crate) fn parse_with_task() -> (Self, AsyncMapTask, Option<Report>) {
        let arguments = Self::parse();
        let fail = |why: String| -> ! { Self::command().error(ErrorKind::ValueValidation, why).exit() };
        if let Err(error) = arguments.dir.symlink_metadata() {
            let dir = arguments.dir.display();
            match error.kind() {
                std::io::ErrorKind::NotFound => fail(format!("no such directory: {dir}")),
                _ => fail(format!("cannot search {dir}: {error}")),
            }
        }
        let report = arguments.report.clone().map(|file| {
            Report::new(file)
                .unwrap_or_else(|| fail("--report: build the program with `--features report`".to_owned()))
        });
        let task = arguments.task(report.as_ref()).unwrap_or_else(|error| fail(in_words_of_flags(&error)));
        (arguments, task, report)
    }

    fn task(&self, report: Option<&Report>) -> Result<AsyncMapTask, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut builder = AsyncMapTask::builder()
            .name("hash_files")
            .concurrency(self.concurrency.unwrap_or(cores))
            .retries(self.retries)
            .min_success_ratio(self.min_success_ratio)
            .fail_fast(self.fail_fast);
        if let Some(report) = report {
            builder = report.observe(builder);
        }
        match self.timeout_ms {
            Some(limit) => builder.timeout_per_attempt(Duration::from_millis(limit)).build(),
            None => builder.build(),
        }
    }
}

/// The error of a setting, as that of its flag. Advice for programmers is in parentheses, and is left out.
fn in_words_of_flags(error: &ConfigError) -> String {
    let (flag, found) = match error.field() {
        "timeout_per_attempt" => ("timeout-ms".to_owned(), "0"),
        field => (field.replace('_', "-"), error.found()),
    };
    let allowed = error.allowed().split([',', '(']).next().unwrap_or_default().trim_end();
    format!("--{flag} must be {allowed}, got {found}")
}
