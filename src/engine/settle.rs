//! The end of an attempt: the item succeeds, fails or waits for a retry. Also the consequences for the run.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::events::Settled;
use super::failure::Failure;
use super::items::{ItemsOf, permits};
use super::job::Job;
use super::output::outcomes::Outcomes;
use super::output::sink::Deliver;
use super::persist::durability::Persist;
use super::scheduler::{AttemptEnd, Refusal, Scheduler, Stop, Wait};
use super::slots::Kept;
use super::user::hooks::Hooks;
use super::user::leftovers::Leftovers;
use super::{Mode, Work, trace};
use crate::error::{BoxError, FailureReason, FirstFailure};
use crate::limiter::LimiterSet;
use crate::observe::Observer;
use crate::outcome::{FailureKind, ItemError, ItemOutcome, LeftOver, Origin, TimeoutScope};
use crate::rt::Instant;

impl<W: Work> ItemsOf<W> {
    #[inline(always)]
    pub(super) fn succeed(
        &mut self,
        scheduler: &mut Scheduler,
        job: &mut Job,
        item: Option<W::Item>,
        output: W::Output,
    ) {
        if W::Store::KEEPS {
            return self.keep(scheduler, job, item, output);
        }
        scheduler.count_success();
        let label = if W::Hooks::LABELS { job.label.take() } else { None };
        let mut elapsed = Duration::ZERO;
        if scheduler.timed {
            elapsed = scheduler.since(job.started);
            if scheduler.observed {
                scheduler.emit_success(self.hooks.observer(), job, label.as_deref(), elapsed);
            }
        }
        self.emit_outcome(scheduler, job.outcome(elapsed, label, Ok(output)));
    }

    /// Sets the label of an item whose first attempt starts.
    #[inline(always)]
    pub(super) fn set_label(&self, job: &mut Job, item: &W::Item) {
        if W::Hooks::LABELS && job.attempt == 1 {
            job.label = self.hooks.label(item);
            trace::record_label(&job.span, job.label.as_deref());
        }
    }

    /// Ends an attempt without an output: the item is tried again, fails, or is cancelled with the run.
    #[cold]
    pub(super) fn fail_attempt(
        &mut self,
        scheduler: &mut Scheduler,
        job: &mut Job,
        item: &mut Option<W::Item>,
        key: Option<&LimiterSet>,
        error: ItemError<W::Error>,
    ) {
        let (mut job, mut item) = (job.take(), item.take());
        self.set_error_text(&mut job, &error);
        let failure = Failure::from(&error);
        if !scheduler.count_failed_attempt(&failure) {
            return self.leave(job, item);
        }
        if W::Hooks::GIVES_BACK && !scheduler.config.retry.allows_after(job.attempt) {
            // The item was kept only to be given back.
            item = None;
        }
        self.heed(scheduler, &job, key, &error);
        if item.is_none() {
            scheduler.emit_failed(self.hooks.observer(), &mut job, &failure, None);
            return self.fail(scheduler, &mut job, error, Refusal::NO_RETRIES_LEFT);
        }
        let end = failure.end(self.end_of(&error));
        match scheduler.end_attempt(&mut job, &failure, end, key, self.hooks.observer()) {
            Ok(wait) => {
                let weight = permits::<W>(job.weight);
                let slot = self.waiting.keep(Kept { item, job, error: Some(error) });
                scheduler.park(slot, weight, &wait);
            }
            Err(refusal) => self.fail(scheduler, &mut job, error, refusal),
        }
    }

    /// Holds the run or the key back if an error asks for it, and notes if it is an overload of the server.
    pub(super) fn heed(
        &self,
        scheduler: &mut Scheduler,
        job: &Job,
        key: Option<&LimiterSet>,
        error: &ItemError<W::Error>,
    ) {
        let ItemError::Failed { error, .. } = error else { return };
        if W::Hooks::HOLDS {
            if let Some(time) = self.hooks.hold_back(error) {
                scheduler.hold_back(job, key, time);
            }
        }
        if W::Hooks::KNOWS_OVERLOADS {
            scheduler.permits.set_overload(self.hooks.is_overload(error));
        }
    }

    /// Returns how an attempt with an error has ended, as `retry_if` and `retry_after` say.
    pub(super) fn end_of(&self, error: &ItemError<W::Error>) -> AttemptEnd {
        match error {
            ItemError::Failed { error, .. } if self.hooks.is_retryable(error) => {
                AttemptEnd::Failed { retry_after: self.hooks.retry_after(error) }
            }
            _ => AttemptEnd::Refused,
        }
    }

    /// Sets the text of the error with which an attempt has ended, if errors have texts.
    #[inline(always)]
    pub(super) fn set_error_text(&self, job: &mut Job, error: &ItemError<W::Error>) {
        if W::Hooks::TEXTS {
            job.error_text = match error {
                ItemError::Failed { error, .. } => self.hooks.error_text(error).map(String::into_boxed_str),
                _ => None,
            };
        }
    }

    /// Emits the outcome of an item that has failed, or whose success comes from a store. It is compiled once for all of
    /// these.
    #[inline(never)]
    pub(super) fn emit_rare_outcome(
        &mut self,
        scheduler: &mut Scheduler,
        outcome: ItemOutcome<W::Output, W::Error>,
    ) {
        self.emit_outcome(scheduler, outcome);
    }

    /// Settles an item as failed.
    #[inline(never)]
    pub(super) fn fail(
        &mut self,
        scheduler: &mut Scheduler,
        job: &mut Job,
        error: ItemError<W::Error>,
        refusal: Refusal,
    ) {
        let failure = Failure::from(&error);
        let elapsed = scheduler.fail_item(job, &failure, refusal, self.hooks.observer());
        if W::Store::KEEPS {
            self.keep_failure(scheduler, job.index, elapsed, &error);
        }
        let label = job.label.take();
        if W::Hooks::LABELS {
            self.outcomes.keep_label(job.index, label.as_deref());
        }
        let outcome = job.outcome(elapsed, label, Err(error));
        self.emit_rare_outcome(scheduler, ItemOutcome { not_retried: Some(refusal.kind), ..outcome });
    }

    /// Keeps the label of an item that was pulled and does not settle, and the item, if it is to be given back.
    pub(super) fn leave(&mut self, job: Job, item: Option<W::Item>) {
        let Job { index, attempt: attempts, label, .. } = job;
        if W::Hooks::LABELS && W::Outcomes::ARE_RESULTS {
            let label = label.or_else(|| item.as_ref().and_then(|item| self.hooks.label(item)));
            self.outcomes.keep_label(index, label.as_deref());
        }
        if W::Hooks::GIVES_BACK {
            if let Some(item) = item {
                self.hooks.leave(LeftOver { item, index, attempts });
            }
        }
    }

    /// Emits the outcome of an item.
    #[inline(always)]
    fn emit_outcome(&mut self, scheduler: &mut Scheduler, outcome: ItemOutcome<W::Output, W::Error>) {
        if W::Sink::TAKES && self.outcomes.can_bypass() && scheduler.may_use_sink() {
            let mut outcome = Some(outcome);
            let _is_busy = self.poll_sink(scheduler, &mut |_| outcome.take());
            return;
        }
        self.outcomes.settle(outcome);
        if W::Mode::PARALLEL {
            scheduler.wake_taker_later(self.outcomes.flush());
            scheduler.has_notified |= scheduler.wakes_taker.is_some();
            if self.outcomes.should_wake_driver() {
                scheduler.notify_driver();
            }
        }
        if W::Sink::TAKES && scheduler.may_use_sink() {
            let _is_busy = self.poll_sink(scheduler, &mut W::Outcomes::take);
        }
    }

    #[inline]
    pub(super) fn poll_sink(
        &mut self,
        scheduler: &mut Scheduler,
        next: &mut impl FnMut(&mut W::Outcomes) -> Option<ItemOutcome<W::Output, W::Error>>,
    ) -> Poll<()> {
        let Self { sink, outcomes, .. } = self;
        let polled = sink.poll_deliver(&mut Context::from_waker(&scheduler.driver), || next(outcomes));
        scheduler.sink_is_busy = polled.is_pending();
        if let Err(error) = ready!(polled) {
            scheduler.stop_for_sink(error);
            self.outcomes.clear();
        }
        Poll::Ready(())
    }
}

impl Scheduler {
    /// Lets nothing start until the time has passed: nothing of the item's key, if it has one.
    pub(super) fn hold_back(&mut self, job: &Job, key: Option<&LimiterSet>, time: Duration) {
        self.permits.note_overload();
        let hold = match key {
            Some(key) => key.first().begin_hold(time),
            None => self.permits.hold_back(time),
        };
        if let Some(hold) = hold {
            trace::hold(&self.name, job.name(), hold, key.is_some());
        }
    }

    /// Notes an attempt that has exceeded its own time limit as an overload of the server.
    pub(super) fn note_timeout(&mut self, failure: &Failure<'_>) {
        if let Some((_, TimeoutScope::Attempt)) = failure.limit {
            self.permits.note_overload();
        }
    }

    /// Returns the time since an item or an attempt has started.
    pub(super) fn since(&mut self, started: Option<Instant>) -> Duration {
        let now = self.clock.read();
        started.map_or(Duration::ZERO, |started| now - started)
    }

    /// Counts an attempt without an output. Returns `false` if the shutdown of the runtime has interrupted it, which stops
    /// the run.
    pub(super) fn count_failed_attempt(&mut self, failure: &Failure<'_>) -> bool {
        self.tally.failed_attempts += 1;
        if failure.is_interruption() {
            self.halt_for_shutdown();
            return false;
        }
        match failure.kind {
            FailureKind::Failed | FailureKind::Faulted => {}
            FailureKind::TimedOut => {
                self.tally.timeouts += 1;
                self.note_timeout(failure);
            }
            FailureKind::Panicked => self.tally.panics += 1,
        }
        true
    }

    /// Returns the wait before the next attempt, or the reason why there is none.
    fn end_attempt(
        &mut self,
        job: &mut Job,
        failure: &Failure<'_>,
        end: AttemptEnd,
        key: Option<&LimiterSet>,
        observer: Option<&dyn Observer>,
    ) -> Result<Wait, Refusal> {
        let wait = self.wait_before_retry(job.attempt, job.started, end, key);
        let retry_in = wait.as_ref().ok().map(|wait| wait.length);
        if let Some(delay) = retry_in {
            job.span.in_scope(|| {
                trace::retry(
                    &self.name,
                    job.name(),
                    job.attempt,
                    failure.kind,
                    job.error_text.as_deref(),
                    delay,
                )
            });
        }
        self.emit_failed(observer, job, failure, retry_in);
        wait
    }

    /// Adds an item to those that wait for their next attempt.
    pub(super) fn park(
        &mut self,
        slot: usize,
        weight: u32,
        &Wait { length, until, give_up, is_granted }: &Wait,
    ) {
        if !is_granted {
            self.retries.park_refused(slot, weight, until, give_up);
            let now = self.clock.read();
            self.grant_retries(now);
        } else if length.is_zero() {
            let admitted = self.admitted();
            self.retries.park_immediate(slot, weight, give_up, admitted);
        } else {
            self.retries.park(slot, weight, until, give_up);
        }
        if !length.is_zero() || give_up.is_some() || !is_granted {
            // The driver has to set its timer for this retry.
            self.notify_driver();
        }
    }

    /// Counts and logs an item that has failed, and stops the run if that is enough. Returns how long the item took, if the
    /// run reports it.
    fn fail_item(
        &mut self,
        job: &Job,
        failure: &Failure<'_>,
        refusal: Refusal,
        observer: Option<&dyn Observer>,
    ) -> Duration {
        let stop = self.count_failure(job.index, || FirstFailure {
            index: job.index,
            attempts: failure.attempts,
            label: job.label.clone(),
            cause: failure.cause(job.error_text.as_deref()),
        });
        let failures = self.tally.failures;
        job.span.in_scope(|| {
            trace::failure(&self.name, failures, job.name(), failure, job.error_text.as_deref(), refusal.why)
        });
        if let Some(stop) = stop {
            self.stop(stop);
        }
        if !self.timed {
            return Duration::ZERO;
        }
        let Job { index, attempt: attempts, ref label, started, .. } = *job;
        let (elapsed, label) = (self.since(started), label.as_deref());
        let (origin, failure) = (Origin::Ran, Some((failure.kind, refusal.kind)));
        self.emit_settled(observer, &Settled { index, attempts, elapsed, label, origin, failure });
        elapsed
    }

    /// Returns `true` if the sink of the workers may be polled: no call of it is pending, and it has not failed.
    #[inline(always)]
    fn may_use_sink(&self) -> bool {
        !self.sink_is_busy && !self.sink_failed
    }

    /// Stops the run because its sink has failed. An early success does not count then.
    pub(super) fn stop_for_sink(&mut self, error: BoxError) {
        self.sink_failed = true;
        self.revoke_early_success();
        self.stop(Stop::Failed(FailureReason::Sink(error)));
    }
}
