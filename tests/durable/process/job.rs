//! What a process does.

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::mix;

/// The items `0..items` go through a durable run, and the log has all that becomes of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) place: Place,
    pub(crate) keeping: Keeping,
    pub(crate) lease: Duration,
    pub(crate) items: u64,
    /// The item to begin with. After the last comes the first.
    pub(crate) first: u64,
    pub(crate) concurrency: usize,
    /// An item takes as many milliseconds as its number modulo this.
    pub(crate) delays: u64,
    /// From this item on, each waits until the file is there.
    pub(crate) gate: Option<(u64, PathBuf)>,
    pub(crate) log: PathBuf,
}

/// Where the store is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// What makes the run durable.
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
}

/// How often an item saves its checkpoint.
pub(crate) const STEPS: u64 = 3;

/// What to do where another process holds the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IfHeld {
    Refuse,
    Wait,
    /// It is known to be dead, so it is not waited for until its lease is over: the run is given back in its name.
    GiveBack,
}

/// What an item gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) value: u64,
    /// The process that has run the item.
    pub(crate) by: u32,
}

pub(crate) fn output(item: u64) -> Output {
    Output { value: mix(item), by: process::id() }
}
