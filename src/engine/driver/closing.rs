//! The last phase of a run: nothing runs any more, and the store is released.

use std::task::{Context, Poll};
use std::time::Duration;

use super::super::state::AnyState;
use super::super::state_guard::DriverGuard;
use super::DriverCore;
use crate::rt::Instant;

/// How long a run waits for its store after its time limit has passed and nothing runs any more.
const STORE_GRACE: Duration = Duration::from_secs(1);

impl DriverCore {
    /// Ready once every success has counted. If the time limit of the run has passed, successes that are not durable go into
    /// the partial result.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) -> Poll<()> {
        let _former = self.set_waker(cx, state);
        let is_pending = {
            let mut guard = DriverGuard::new(state);
            let state = guard.get();
            state.items.durable().is_some_and(|items| items.poll_settled(&mut state.scheduler).is_pending())
        };
        if is_pending && !self.is_late(cx, state) {
            return Poll::Pending;
        }
        let mut guard = DriverGuard::new(state);
        let state = guard.get();
        if let (true, Some(items)) = (is_pending, state.items.durable()) {
            items.give_up_late(&mut state.scheduler);
        }
        state.scheduler.wake_taker_later(state.items.complete());
        Poll::Ready(())
    }

    /// Ready once the run holds nothing of the store any more. If the time limit of the run has passed, the tasks of the
    /// store continue without the run.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) -> Poll<()> {
        let closed = match DriverGuard::new(state).get().items.durable() {
            None => return Poll::Ready(()),
            Some(items) => {
                let reason = self.verdict.as_ref().and_then(|verdict| verdict.reason.as_ref());
                items.poll_closed(cx, reason.map(ToString::to_string).as_deref())
            }
        };
        if closed.is_pending() && self.is_late(cx, state) { Poll::Ready(()) } else { closed }
    }

    /// Returns `true` if the store has no more time, because the run has none. Otherwise the task is woken at that time.
    fn is_late(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) -> bool {
        let Some(run_deadline) = DriverGuard::new(state).get().scheduler.run_deadline else { return false };
        let until = *self.store_until.get_or_insert_with(|| run_deadline.max(Instant::now()) + STORE_GRACE);
        self.timers.next.poll(cx, until).is_ready()
    }
}
