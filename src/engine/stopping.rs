//! The end of what still runs when a run is stopped.

use std::task::{Context, Waker};

use super::access::Locked;
use super::clock::deadline;
use super::lane::Lane;
use super::mode::PollLanes;
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
        let has_workers = !W::Mode::SPAWNED || W::Mode::count(&self.lanes) > 0;
        let mut access = Locked::new(&self.core);
        let core = access.get();
        if core.running() == 0 || !has_workers {
            if self.stop_at.is_none() {
                core.forgive_timeout();
            }
            return Stopping::Over;
        }
        if core.draining {
            return Stopping::Waiting;
        }
        match self.stop_at {
            None => {
                let now = core.clock.read();
                let lanes = core.sound_alarm();
                drop(access);
                lanes.into_iter().for_each(Waker::wake);
                W::Mode::for_each(&mut self.lanes, Lane::stop);
                if self.config.cancel_grace.is_zero() {
                    return Stopping::Over;
                }
                self.stop_at = Some(deadline(now, self.config.cancel_grace));
                Stopping::Told
            }
            // It is over as well if its runtime keeps no time any more.
            Some(stop_at) if self.timer.poll(cx, stop_at).is_ready() => Stopping::Over,
            Some(_) => Stopping::Waiting,
        }
    }
}
