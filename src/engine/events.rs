//! The events of a run, for its observers.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::job::Job;
use super::scheduler::clock::deadline;
use super::scheduler::{Scheduler, Stop};
use super::trace;
use crate::limiter::Change;
use crate::observe::{Event, Observer};
use crate::outcome::{FailureKind, NotRetried, Origin};
use crate::rt::Instant;

/// The end of an item, without the types of its result.
pub(super) struct Settled<'a> {
    pub(super) index: usize,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    pub(super) label: Option<&'a str>,
    pub(super) origin: Origin,
    /// With the reason why the item was not tried again. `None` if it succeeded.
    pub(super) failure: Option<(FailureKind, NotRetried)>,
}

impl Scheduler {
    /// Replaces the observers of the task by those that they return for this run.
    pub(super) fn use_observers_of_run(&mut self) {
        if let Some(observers) = self.config.observers.for_run() {
            Arc::make_mut(&mut self.config).observers = observers;
        }
    }

    /// Passes an event to the observers of the task, and to that of the run.
    pub(super) fn emit(&self, of_run: Option<&dyn Observer>, event: &Event<'_>) {
        self.config.observers.emit(of_run, event);
    }

    /// Notifies the observers that an attempt starts. Returns the time after that.
    #[cold]
    #[inline(never)]
    pub(super) fn emit_started(
        &mut self,
        of_run: Option<&dyn Observer>,
        job: &mut Job,
        is_at_once: bool,
    ) -> Instant {
        self.emit_started_now(of_run, job, is_at_once);
        self.clock.read()
    }

    /// Notifies the observers that an attempt starts, if its worker reads the clock itself.
    #[cold]
    pub(super) fn emit_started_now(
        &mut self,
        of_run: Option<&dyn Observer>,
        job: &mut Job,
        is_at_once: bool,
    ) {
        if is_at_once {
            // Since when the attempt before has run.
            job.attempt_since = None;
        }
        // In most cases, the clock was read when the attempt before has ended. A parallel worker reads it.
        let at = self.clock.coarse();
        self.emit_started_at(of_run, job, at, false);
    }

    /// Notifies the observers that an attempt starts at this time, in a call of its own or in that of the attempt before.
    pub(super) fn emit_started_at(
        &self,
        of_run: Option<&dyn Observer>,
        job: &mut Job,
        at: Instant,
        shares_call: bool,
    ) {
        let (index, attempt) = (job.index, job.attempt);
        let waits_since = job.attempt_since.take();
        let waited = waits_since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        if attempt == 1 {
            self.emit(of_run, &Event::ItemStarted { index });
        }
        self.emit(of_run, &Event::AttemptStarted { index, attempt, at, waited, shares_call });
    }

    /// Notes that an attempt at an item waits for permits from now on, if it did not wait before.
    pub(super) fn date_wait(&mut self, job: Option<&mut Job>) {
        if let Some(job) = job {
            job.attempt_since.get_or_insert_with(|| self.clock.read());
        }
    }

    /// Notifies the observers that an attempt has returned an output.
    #[cold]
    pub(super) fn emit_succeeded(&mut self, of_run: Option<&dyn Observer>, job: &Job) {
        let elapsed = self.since(job.attempt_since);
        self.emit(of_run, &Event::AttemptSucceeded { index: job.index, attempt: job.attempt, elapsed });
    }

    /// Notifies the observers that an attempt has returned an output, with which its item has settled. `elapsed` is the time of the
    /// item, from which that of the attempt follows.
    #[cold]
    pub(super) fn emit_success(
        &mut self,
        of_run: Option<&dyn Observer>,
        job: &Job,
        label: Option<&str>,
        elapsed: Duration,
    ) {
        let Job { index, attempt, started, attempt_since, .. } = *job;
        let of_attempt = match (attempt_since, started) {
            (Some(of_attempt), Some(of_item)) if of_attempt != of_item => {
                elapsed.saturating_sub(of_attempt - of_item)
            }
            _ => elapsed,
        };
        self.emit(of_run, &Event::AttemptSucceeded { index, attempt, elapsed: of_attempt });
        let attempts = attempt;
        let origin = Origin::Ran;
        self.emit_settled(of_run, &Settled { index, attempts, elapsed, label, origin, failure: None });
    }

    /// Notifies the observers that an attempt has ended without an output.
    pub(super) fn emit_failed(
        &mut self,
        of_run: Option<&dyn Observer>,
        job: &mut Job,
        failure: &Failure<'_>,
        retry_in: Option<Duration>,
    ) {
        if self.observed {
            let now = self.clock.read();
            let elapsed = job.attempt_since.map_or(Duration::ZERO, |started| now - started);
            job.attempt_since = retry_in.map(|delay| deadline(now, delay));
            let Job { index, attempt, ref label, ref error_text, .. } = *job;
            let (label, kind, message) =
                (label.as_deref(), failure.kind, failure.message.or(error_text.as_deref()));
            self.emit(
                of_run,
                &Event::AttemptFailed { index, attempt, elapsed, label, kind, message, retry_in },
            );
        }
    }

    /// Notifies the observers that the run stops while attempts are running.
    pub(super) fn emit_stopping(&self, of_run: Option<&dyn Observer>) {
        if self.observed {
            let reason = match &self.stop {
                Some(Stop::Failed(reason)) => Some(reason),
                Some(Stop::EarlySuccess) | None => None,
            };
            let (running, draining) = (self.running(), self.draining);
            self.emit(of_run, &Event::RunStopping { running, draining, reason });
        }
    }

    /// Reports the changes of limiters that find their own numbers of permits.
    #[cold]
    pub(super) fn emit_limit_changes(&mut self, of_run: Option<&dyn Observer>) {
        for Change { from, to, why } in self.permits.limit_changes() {
            trace::limit(&self.name, from, to, why);
            if self.observed {
                self.emit(of_run, &Event::LimitChanged { from, to, why });
            }
        }
    }

    /// Notifies the observers that an item has settled.
    pub(super) fn emit_settled(&self, of_run: Option<&dyn Observer>, settled: &Settled<'_>) {
        if self.observed {
            let Settled { index, attempts, elapsed, label, origin, failure } = *settled;
            let (failure, not_retried) = failure.unzip();
            self.emit(
                of_run,
                &Event::ItemSettled { index, attempts, elapsed, label, origin, failure, not_retried },
            );
        }
    }
}
