//! The metrics: their names, their labels, and what registers them.

use metrics::{
    Counter, Gauge, Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::outcome::{FailureKind, Origin};
use crate::result::Completion;

const ATTEMPTS: &str = "async_map_task_attempts_total";
const RETRIES: &str = "async_map_task_retries_total";
const ATTEMPT_FAILURES: &str = "async_map_task_attempt_failures_total";
const ITEMS: &str = "async_map_task_items_total";
const RUNS: &str = "async_map_task_runs_total";
const ATTEMPTS_IN_FLIGHT: &str = "async_map_task_attempts_in_flight";
const ITEMS_WAITING: &str = "async_map_task_items_waiting_for_retry";
const RUNS_ACTIVE: &str = "async_map_task_runs_active";
const LIMIT: &str = "async_map_task_limit";
const ATTEMPT_DURATION: &str = "async_map_task_attempt_duration_seconds";
const PERMIT_WAIT: &str = "async_map_task_permit_wait_seconds";
const ITEM_DURATION: &str = "async_map_task_item_duration_seconds";

/// The metrics of one value of the label `task`, or without it.
pub(super) struct Series {
    pub(super) task: Option<String>,
    pub(super) attempts: Counter,
    pub(super) retries: Counter,
    pub(super) attempt_failures: ByKind,
    items: Items,
    runs: Runs,
    pub(super) runs_dropped: Counter,
    pub(super) attempts_in_flight: Gauge,
    pub(super) items_waiting: Gauge,
    pub(super) runs_active: Gauge,
    pub(super) limit: Gauge,
    pub(super) attempt_durations: ByOutcome,
    pub(super) item_durations: ByOutcome,
    pub(super) permit_waits: Histogram,
}

pub(super) struct ByKind {
    failed: Counter,
    timed_out: Counter,
    panicked: Counter,
    faulted: Counter,
}

impl ByKind {
    pub(super) fn of(&self, kind: FailureKind) -> &Counter {
        match kind {
            FailureKind::Failed => &self.failed,
            FailureKind::TimedOut => &self.timed_out,
            FailureKind::Panicked => &self.panicked,
            FailureKind::Faulted => &self.faulted,
        }
    }
}

/// Only an item that ran in this run can fail.
struct Items {
    failed: Counter,
    ran: Counter,
    cached: Counter,
    recovered: Counter,
    carried: Counter,
}

struct Runs {
    all: Counter,
    early_success: Counter,
    cancelled: Counter,
    timed_out: Counter,
    failed: Counter,
}

pub(super) struct ByOutcome {
    pub(super) success: Histogram,
    pub(super) failure: Histogram,
}

impl ByOutcome {
    pub(super) fn by(&self, has_failed: bool) -> &Histogram {
        if has_failed { &self.failure } else { &self.success }
    }
}

impl Series {
    /// Registers and describes all metrics with the current recorder.
    pub(super) fn register(task: Option<String>) -> Self {
        describe();
        let labels = |own: &[(&'static str, &'static str)]| -> Vec<Label> {
            let task = task.iter().map(|task| Label::new("task", task.clone()));
            task.chain(own.iter().map(|(name, value)| Label::from_static_parts(name, value))).collect()
        };
        let failures = |kind: FailureKind| counter!(ATTEMPT_FAILURES, labels(&[("kind", kind.as_str())]));
        let items = |outcome, origin| counter!(ITEMS, labels(&[("outcome", outcome), ("origin", origin)]));
        let runs = |outcome| counter!(RUNS, labels(&[("outcome", outcome)]));
        let durations = |name: &'static str| ByOutcome {
            success: histogram!(name, labels(&[("outcome", "success")])),
            failure: histogram!(name, labels(&[("outcome", "failure")])),
        };
        Self {
            attempts: counter!(ATTEMPTS, labels(&[])),
            retries: counter!(RETRIES, labels(&[])),
            attempt_failures: ByKind {
                failed: failures(FailureKind::Failed),
                timed_out: failures(FailureKind::TimedOut),
                panicked: failures(FailureKind::Panicked),
                faulted: failures(FailureKind::Faulted),
            },
            items: Items {
                failed: items("failure", "ran"),
                ran: items("success", "ran"),
                cached: items("success", "cached"),
                recovered: items("success", "recovered"),
                carried: items("success", "carried"),
            },
            runs: Runs {
                all: runs("all"),
                early_success: runs("early_success"),
                cancelled: runs("cancelled"),
                timed_out: runs("timed_out"),
                failed: runs("failed"),
            },
            runs_dropped: runs("dropped"),
            attempts_in_flight: gauge!(ATTEMPTS_IN_FLIGHT, labels(&[])),
            items_waiting: gauge!(ITEMS_WAITING, labels(&[])),
            runs_active: gauge!(RUNS_ACTIVE, labels(&[])),
            limit: gauge!(LIMIT, labels(&[])),
            attempt_durations: durations(ATTEMPT_DURATION),
            item_durations: durations(ITEM_DURATION),
            permit_waits: histogram!(PERMIT_WAIT, labels(&[])),
            task,
        }
    }

    pub(super) fn items_by(&self, origin: Origin, has_failed: bool) -> &Counter {
        match origin {
            _ if has_failed => &self.items.failed,
            Origin::Ran => &self.items.ran,
            Origin::Cached => &self.items.cached,
            Origin::Recovered => &self.items.recovered,
            Origin::Carried => &self.items.carried,
        }
    }

    pub(super) fn runs_by(&self, completion: Completion) -> &Counter {
        match completion {
            Completion::All => &self.runs.all,
            Completion::EarlySuccess => &self.runs.early_success,
            Completion::Cancelled => &self.runs.cancelled,
            Completion::TimedOut => &self.runs.timed_out,
            Completion::Failed => &self.runs.failed,
        }
    }
}

fn describe() {
    describe_counter!(ATTEMPTS, Unit::Count, "Attempts that started, retries included.");
    describe_counter!(RETRIES, Unit::Count, "Attempts that started and are not the first of their item.");
    describe_counter!(ATTEMPT_FAILURES, Unit::Count, "Attempts that failed, by the kind of the failure.");
    describe_counter!(ITEMS, Unit::Count, "Items that settled, by their outcome and the origin of it.");
    describe_counter!(RUNS, Unit::Count, "Runs that ended, by the reason for their end.");
    describe_gauge!(ATTEMPTS_IN_FLIGHT, Unit::Count, "Attempts that have started and not ended.");
    describe_gauge!(ITEMS_WAITING, Unit::Count, "Items between a failed attempt and their next one.");
    describe_gauge!(RUNS_ACTIVE, Unit::Count, "Runs that were polled and have not ended.");
    describe_gauge!(
        LIMIT,
        Unit::Count,
        "The number of permits of an adaptive limiter, from its first change on."
    );
    describe_histogram!(ATTEMPT_DURATION, Unit::Seconds, "The time of an attempt.");
    describe_histogram!(
        ITEM_DURATION,
        Unit::Seconds,
        "The time from the start of an item's first attempt until it settled."
    );
    describe_histogram!(PERMIT_WAIT, Unit::Seconds, "How long an attempt was ready and could not start.");
}
