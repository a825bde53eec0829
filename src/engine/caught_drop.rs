//! Drops that may panic: the panic is logged, and changes no result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::panic_payload::{Payload, into_message};

/// Drops the copy of an item. A panic in its destructor is logged and does not change the result of the attempt.
#[inline(never)]
pub(super) fn drop_copy<I>(copy: &mut Option<I>) {
    let copy = copy.take();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(copy))) {
        log_drop(payload, "the copy of an item");
    }
}

/// Logs the panic of a drop.
#[cold]
pub(super) fn log_drop(payload: Payload, what: &str) {
    let panic = into_message(payload);
    tracing::error!(target: "async_map_task", panic, "{what} panicked when it was dropped");
}
