//! The last phase of a run: nothing runs any more, and the store is released.

use std::task::{Context, Poll};
use std::time::Duration;

use super::call::Call;
use super::state_guard::DriverGuard;
use super::{Drive, Driver};
use crate::rt::Instant;

/// How long a run waits for its store after its time limit has passed and nothing runs any more.
const STORE_GRACE: Duration = Duration::from_secs(1);

impl<W: Drive> Driver<W> {
    /// Ready once every success has counted. If the time limit of the run has passed, successes that are not durable go into
    /// the partial result.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _former = self.set_waker(cx);
        if W::Call::KEEPS && self.state().get().poll_settled().is_pending() {
            if !self.is_late(cx) {
                return Poll::Pending;
            }
            self.state().get().give_up_late();
        }
        let mut guard = self.state();
        let state = guard.get();
        state.scheduler.wakes_taker = state.collector.complete().or(state.scheduler.wakes_taker.take());
        Poll::Ready(())
    }

    /// Ready once the run holds nothing of the store any more. If the time limit of the run has passed, the tasks of the
    /// store continue without the run.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !W::Call::KEEPS {
            return Poll::Ready(());
        }
        let closed = self.close(cx);
        if closed.is_pending() && self.is_late(cx) { Poll::Ready(()) } else { closed }
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = DriverGuard::new(&self.state);
        let durability = &mut state.get().durability;
        let cached = durability.cache.as_mut().map_or(Poll::Ready(()), |cache| cache.poll_closed(cx));
        let Some(commit_log) = &mut durability.commit_log else { return cached };
        let reason =
            self.ending.as_ref().and_then(|ending| ending.verdict.reason.as_ref()).map(ToString::to_string);
        let closed = commit_log.poll_closed(cx, reason.as_deref());
        if cached.is_ready() { closed } else { Poll::Pending }
    }

    /// Returns `true` if the store has no more time, because the run has none. Otherwise the task is woken at that time.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(run_deadline) = self.state().get().scheduler.run_deadline else { return false };
        let until = *self.store_until.get_or_insert_with(|| run_deadline.max(Instant::now()) + STORE_GRACE);
        self.timers.next.poll(cx, until).is_ready()
    }
}
