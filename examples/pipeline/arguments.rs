//! The arguments, and the two tasks that are built from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use async_map_task::AsyncMapTask;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::readings::files_in;

/// Parses the CSV files of a folder and writes a report of each, as JSON.
#[derive(Debug, Parser)]
#[command(name = "pipeline")]
pub(crate) struct Arguments {
    /// The folder with the CSV files; each has the header "sensor,value" and one reading per line
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/shards"))]
    input: PathBuf,
    /// The folder for the reports, created if missing
    #[arg(default_value = "target/pipeline")]
    pub(crate) output: PathBuf,
    /// Maximum number of files that are parsed at once
    #[arg(long, default_value_t = 4)]
    parsers: usize,
    /// Maximum number of reports that are written at once
    #[arg(long, default_value_t = 2)]
    writers: usize,
    /// Maximum number of files that may fail in each of the two tasks; one more stops both
    #[arg(long, default_value_t = 10)]
    max_failures: usize,
    /// Seconds that running reports have to end after the run starts to stop
    #[arg(long, default_value_t = 10)]
    grace: u64,
}

/// The tasks, the files and the output folder of the pipeline.
pub(crate) struct Job {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) output: PathBuf,
    pub(crate) parse: AsyncMapTask,
    pub(crate) report: AsyncMapTask,
    /// The maximum number of files that the first task can be ahead of the second.
    pub(crate) ahead_limit: usize,
}

impl Arguments {
    /// Returns the job. Invalid arguments end the program, like any other error in them.
    pub(crate) fn job(self) -> Job {
        self.build().unwrap_or_else(|error| {
            Self::command().error(ErrorKind::ValueValidation, format!("{error:#}")).exit()
        })
    }

    fn build(self) -> anyhow::Result<Job> {
        let Self { input, output, parsers, writers, max_failures, grace } = self;
        let task = |name, concurrency| {
            AsyncMapTask::builder().name(name).concurrency(concurrency).max_failures(max_failures)
        };
        let parse = task("parse", parsers).build().context("--parsers")?;
        // When the first task ends with an error, the second is still processing its last files.
        let report =
            task("report", writers).cancel_grace(Duration::from_secs(grace)).build().context("--writers")?;
        let files = files_in(&input).with_context(|| cannot("list", &input))?;
        fs::create_dir_all(&output).with_context(|| cannot("make", &output))?;
        // With a concurrency of n, a task starts nothing while n outcomes wait, and running items can still join
        // them. So each task has at most 2n - 1 files in progress.
        let ahead_limit = parsers.saturating_add(writers).saturating_mul(2) - 2;
        Ok(Job { files, output, parse, report, ahead_limit })
    }
}

fn cannot(what: &str, folder: &Path) -> String {
    format!("cannot {what} the folder {}", folder.display())
}
