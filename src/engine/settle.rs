//! The end of an attempt: the item succeeds, fails or waits for a retry. Also the consequences for the run.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::failure::Failure;
use super::items::ItemsOf;
use super::job::Job;
use super::output::outcomes::Outcomes;
use super::output::sink::Deliver;
use super::persist::durability::Persist;
use super::scheduler::{AttemptEnd, Scheduler, Stop, Wait};
use super::slots::Kept;
use super::user::hooks::Hooks;
use super::{Mode, Work, trace};
use crate::error::{BoxError, FailureReason};
use crate::observe::{Event, Observer};
use crate::outcome::{FailureKind, ItemError, ItemOutcome, Origin};

impl<W: Work> ItemsOf<W> {
    #[inline(always)]
    pub(super) fn succeed(&mut self, scheduler: &mut Scheduler, job: &Job, output: W::Output) {
        if W::Store::KEEPS {
            return self.keep(scheduler, job, output);
        }
        scheduler.count_success();
        let mut elapsed = Duration::ZERO;
        if scheduler.timed {
            elapsed = scheduler.since_start(job);
            emit_settled(self.hooks.observer(), (job.index, job.attempt), elapsed, Origin::Ran, None);
        }
        self.emit_outcome(scheduler, job.outcome(elapsed, Ok(output)));
    }

    /// Ends an attempt without an output: the item is tried again, fails, or is cancelled with the run.
    #[cold]
    pub(super) fn fail_attempt(
        &mut self,
        scheduler: &mut Scheduler,
        job: &mut Job,
        item: &mut Option<W::Item>,
        error: ItemError<W::Error>,
    ) {
        let (job, item) = (job.take(), item.take());
        let failure = Failure::from(&error);
        if !scheduler.count_failed_attempt(&failure) {
            return;
        }
        let mut end = AttemptEnd::Refused;
        if let (ItemError::Failed { error, .. }, true) = (&error, item.is_some() && scheduler.stop.is_none())
        {
            if self.hooks.is_retryable(error) {
                end = AttemptEnd::Failed { retry_after: self.hooks.retry_after(error) };
            }
        }
        let observer = self.hooks.observer();
        let Some(item) = item else {
            emit_attempt_failed(observer, &job, &failure, None);
            return self.fail(scheduler, &job, error, "no retries left");
        };
        match scheduler.end_attempt(&job, &failure, failure.end(end), observer) {
            Ok(wait) => {
                let weight = job.weight;
                let slot = self.waiting.keep(Kept { item, job, error: Some(error) });
                scheduler.park(slot, weight, &wait);
            }
            Err(why) => self.fail(scheduler, &job, error, why),
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

    /// Settles an item as failed. `why` is the reason why it is not tried again.
    #[inline(never)]
    pub(super) fn fail(
        &mut self,
        scheduler: &mut Scheduler,
        job: &Job,
        error: ItemError<W::Error>,
        why: &str,
    ) {
        let failure = Failure::from(&error);
        let elapsed = scheduler.fail_item(job, &failure, why);
        if W::Store::KEEPS {
            self.keep_failure(scheduler, job.index, elapsed, &error);
        }
        if scheduler.timed {
            let ids = (job.index, job.attempt);
            emit_settled(self.hooks.observer(), ids, elapsed, Origin::Ran, Some(failure.kind));
        }
        self.emit_rare_outcome(scheduler, job.outcome(elapsed, Err(error)));
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

/// Notifies the observer that an item has settled. The item is given by its index and its number of attempts.
pub(super) fn emit_settled(
    observer: Option<&dyn Observer>,
    (index, attempts): (usize, u32),
    elapsed: Duration,
    origin: Origin,
    failure: Option<FailureKind>,
) {
    if let Some(observer) = observer {
        observer.on_event(&Event::ItemSettled { index, attempts, elapsed, origin, failure });
    }
}

/// Notifies the observer that an attempt has ended without an output.
fn emit_attempt_failed(
    observer: Option<&dyn Observer>,
    job: &Job,
    failure: &Failure<'_>,
    retry_in: Option<Duration>,
) {
    if let Some(observer) = observer {
        let (index, attempt, kind) = (job.index, job.attempt, failure.kind);
        observer.on_event(&Event::AttemptFailed { index, attempt, kind, retry_in });
    }
}

impl Scheduler {
    /// Returns how long an item took.
    pub(super) fn since_start(&mut self, job: &Job) -> Duration {
        let now = self.clock.read();
        job.started.map_or(Duration::ZERO, |started| now - started)
    }

    /// Counts an attempt without an output. Returns `false` if the shutdown of the runtime has interrupted it, which stops
    /// the run.
    fn count_failed_attempt(&mut self, failure: &Failure<'_>) -> bool {
        self.tally.failed_attempts += 1;
        if failure.is_interruption() {
            self.halt_for_shutdown();
            return false;
        }
        match failure.kind {
            FailureKind::Failed | FailureKind::Faulted => {}
            FailureKind::TimedOut => self.tally.timeouts += 1,
            FailureKind::Panicked => self.tally.panics += 1,
        }
        true
    }

    /// Returns the wait before the next attempt, or the reason why there is none.
    fn end_attempt(
        &mut self,
        job: &Job,
        failure: &Failure<'_>,
        end: AttemptEnd,
        observer: Option<&dyn Observer>,
    ) -> Result<Wait, &'static str> {
        let wait = match self.stop {
            Some(_) => Err("the run is stopping"),
            None => self.wait_before_retry(job.attempt, job.started, end),
        };
        let retry_in = wait.as_ref().ok().map(|wait| wait.length);
        if let Some(delay) = retry_in {
            job.span.in_scope(|| trace::retry(&self.name, job.index, job.attempt, failure.kind, delay));
        }
        emit_attempt_failed(observer, job, failure, retry_in);
        wait
    }

    /// Adds an item to those that wait for their next attempt.
    fn park(&mut self, slot: usize, weight: u32, &Wait { length, until, give_up }: &Wait) {
        if length.is_zero() {
            let admitted = self.admitted();
            self.retries.park_immediate(slot, weight, give_up, admitted);
        } else {
            self.retries.park(slot, weight, until, give_up);
        }
        if !length.is_zero() || give_up.is_some() {
            // The driver has to set its timer for this retry.
            self.notify_driver();
        }
    }

    /// Counts and logs an item that has failed, and stops the run if that is enough. Returns how long the item took, if the
    /// run reports it.
    fn fail_item(&mut self, job: &Job, failure: &Failure<'_>, why: &str) -> Duration {
        let stop = self.count_failure(job.index, failure.attempts);
        let failures = self.tally.failures;
        job.span.in_scope(|| trace::failure(&self.name, failures, job.index, failure, why));
        if let Some(stop) = stop {
            self.stop(stop);
        }
        if self.timed { self.since_start(job) } else { Duration::ZERO }
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
