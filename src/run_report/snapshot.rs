//! A run as the page and the JSON show it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::failures::Group;
use super::grid::{COLUMNS, Grid};
use super::histogram::Histogram;
use super::limits::Change;
use super::phase::Phase;
use super::record::{End, Record};
use super::slowest::Slow;
use crate::result::Summary;

/// The bars of a chart over time at most.
const MOST_BARS: u64 = 128;
/// How many items a bar has at least, on average.
const ITEMS_OF_A_BAR: u64 = 6;

/// All values are in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    pub(super) name: String,
    /// In UTC, by RFC 3339. `None` if no run has started.
    pub(super) started_at: Option<String>,
    pub(super) elapsed: f64,
    pub(super) verdict: String,
    pub(super) succeeded: bool,
    pub(super) ended: bool,
    pub(super) total: Option<usize>,
    pub(super) concurrency: usize,
    pub(super) settings: BTreeMap<&'static str, String>,
    pub(super) items: ItemCounts,
    pub(super) attempts: AttemptCounts,
    pub(super) item_durations: Durations,
    pub(super) attempt_durations: Durations,
    /// How long attempts were ready and could not start, in most cases for want of a permit.
    pub(super) permit_waits: Durations,
    pub(super) duration_buckets: Vec<Bucket>,
    /// The fraction of the permits that was in use, on average. `None` without a limit.
    pub(super) permits_in_use: Option<f64>,
    pub(super) over_time: OverTime,
    /// Those of adaptive limiters.
    pub(super) limit_changes: Vec<LimitStep>,
    pub(super) failures: Vec<FailureGroup>,
    pub(super) slowest: Vec<SlowItem>,
    pub(super) timeline: Vec<Attempt>,
    /// The timeline has one in so many items.
    pub(super) timeline_has_one_item_in: u64,
    /// The number of runs that started after this one and are not in the report.
    pub(super) other_runs: usize,
    #[serde(skip)]
    pub(super) grid: Grid,
    #[serde(skip)]
    pub(super) labels: HashMap<usize, String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ItemCounts {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) not_started: u64,
    /// Those that succeeded without an attempt.
    pub(super) recovered: u64,
    pub(super) cached: u64,
    pub(super) carried: u64,
    pub(super) running: usize,
    pub(super) waiting_for_retry: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct AttemptCounts {
    pub(super) started: u64,
    /// The calls of the map function: fewer than the attempts in a run of batches. Until the run has ended, a call that was split
    /// counts as one.
    pub(super) calls: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) retries: u64,
    pub(super) timeouts: usize,
    pub(super) panics: usize,
    pub(super) most_in_flight: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Durations {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// The attempts with a duration of at least `from` and less than `to`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bucket {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

/// Values for periods of equal length.
#[derive(Debug, Default, Serialize)]
pub(super) struct OverTime {
    /// The length of a period.
    pub(super) period: f64,
    /// Items that settled in the period.
    pub(super) succeeded: Vec<u64>,
    pub(super) failed: Vec<u64>,
    /// Attempts that failed and were followed by another.
    pub(super) retried: Vec<u64>,
    /// Averages over the period.
    pub(super) in_flight: Vec<f64>,
    pub(super) waiting_for_retry: Vec<f64>,
}

/// A change of the number of permits of an adaptive limiter.
#[derive(Debug, Serialize)]
pub(super) struct LimitStep {
    pub(super) at: f64,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) why: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct FailureGroup {
    pub(super) kind: &'static str,
    /// The text of the first one.
    pub(super) text: Option<String>,
    /// `true` for the failures with a text beyond those that are counted apart.
    pub(super) other_texts: bool,
    pub(super) attempts: u64,
    pub(super) items: u64,
    pub(super) examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
pub(super) struct Example {
    pub(super) item: usize,
    pub(super) label: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct SlowItem {
    pub(super) item: usize,
    pub(super) label: Option<String>,
    pub(super) elapsed: f64,
    pub(super) attempts: u32,
    pub(super) failed: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Attempt {
    pub(super) item: usize,
    pub(super) attempt: u32,
    /// Calls that run at the same time have different permits.
    pub(super) permit: u32,
    /// `true` if the item is not the first one of its call, in a run of batches.
    pub(super) shares_call: bool,
    pub(super) start: f64,
    pub(super) end: f64,
    /// `succeeded`, `retried`, `failed`, `cut_off` or `running`.
    pub(super) outcome: &'static str,
}

impl Snapshot {
    pub(super) fn new(record: &Record, other_runs: usize) -> Self {
        let elapsed = record.elapsed();
        let grid = record.grid();
        let busy: u64 = grid.busy().iter().sum();
        let summary = match &record.phase {
            Phase::Ended { summary, .. } => Some(summary),
            _ => None,
        };
        let permits = record.concurrency as f64 * elapsed as f64;
        let is_bounded = record.concurrency != usize::MAX && permits > 0.0;
        let started_at = match record.phase {
            Phase::NotStarted => None,
            _ => Some(humantime::format_rfc3339_seconds(record.started_at.max(UNIX_EPOCH)).to_string()),
        };
        Self {
            name: record.name.clone(),
            started_at,
            elapsed: seconds(elapsed),
            verdict: record.phase.verdict(),
            succeeded: record.phase.is_success(),
            ended: !matches!(record.phase, Phase::NotStarted | Phase::Running),
            total: summary.map_or(record.total, |summary| Some(summary.total)),
            concurrency: record.concurrency,
            settings: record.settings.iter().cloned().collect(),
            items: item_counts(record, summary),
            attempts: attempt_counts(record, summary),
            item_durations: Durations::of(&record.items),
            attempt_durations: Durations::of(&record.attempt_durations()),
            permit_waits: permit_waits(record),
            duration_buckets: buckets(&record.successes, &record.not_successes),
            permits_in_use: is_bounded.then(|| (busy as f64 / permits).min(1.0)),
            over_time: OverTime::of(&grid, elapsed),
            limit_changes: record.limits.changes().iter().map(LimitStep::from).collect(),
            failures: record.failures.groups().into_iter().map(FailureGroup::from).collect(),
            slowest: record.slowest.items().into_iter().map(SlowItem::from).collect(),
            timeline: record.attempts().iter().map(Attempt::from).collect(),
            timeline_has_one_item_in: record.sampled_one_in(),
            other_runs,
            grid,
            labels: record.labels.clone(),
        }
    }

    pub(super) fn to_json(&self) -> String {
        // Numbers, text and lists have a form in JSON, and all keys are text.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns how many items have settled after an attempt in this run.
    pub(super) fn settled(&self) -> u64 {
        let ItemCounts { succeeded, failed, recovered, cached, carried, .. } = self.items;
        (succeeded + failed).saturating_sub(recovered + cached + carried)
    }
}

fn item_counts(record: &Record, summary: Option<&Summary>) -> ItemCounts {
    let counts = &record.counts;
    let count = |of: fn(&Summary) -> usize| summary.map_or(0, of) as u64;
    ItemCounts {
        succeeded: summary.map_or(counts.items_succeeded, |summary| summary.successes as u64),
        failed: summary.map_or(counts.items_failed, |summary| summary.failures as u64),
        cancelled: count(|summary| summary.cancelled),
        not_started: count(|summary| summary.not_started),
        recovered: counts.recovered,
        cached: counts.cached,
        carried: counts.carried,
        running: record.in_flight(),
        waiting_for_retry: record.waiting(),
    }
}

fn attempt_counts(record: &Record, summary: Option<&Summary>) -> AttemptCounts {
    let counts = &record.counts;
    AttemptCounts {
        started: counts.attempts,
        calls: summary.map_or(counts.calls, |summary| counts.calls.max(summary.calls as u64)),
        succeeded: record.successes.count(),
        failed: record.not_successes.count(),
        retries: counts.retries,
        timeouts: summary.map_or(0, |summary| summary.timeouts),
        panics: summary.map_or(0, |summary| summary.panics),
        most_in_flight: counts.most_in_flight,
    }
}

/// Returns how long all attempts were ready and could not start.
fn permit_waits(record: &Record) -> Durations {
    let mut waits = record.waits.clone();
    waits.record_several(0, record.counts.attempts - waits.count());
    Durations::of(&waits)
}

impl Durations {
    fn of(histogram: &Histogram) -> Self {
        let quantile = |fraction| seconds(histogram.quantile(fraction));
        Self {
            count: histogram.count(),
            mean: seconds(histogram.mean()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: seconds(histogram.max()),
        }
    }
}

/// Returns the buckets of both histograms, in ascending order.
fn buckets(successes: &Histogram, others: &Histogram) -> Vec<Bucket> {
    let mut buckets = BTreeMap::new();
    for (histogram, has_failed) in [(successes, false), (others, true)] {
        for (from, to, count) in histogram.buckets() {
            let (from_seconds, to) = (seconds(from), seconds(to));
            let empty = Bucket { from: from_seconds, to, succeeded: 0, failed: 0 };
            let bucket = buckets.entry(from).or_insert(empty);
            let of_kind = if has_failed { &mut bucket.failed } else { &mut bucket.succeeded };
            *of_kind += count;
        }
    }
    buckets.into_values().collect()
}

impl OverTime {
    /// Joins the columns of the grid, so that a period has several items and there are few periods.
    fn of(grid: &Grid, elapsed: u64) -> Self {
        let used = (elapsed / grid.width() + 1).clamp(1, COLUMNS as u64);
        let settled: u64 = grid.columns().iter().map(|column| column.succeeded + column.failed).sum();
        let bars = (settled / ITEMS_OF_A_BAR).clamp(16, MOST_BARS);
        let joined = used.div_ceil(bars).max(1) as usize;
        let period = joined as u64 * grid.width();
        let mut over_time = Self { period: seconds(period), ..Self::default() };
        let busy = grid.busy();
        let columns = grid.columns().chunks(joined).zip(busy.chunks(joined));
        for (n, (columns, busy)) in columns.enumerate().take((used as usize).div_ceil(joined)) {
            // The last period ends with the run.
            let length = elapsed.saturating_sub(n as u64 * period).clamp(1, period) as f64;
            over_time.succeeded.push(columns.iter().map(|column| column.succeeded).sum());
            over_time.failed.push(columns.iter().map(|column| column.failed).sum());
            over_time.retried.push(columns.iter().map(|column| column.retried).sum());
            over_time.in_flight.push(busy.iter().sum::<u64>() as f64 / length);
            let waiting: u64 = columns.iter().map(|column| column.waiting).sum();
            over_time.waiting_for_retry.push(waiting as f64 / length);
        }
        over_time
    }
}

impl From<Group> for FailureGroup {
    fn from(group: Group) -> Self {
        let Group { kind, text, is_rest, attempts, items, examples } = group;
        let examples =
            examples.into_iter().map(|example| Example { item: example.index, label: example.label });
        Self {
            kind: kind.as_str(),
            text,
            other_texts: is_rest,
            attempts,
            items,
            examples: examples.collect(),
        }
    }
}

impl From<&Change> for LimitStep {
    fn from(&Change { at, from, to, why }: &Change) -> Self {
        Self { at: seconds(at), from, to, why: why.as_str() }
    }
}

impl From<Slow> for SlowItem {
    fn from(Slow { elapsed, index, attempts, has_failed, label }: Slow) -> Self {
        Self { item: index, label, elapsed: seconds(elapsed), attempts, failed: has_failed }
    }
}

impl From<&super::record::Attempt> for Attempt {
    fn from(attempt: &super::record::Attempt) -> Self {
        Self {
            item: attempt.index,
            attempt: attempt.attempt,
            permit: attempt.row,
            shares_call: attempt.shares_call,
            start: seconds(attempt.start),
            end: seconds(attempt.end),
            outcome: match attempt.ended {
                End::Succeeded => "succeeded",
                End::Retried => "retried",
                End::Failed => "failed",
                End::CutOff => "cut_off",
                End::Running => "running",
            },
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}
