//! The end of what still runs when a run is stopped.

use std::task::{Context, Waker};

use super::mode::PollWorkers;
use super::scheduler::clock::deadline;
use super::state_guard::DriverGuard;
use super::worker::Worker;
use super::{Drive, Driver, Mode};

/// How far a run that stops has come.
pub(super) enum Stopping {
    /// The running attempts have just been told.
    Told,
    /// They have time left to end.
    Waiting,
    /// Nothing runs any more, or the time is up.
    Over,
}

impl<W: Drive> Driver<W> {
    /// Tells what still runs to end, once, and says how far that has come.
    pub(super) fn poll_stopping(&mut self, cx: &mut Context<'_>) -> Stopping {
        // An attempt whose worker was dropped by its runtime has ended, and cannot be counted as such.
        let has_workers = !W::Mode::PARALLEL || W::Mode::count(&self.workers) > 0;
        let mut guard = DriverGuard::new(&self.state);
        let state = guard.get();
        if state.running() == 0 || !has_workers {
            if self.timers.stop_at.is_none() {
                state.forgive_timeout();
            }
            return Stopping::Over;
        }
        if state.scheduler.draining {
            return Stopping::Waiting;
        }
        match self.timers.stop_at {
            None => {
                let now = state.scheduler.clock.read();
                let workers = state.scheduler.sound_alarm();
                drop(guard);
                workers.into_iter().for_each(Waker::wake);
                W::Mode::for_each(&mut self.workers, Worker::stop);
                if self.config.cancel_grace.is_zero() {
                    return Stopping::Over;
                }
                self.timers.stop_at = Some(deadline(now, self.config.cancel_grace));
                Stopping::Told
            }
            // It is over as well if its runtime keeps no time any more.
            Some(stop_at) if self.timers.next.poll(cx, stop_at).is_ready() => Stopping::Over,
            Some(_) => Stopping::Waiting,
        }
    }
}
