//! Inserts the rows of a CSV file into a database table, 500 rows in one statement. It can be killed at any moment. Started
//! again with the same arguments, it continues, and no row is lost or inserted twice. The table is the record of the rows that
//! are done, so it needs no `recover`; see `TABLE` in `database.rs`.
//!
//! ```text
//! seq 1000000 | awk 'BEGIN { print "email,name,age" } { print "user" $1 "@site.example,User " $1 "," $1 % 100 }' > people.csv
//! cargo run --release --features postgres,signal,sqlite --example bulk_insert -- people.csv
//! cargo run --release --features postgres,signal,sqlite --example bulk_insert -- people.csv --database postgres://localhost/people
//! ```
//!
//! It shows `map_batches`: one bad row makes the database refuse a whole statement, and the library then searches for the bad
//! row with smaller statements. The others are inserted. Bad rows go to a file, with the reason. It also shows a source that
//! is read lazily, with its total, so that too many bad rows stop the run early. A database that is down is no fault of a
//! row: the sink stops the run.
//!
//! Exit codes: 0 if the file is done, 1 if too many rows are bad or the run has failed, 2 for invalid arguments, 130 after
//! Ctrl-C.

mod arguments;
mod csv;
mod database;
mod report;

use std::future::ready;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use async_map_task::{FailureReason, RunError};
use clap::Parser;

use crate::arguments::Arguments;
use crate::csv::Row;
use crate::database::{Database, insert};
use crate::report::{Report, tell};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match insert_all(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn insert_all(arguments: &Arguments) -> Result<ExitCode> {
    let (task, file) = (arguments.task(), arguments.csv());
    let database = Database::open(&arguments.database, arguments.concurrency(), file.id)
        .await
        // A URL may contain a password, so it is not printed.
        .context("cannot open the --database")?;
    let mut report = Report::create(&arguments.rejects, file.rows)
        .with_context(|| format!("cannot write the --rejects {}", arguments.rejects.display()))?;
    let run = task
        .over_try(file)
        // With a total, too many bad rows stop the run when they are found, and not at its end.
        .with_total(report.total())
        .map_batches(arguments.batch_size(), |rows: Vec<Row>| insert(&database, rows))
        .retry_if(|error| !error.is_about_the_row())
        // The error of a statement has no row. The label brings the text of the row to the report.
        .label(|row| row.text.clone())
        .cancel_on_ctrl_c()
        .try_for_each(|outcome| ready(report.add(outcome)))
        .await;
    report.print(database.close().await).context("cannot print the report")?;
    match run {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_cancelled() => {
            tell("to continue, start it again with the same arguments");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(explain(error, arguments, report.total())),
    }
}

/// Describes the end of the run in the words of the arguments.
fn explain(error: RunError, arguments: &Arguments, total: usize) -> anyhow::Error {
    match error.reason() {
        FailureReason::TooManyFailures { failures, allowed } => anyhow!(
            "stopped: {failures} rows are bad, and --min-success-ratio {} allows {allowed} of {total}; see {}",
            arguments.min_success_ratio,
            arguments.rejects.display()
        ),
        FailureReason::Sink(error) => anyhow!("stopped: {error}"),
        FailureReason::Source(error) => anyhow!("cannot read {}: {error}", arguments.file.display()),
        _ => error.into(),
    }
}
