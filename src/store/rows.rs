//! The rows of the tables, as both databases return them, and their conversion.

use std::time::{Duration, SystemTime};

use super::{Checksummed, Lease, Record, Recorded, RunInfo, RunStatus, StoreError};

/// The number of a run's failures that its description lists.
pub(super) const LISTED_FAILURES: i64 = 10;

/// An item that succeeded: index, hash, attempts, elapsed nanoseconds, output, checksum.
pub(super) type SuccessRow = (i64, String, i64, i64, String, String);

/// A run: id, task, status, reason; holder, since, until; started, updated; items, and how many of them failed. Times
/// are milliseconds since 1970.
pub(super) type RunRow =
    (String, String, String, Option<String>, Option<String>, Option<i64>, Option<i64>, i64, i64, i64, i64);

/// The row of a run that could not be acquired: task, holder, since, until.
pub(super) type RefusalRow = (String, String, i64, i64);

/// A failure: the run's id, the item's index, and the message.
pub(super) type FailureRow = (String, i64, String);

/// Converts an index to a column.
pub(super) fn index_column(index: u64) -> Result<i64, StoreError> {
    i64::try_from(index).map_err(|error| StoreError::Database {
        doing: "converting the index of an item",
        error: error.into(),
    })
}

/// Converts a duration to nanoseconds, at most 292 years.
pub(super) fn elapsed_column(elapsed: Duration) -> i64 {
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns the three columns of an outcome: output, checksum, error.
pub(super) fn outcome_columns(recorded: &Recorded) -> (Option<&str>, Option<&str>, Option<&str>) {
    match recorded {
        Recorded::Succeeded { output } => (Some(&output.json), Some(&output.checksum), None),
        Recorded::Failed { message } => (None, None, Some(message)),
    }
}

/// Returns the two columns of a status.
pub(super) fn status_columns(status: &RunStatus) -> (&'static str, Option<&str>) {
    match status {
        RunStatus::Running => ("running", None),
        RunStatus::Succeeded => ("succeeded", None),
        RunStatus::Failed { reason } => ("failed", Some(reason)),
    }
}

/// Returns the error of a run that cannot be opened for a task: it belongs to another task, or another holder has it.
pub(super) fn refusal(run_id: &str, task: &str, row: RefusalRow) -> Result<StoreError, StoreError> {
    let (found, holder, since, expires) = row;
    let run_id = run_id.to_owned();
    if found != task {
        return Ok(StoreError::OtherTask { run_id, found, task: task.to_owned() });
    }
    Ok(StoreError::Held { run_id, holder, since: time(since)?, expires: time(expires)? })
}

pub(super) fn record(row: SuccessRow) -> Result<Record, StoreError> {
    let (index, item_hash, attempts, elapsed, json, checksum) = row;
    Ok(Record {
        index: number(index)?,
        item_hash,
        attempts: number(attempts)?,
        elapsed: Duration::from_nanos(number(elapsed)?),
        recorded: Recorded::Succeeded { output: Checksummed { json, checksum } },
    })
}

/// Builds the descriptions of runs, each with its own failures.
pub(super) fn run_infos(runs: Vec<RunRow>, failures: &[FailureRow]) -> Result<Vec<RunInfo>, StoreError> {
    let with_failures = |row: RunRow| {
        let own = failures.iter().filter(|(run_id, ..)| *run_id == row.0);
        let own: Result<_, StoreError> =
            own.map(|(_, index, message)| Ok((number(*index)?, message.clone()))).collect();
        run_info(row, own?)
    };
    runs.into_iter().map(with_failures).collect()
}

fn run_info(row: RunRow, failures: Vec<(u64, String)>) -> Result<RunInfo, StoreError> {
    let (run_id, task, status, reason, holder, since, until, started, updated, items, failed) = row;
    let status = match (status.as_str(), reason) {
        ("running", None) => RunStatus::Running,
        ("succeeded", None) => RunStatus::Succeeded,
        ("failed", Some(reason)) => RunStatus::Failed { reason },
        (status, reason) => {
            return Err(damaged(format!(
                "run `{run_id}` has the status `{status}` with the reason {reason:?}"
            )));
        }
    };
    let lease = match (holder, since, until) {
        (Some(holder), Some(since), Some(until)) => {
            Some(Lease { holder, since: time(since)?, expires: time(until)? })
        }
        (None, None, None) => None,
        _ => return Err(damaged(format!("the lease of run `{run_id}` is incomplete"))),
    };
    let failed = number(failed)?;
    Ok(RunInfo {
        run_id,
        task,
        status,
        lease,
        started: time(started)?,
        updated: time(updated)?,
        succeeded: number::<u64>(items)?.saturating_sub(failed),
        failed,
        failures,
    })
}

/// Converts a column that is never negative.
pub(super) fn number<N: TryFrom<i64>>(column: i64) -> Result<N, StoreError> {
    N::try_from(column)
        .map_err(|_| damaged(format!("a column contains {column}, which is not a valid number")))
}

/// Converts a time that is stored as milliseconds since 1970.
pub(super) fn time(column: i64) -> Result<SystemTime, StoreError> {
    let since_epoch = Duration::from_millis(number(column)?);
    SystemTime::UNIX_EPOCH
        .checked_add(since_epoch)
        .ok_or_else(|| damaged(format!("a column contains {column}, which is not a valid time")))
}

fn damaged(what: String) -> StoreError {
    StoreError::Corrupt(what)
}
