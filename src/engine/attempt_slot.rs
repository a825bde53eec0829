//! The slot in which a worker makes its attempts.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::attempt::{AttemptDeadline, Limit, drop_caught, interrupted, panic_error, poll_caught};
use super::call::Call;
use super::job::Job;
use super::scheduler::clock::{deadline, earliest};
use super::scheduler::permits::HeldPermits;
use super::shutdown::ShutDown;
use super::state_guard::StateGuard;
use super::time_slice::TimeSlice;
use super::timer::Timer;
use super::{Mode, Types, Work, trace};
use crate::config::Config;
use crate::context::{ItemContext, Signal};
use crate::outcome::ItemError;
use crate::rt::Instant;

pin_project! {
    /// The slot in which a worker makes its attempts, one after another. An attempt is built in place and never moves.
    #[project = SlotProjection]
    pub(super) struct AttemptSlot<W: Types> {
        pub(super) job: Job<W::Item>,
        #[pin]
        attempt: Option<W::Future>,
        // `true` if the attempt was started before the worker had to yield, and was not polled since.
        pub(super) is_unpolled: bool,
        // `true` if the attempt counts as ended, but its function still runs.
        pub(super) lingers: bool,
        pub(super) attempt_deadline: AttemptDeadline,
        timer: Timer,
        signal: Arc<Signal>,
        pub(super) held: HeldPermits,
    }

    impl<W: Types> PinnedDrop for AttemptSlot<W> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if this.attempt.is_some() {
                Signal::cancel(this.signal);
                this.job.span.in_scope(|| drop_caught(this.attempt));
            }
        }
    }
}

impl<W: Work> AttemptSlot<W> {
    pub(super) fn new() -> Self {
        Self {
            job: Job::none(),
            attempt: None,
            is_unpolled: false,
            lingers: false,
            attempt_deadline: AttemptDeadline::Unlimited,
            timer: Timer::default(),
            signal: Arc::default(),
            held: HeldPermits::default(),
        }
    }
}

impl<W: Work> SlotProjection<'_, W> {
    /// Returns `true` if there is an attempt in the slot.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.attempt.is_some()
    }

    /// Releases the permits of the shared limit that the ended attempt held. Returns `true` if it held any. This wakes other
    /// tasks, so a parallel worker calls it while the state is not locked.
    #[inline]
    pub(super) fn release_shared(&mut self) -> bool {
        self.held.shared.take().is_some()
    }

    /// Calls the map function. It is the caller's code, so it may panic.
    #[inline(always)]
    pub(super) fn begin(
        &mut self,
        call: &W::Call,
        config: &Config,
        run_deadline: Option<Instant>,
        item: W::Item,
    ) -> Result<(), ItemError<W::Error>> {
        let Job { index, attempt, ref mut kept, started, ref span, .. } = *self.job;
        let may_retry = config.retry.allows_after(attempt);
        let (future, attempt_deadline, signal) =
            (&mut self.attempt, &*self.attempt_deadline, &mut *self.signal);
        let permit = &mut self.held.shared;
        let context = || {
            Signal::renew(signal);
            let limit = attempt_deadline.limit(config, started).map(|limit| limit.deadline());
            let deadline = earliest(limit, run_deadline);
            ItemContext::new(index, attempt, !may_retry, deadline, Arc::clone(signal))
        };
        let built = trace::in_span(span, || {
            catch_unwind(AssertUnwindSafe(|| {
                *kept = if may_retry { call.clone_item(&item) } else { None };
                future.set(Some(call.call(context, item, permit)));
            }))
        });
        built.map_err(|payload| panic_error(payload, attempt))
    }

    /// Records when an attempt starts.
    pub(super) fn record_start(&mut self, config: &Config, start: Instant) {
        self.job.started.get_or_insert(start);
        if config.first_limit.is_some() {
            *self.attempt_deadline = AttemptDeadline::BegunSince(start);
        }
    }

    /// Corrects the start of an attempt that has not waited yet.
    fn correct_start(&mut self, start: Instant, attempt_deadline: impl FnOnce(Instant) -> AttemptDeadline) {
        if self.job.attempt == 1 {
            self.job.started = Some(start);
        }
        if let AttemptDeadline::BegunSince(_) = self.attempt_deadline {
            *self.attempt_deadline = attempt_deadline(start);
        }
    }

    /// Polls the attempt, then its limit: a finished result takes precedence over a timeout in the same poll.
    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        guard: &mut StateGuard<'_, W>,
    ) -> Poll<Result<W::Output, ItemError<W::Error>>> {
        if W::Mode::PARALLEL && mem::take(self.is_unpolled) {
            self.correct_start(Instant::now(), AttemptDeadline::BegunSince);
        }
        let attempts = self.job.attempt;
        match trace::in_span(&self.job.span, || poll_caught(self.attempt.as_mut(), cx, attempts)) {
            Poll::Ready(Ok(output)) => Poll::Ready(Ok(output)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.counted_error(error))),
            Poll::Pending if self.is_within_first_limit(cx, config) => Poll::Pending,
            Poll::Pending => self.poll_limit(cx, config, guard).map(Err),
        }
    }

    /// Returns the error that counts for a failed attempt.
    #[cold]
    fn counted_error(&self, error: ItemError<W::Error>) -> ItemError<W::Error> {
        match (error, &*self.attempt_deadline) {
            // The attempt was told to end, so its error is a consequence of the timeout.
            (ItemError::Failed { attempts, .. }, AttemptDeadline::Grace(limit, _)) => limit.error(attempts),
            (error, _) => error,
        }
    }

    /// Returns `true` for a first attempt with a limit that needs no check before the driver sweeps or the timer fires. Most
    /// attempts that wait take this path.
    #[inline(always)]
    fn is_within_first_limit(&self, cx: &Context<'_>, config: &Config) -> bool {
        let AttemptDeadline::Begun(start) = *self.attempt_deadline else { return false };
        let may_ring_later = |(limit, _)| {
            let deadline = start.checked_add(limit);
            deadline.is_some_and(|deadline| self.timer.is_early_enough(cx, deadline))
        };
        self.job.attempt == 1 && (!W::Mode::PARALLEL || config.first_limit.is_some_and(may_ring_later))
    }

    /// Ready once the limit of the attempt has passed, or its runtime has no timer any more. The attempt is dropped, unless
    /// its function still runs.
    fn poll_limit(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        guard: &mut StateGuard<'_, W>,
    ) -> Poll<ItemError<W::Error>> {
        if let AttemptDeadline::BegunSince(dated) = *self.attempt_deadline {
            self.correct_start(TimeSlice::latest_start(dated), AttemptDeadline::Begun);
        }
        self.work_out_limit(config);
        let attempts = self.job.attempt;
        let error = match ready!(self.poll_end_of_time(cx, config, guard)) {
            Ok(limit) => limit.error(attempts),
            Err(ShutDown) => {
                Signal::cancel(self.signal);
                interrupted()
            }
        };
        if self.attempt.as_ref().as_pin_ref().is_some_and(|attempt| W::Call::still_running(&attempt)) {
            *self.lingers = true;
        } else {
            self.job.span.in_scope(|| drop_caught(self.attempt.as_mut()));
        }
        Poll::Ready(error)
    }

    pub(super) fn work_out_limit(&mut self, config: &Config) {
        if let AttemptDeadline::Begun(_) = *self.attempt_deadline {
            let limit = self.attempt_deadline.limit(config, self.job.started);
            *self.attempt_deadline = limit.map_or(AttemptDeadline::Unlimited, AttemptDeadline::Until);
        }
    }

    /// Ready with the limit that has passed, grace included.
    fn poll_end_of_time(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        guard: &mut StateGuard<'_, W>,
    ) -> Poll<Result<Limit, ShutDown>> {
        match *self.attempt_deadline {
            AttemptDeadline::Unlimited | AttemptDeadline::Begun(_) | AttemptDeadline::BegunSince(_) => {
                Poll::Pending
            }
            AttemptDeadline::Grace(limit, until) => self.timer.poll(cx, until).map_ok(|()| limit),
            AttemptDeadline::Until(limit) => {
                ready!(self.timer.poll(cx, limit.deadline()))?;
                let clock = &mut guard.get().scheduler.clock;
                let (now, latest) = (clock.read(), limit.latest_deadline(clock));
                guard.release();
                ready!(self.timer.poll(cx, latest))?;
                Signal::cancel(self.signal);
                if !config.cancel_grace.is_zero() {
                    let until = deadline(now, config.cancel_grace);
                    *self.attempt_deadline = AttemptDeadline::Grace(limit, until);
                    ready!(self.timer.poll(cx, until))?;
                }
                Poll::Ready(Ok(limit))
            }
        }
    }

    /// Ready once the function of an attempt that counts as ended has returned.
    pub(super) fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if *self.lingers {
            ready!(poll_caught(self.attempt.as_mut(), cx, 0)).ok();
            *self.lingers = false;
        }
        Poll::Ready(())
    }

    /// Tells a running attempt to end. From now on, the grace of the run is its only limit.
    pub(super) fn stop(&mut self) {
        if self.attempt.is_some() {
            Signal::cancel(self.signal);
            if !matches!(self.attempt_deadline, AttemptDeadline::Grace(..)) {
                *self.attempt_deadline = AttemptDeadline::Unlimited;
            }
        }
    }
}
