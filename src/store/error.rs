//! Why a store could not do what it was asked for.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::BoxError;

/// Why a store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another run of this one, holds the run.
    #[error("run `{run_id}` is held by {holder} since {}, until {} at least", time(*since), time(*expires))]
    Held {
        /// The id of the run.
        run_id: String,
        /// Who holds it: host, process, and a number of its own.
        holder: String,
        /// Since when.
        since: SystemTime,
        /// When its lease ends, unless it is renewed.
        expires: SystemTime,
    },
    /// The id of the run is taken by a run of another task.
    #[error(
        "run `{run_id}` is one of the task `{found}`, not of `{task}`; choose another run id, or forget that run"
    )]
    OtherTask {
        /// The id of the run.
        run_id: String,
        /// The task that it is a run of.
        found: String,
        /// The task that it was opened for.
        task: String,
    },
    /// The run is no longer the holder's.
    #[error("run `{run_id}` is no longer held by {holder}: {loss}")]
    LeaseLost {
        /// The id of the run.
        run_id: String,
        /// The holder that has lost it.
        holder: String,
        /// How it was lost.
        loss: LeaseLoss,
    },
    /// The path of a `SqliteStore` leads to another file than the one that was opened, or to none.
    #[error("`{}` was replaced or removed since the store was opened; open the store again", path.display())]
    Replaced {
        /// The path of the file.
        path: PathBuf,
    },
    /// Outcomes of the run were recorded by a version of this crate that knew items by hashes of another format, so that
    /// nothing tells whether an item is the one that was recorded.
    #[error(
        "run `{run_id}` has outcomes of another version of this crate, with item hashes of another format; choose \
         another run id, or forget that run: its items then run again"
    )]
    OtherFormat {
        /// The id of the run.
        run_id: String,
    },
    /// A run id, the name of a task, a version, the hash of an item or a holder has more than
    /// [`MAX_NAME_BYTES`](super::MAX_NAME_BYTES).
    #[error("{what} has {found} bytes, allowed are {allowed}")]
    NameTooLong {
        /// Which name it is.
        what: &'static str,
        /// How many bytes it has.
        found: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// A checkpoint in a run that keeps nothing.
    #[error("a checkpoint needs a run with recover()")]
    NotKept,
    /// What is kept is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store was written by a version of this crate that is newer.
    #[error("the store has schema version {found}, this version of the crate knows up to {supported}")]
    TooNew {
        /// The version that was found.
        found: i64,
        /// The last version that is known.
        supported: i64,
    },
    /// An item could not be serialized, or an output or a state could not be kept as JSON or read again.
    #[error("{what}: {error}")]
    Json {
        /// What it was.
        what: String,
        /// Why.
        error: BoxError,
    },
    /// The store did not answer a call of a run within [`Store::time_limit`](super::Store::time_limit).
    #[error("{doing}: the store did not answer within {}", humantime::format_duration(*limit))]
    NoAnswer {
        /// What the store was about to do.
        doing: &'static str,
        /// How long the run has waited.
        limit: Duration,
    },
    /// The database says no.
    #[error("{doing}: {error}")]
    Database {
        /// What the store was about to do.
        doing: &'static str,
        /// Why it could not.
        error: BoxError,
    },
}

/// How a holder has lost its run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// The store did not answer a renewal in time, so the holder does not know whether the run is still its own.
    NotRenewed {
        /// How long the holder has waited for the answer.
        waited: Duration,
    },
    /// The lease was over, and another holder took the run.
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
    /// The loss of a holder, by what the store has of the run now: no row, or the holder in it.
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
            Self::Taken { by } => write!(f, "its lease was over, and {by} took it"),
            Self::Ended => f.write_str("the run has ended, or its lease was released"),
            Self::Forgotten => f.write_str("the run was forgotten"),
        }
    }
}

impl StoreError {
    /// Names the item that cannot be serialized.
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

/// A time as a person reads it: `2026-11-22T03:00:00Z`.
fn time(time: SystemTime) -> impl Display {
    humantime::format_rfc3339_seconds(time)
}
