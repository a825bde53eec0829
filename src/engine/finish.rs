//! The account of a run and its verdict, at its end or when it is dropped.

use std::mem;
use std::sync::atomic::Ordering;

use super::hooks::Hooks;
use super::outlined::Outlined;
use super::state::{SourceState, State, Stop, Tally};
use super::state_guard::DriverGuard;
use super::{Drive, Driver, Ending, Mode, Types};
use crate::error::FailureReason;
use crate::observe::Event;
use crate::panic_payload::discard;
use crate::result::Summary;
use crate::rt::Instant;
use crate::verdict::Exceeded;

impl<W: Drive> Driver<W> {
    /// Ends the run: takes its account, judges it and says so.
    pub(super) fn finish(&mut self) -> Ending<W::Output, W::Error> {
        let mut guard = DriverGuard::new(&self.state);
        let state = guard.get();
        let ending = state.end();
        ending.log();
        if let Some(observer) = state.hooks.observer() {
            let (summary, reason) = (&ending.summary, ending.reason.as_ref());
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

    /// The run returns how it has ended.
    pub(super) fn withdraw_notice(&self) {
        let notice = DriverGuard::new(&self.state).get().notice.take();
        if let Some(mut notice) = notice {
            notice.withdraw();
        }
    }

    /// Passes on an ending that the run has no more chance to return.
    fn pass_on(&self, ending: Ending<W::Output, W::Error>) {
        let notice = DriverGuard::new(&self.state).get().notice.take();
        if let Some(mut notice) = notice {
            notice.pass_on(ending);
        }
    }
}

/// A parallel worker may be in the middle of a poll, and keeps the state until it ends. It begins nothing
/// more, and nothing of what the driver held is kept from others so long.
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

// Without the bounds of `Work`, because a run that is dropped needs it, too.
impl<W: Types> State<W> {
    /// The account of the run as it is now, its verdict, and what it has collected.
    fn end(&mut self) -> Ending<W::Output, W::Error> {
        let summary = self.summary();
        self.end_report(&summary);
        let stop = self.stop.take();
        // More successes can be required than there are items, once it is known how many there are.
        let required = self.config.criteria.required(summary.total);
        let is_known = stop.is_none() || self.promise().is_some();
        let shortfall = Some(required).filter(|required| is_known && *required > summary.total);
        let reason = match stop {
            Some(Stop::EarlySuccess) => None,
            Some(Stop::Failed(reason)) => Some(reason),
            None => match self.config.criteria.at_end(summary.successes, summary.failures) {
                Ok(()) => None,
                Err(Exceeded { failures, allowed }) => {
                    Some(FailureReason::TooManyFailures { failures, allowed })
                }
            },
        };
        let name = mem::take(&mut self.name);
        let collector = Outlined::take(&mut self.collector);
        Ending { name, summary, reason, first_failure: self.tally.first_failure, shortfall, collector }
    }

    fn summary(&self) -> Summary {
        let Tally { successes, failures, retries, timeouts, panics, recovered, cached, changed, .. } =
            self.tally;
        let total = self.final_total();
        let started = self.pulled - self.backlog.len() - self.assigned_new - self.keeping.pending();
        Summary {
            total,
            successes,
            failures,
            cancelled: started - successes - failures,
            not_started: total - started,
            retries,
            timeouts,
            panics,
            recovered,
            cached,
            changed,
            elapsed: Instant::now().saturating_duration_since(self.started),
        }
    }

    /// How many items there were: as many as came, and, where the run stopped before the end of the
    /// source, as many as the source had promised.
    fn final_total(&self) -> usize {
        match self.promise() {
            Some(promised) if self.source_state != SourceState::Ended => promised.max(self.pulled),
            _ => self.pulled,
        }
    }

    /// The promised number of items, while the source keeps it.
    fn promise(&self) -> Option<usize> {
        self.promised.filter(|promised| *promised >= self.pulled)
    }

    /// The ending of a run that is dropped now. The first cause counts, as always; if there was none, the run is
    /// cancelled, unless its last item had settled.
    fn end_of_dropped(&mut self) -> Ending<W::Output, W::Error> {
        let all_settled = self.tally.successes + self.tally.failures == self.pulled;
        let is_complete = all_settled
            && (self.source_state == SourceState::Ended || self.promise() == Some(self.pulled))
            && self.keeping.ledger.is_none();
        match &self.stop {
            Some(Stop::Failed(_)) => {}
            Some(Stop::EarlySuccess) if self.keeping.ledger.is_none() => {}
            None if is_complete => {}
            None | Some(Stop::EarlySuccess) => self.stop = Some(Stop::Failed(FailureReason::Cancelled)),
        }
        self.rescue_unkept();
        if let Some(taker) = self.collector.complete() {
            taker.wake();
        }
        self.end()
    }

    /// Adds the successes that are not durable to the result, as when their store has failed. A stream does not get
    /// them, because it does when the run is recovered.
    fn rescue_unkept(&mut self) {
        let Some(ledger) = self.keeping.ledger.as_mut().filter(|_| self.collector.is_result()) else {
            return;
        };
        while let Some(success) = ledger.give_up() {
            self.tally.successes += 1;
            let (index, attempts, elapsed) = (success.index, success.attempts, success.elapsed);
            self.collector.settle(index, attempts, elapsed, success.origin, Ok(success.output));
        }
    }
}

/// A run that is dropped leaves its account to the handle or the stream that may still await it. Workers on other
/// threads keep the state for as long as they are in the middle of a poll, so it contains all that they have done.
impl<W: Types> Drop for State<W> {
    fn drop(&mut self) {
        match self.notice.take() {
            Some(mut notice) if notice.is_awaited() => notice.send(self.end_of_dropped()),
            notice => {
                if let Some(mut notice) = notice {
                    notice.withdraw();
                }
                if self.reporter.is_some() {
                    let summary = self.summary();
                    self.end_report(&summary);
                }
            }
        }
    }
}
