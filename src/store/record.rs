//! The data types that stores accept and return.

use std::time::{Duration, SystemTime};

use super::MAX_BYTES;

/// The outcome of one item of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The item's position in the input, from 0.
    pub index: u64,
    /// Identifies the item's content: the number of the hash's format, `2-`, and a SHA-256 in hexadecimal digits. Hashes of
    /// the first format, of an earlier version of this crate, have no number.
    pub item_hash: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time from the start of the first attempt to the end of the last.
    pub elapsed: Duration,
    /// How the item ended.
    pub recorded: Recorded,
}

/// JSON with a checksum, which detects values that the crate did not write. A store keeps both unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksummed {
    /// The value, as JSON.
    pub json: String,
    /// The checksum in hexadecimal digits, of the value and of its place.
    pub checksum: String,
}

/// How an item ended, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The item succeeded.
    Succeeded {
        /// The function's output.
        output: Checksummed,
    },
    /// The item failed.
    Failed {
        /// The error as text for people. A store that cannot keep the character NUL replaces it with U+FFFD.
        message: String,
    },
}

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStatus {
    /// The run has started and not ended. It runs if its lease has not expired; otherwise, or without a lease, it was
    /// interrupted.
    Running,
    /// The run has succeeded.
    Succeeded,
    /// The run has ended without success.
    Failed {
        /// The reason as text for people.
        reason: String,
    },
}

/// The holder of a run, since when, and until when unless the lease is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The host, the process and random digits.
    pub holder: String,
    /// When the holder acquired the run.
    pub since: SystemTime,
    /// When the lease ends, unless it is renewed.
    pub expires: SystemTime,
}

/// The description of a run, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// The id, chosen by the caller.
    pub run_id: String,
    /// The name of the task.
    pub task: String,
    /// The progress of the run.
    pub status: RunStatus,
    /// The holder and its lease, even if the lease has expired; `None` once the run was closed.
    pub lease: Option<Lease>,
    /// When the run was first opened.
    pub started: SystemTime,
    /// When the run was last opened or closed, or an outcome or a checkpoint of its items was last stored.
    pub updated: SystemTime,
    /// The number of items that have succeeded.
    pub succeeded: u64,
    /// The number of items that have failed.
    pub failed: u64,
    /// The first failures by index, at most ten: index and message.
    pub failures: Vec<(u64, String)>,
}

impl RunInfo {
    /// Returns `true` if the run has not ended and its lease, if any, has expired by the clock of this machine. Its process
    /// has died or was stalled for too long.
    pub fn is_interrupted(&self) -> bool {
        let is_held = self.lease.as_ref().is_some_and(|lease| lease.expires > SystemTime::now());
        self.status == RunStatus::Running && !is_held
    }
}

/// The complete key of a cached value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// The name of the task.
    pub task: String,
    /// The version of the function, chosen by the caller.
    pub version: String,
    /// The hash of the item, as in [`Record::item_hash`].
    pub item_hash: String,
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The claim is granted: the holder computes the value.
    Granted,
    /// There already is a value.
    Cached(Checksummed),
    /// Another holder computes the value, at most for this time, unless its claim is renewed.
    Held {
        /// The remaining time of its lease.
        remaining: Duration,
    },
}

impl Record {
    /// Returns the size of the record's text in bytes.
    fn bytes(&self) -> usize {
        let text = match &self.recorded {
            Recorded::Succeeded { output } => &output.json,
            Recorded::Failed { message } => message,
        };
        text.len()
    }
}

/// Splits records into groups of at most [`MAX_BYTES`]. A record that is larger is a group of its own.
pub(crate) fn groups(records: &[Record]) -> impl Iterator<Item = &[Record]> {
    let mut bytes = 0;
    records.chunk_by(move |record, next| {
        bytes += record.bytes();
        let has_room = bytes + next.bytes() <= MAX_BYTES;
        if !has_room {
            bytes = 0;
        }
        has_room
    })
}
