//! The `tracing` output of a run: one span for the run, one span for each item, and events for failures and the end.

use std::fmt::Display;
use std::time::Duration;

use tracing::field;
use tracing::level_filters::LevelFilter;
use tracing::span::Entered;
use tracing::{Span, debug, debug_span, info, info_span, warn};

use super::failure::Failure;
use crate::error::{BoxError, FailureReason};
use crate::observe::LimitChange;
use crate::outcome::FailureKind;
use crate::result::{Completion, Summary};

pub(super) fn run_span(name: &str, total: Option<usize>, concurrency: usize) -> Span {
    info_span!(target: "async_map_task", "map_task", name, total, concurrency)
}

/// Calls a function in a span, if the span is enabled.
#[inline(always)]
pub(super) fn in_span<T>(span: &Span, function: impl FnOnce() -> T) -> T {
    // The function is called in one place: it is inlined there, and a second place would double its code.
    let _entered = if span.is_disabled() { None } else { Some(enter(span)) };
    function()
}

#[cold]
fn enter(span: &Span) -> Entered<'_> {
    span.enter()
}

/// Replaces the span of an item with the span of the next item. Without a subscriber there is no span, and nothing to
/// replace.
#[inline]
pub(super) fn renew_item_span(span: &mut Span, index: usize) {
    if LevelFilter::current() >= LevelFilter::DEBUG || !span.is_disabled() {
        set_item_span(span, index);
    }
}

#[cold]
fn set_item_span(span: &mut Span, index: usize) {
    *span = debug_span!(target: "async_map_task", "item", index, label = field::Empty);
}

/// Adds the label of an item to its span.
pub(super) fn record_label(span: &Span, label: Option<&str>) {
    if let (Some(label), false) = (label, span.is_disabled()) {
        span.record("label", label);
    }
}

/// The index and the label of an item.
pub(super) type ItemName<'a> = (usize, Option<&'a str>);

pub(super) fn retry(
    task: &str,
    (index, label): ItemName<'_>,
    attempt: u32,
    kind: FailureKind,
    error: Option<&str>,
    delay: Duration,
) {
    debug!(
        target: "async_map_task",
        task,
        index,
        label,
        attempt,
        kind = kind.as_str(),
        error,
        ?delay,
        "attempt failed, will retry"
    );
}

/// Logs that nothing starts for some time, because the error of an item asks for it: nothing of the item's key, if it
/// `has_key`.
pub(super) fn hold(task: &str, (index, label): ItemName<'_>, hold: Duration, has_key: bool) {
    let held = if has_key { "the items of its key" } else { "all items" };
    info!(target: "async_map_task", task, index, label, ?hold, "an error holds back {held}");
}

/// Logs that a limiter has found another number of permits.
pub(super) fn limit(task: &str, from: usize, to: usize, why: LimitChange) {
    debug!(target: "async_map_task", task, from, to, why = why.as_str(), "the limit has changed");
}

/// A call for several items that is made again.
pub(super) fn call_retry(task: &str, items: usize, attempt: u32, kind: FailureKind, delay: Duration) {
    debug!(
        target: "async_map_task",
        task,
        items,
        attempt,
        kind = kind.as_str(),
        ?delay,
        "the call for a batch failed as a whole and will be made again"
    );
}

/// A call for several items that is split.
pub(super) fn split(task: &str, items: usize, first: usize, second: usize, kind: FailureKind) {
    let kind = kind.as_str();
    debug!(target: "async_map_task", task, items, kind, first, second, "the call for a batch failed as a whole and is split");
}

/// How many failed items of a run are logged as warnings. The others are logged for debugging: a run over thousands of items
/// does not fill the log with one fact.
const WARNINGS: usize = 10;

/// Logs the failure of an item, the run's failure number `failures`. `why` is the reason why it was not tried again.
pub(super) fn failure(
    task: &str,
    failures: usize,
    (index, label): ItemName<'_>,
    failure: &Failure<'_>,
    error: Option<&str>,
    why: &str,
) {
    let Failure { kind, attempts, limit, message } = failure;
    let limit = limit.as_ref().map(|(limit, _)| field::debug(limit));
    let panic = message.filter(|_| *kind == FailureKind::Panicked);
    let fault = message.filter(|_| *kind == FailureKind::Faulted);
    let kind = kind.as_str();
    if failures <= WARNINGS {
        warn!(target: "async_map_task", task, index, label, attempts, kind, limit, error, panic, fault, why, "item failed");
    } else {
        debug!(target: "async_map_task", task, index, label, attempts, kind, limit, error, panic, fault, why, "item failed");
    }
}

/// Logs that an item succeeded in an earlier run, with an output that is not of this type.
pub(super) fn unreadable(task: &str, index: usize, error: &BoxError) {
    warn!(target: "async_map_task", task, index, %error, "item succeeded in an earlier run, but its output cannot be read, runs again");
}

/// Logs the end of a run. A cancellation by the caller is not a warning.
pub(super) fn verdict(task: &str, summary: &Summary, reason: Option<&FailureReason>, text: &dyn Display) {
    let Summary { successes, failures, cancelled, not_started, .. } = *summary;
    match reason {
        None if summary.completion == Completion::Cancelled => {
            info!(target: "async_map_task", successes, failures, cancelled, not_started, "{task} was cancelled, with a partial result: {summary}");
        }
        None if summary.completion == Completion::TimedOut => {
            info!(target: "async_map_task", successes, failures, cancelled, not_started, "{task} ended at its run_timeout, with a partial result: {summary}");
        }
        None => {
            info!(target: "async_map_task", successes, failures, cancelled, not_started, "{task} succeeded: {summary}");
        }
        Some(FailureReason::Cancelled) => {
            info!(target: "async_map_task", successes, failures, cancelled, not_started, "{task} was cancelled: {summary}");
        }
        Some(_) => {
            warn!(target: "async_map_task", reason = %text, successes, failures, cancelled, not_started, "{task} failed: {summary}");
        }
    }
}
