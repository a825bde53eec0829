//! One host, with the record of its requests.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;

/// The time for which a host asks to be left alone.
pub(super) const HOLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Host {
    pub(super) delay: Duration,
    pub(super) per_host: usize,
    pub(super) pages: HashMap<String, Answer>,
    record: Mutex<Record>,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) requests: usize,
    pub(super) refusals: usize,
    pub(super) most_at_once: usize,
    /// The number of requests that came while a hold was active.
    pub(super) during_hold: usize,
    pub(super) in_progress: usize,
    pub(super) held_until: Instant,
    pub(super) by_path: HashMap<String, u32>,
}

impl Host {
    pub(super) fn new(delay: Duration, per_host: usize, pages: Vec<(String, Answer)>) -> Self {
        let record = Record {
            requests: 0,
            refusals: 0,
            most_at_once: 0,
            during_hold: 0,
            in_progress: 0,
            held_until: Instant::now(),
            by_path: HashMap::new(),
        };
        Self { delay, per_host, pages: pages.into_iter().collect(), record: Mutex::new(record) }
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
