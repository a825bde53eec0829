//! The job of a process.

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::mix;

/// The items `0..items` go through a durable run, and the log has every event of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) place: Place,
    pub(crate) keeping: Keeping,
    pub(crate) lease: Duration,
    pub(crate) items: u64,
    /// The item to begin with. The first follows the last.
    pub(crate) first: u64,
    pub(crate) concurrency: usize,
    /// The duration of an item in milliseconds is its number modulo this.
    pub(crate) delays: u64,
    /// From this item on, each waits until the file exists.
    pub(crate) gate: Option<(u64, PathBuf)>,
    pub(crate) log: PathBuf,
}

/// The store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// The way in which the run is durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Keeping {
    Recover {
        run_id: String,
        if_held: IfHeld,
    },
    Cache,
    /// All three: each item loads its checkpoint and saves it [`STEPS`] times, and its output is cached, too.
    Together {
        run_id: String,
    },
    /// As with `Recover` and a dead holder. One call for `size` items inserts a row for each of them.
    Batches {
        run_id: String,
        size: usize,
    },
}

/// The number of times that an item saves its checkpoint.
pub(crate) const STEPS: u64 = 3;

/// The behaviour if another process holds the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IfHeld {
    Refuse,
    Wait,
    /// The holder is known to be dead, so the process does not wait for the end of its lease: it closes the run with
    /// the holder's name.
    GiveBack,
}

/// The output of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) value: u64,
    /// The process that has run the item.
    pub(crate) by: u32,
}

pub(crate) fn output(item: u64) -> Output {
    Output { value: mix(item), by: process::id() }
}
