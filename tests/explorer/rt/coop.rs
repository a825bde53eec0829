//! Tokio's cooperative budget, which is used up at random.

use std::task::{Context, Poll};

use shuttle::rand::{Rng, thread_rng};

use super::world;

/// Returned by [`poll_proceed`] if there is budget.
#[derive(Debug)]
pub(crate) struct Restore(());

impl Restore {
    pub(crate) fn made_progress(&self) {}
}

pub(crate) fn poll_proceed(cx: &mut Context<'_>) -> Poll<Restore> {
    if has_budget_remaining() {
        return Poll::Ready(Restore(()));
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

pub(crate) fn has_budget_remaining() -> bool {
    match world::exhaustion() {
        0 => true,
        percent => !thread_rng().gen_ratio(percent, 100),
    }
}

pub(crate) fn unconstrained<F>(future: F) -> F {
    future
}
