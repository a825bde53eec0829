//! The arguments, and the task and the file that they name.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};

use crate::csv::CsvFile;
use crate::database::is_postgres;

/// Inserts the rows of a CSV file into the table `people`. Started again with the same arguments, it continues.
#[derive(Debug, Parser)]
#[command(name = "bulk_insert")]
pub(crate) struct Arguments {
    /// The CSV file, with the columns email, name and age
    pub(crate) file: PathBuf,
    /// The URL of a PostgreSQL database, or the path of a SQLite file, created if missing
    #[arg(long, value_name = "URL or PATH", default_value = "people.db")]
    pub(crate) database: String,
    /// The file for the rows that are refused, with their line and the reason. Each start replaces it
    #[arg(long, value_name = "PATH", default_value = "rejects.csv")]
    pub(crate) rejects: PathBuf,
    /// Maximum number of rows in one statement
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = value_parser!(u16).range(1..=10_000))]
    batch_size: u16,
    /// Maximum number of statements at once [default: 4 for PostgreSQL; SQLite has one writer]
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u16).range(1..=100))]
    concurrency: Option<u16>,
    /// Minimum ratio of rows that must be good, between 0 and 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.99)]
    pub(crate) min_success_ratio: f64,
}

impl Arguments {
    pub(crate) fn batch_size(&self) -> usize {
        self.batch_size.into()
    }

    pub(crate) fn concurrency(&self) -> u16 {
        self.concurrency.unwrap_or(if is_postgres(&self.database) { 4 } else { 1 })
    }

    pub(crate) fn csv(&self) -> CsvFile {
        CsvFile::open(&self.file)
            .unwrap_or_else(|error| refuse(format!("cannot read {}: {error}", self.file.display())))
    }

    pub(crate) fn task(&self) -> AsyncMapTask {
        let flag = |error: &ConfigError| format!("--{}", error.field().replace('_', "-"));
        self.build().unwrap_or_else(|error| {
            refuse(format!("{} must be {}, got {}", flag(&error), error.allowed(), error.found()))
        })
    }

    fn build(&self) -> Result<AsyncMapTask, ConfigError> {
        AsyncMapTask::builder()
            .name("bulk_insert")
            .concurrency(self.concurrency().into())
            .min_success_ratio(self.min_success_ratio)
            // For a database that restarts. A row that is bad is not tried again.
            .retries(4)
            .retry_delay(Duration::from_millis(500))
            .timeout_per_attempt(Duration::from_secs(60))
            .build()
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: impl Display) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}
