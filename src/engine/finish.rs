//! The account of a run and its verdict, at its end or when it is dropped.

use std::mem;
use std::sync::atomic::Ordering;

use super::hooks::Hooks;
use super::state::State;
use super::state_guard::DriverGuard;
use super::{Drive, Driver, Ending, Mode, Types};
use crate::observe::Event;
use crate::panic_payload::discard;

impl<W: Drive> Driver<W> {
    /// Ends the run: computes its account and its verdict, logs them and notifies the observer.
    pub(super) fn finish(&mut self) -> Ending<W::Output, W::Error> {
        let mut guard = DriverGuard::new(&self.state);
        let state = guard.get();
        let ending = state.end();
        ending.verdict.log();
        if let Some(observer) = state.hooks.observer() {
            let (summary, reason) = (&ending.verdict.summary, ending.verdict.reason.as_ref());
            observer.on_event(&Event::RunFinished { summary, reason });
        }
        ending
    }
}

impl<W: Types> Driver<W> {
    pub(super) fn sound_alarm(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.store(true, Ordering::Release);
        }
    }

    /// Withdraws the notice, because the run returns its ending.
    pub(super) fn withdraw_notice(&self) {
        let notice = DriverGuard::new(&self.state).get().notice.take();
        if let Some(mut notice) = notice {
            notice.withdraw();
        }
    }

    /// Forwards an ending that the run can no longer return.
    fn pass_on(&self, ending: Ending<W::Output, W::Error>) {
        let notice = DriverGuard::new(&self.state).get().notice.take();
        if let Some(mut notice) = notice {
            notice.pass_on(ending);
        }
    }
}

/// A parallel worker may be in the middle of a poll, and keeps the state until that poll ends. It starts nothing more. The
/// permits that the driver held do not stay in use until then.
impl<W: Types> Drop for Driver<W> {
    fn drop(&mut self) {
        self.panic.take().into_iter().for_each(discard);
        if let Some(ending) = self.ending.take() {
            self.pass_on(ending);
        }
        self.sound_alarm();
        if W::Mode::PARALLEL {
            if let Some(mut state) = DriverGuard::try_new(&self.state) {
                state.get().abandon();
            }
        }
    }
}

// Without the bounds of `Work`, because dropping a run needs it as well.
impl<W: Types> State<W> {
    /// Returns the current account of the run, its verdict, and the collected outcomes.
    fn end(&mut self) -> Ending<W::Output, W::Error> {
        let verdict = self.scheduler.end(self.not_started());
        Ending { verdict, collector: mem::take(&mut self.collector) }
    }

    /// Returns the ending of a run that is being dropped.
    fn end_of_dropped(&mut self) -> Ending<W::Output, W::Error> {
        self.scheduler.stop_dropped(self.durability.commit_log.is_none());
        self.rescue_unkept();
        if let Some(taker) = self.collector.complete() {
            taker.wake();
        }
        self.end()
    }

    /// Adds the successes that are not durable to the result, as if their store had failed. A stream gets them when the run
    /// is recovered instead.
    fn rescue_unkept(&mut self) {
        let Some(commit_log) = self.durability.commit_log.as_mut().filter(|_| self.collector.is_result())
        else {
            return;
        };
        while let Some(success) = commit_log.give_up() {
            self.scheduler.tally.successes += 1;
            let (index, attempts, elapsed) = (success.index, success.attempts, success.elapsed);
            self.collector.settle(index, attempts, elapsed, success.origin, Ok(success.output));
        }
    }
}

/// Sends the account of a dropped run to the handle or the stream that may still await it. Workers on other threads keep the
/// state while they are in the middle of a poll, so the account contains all their work.
impl<W: Types> Drop for State<W> {
    fn drop(&mut self) {
        match self.notice.take() {
            Some(mut notice) if notice.is_awaited() => notice.send(self.end_of_dropped()),
            notice => {
                if let Some(mut notice) = notice {
                    notice.withdraw();
                }
                if self.scheduler.reporter.is_some() {
                    let summary = self.scheduler.summary(self.not_started());
                    self.scheduler.end_report(&summary);
                }
            }
        }
    }
}
