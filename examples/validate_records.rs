//! Validates a file of JSON records, one on each line, and stops at the first invalid one.
//!
//! ```text
//! cargo run --example validate_records [<file>]
//! ```
//!
//! It shows `fail_fast`: one invalid record makes the whole file useless, so no time is spent on the rest. Exit code
//! 1 means that a record is invalid, such as the sixth one of the default file.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, ensure};
use async_map_task::AsyncMapTask;
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let file = env::args_os().nth(1).map_or_else(default_file, PathBuf::from);
    let records = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;

    let task = AsyncMapTask::builder().name("validate_records").fail_fast(true).build()?;
    match task.run(records.lines().collect::<Vec<_>>(), validate).await {
        Ok(result) => {
            let sum: u64 = result.successful_results().sum();
            println!("all {} records are valid, and their ids add up to {sum}", result.total());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if let Some((index, failure)) = error.first_failure() {
                println!("line {}: {failure}", index + 1);
            }
            let partial = error.partial();
            println!("{} of {} records were valid", partial.successes(), partial.total());
            println!("{} were not started", partial.not_started());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Returns the id of a valid record.
async fn validate(line: &str) -> anyhow::Result<u64> {
    let record: Value = serde_json::from_str(line).context("not JSON")?;
    let id = record.get("id").context("the record has no id")?;
    let id = id.as_u64().with_context(|| format!("the id must be a whole number, got {id}"))?;
    let name = record.get("name").and_then(Value::as_str).unwrap_or_default();
    ensure!(!name.is_empty(), "record {id} has no name");
    Ok(id)
}

fn default_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/records.jsonl")
}
