//! What a run is told from outside, and what it tells.

use tokio_util::sync::CancellationToken;

use super::core::{Core, SourceState, Stop, Tally};
use super::{Mode, Types, Work};
use crate::bell::Orders;
use crate::error::FailureReason;
use crate::progress::{Progress, Reporter};
use crate::result::Summary;

impl<W: Work> Core<W> {
    /// Whether an order from outside keeps everything from starting.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.bell.orders().is_paused()
    }

    /// Stops the run if the caller's token is cancelled, or if it was ordered to.
    #[inline]
    pub(super) fn heed_orders(&mut self) {
        let orders = self.bell.orders();
        if !orders.is_none() {
            self.obey(orders);
        }
    }

    #[cold]
    fn obey(&mut self, orders: Orders) {
        if orders.is_resized() {
            self.bell.acknowledge_size();
            if let Some((concurrency, most)) = self.reporter.as_ref().and_then(Reporter::new_concurrency) {
                self.gate.set_capacity(concurrency, most);
            }
        }
        let is_token_cancelled = || self.token.as_ref().is_some_and(CancellationToken::is_cancelled);
        if orders.is_cancelled() || (orders.is_token() && is_token_cancelled()) {
            self.halt(FailureReason::Cancelled);
        } else if orders.is_draining() && self.stop.is_none() {
            self.stop(Stop::Failed(FailureReason::Cancelled));
            self.draining = true;
        }
    }

    /// Tells how far the run has come, and gives the outcomes to another task that takes them: at the end of the driver's
    /// poll, and in between when it looks at the clock.
    pub(super) fn publish(&mut self) {
        self.report();
        self.hand_over_outcomes();
    }

    /// Gives the outcomes to another task that takes them. It is woken once the core is unlocked.
    #[inline]
    pub(super) fn hand_over_outcomes(&mut self) {
        if let Some(taker) = self.collector.hand_over() {
            self.wakes_taker = Some(taker);
        }
    }

    /// Reports a change at once where lanes run by themselves.
    #[inline(always)]
    pub(super) fn report_at_once(&self) {
        if W::Mode::SPAWNED {
            self.report();
        }
    }

    /// Tells how far the run has come, where somebody may ask.
    #[inline]
    fn report(&self) {
        if let Some(reporter) = &self.reporter {
            reporter.report(self.progress());
        }
    }

    fn progress(&self) -> Progress {
        let total = if self.source_state == SourceState::Ended { Some(self.pulled) } else { self.total() };
        let running = self.running() - self.keeping.unkept_successes();
        Progress { total, running, waiting_for_retry: self.waiting_for_retry(), ..self.counts() }
    }
}

impl<W: Types> Core<W> {
    /// The last report: nothing runs or waits any more.
    pub(super) fn end_report(&mut self, summary: &Summary) {
        if let Some(reporter) = self.reporter.take() {
            reporter.end(Progress { total: Some(summary.total), ..self.counts() }, summary.elapsed);
        }
    }

    fn counts(&self) -> Progress {
        let Tally { successes, failures, retries, recovered, cached, .. } = self.tally;
        Progress { successes, failures, recovered, cached, retries, ..Progress::default() }
    }
}
