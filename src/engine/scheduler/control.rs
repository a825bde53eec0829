//! The signals that a run receives, and the progress that it reports.

use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::{Scheduler, SourceState, Stop};
use crate::error::FailureReason;
use crate::progress::{Progress, Reporter};
use crate::signals::Raised;

impl Scheduler {
    /// Applies the raised signals. Stops the run if it was told to, or if the caller's token is cancelled.
    #[inline]
    pub(in super::super) fn apply_signals(&mut self) {
        let raised = self.signals.raised();
        if !raised.is_none() {
            self.apply(raised);
        }
    }

    #[cold]
    fn apply(&mut self, raised: Raised) {
        if raised.is_resized() {
            self.signals.acknowledge_size();
            if let Some((concurrency, most)) = self.reporter.as_ref().and_then(Reporter::new_concurrency) {
                self.permits.set_capacity(concurrency, most);
            }
        }
        let is_cancelled =
            |token: &Option<CancellationToken>| token.as_ref().is_some_and(CancellationToken::is_cancelled);
        if raised.is_cancelled() || (raised.is_token() && is_cancelled(&self.token)) {
            self.halt(FailureReason::Cancelled);
        } else if (raised.is_draining() || (raised.is_token() && is_cancelled(&self.drain_token)))
            && self.stop.is_none()
        {
            self.stop(Stop::Failed(FailureReason::Cancelled));
            self.draining = true;
        }
    }

    /// Applies the signals and, with parallel workers, the alarm.
    #[inline]
    pub(in super::super) fn apply_alarm_and_signals(&mut self, parallel: bool) {
        if parallel && self.alarm.as_ref().is_some_and(|alarm| alarm.load(Ordering::Acquire)) {
            // The driver may be gone. This releases the permits that it has left behind.
            self.halt(FailureReason::Cancelled);
        }
        self.apply_signals();
    }

    /// Reports a change immediately if workers are parallel.
    #[inline(always)]
    pub(in super::super) fn report_at_once(&self, parallel: bool) {
        if parallel {
            self.report();
        }
    }

    /// Reports the progress of the run, if a handle or a stream can ask for it.
    #[inline]
    pub(in super::super) fn report(&self) {
        if let Some(reporter) = &self.reporter {
            reporter.report(self.progress());
        }
    }

    fn progress(&self) -> Progress {
        let total = if self.source_state == SourceState::Ended { Some(self.pulled) } else { self.total() };
        let running = self.running() - self.unkept_successes;
        Progress { total, running, waiting_for_retry: self.waiting_for_retry(), ..self.counts() }
    }
}
