//! The signals that a run receives, and the progress that it reports.

use tokio_util::sync::CancellationToken;

use super::scheduler::{SourceState, Stop};
use super::state::State;
use super::{Mode, Work};
use crate::error::FailureReason;
use crate::progress::{Progress, Reporter};
use crate::signals::Raised;

impl<W: Work> State<W> {
    /// Applies the raised signals. Stops the run if it was told to, or if the caller's token is cancelled.
    #[inline]
    pub(super) fn apply_signals(&mut self) {
        let raised = self.scheduler.signals.raised();
        if !raised.is_none() {
            self.apply(raised);
        }
    }

    #[cold]
    fn apply(&mut self, raised: Raised) {
        if raised.is_resized() {
            self.scheduler.signals.acknowledge_size();
            if let Some((concurrency, most)) =
                self.scheduler.reporter.as_ref().and_then(Reporter::new_concurrency)
            {
                self.scheduler.permits.set_capacity(concurrency, most);
            }
        }
        let is_token_cancelled =
            || self.scheduler.token.as_ref().is_some_and(CancellationToken::is_cancelled);
        if raised.is_cancelled() || (raised.is_token() && is_token_cancelled()) {
            self.halt(FailureReason::Cancelled);
        } else if raised.is_draining() && self.scheduler.stop.is_none() {
            self.stop(Stop::Failed(FailureReason::Cancelled));
            self.scheduler.draining = true;
        }
    }

    /// Reports the progress of the run and flushes the outcomes. Called at the end of the driver's poll, and in between when
    /// the driver reads the clock.
    pub(super) fn publish(&mut self) {
        self.report();
        self.flush_outcomes();
    }

    /// Flushes the outcomes to the task that takes them. That task is woken once the state is unlocked.
    #[inline]
    pub(super) fn flush_outcomes(&mut self) {
        if let Some(taker) = self.collector.flush() {
            self.scheduler.wakes_taker = Some(taker);
        }
    }

    /// Reports a change immediately if workers are parallel.
    #[inline(always)]
    pub(super) fn report_at_once(&self) {
        if W::Mode::PARALLEL {
            self.report();
        }
    }

    /// Reports the progress of the run, if a handle or a stream can ask for it.
    #[inline]
    fn report(&self) {
        if let Some(reporter) = &self.scheduler.reporter {
            reporter.report(self.progress());
        }
    }

    fn progress(&self) -> Progress {
        let total = if self.scheduler.source_state == SourceState::Ended {
            Some(self.scheduler.pulled)
        } else {
            self.scheduler.total()
        };
        let running = self.running() - self.durability.unkept_successes();
        Progress { total, running, waiting_for_retry: self.waiting_for_retry(), ..self.scheduler.counts() }
    }
}
