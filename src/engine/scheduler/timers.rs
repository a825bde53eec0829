//! The timers of the driver.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Scheduler;
use super::clock::{deadline, earliest};
use crate::engine::shutdown::ShutDown;
use crate::engine::timer::Timer;
use crate::rt::Instant;

/// The timers of the driver.
#[derive(Debug, Default)]
pub(in super::super) struct Timers {
    /// Fires when the driver must handle retries and limits.
    pub(in super::super) next: Timer,
    /// Fires when the workers must check the limits of their first attempts.
    sweep: Timer,
    /// The time at which running attempts are dropped. Set once the run is stopping.
    pub(in super::super) stop_at: Option<Instant>,
}

impl Scheduler {
    /// Makes sure that a sweep covers an attempt that has just started and waits.
    #[inline(always)]
    pub(in super::super) fn ensure_sweep(&mut self) {
        // Nearly always there is a sweep already, and nothing else is read.
        if self.next_sweep.is_none() {
            if let Some((limit, _)) = self.config.first_limit {
                self.arm_sweep(limit);
            }
        }
    }

    #[cold]
    fn arm_sweep(&mut self, limit: Duration) {
        self.next_sweep = Some(deadline(self.clock.last(), limit / 2));
    }

    /// Returns `true` if the next attempt waits for a time at which the driver's timer must wake it.
    pub(in super::super) fn waits_for_time(&self) -> bool {
        self.permits.next_due().is_some() || self.next_call().is_some()
    }

    /// Returns the time at which a call starts that waits for more items.
    fn next_call(&self) -> Option<Instant> {
        self.batches.as_ref().and_then(|batches| batches.next_start())
    }

    /// Returns the time at which the driver must be polled again, if nothing wakes it before.
    fn next_deadline(&self) -> Option<Instant> {
        let retry = earliest(self.retries.next_deadline(), self.next_keyed_give_up());
        earliest(earliest(self.run_deadline, retry), earliest(self.permits.next_due(), self.next_call()))
    }

    /// Ends a poll of the driver with `running` attempts: makes sure that the driver is woken in time. Returns the wakers of
    /// the workers that must check their limits now.
    ///
    /// # Errors
    ///
    /// Returns [`ShutDown`] if the runtime has no timer any more.
    pub(in super::super) fn end_poll(
        &mut self,
        running: usize,
        timers: &mut Timers,
        cx: &mut Context<'_>,
    ) -> Result<Vec<Waker>, ShutDown> {
        if let Some(took) = self.clock.end_poll() {
            self.budget.end_poll(took);
        }
        if running == 0 {
            self.next_sweep = None;
        }
        let next = timers.stop_at.or_else(|| self.next_deadline());
        let passed = next.map_or(Poll::Pending, |next| timers.next.poll(cx, next));
        let swept = self.next_sweep.map_or(Poll::Pending, |next| timers.sweep.poll(cx, next));
        let is_shut_down =
            matches!(passed, Poll::Ready(Err(ShutDown))) || matches!(swept, Poll::Ready(Err(ShutDown)));
        if passed.is_ready() || is_shut_down {
            cx.waker().wake_by_ref();
        }
        let wakers = if swept.is_ready() {
            self.next_sweep = None;
            self.workers.busy_wakers()
        } else {
            Vec::new()
        };
        if is_shut_down { Err(ShutDown) } else { Ok(wakers) }
    }
}
