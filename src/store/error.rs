//! The errors of stores.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::BoxError;

/// The error of a call to a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The run is held by another process, or by another run of this process.
    #[error("run `{run_id}` is held by {holder} from {} until at least {}", time(*since), time(*expires))]
    Held {
        /// The id of the run.
        run_id: String,
        /// The holder: host, process and random digits.
        holder: String,
        /// When the holder acquired the run.
        since: SystemTime,
        /// When its lease ends, unless it is renewed.
        expires: SystemTime,
    },
    /// The id belongs to a run of another task.
    #[error(
        "run `{run_id}` belongs to the task `{found}`, not to `{task}`; choose another run id, or forget the run"
    )]
    OtherTask {
        /// The id of the run.
        run_id: String,
        /// The task of the existing run.
        found: String,
        /// The task for which the run was opened.
        task: String,
    },
    /// The holder has lost the run.
    #[error("run `{run_id}` is no longer held by {holder}: {loss}")]
    LeaseLost {
        /// The id of the run.
        run_id: String,
        /// The holder that has lost the run.
        holder: String,
        /// How the run was lost.
        loss: LeaseLoss,
    },
    /// The path of a `SqliteStore` leads to another file than the one that was opened, or to none.
    #[error("`{}` was replaced or removed since the store was opened; open the store again", path.display())]
    Replaced {
        /// The path of the file.
        path: PathBuf,
    },
    /// The outcomes of the run were recorded with item hashes of another format, by another version of this crate. So the
    /// items cannot be compared with the recorded ones.
    #[error(
        "run `{run_id}` has item hashes of another version of this crate; choose another run id, or forget the run to run \
         its items again"
    )]
    OtherFormat {
        /// The id of the run.
        run_id: String,
    },
    /// A run id, the name of a task, a version, the hash of an item or a holder has more than
    /// [`MAX_NAME_BYTES`](super::MAX_NAME_BYTES).
    #[error("{what} must have at most {allowed} bytes, got {found}")]
    NameTooLong {
        /// The kind of the name.
        what: &'static str,
        /// Its number of bytes.
        found: usize,
        /// The maximum number of bytes.
        allowed: usize,
    },
    /// A checkpoint was used in a run without [`recover`](crate::MapRun::recover).
    #[error("a checkpoint requires a run with recover()")]
    NotKept,
    /// The stored data differs from the data that was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store was written by a newer version of this crate.
    #[error("the schema version of the store must be at most {supported}, got {found}; update this crate")]
    TooNew {
        /// The version of the schema in the store.
        found: i64,
        /// The newest version that this crate supports.
        supported: i64,
    },
    /// An item could not be serialized, or an output or a state could not be written as JSON or read back.
    #[error("{what}: {error}")]
    Json {
        /// The value that is affected.
        what: String,
        /// The cause.
        error: BoxError,
    },
    /// The store did not answer a call of a run within [`Store::time_limit`](super::Store::time_limit).
    #[error("{doing}: the store did not answer within {}", humantime::format_duration(*limit))]
    NoAnswer {
        /// The operation of the store.
        doing: &'static str,
        /// How long the run has waited.
        limit: Duration,
    },
    /// The database returned an error.
    #[error("{doing}: {error}")]
    Database {
        /// The operation of the store.
        doing: &'static str,
        /// The error of the database.
        error: BoxError,
    },
}

/// How a holder has lost its run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// The store did not answer a renewal in time, so the holder does not know if it still holds the run.
    NotRenewed {
        /// How long the holder has waited for the answer.
        waited: Duration,
    },
    /// The lease expired, and another holder acquired the run.
    Taken {
        /// The other holder.
        by: String,
    },
    /// The run was closed, or its lease was [released](crate::store::Store::release).
    Ended,
    /// The run was [forgotten](crate::store::Store::forget).
    Forgotten,
}

impl LeaseLoss {
    /// Returns the kind of loss from the store's current row of the run: no row, or its holder.
    pub(super) fn of_row(row: Option<Option<String>>) -> Self {
        match row {
            None => Self::Forgotten,
            Some(None) => Self::Ended,
            Some(Some(by)) => Self::Taken { by },
        }
    }
}

impl Display for LeaseLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRenewed { waited } => {
                let waited = humantime::format_duration(*waited);
                write!(f, "its lease was not renewed in time, because the store did not answer for {waited}")
            }
            Self::Taken { by } => write!(f, "its lease expired, and {by} acquired it"),
            Self::Ended => f.write_str("the run has ended, or its lease was released"),
            Self::Forgotten => f.write_str("the run was forgotten"),
        }
    }
}

impl StoreError {
    /// Adds the index of the item that cannot be serialized.
    pub(crate) fn of_item(self, index: usize) -> Self {
        match self {
            Self::Json { what, error } => Self::Json { what: format!("item {index}: {what}"), error },
            other => other,
        }
    }

    pub(crate) fn lease_lost(run_id: &str, holder: &str, loss: LeaseLoss) -> Self {
        Self::LeaseLost { run_id: run_id.to_owned(), holder: holder.to_owned(), loss }
    }
}

/// Formats a time for people: `2026-11-22T03:00:00Z`.
fn time(time: SystemTime) -> impl Display {
    humantime::format_rfc3339_seconds(time)
}
