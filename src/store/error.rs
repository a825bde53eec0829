//! The errors of stores.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::BoxError;

/// The error of a call to a store.
///
/// A run that ends because of its store has an error of one line, `post_invoices: the store failed after 0 items`. Its
/// [reason](crate::FailureReason::Store) and [`source()`](std::error::Error::source) contain one of these errors, and `{:#}`
/// of an `anyhow::Error` shows both. In all cases, committed data stays. Finished items are in the [partial
/// result](crate::MapTaskError::partial), including those that could not be written and will run again.
///
/// # Messages and remedies
///
/// | text | remedy |
/// |---|---|
/// | ``run `r` is held by web1/4711/9f.. from 2026-11-22T03:00:00Z until at least 2026-11-22T03:14:30Z`` | it is running elsewhere; or that process was killed: wait until then, or [let the new process wait](crate::guide::durable_runs#leases) |
/// | ``run `r` belongs to the task `a`, not to `b`; choose another run id, or forget the run`` | give the task its `name`, or the run another id |
/// | ``run `r` is no longer held by ..: its lease expired, and web2/17/3a.. acquired it`` | use a longer lease; find the cause of the stall of the process |
/// | `..: its lease was not renewed in time, because the store did not answer for 20s` | the store hangs, or is slower than the lease allows: use a longer lease |
/// | `..: the run has ended, or its lease was released` | `release` or `close_run` was called for a holder that was alive; or a checkpoint was used after the end of its run |
/// | `..: the run was forgotten` | `forget` was called while the run was in progress |
/// | `` `/srv/runs.db` was replaced or removed since the store was opened; open the store again`` | put the file back and restart the process; copy a store with `.backup`, never over an open one |
/// | `name must be set with .name(..), .., got no name` | give the task a name of its own |
/// | `item 7: the stored output does not have this type: missing field ..` | a warning in the log: the output's type has changed, and the item runs again |
/// | `item 7: the item cannot be serialized: ..` | its `Serialize` refuses it, for example a path that is not UTF-8: change the type, or use `#[serde(with = "..")]` |
/// | ``item 7: the output cannot be stored as JSON: the field `mean` contains NaN, which JSON writes as null`` | [change the type](crate::store#outputs-that-come-back), for example to an `Option` with `None` in this case, or return an error |
/// | ``run `r` has item hashes of another version of this crate; ..`` | [finish runs before an update](crate::store#how-items-are-identified), or run all items again with another id |
/// | `the run id must have at most 512 bytes, got 6000` | use a shorter run id, task name or version, for example a hash of the long one |
/// | `committing outcomes: the store did not answer within 1m 30s` | the server hangs or cannot be reached; start the run again when it answers |
/// | `connecting to PostgreSQL: .. transaction blocks not allowed in statement pooling mode` | set PgBouncer's `pool_mode` to `transaction` or `session` for this database |
/// | `a checkpoint requires a run with recover()` | add `.recover(&store, run_id)` |
/// | `the store is damaged: ..` | another program changed the file or a row: restore a backup, or `forget` the run |
/// | `the schema version of the store must be at most 2, got 3; update this crate` | the program is older than the store: update it |
/// | `committing outcomes: error returned from database: (code: 13) database or disk is full` | make room, and start the run again |
/// | `opening the SQLite store: .. (code: 14) unable to open database file` | its folder must exist and be writable; or the process has no file descriptor left. A store that is open needs no more of them |
/// | `committing outcomes: .. (code: 5) database is locked` | another process had the file for 30 seconds without a pause: it was suspended during a write, or `sqlite3` is in a transaction |
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
