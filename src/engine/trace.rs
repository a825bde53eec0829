//! What a run says to `tracing`: one span a run, one span an item, and what went wrong.

use std::time::Duration;

use tracing::{Span, debug_span, info, info_span, warn};

use crate::error::FailureReason;
use crate::outcome::FailureKind;
use crate::result::Summary;

pub(super) fn run_span(name: &str, total: Option<usize>, concurrency: usize) -> Span {
    info_span!(target: "async_map_task", "map_task", name, total, concurrency)
}

#[inline]
pub(super) fn item_span(index: usize) -> Span {
    debug_span!(target: "async_map_task", "item", index)
}

pub(super) fn retry(index: usize, attempt: u32, kind: FailureKind, delay: Duration) {
    warn!(target: "async_map_task", index, attempt, kind = kind.as_str(), ?delay, "attempt failed, will retry");
}

pub(super) fn failure(index: usize, attempts: u32, kind: FailureKind, panic: Option<&str>) {
    warn!(target: "async_map_task", index, attempts, kind = kind.as_str(), panic, "item failed");
}

pub(super) fn verdict(name: &str, summary: &Summary, reason: Option<&FailureReason>) {
    match reason {
        None => info!(target: "async_map_task", "{name} succeeded: {summary}"),
        Some(reason) => warn!(target: "async_map_task", %reason, "{name} failed: {summary}"),
    }
}
