//! What a store is given and what it gives.

use std::time::{Duration, SystemTime};

use super::MAX_BYTES;

/// What became of one item of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The item's place in the input, from 0.
    pub index: u64,
    /// What the item is known by: the number of the hash's format, `2-`, and a SHA-256 in hexadecimal digits. Hashes of the
    /// first format, of an earlier version of this crate, have no number.
    pub item_hash: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// From the start of the first attempt to the end of the last.
    pub elapsed: Duration,
    /// How it ended.
    pub recorded: Recorded,
}

/// JSON, and a checksum by which the crate knows that it reads what it has written. A store keeps both as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksummed {
    /// The value, as JSON.
    pub json: String,
    /// In hexadecimal digits; it is one of the value and of what it belongs to.
    pub checksum: String,
}

/// How an item ended, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It succeeded.
    Succeeded {
        /// What the function returned.
        output: Checksummed,
    },
    /// It failed.
    Failed {
        /// Why, as a person reads it. A store that cannot keep the character NUL puts U+FFFD in its place.
        message: String,
    },
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStatus {
    /// It has begun and not ended: it runs while its lease lasts, and was interrupted if that is over or there is none.
    Running,
    /// It has succeeded.
    Succeeded,
    /// It has ended otherwise.
    Failed {
        /// Why, as a person reads it.
        reason: String,
    },
}

/// Who has a run, since when, and until when, unless it is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The host, the process and a number of its own.
    pub holder: String,
    /// When the holder took it.
    pub since: SystemTime,
    /// When it ends, unless it is renewed.
    pub expires: SystemTime,
}

/// What an operator wants to know of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// The id that the caller has chosen.
    pub run_id: String,
    /// The name of the task.
    pub task: String,
    /// How far it has come.
    pub status: RunStatus,
    /// Who has it, also where the lease is over; `None` once it was closed.
    pub lease: Option<Lease>,
    /// When it was first opened.
    pub started: SystemTime,
    /// When it was last opened or closed, or something was kept of its items.
    pub updated: SystemTime,
    /// How many items have succeeded.
    pub succeeded: u64,
    /// How many items have failed.
    pub failed: u64,
    /// The first of those that failed, by index, at most ten: index and message.
    pub failures: Vec<(u64, String)>,
}

impl RunInfo {
    /// Whether it has begun and not ended, and nobody has it any more, by the clock of this machine: its process has died or
    /// has been held up for too long.
    pub fn is_interrupted(&self) -> bool {
        let is_held = self.lease.as_ref().is_some_and(|lease| lease.expires > SystemTime::now());
        self.status == RunStatus::Running && !is_held
    }
}

/// What a cached value is found by, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// The name of the task.
    pub task: String,
    /// The version of the function, as the caller counts it.
    pub version: String,
    /// What the item is known by, as in [`Record::item_hash`].
    pub item_hash: String,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The holder computes the value.
    Granted,
    /// There is a value already.
    Cached(Checksummed),
    /// Another computes it, at most until that time, unless it is renewed.
    Held {
        /// How long its lease still lasts.
        remaining: Duration,
    },
}

impl Record {
    /// How many bytes of text it has.
    fn bytes(&self) -> usize {
        let text = match &self.recorded {
            Recorded::Succeeded { output } => &output.json,
            Recorded::Failed { message } => message,
        };
        text.len()
    }
}

/// Records in groups of [`MAX_BYTES`] at most. One that has more is alone.
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
