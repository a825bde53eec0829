//! The control of the attempts in one slot: their starts, limits, tokens and permits.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::super::job::{Job, Other};
use super::super::scheduler::Scheduler;
use super::super::scheduler::clock::{deadline, earliest};
use super::super::scheduler::permits::HeldPermits;
use super::super::shutdown::ShutDown;
use super::super::timer::Timer;
use super::attempt::{AttemptDeadline, Limit};
use super::time_slice::TimeSlice;
use crate::config::Config;
use crate::context::{ItemContext, Signal};
use crate::limiter::SharedPermits;
use crate::observe::Observer;
use crate::rt::Instant;

/// Returns the time by the clock of the run, and a limit with the latest possible start.
type ReadClock<'a> = &'a mut dyn FnMut(Limit) -> (Instant, Limit);

/// The part of an attempt slot that does not depend on the types of the run.
pub(in super::super) struct AttemptControl {
    pub(in super::super) job: Job,
    /// The other items of a call for several items.
    pub(in super::super) others: Vec<Other>,
    /// `true` if the call continues the last attempts of its items.
    pub(in super::super) is_part: bool,
    /// `true` if the attempt was started before the worker had to yield, and was not polled since.
    pub(in super::super) is_unpolled: bool,
    /// `true` if the attempt counts as ended, but its function still runs.
    pub(in super::super) lingers: bool,
    pub(in super::super) deadline: AttemptDeadline,
    pub(in super::super) held: HeldPermits,
    pub(in super::super) signal: Arc<Signal>,
    timer: Timer,
}

impl AttemptControl {
    pub(in super::super) fn new() -> Self {
        Self {
            job: Job::none(),
            others: Vec::new(),
            is_part: false,
            is_unpolled: false,
            lingers: false,
            deadline: AttemptDeadline::Unlimited,
            held: HeldPermits::default(),
            timer: Timer::default(),
            signal: Arc::default(),
        }
    }

    /// Cancels the token of the attempt.
    pub(in super::super) fn cancel(&self) {
        Signal::cancel(&self.signal);
    }

    /// Releases the permits of the shared limit that the ended attempt held. Returns `true` if it held any. This wakes other
    /// tasks, so a parallel worker calls it while the state is not locked.
    #[inline]
    pub(in super::super) fn release_shared(&mut self, was_overload: bool) -> bool {
        let holds = !self.held.shared.is_empty();
        if holds {
            self.held.shared.end(was_overload);
            self.held.shared = SharedPermits::default();
        }
        holds
    }

    /// Returns the job of the first item, and those of the others.
    pub(in super::super) fn jobs(&mut self) -> (&mut Job, &mut Vec<Other>) {
        (&mut self.job, &mut self.others)
    }

    /// Returns the earliest start of an item of the attempt: its limit passes first.
    fn first_started(&self) -> Option<Instant> {
        let others = self.others.iter().filter_map(|other| other.job.started);
        others.fold(self.job.started, |first, other| earliest(first, Some(other)))
    }

    /// Records when an attempt starts.
    pub(in super::super) fn record_start(&mut self, config: &Config, start: Instant) {
        self.job.begin_at(start);
        self.others.iter_mut().for_each(|other| other.job.begin_at(start));
        if config.first_limit.is_some() {
            self.deadline = AttemptDeadline::BegunSince(start);
        }
    }

    /// Corrects the start of an attempt that has not waited yet.
    pub(in super::super) fn correct_start(
        &mut self,
        start: Instant,
        attempt_deadline: impl FnOnce(Instant) -> AttemptDeadline,
    ) {
        let is_part = self.is_part;
        self.job.correct_start(start, is_part);
        self.others.iter_mut().for_each(|other| other.job.correct_start(start, is_part));
        if let AttemptDeadline::BegunSince(_) = self.deadline {
            self.deadline = attempt_deadline(start);
        }
    }

    /// Returns `true` for a first attempt with a limit that needs no check before the driver sweeps or the timer fires. Most
    /// attempts that wait take this path.
    #[inline(always)]
    pub(in super::super) fn is_within_first_limit(
        &self,
        cx: &Context<'_>,
        config: &Config,
        parallel: bool,
    ) -> bool {
        let AttemptDeadline::Begun(start) = self.deadline else { return false };
        let may_ring_later = |(limit, _)| {
            let deadline = start.checked_add(limit);
            deadline.is_some_and(|deadline| self.timer.is_early_enough(cx, deadline))
        };
        self.job.attempt == 1 && (!parallel || config.first_limit.is_some_and(may_ring_later))
    }

    /// Ready with the limit that has passed, grace included, or once the runtime has no timer any more. `read_clock` returns
    /// the time, and the limit with the latest possible start of the attempt.
    pub(in super::super) fn poll_limit(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        read_clock: ReadClock<'_>,
    ) -> Poll<Option<Limit>> {
        if let AttemptDeadline::BegunSince(dated) = self.deadline {
            self.correct_start(TimeSlice::latest_start(dated), AttemptDeadline::Begun);
        }
        self.work_out_limit(config);
        match ready!(self.poll_end_of_time(cx, config, read_clock)) {
            Ok(limit) => Poll::Ready(Some(limit)),
            Err(ShutDown) => {
                self.cancel();
                Poll::Ready(None)
            }
        }
    }

    pub(in super::super) fn work_out_limit(&mut self, config: &Config) {
        if let AttemptDeadline::Begun(_) = self.deadline {
            let limit = self.deadline.limit(config, self.first_started());
            self.deadline = limit.map_or(AttemptDeadline::Unlimited, AttemptDeadline::Until);
        }
    }

    /// Ready with the limit that has passed, grace included.
    fn poll_end_of_time(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        read_clock: ReadClock<'_>,
    ) -> Poll<Result<Limit, ShutDown>> {
        match self.deadline {
            AttemptDeadline::Unlimited | AttemptDeadline::Begun(_) | AttemptDeadline::BegunSince(_) => {
                Poll::Pending
            }
            AttemptDeadline::Grace(limit, until) => self.timer.poll(cx, until).map_ok(|()| limit),
            AttemptDeadline::Until(limit) => {
                ready!(self.timer.poll(cx, limit.deadline()))?;
                let (now, latest) = read_clock(limit);
                // Otherwise the next poll would register the earlier deadline again, which has passed: it would wake the
                // worker at once, again and again.
                self.deadline = AttemptDeadline::Until(latest);
                ready!(self.timer.poll(cx, latest.deadline()))?;
                self.cancel();
                if !config.cancel_grace.is_zero() {
                    let until = deadline(now, config.cancel_grace);
                    self.deadline = AttemptDeadline::Grace(limit, until);
                    ready!(self.timer.poll(cx, until))?;
                }
                Poll::Ready(Ok(limit))
            }
        }
    }

    /// Tells a running attempt to end. From now on, the grace of the run is its only limit.
    pub(in super::super) fn stop(&mut self) {
        self.cancel();
        if !matches!(self.deadline, AttemptDeadline::Grace(..)) {
            self.deadline = AttemptDeadline::Unlimited;
        }
    }

    /// Records the start of an attempt. Records the time as well if a limit or the elapsed time of the item needs it.
    /// `is_at_once` is `true` if the attempt directly follows another one in the same worker.
    #[inline(always)]
    pub(in super::super) fn begin(
        &mut self,
        scheduler: &mut Scheduler,
        observer: Option<&dyn Observer>,
        is_at_once: bool,
        parallel: bool,
    ) {
        self.deadline = AttemptDeadline::Unlimited;
        // An attempt that starts at once is the first of its item.
        let is_first = is_at_once || self.job.attempt == 1;
        if !is_first {
            scheduler.tally.retries += 1;
        }
        // A parallel worker reads the clock itself.
        if parallel {
            if scheduler.observed {
                scheduler.emit_started_now(observer, &mut self.job, is_at_once);
            }
            return;
        }
        scheduler.budget.spend();
        let is_limited = scheduler.config.first_limit.is_some();
        let now = match (scheduler.timed, is_limited) {
            // Read after the observers, which may take time.
            (true, _) if scheduler.observed => scheduler.emit_started(observer, &mut self.job, is_at_once),
            // The last reading is the time at which the previous item settled.
            (true, _) if is_at_once => scheduler.clock.last(),
            (true, _) => scheduler.clock.read(),
            (false, true) => scheduler.clock.coarse(),
            (false, false) => return,
        };
        if is_first {
            self.job.started = Some(now);
        }
        if scheduler.timed {
            self.job.attempt_since = Some(now);
        }
        if is_limited {
            self.deadline = AttemptDeadline::Begun(now);
        }
    }
}

/// Creates the context of an attempt.
pub(in super::super) fn context(
    job: &Job,
    attempt_deadline: &AttemptDeadline,
    signal: &mut Arc<Signal>,
    config: &Config,
    run_deadline: Option<Instant>,
) -> ItemContext {
    Signal::renew(signal);
    let limit = attempt_deadline.limit(config, job.started).map(|limit| limit.deadline());
    let is_last = !config.retry.allows_after(job.attempt);
    ItemContext::new(job.index, job.attempt, is_last, earliest(limit, run_deadline), Arc::clone(signal))
}
