//! The end of running attempts when a run is stopped.

use std::task::{Context, Waker};

use super::super::scheduler::clock::deadline;
use super::super::state::AnyState;
use super::super::state_guard::DriverGuard;
use super::{DriverCore, Workers};

/// The progress of a run that is stopping.
pub(super) enum Stopping {
    /// The running attempts were just told to end.
    Notified,
    /// The running attempts have time left to end.
    Waiting,
    /// Nothing runs any more, or the time is up.
    Over,
}

impl DriverCore {
    /// Tells the running attempts to end, once, and returns the progress.
    pub(super) fn poll_stopping(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
    ) -> Stopping {
        // An attempt has ended if its worker was dropped by its runtime, and cannot be counted as ended.
        let has_workers = self.alarm.is_none() || workers.count() > 0;
        let mut guard = DriverGuard::new(state);
        let state = guard.get();
        while let Some(slot) = state.scheduler.discarded.pop() {
            state.items.discard(slot);
        }
        if state.scheduler.running() == 0 || !has_workers {
            if self.timers.stop_at.is_none() {
                state.scheduler.clear_timeout();
            }
            return Stopping::Over;
        }
        let draining = state.scheduler.draining;
        if self.told_stopping.replace(draining) != Some(draining) {
            state.scheduler.emit_stopping(state.items.observer());
        }
        if draining {
            return Stopping::Waiting;
        }
        match self.timers.stop_at {
            None => {
                let now = state.scheduler.clock.read();
                let wakers = state.scheduler.sound_alarm();
                drop(guard);
                wakers.into_iter().for_each(Waker::wake);
                workers.stop();
                if self.config.cancel_grace.is_zero() {
                    return Stopping::Over;
                }
                self.timers.stop_at = Some(deadline(now, self.config.cancel_grace));
                Stopping::Notified
            }
            // It is over as well if its runtime has no timer any more.
            Some(stop_at) if self.timers.next.poll(cx, stop_at).is_ready() => Stopping::Over,
            Some(_) => Stopping::Waiting,
        }
    }
}
