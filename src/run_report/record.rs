//! The record of a run: its events as counts, and a sample of its attempts, in bounded memory.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::mem;
use std::time::{Duration, SystemTime};

use super::failures::{Failed, Failures, shorten};
use super::grid::Grid;
use super::histogram::Histogram;
use super::index_hash::{IndexHasher, hash};
use super::limits::{Change, Limits};
use super::phase::Phase;
use super::rows::Rows;
use super::slowest::Slowest;
use crate::error::FailureReason;
use crate::observe::Event;
use crate::outcome::Origin;
use crate::rt::Instant;

/// How many attempts are kept one by one. If there are more, half of the items are left out, again and again.
pub(super) const ATTEMPTS: usize = 100_000;

/// How many items have their label kept for the timeline. A timeline of more attempts shows no single ones.
const LABELS: usize = 3_000;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    /// It failed, and another attempt was to follow.
    Retried,
    Failed,
    /// The run ended first.
    CutOff,
    /// It runs still.
    Running,
}

/// An attempt. Times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) index: usize,
    pub(super) attempt: u32,
    pub(super) row: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) ended: End,
    /// `true` if the attempt shares the call, and the row, of another item.
    pub(super) shares_call: bool,
}

/// A running attempt.
#[derive(Debug, Clone, Copy)]
struct Open {
    attempt: u32,
    row: u32,
    start: u64,
    shares_call: bool,
}

/// The counts of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) attempts: u64,
    /// The calls: fewer than the attempts in a run of batches.
    pub(super) calls: u64,
    pub(super) retries: u64,
    pub(super) items_succeeded: u64,
    pub(super) items_failed: u64,
    /// The items that succeeded without an attempt in this run, by their origins.
    pub(super) recovered: u64,
    pub(super) cached: u64,
    pub(super) carried: u64,
    pub(super) most_in_flight: usize,
}

/// Everything that is known of a run.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) phase: Phase,
    pub(super) name: String,
    pub(super) total: Option<usize>,
    pub(super) concurrency: usize,
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) started_at: SystemTime,
    started: Instant,
    /// The time of the last event.
    now: u64,
    open: HashMap<usize, Open, BuildHasherDefault<IndexHasher>>,
    rows: Rows,
    /// How many items of a call have not ended, for the rows whose call has several.
    calls: HashMap<u32, usize, BuildHasherDefault<IndexHasher>>,
    /// The row of the last attempt that has started.
    last_row: u32,
    /// The item whose attempt has ended with the last event.
    last_ended: Option<usize>,
    waiting: HashMap<usize, u64>,
    attempts: Vec<Attempt>,
    /// An item is kept if these bits of its hash are zero.
    left_out: u64,
    pub(super) labels: HashMap<usize, String>,
    pub(super) counts: Counts,
    pub(super) grid: Grid,
    pub(super) successes: Histogram,
    pub(super) not_successes: Histogram,
    pub(super) items: Histogram,
    /// How long attempts were ready and could not start, without those that started at once.
    pub(super) waits: Histogram,
    pub(super) failures: Failures,
    pub(super) slowest: Slowest,
    pub(super) limits: Limits,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            phase: Phase::NotStarted,
            name: String::new(),
            total: None,
            concurrency: 0,
            settings: Vec::new(),
            started_at: SystemTime::UNIX_EPOCH,
            started: Instant::now(),
            now: 0,
            open: HashMap::default(),
            rows: Rows::default(),
            calls: HashMap::default(),
            last_row: 0,
            last_ended: None,
            waiting: HashMap::new(),
            attempts: Vec::new(),
            left_out: 0,
            labels: HashMap::new(),
            counts: Counts::default(),
            grid: Grid::default(),
            successes: Histogram::default(),
            not_successes: Histogram::default(),
            items: Histogram::default(),
            waits: Histogram::default(),
            failures: Failures::default(),
            slowest: Slowest::default(),
            limits: Limits::default(),
        }
    }
}

impl Record {
    /// Records an event.
    pub(super) fn record(&mut self, event: &Event<'_>) {
        match *event {
            Event::RunStarted { name, total, concurrency, settings } => {
                self.phase = Phase::Running;
                name.clone_into(&mut self.name);
                (self.total, self.concurrency, self.settings) = (total, concurrency, settings.entries());
                (self.started_at, self.started) = (SystemTime::now(), Instant::now());
            }
            // The recorder calls `succeed`.
            Event::ItemStarted { .. } | Event::AttemptSucceeded { .. } | Event::RunStopping { .. } => {}
            Event::AttemptStarted { index, attempt, at, waited, shares_call } => {
                if !waited.is_zero() {
                    self.waits.record(nanos(waited));
                }
                self.start_attempt(index, attempt, at, shares_call);
            }
            Event::AttemptFailed { index, attempt, elapsed, label, kind, message, retry_in } => {
                let is_final = retry_in.is_none();
                self.end_attempt(
                    index,
                    attempt,
                    nanos(elapsed),
                    if is_final { End::Failed } else { End::Retried },
                );
                self.failures.record(&Failed { index, kind, text: message, label, is_final });
                if !is_final {
                    self.waiting.insert(index, self.now);
                    if let Some(column) = self.grid.column_at(self.now) {
                        column.retried += 1;
                    }
                }
            }
            Event::ItemSettled { index, attempts, elapsed, label, origin, failure, .. } => {
                let has_failed = failure.is_some();
                self.settle(index, attempts, elapsed, label, origin, has_failed);
            }
            Event::LimitChanged { from, to, why } => {
                let at = self.read_clock();
                self.limits.record(Change { at, from, to, why });
            }
            Event::RunFinished { summary, reason } => {
                self.end_run(Phase::Ended {
                    summary: summary.clone(),
                    reason: reason.map(ToString::to_string),
                    is_cancelled: matches!(reason, Some(FailureReason::Cancelled)),
                });
            }
        }
    }

    /// Records an attempt that has succeeded after these nanoseconds.
    pub(super) fn succeed(&mut self, index: usize, attempt: u32, elapsed: u64) {
        self.end_attempt(index, attempt, elapsed, End::Succeeded);
    }

    /// Ends the record of a run that was dropped.
    pub(super) fn end_dropped(&mut self) {
        if matches!(self.phase, Phase::Running) {
            self.end_run(Phase::Dropped);
        }
    }

    /// Returns the time since the start of the run: up to now while it runs, and up to its end after that.
    pub(super) fn elapsed(&self) -> u64 {
        match self.phase {
            Phase::Running => nanos(self.started.elapsed()),
            _ => self.now,
        }
    }

    /// Returns how many of the items are kept: one in so many.
    pub(super) fn sampled_one_in(&self) -> u64 {
        self.left_out + 1
    }

    /// Returns the attempts that are kept, with those that run, by their start.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let now = self.elapsed();
        let open = self.open.iter().filter(|(index, _)| self.is_kept(**index));
        let open = open.map(|(&index, &Open { attempt, row, start, shares_call })| Attempt {
            index,
            attempt,
            row,
            start,
            end: now,
            ended: End::Running,
            shares_call,
        });
        let mut attempts: Vec<_> = self.attempts.iter().copied().chain(open).collect();
        attempts.sort_by_key(|attempt| (attempt.start, attempt.row));
        attempts
    }

    /// Returns the grid, with the attempts and the waits that go on.
    pub(super) fn grid(&self) -> Grid {
        let mut grid = self.grid.clone();
        let now = self.elapsed();
        grid.reach(now);
        let calls: HashMap<u32, u64> = self.open.values().map(|open| (open.row, open.start)).collect();
        calls.into_iter().for_each(|(row, start)| grid.add_time(row, start, now));
        self.waiting.values().for_each(|since| grid.add_wait(*since, now));
        grid
    }

    /// Returns the durations of all attempts that have ended.
    pub(super) fn attempt_durations(&self) -> Histogram {
        self.successes.and(&self.not_successes)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.open.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn read_clock(&mut self) -> u64 {
        self.now = nanos(self.started.elapsed());
        self.now
    }

    fn is_kept(&self, index: usize) -> bool {
        hash(index) & self.left_out == 0
    }

    fn start_attempt(&mut self, index: usize, attempt: u32, at: Instant, shares_call: bool) {
        let start = nanos(at - self.started);
        self.counts.attempts += 1;
        if attempt > 1 {
            self.counts.retries += 1;
            self.end_wait(index, start);
        }
        if shares_call {
            *self.calls.entry(self.last_row).or_insert(1) += 1;
        } else {
            self.counts.calls += 1;
            self.last_row = self.rows.take();
        }
        let row = self.last_row;
        if let Some(before) = self.open.insert(index, Open { attempt, row, start, shares_call }) {
            self.keep(index, before, start, End::CutOff);
        }
        self.counts.most_in_flight = self.counts.most_in_flight.max(self.rows.taken());
    }

    fn end_attempt(&mut self, index: usize, attempt: u32, elapsed: u64, ended: End) {
        let histogram = match ended {
            End::Succeeded => &mut self.successes,
            _ => &mut self.not_successes,
        };
        histogram.record(elapsed);
        let open = match self.open.remove(&index) {
            Some(open) => {
                self.now = open.start + elapsed;
                open
            }
            // It did not start: no thread was there for it.
            None => {
                let start = self.read_clock().saturating_sub(elapsed);
                Open { attempt, row: self.rows.take(), start, shares_call: false }
            }
        };
        self.keep(index, open, self.now, ended);
        self.last_ended = Some(index);
    }

    /// Keeps an attempt that has ended.
    fn keep(&mut self, index: usize, open: Open, end: u64, ended: End) {
        let Open { attempt, row, start, shares_call } = open;
        let has_failed = matches!(ended, End::Retried | End::Failed);
        if self.end_in_call(row) {
            self.rows.give_back(row);
            self.grid.add_attempt(row, start, end, has_failed);
        } else {
            self.grid.add_end(row, end, has_failed);
        }
        if !self.is_kept(index) {
            return;
        }
        self.attempts.push(Attempt { index, attempt, row, start, end, ended, shares_call });
        if self.attempts.len() == ATTEMPTS {
            self.leave_half_out();
        }
    }

    /// Ends an item of the call in this row. Returns `true` if it was the last one, and the permit of the call is free.
    fn end_in_call(&mut self, row: u32) -> bool {
        if self.calls.is_empty() {
            return true;
        }
        let Some(left) = self.calls.get_mut(&row) else { return true };
        *left -= 1;
        let is_last = *left == 0;
        if is_last {
            self.calls.remove(&row);
        }
        is_last
    }

    #[cold]
    fn leave_half_out(&mut self) {
        let left_out = 2 * self.left_out + 1;
        self.left_out = left_out;
        self.attempts.retain(|attempt| hash(attempt.index) & left_out == 0);
    }

    fn end_wait(&mut self, index: usize, now: u64) {
        if let Some(since) = self.waiting.remove(&index) {
            self.grid.add_wait(since, now);
        }
    }

    fn settle(
        &mut self,
        index: usize,
        attempts: u32,
        elapsed: Duration,
        label: Option<&str>,
        origin: Origin,
        has_failed: bool,
    ) {
        // Only the item whose attempt has just ended settles at that time. Another one was stored, recovered or found first.
        if self.last_ended.take() != Some(index) {
            self.read_clock();
        }
        if has_failed {
            self.end_wait(index, self.now);
        }
        let count = if has_failed { &mut self.counts.items_failed } else { &mut self.counts.items_succeeded };
        *count += 1;
        if let Some(column) = self.grid.column_at(self.now) {
            let count = if has_failed { &mut column.failed } else { &mut column.succeeded };
            *count += 1;
        }
        let without_attempt = match origin {
            Origin::Ran => None,
            Origin::Recovered => Some(&mut self.counts.recovered),
            Origin::Cached => Some(&mut self.counts.cached),
            Origin::Carried => Some(&mut self.counts.carried),
        };
        if let Some(count) = without_attempt {
            *count += 1;
            return;
        }
        let elapsed = nanos(elapsed);
        self.items.record(elapsed);
        self.slowest.record(elapsed, index, attempts, has_failed, label);
        if let (Some(label), true) = (label, self.labels.len() < LABELS) {
            self.labels.insert(index, shorten(label));
        }
    }

    fn end_run(&mut self, phase: Phase) {
        let now = self.read_clock();
        for (index, open) in mem::take(&mut self.open) {
            self.keep(index, open, now, End::CutOff);
        }
        for (_, since) in mem::take(&mut self.waiting) {
            self.grid.add_wait(since, now);
        }
        self.phase = phase;
    }
}

/// Returns a time in nanoseconds. They are enough for 500 years.
#[inline]
pub(super) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}
