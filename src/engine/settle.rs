//! The end of an attempt: the item succeeds, fails or waits for a retry. Also its consequences for the run.

use std::mem;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::attempt::is_interrupted;
use super::call::Call;
use super::collector::Collector;
use super::hooks::Hooks;
use super::job::{Ended, Job, Retry};
use super::scheduler::{AttemptEnd, Scheduler, Stop, Wait};
use super::sink::Deliver;
use super::state::State;
use super::{Mode, Work, trace};
use crate::error::{BoxError, FailureReason};
use crate::observe::Event;
use crate::outcome::{FailureKind, ItemError, ItemOutcome, Origin};

impl<W: Work> State<W> {
    #[inline(always)]
    pub(super) fn succeed(&mut self, job: &Job<W::Item>, output: W::Output) {
        if W::Call::KEEPS {
            return self.keep(job, output);
        }
        self.count_success();
        self.settle(job, Ok(output));
    }

    #[inline(always)]
    pub(super) fn count_success(&mut self) {
        self.scheduler.tally.successes += 1;
        if self.scheduler.config.criteria.enough(self.scheduler.tally.successes, self.scheduler.total()) {
            self.stop(Stop::EarlySuccess);
        }
    }

    /// Ends an attempt without an output: the item is tried again, fails, or is cancelled with the run.
    #[cold]
    pub(super) fn fail_attempt(&mut self, job: &mut Job<W::Item>, error: ItemError<W::Error>) {
        self.scheduler.tally.failed_attempts += 1;
        let mut job = mem::replace(job, Job::none());
        if is_interrupted(&error) {
            return self.halt(FailureReason::Cancelled);
        }
        match &error {
            ItemError::Failed { .. } | ItemError::Faulted { .. } => {}
            ItemError::TimedOut { .. } => self.scheduler.tally.timeouts += 1,
            ItemError::Panicked { .. } => self.scheduler.tally.panics += 1,
        }
        let retry = match job.kept.take() {
            Some(item) => self.wait_before_retry(&job, &error).map(|wait| (item, wait)),
            None => Err("no retry is left"),
        };
        self.emit_attempt_failed(&job, &error, retry.as_ref().ok().map(|(_, wait)| wait.length));
        match retry {
            Ok((item, Wait { length, until, give_up })) => {
                let weight = job.weight;
                let slot = self.waiting.keep(Retry { job, item, error });
                let admitted = self.admitted();
                let retries = &mut self.scheduler.retries;
                if length.is_zero() {
                    retries.park_immediate(slot, weight, give_up, admitted);
                } else {
                    retries.park(slot, weight, until, give_up);
                }
                if !length.is_zero() || give_up.is_some() {
                    // The driver has to set its timer for this retry.
                    self.scheduler.notify_driver();
                }
            }
            Err(why) => self.fail(&job, error, why),
        }
    }

    /// Returns the wait before the next attempt, or the reason why there is none.
    fn wait_before_retry(
        &mut self,
        job: &Job<W::Item>,
        error: &ItemError<W::Error>,
    ) -> Result<Wait, &'static str> {
        if self.scheduler.stop.is_some() {
            return Err("the run is stopping");
        }
        let ended = match error {
            ItemError::Failed { error, .. } if self.hooks.is_retryable(error) => {
                AttemptEnd::Failed { retry_after: self.hooks.retry_after(error) }
            }
            ItemError::Failed { .. } => AttemptEnd::Refused,
            ItemError::TimedOut { scope, .. } => AttemptEnd::TimedOut(*scope),
            ItemError::Faulted { .. } => AttemptEnd::Faulted,
            ItemError::Panicked { .. } => AttemptEnd::Panicked,
        };
        self.scheduler.wait_before_retry(job.attempt, job.started, ended)
    }

    /// Settles an item as failed. `why` is the reason why it is not tried again.
    pub(super) fn fail(&mut self, job: &Job<W::Item>, error: ItemError<W::Error>, why: &str) {
        let stop = self.scheduler.count_failure(job.index, error.attempts());
        job.span.in_scope(|| trace::failure(&self.scheduler.name, job.index, &error, why));
        if let Some(stop) = stop {
            self.stop(stop);
        }
        self.settle(job, Err(error));
    }

    fn emit_attempt_failed(
        &self,
        job: &Job<W::Item>,
        error: &ItemError<W::Error>,
        retry_in: Option<Duration>,
    ) {
        let (index, attempt, kind) = (job.index, job.attempt, error.kind());
        if let Some(delay) = retry_in {
            job.span.in_scope(|| trace::retry(&self.scheduler.name, index, attempt, kind, delay));
        }
        if let Some(observer) = self.hooks.observer() {
            observer.on_event(&Event::AttemptFailed { index, attempt, kind, retry_in });
        }
    }

    #[inline(always)]
    fn settle(&mut self, job: &Job<W::Item>, result: Ended<W>) {
        let (index, attempts) = (job.index, job.attempt);
        let mut elapsed = Duration::ZERO;
        if self.scheduler.timed {
            elapsed = self.since_start(job);
            if let (Err(error), true) = (&result, W::Call::KEEPS) {
                self.keep_failure(index, elapsed, error);
            }
            self.emit_settled(
                index,
                attempts,
                elapsed,
                Origin::Ran,
                result.as_ref().err().map(ItemError::kind),
            );
        }
        self.emit_outcome(index, attempts, elapsed, Origin::Ran, result);
    }

    /// Emits the outcome of an item.
    #[inline(always)]
    pub(super) fn emit_outcome(
        &mut self,
        index: usize,
        attempts: u32,
        elapsed: Duration,
        origin: Origin,
        result: Ended<W>,
    ) {
        let sink_is_free = W::Sink::TAKES && !self.scheduler.sink_is_busy && !self.scheduler.sink_failed;
        if sink_is_free && self.collector.can_bypass() {
            let mut outcome = Some(ItemOutcome { index, attempts, elapsed, origin, result });
            let _is_busy = self.poll_sink(|_| outcome.take());
            return;
        }
        self.collector.settle(index, attempts, elapsed, origin, result);
        if W::Mode::PARALLEL {
            self.flush_outcomes();
            self.scheduler.has_notified |= self.scheduler.wakes_taker.is_some();
            if self.collector.should_wake_driver() {
                self.scheduler.notify_driver();
            }
        }
        if sink_is_free {
            let _is_busy = self.deliver();
        }
    }

    /// Delivers outcomes to a sink that the workers can reach. Pending while the sink is busy.
    pub(super) fn deliver(&mut self) -> Poll<()> {
        if self.scheduler.sink_failed {
            return Poll::Ready(());
        }
        self.poll_sink(Collector::take)
    }

    #[inline]
    fn poll_sink(
        &mut self,
        mut next: impl FnMut(&mut Collector<W::Output, W::Error>) -> Option<ItemOutcome<W::Output, W::Error>>,
    ) -> Poll<()> {
        let Self { sink, collector, scheduler: Scheduler { driver, .. }, .. } = self;
        let polled = sink.poll_deliver(&mut Context::from_waker(driver), || next(collector));
        self.scheduler.sink_is_busy = polled.is_pending();
        if let Err(error) = ready!(polled) {
            self.stop_for_sink(error);
        }
        Poll::Ready(())
    }

    /// Returns how long an item took.
    #[inline]
    pub(super) fn since_start(&mut self, job: &Job<W::Item>) -> Duration {
        let now = self.scheduler.clock.read();
        job.started.map_or(Duration::ZERO, |started| now - started)
    }

    /// Notifies the observer.
    #[inline]
    pub(super) fn emit_settled(
        &self,
        index: usize,
        attempts: u32,
        elapsed: Duration,
        origin: Origin,
        failure: Option<FailureKind>,
    ) {
        if let Some(observer) = self.hooks.observer() {
            observer.on_event(&Event::ItemSettled { index, attempts, elapsed, origin, failure });
        }
    }

    /// Stops the run: nothing more starts. Only the first cause counts.
    pub(super) fn stop(&mut self, cause: Stop) {
        if self.scheduler.stop.is_none() {
            self.scheduler.stop = Some(cause);
            self.abandon();
            self.waiting.clear();
            self.scheduler.retries.clear();
            self.scheduler.notify_driver();
        }
    }

    /// Stops the run for a cause from outside. Running attempts may not continue to their end any more.
    pub(super) fn halt(&mut self, reason: FailureReason) {
        self.stop(Stop::Failed(reason));
        self.scheduler.draining = false;
    }

    /// Stops the run because its sink has failed. An early success does not count then.
    pub(super) fn stop_for_sink(&mut self, error: BoxError) {
        self.scheduler.sink_failed = true;
        self.scheduler.revoke_early_success();
        self.stop(Stop::Failed(FailureReason::Sink(error)));
        self.collector.clear();
    }

    /// Removes the timeout of the run if the last item ended in the same poll.
    pub(super) fn clear_timeout(&mut self) {
        let timed_out = matches!(self.scheduler.stop, Some(Stop::Failed(FailureReason::TimedOut { .. })));
        let all_settled = self.started() == self.scheduler.tally.successes + self.scheduler.tally.failures;
        if timed_out
            && all_settled
            && self.scheduler.has_pulled_all()
            && self.scheduler.pulled == self.started()
        {
            self.scheduler.stop = None;
        }
    }
}
