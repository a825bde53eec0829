//! The part of a run's state that does not depend on its types: permits, workers, clocks, the account and the causes to stop.
//! It is compiled once for all runs.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::clock::{Clock, deadline};
use super::permits::Permits;
use super::poll_budget::PollBudget;
use super::time_slice::STARTS_PER_POLL;
use crate::config::Config;
use crate::error::{ConfigError, FailureReason};
use crate::progress::{Progress, Reporter};
use crate::result::Summary;
use crate::rt::{AtomicBool, Instant};
use crate::signals::Signals;
use crate::verdict::Exceeded;

/// Why no further attempt begins.
pub(super) enum Stop {
    EarlySuccess,
    Failed(FailureReason),
}

/// The source as it answered last.
#[derive(PartialEq, Eq)]
pub(super) enum SourceState {
    Open,
    /// It had nothing; it is not asked again in this poll of the driver.
    Stalled,
    Ended,
}

/// A worker as the admission sees it.
pub(super) struct WorkerState {
    pub(super) waker: Option<Waker>,
    pub(super) is_idle: bool,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) successes: usize,
    pub(super) failures: usize,
    /// Those that an end of their runtime has interrupted included.
    pub(super) failed_attempts: usize,
    pub(super) retries: usize,
    pub(super) timeouts: usize,
    pub(super) panics: usize,
    pub(super) recovered: usize,
    pub(super) cached: usize,
    pub(super) changed: usize,
    /// The item that settled as failed before all others, and how many attempts it had.
    pub(super) first_failure: Option<(usize, u32)>,
}

/// What a run is set to, apart from its types.
pub(super) struct Setting {
    pub(super) config: Arc<Config>,
    pub(super) function: &'static str,
    pub(super) token: Option<CancellationToken>,
    pub(super) reporter: Option<Reporter>,
    pub(super) promised: Option<usize>,
    pub(super) timed: bool,
    /// The setting that the run cannot work with.
    pub(super) misfit: Option<ConfigError>,
}

/// See the module.
pub(super) struct Scheduler {
    pub(super) config: Arc<Config>,
    /// The name of the run.
    pub(super) name: String,
    pub(super) token: Option<CancellationToken>,
    /// Rings where the run is to do something else; the caller's token rings it.
    pub(super) signals: Arc<Signals>,
    pub(super) reporter: Option<Reporter>,
    /// The time of the first poll.
    pub(super) started: Instant,
    pub(super) source_state: SourceState,
    /// The driver's own waker: the source and the shared limit are polled with it and with nothing else.
    pub(super) driver: Waker,
    /// The number of items, as the source's exact size hint has promised it.
    pub(super) promised: Option<usize>,
    pub(super) pulled: usize,
    pub(super) permits: Permits,
    pub(super) workers: Vec<WorkerState>,
    pub(super) idle: Vec<usize>,
    /// How many of the attempts that were assigned to a worker are of items that have not started.
    pub(super) assigned_new: usize,
    /// How many items may be held beside those that run.
    pub(super) look_ahead: usize,
    /// Where workers run by themselves: how many of them this poll of the driver may still call.
    pub(super) starts_left: u32,
    /// Where the driver polls the workers: what this poll may still do.
    pub(super) budget: PollBudget,
    /// Where workers run by themselves: set once they are to end their attempts.
    pub(super) alarm: Option<Arc<AtomicBool>>,
    /// Whether the driver was woken since it was last polled.
    pub(super) driver_is_woken: bool,
    /// Whether the driver is to be woken once the state is unlocked.
    pub(super) wakes_driver: bool,
    /// The task that is to be woken then, because it waits for an outcome.
    pub(super) wakes_taker: Option<Waker>,
    /// Whether this turn has woken somebody who may have to wait now until the worker rests.
    pub(super) has_notified: bool,
    pub(super) clock: Clock,
    /// Where the driver polls the workers: when they are to look after the limits of their attempts.
    pub(super) next_sweep: Option<Instant>,
    pub(super) run_deadline: Option<Instant>,
    pub(super) stop: Option<Stop>,
    /// Whether what runs may end by itself although the run is stopping.
    pub(super) draining: bool,
    pub(super) tally: Tally,
    /// Whether the sink is in the middle of a call, which wakes the driver.
    pub(super) sink_is_busy: bool,
    /// Whether the sink has failed, so that nothing more is handed to it.
    pub(super) sink_failed: bool,
    /// Whether somebody is told how long each item took.
    pub(super) timed: bool,
}

/// The verdict on a run that has ended.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) summary: Summary,
    /// `None` if the run succeeded.
    pub(super) reason: Option<FailureReason>,
    /// The item that settled as failed before all others, and how many attempts it had.
    pub(super) first_failure: Option<(usize, u32)>,
    /// How many successes were required, if it is more than there are items.
    pub(super) shortfall: Option<usize>,
}

impl Scheduler {
    pub(super) fn new(setting: Setting, now: Instant, parallel: bool) -> Self {
        let Setting { config, function, token, reporter, promised, timed, misfit } = setting;
        if let Some(reporter) = &reporter {
            reporter.start(now);
        }
        Self {
            name: config.name.as_deref().unwrap_or(function).to_owned(),
            run_deadline: config.run_timeout.map(|limit| deadline(now, limit)),
            permits: Permits::new(config.concurrency, config.limiter.clone()),
            look_ahead: config.look_ahead,
            timed,
            config,
            token,
            signals: reporter.as_ref().map_or_else(Arc::default, |reporter| Arc::clone(reporter.signals())),
            reporter,
            started: now,
            source_state: SourceState::Open,
            driver: Waker::noop().clone(),
            promised,
            pulled: 0,
            workers: Vec::new(),
            idle: Vec::new(),
            assigned_new: 0,
            starts_left: 0,
            budget: PollBudget::new(),
            alarm: parallel.then(Arc::default),
            driver_is_woken: false,
            wakes_driver: false,
            wakes_taker: None,
            has_notified: false,
            clock: Clock::new(now, parallel),
            next_sweep: None,
            stop: misfit.map(|error| Stop::Failed(FailureReason::Config(error))),
            draining: false,
            tally: Tally::default(),
            sink_is_busy: false,
            sink_failed: false,
        }
    }

    /// From here on the driver is woken through this waker. Returns the former one, which is to be dropped after the state
    /// is unlocked.
    pub(super) fn set_driver(&mut self, waker: &Waker) -> Option<Waker> {
        let is_known = self.driver.will_wake(waker);
        (!is_known).then(|| mem::replace(&mut self.driver, waker.clone()))
    }

    fn is_parallel(&self) -> bool {
        self.alarm.is_some()
    }

    pub(super) fn begin_poll(&mut self) {
        self.driver_is_woken = false;
        self.starts_left = STARTS_PER_POLL;
        if !self.is_parallel() {
            self.budget.begin_poll(self.workers.len() - self.idle.len());
        }
        if self.source_state == SourceState::Stalled {
            self.source_state = SourceState::Open;
        }
    }

    /// The limit of the run, if it has passed.
    pub(super) fn passed_limit(&self, now: Instant) -> Option<Duration> {
        let is_over = self.run_deadline.is_some_and(|deadline| now >= deadline);
        self.config.run_timeout.filter(|_| is_over)
    }

    /// Returns `true` if this poll of the driver may begin another attempt, or poll another worker, as far as can be said
    /// without a look at the clock.
    #[inline(always)]
    pub(super) fn may_start(&self, parallel: bool) -> bool {
        if parallel { self.starts_left > 0 } else { self.budget.is_left() }
    }

    /// Looks at the clock. Returns `true` if something is left of the budget of this poll.
    pub(super) fn renew_budget(&mut self) -> bool {
        let is_read_anyway = self.config.first_limit.is_some() && !self.budget.is_close();
        let now = if is_read_anyway { self.clock.coarse() } else { self.clock.read() };
        self.budget.renew(now)
    }

    /// Tells the attempts of parallel workers to end. Returns the wakers of these workers, which are to be woken
    /// after the state is unlocked.
    #[must_use]
    pub(super) fn sound_alarm(&self) -> Vec<Waker> {
        let Some(alarm) = &self.alarm else { return Vec::new() };
        alarm.store(true, Ordering::Release);
        self.workers.iter().filter_map(|worker| worker.waker.clone()).collect()
    }

    /// Makes sure that an attempt that has just begun and has to wait is swept in time.
    #[inline(always)]
    pub(super) fn cover_first_wait(&mut self) {
        if let (None, Some((limit, _))) = (self.next_sweep, self.config.first_limit) {
            self.arm_sweep(limit);
        }
    }

    #[cold]
    fn arm_sweep(&mut self, limit: Duration) {
        self.next_sweep = Some(deadline(self.clock.last(), limit / 2));
    }

    /// The wakers of the workers that the driver polls and that are not idle.
    pub(super) fn busy_workers(&self) -> Vec<Waker> {
        self.workers
            .iter()
            .filter(|worker| !worker.is_idle)
            .filter_map(|worker| worker.waker.clone())
            .collect()
    }

    /// Finds a worker for an attempt that was assigned: an idle one, or a new one.
    pub(super) fn find_worker(&mut self) -> Admission {
        if let Some(worker) = self.idle.pop().and_then(|id| self.workers.get_mut(id)) {
            worker.is_idle = false;
            return worker.waker.clone().map_or(Admission::Wait, Admission::Wake);
        }
        self.workers.push(WorkerState { waker: None, is_idle: false });
        Admission::Open { id: self.workers.len() - 1 }
    }

    /// Makes a worker wait until it is woken.
    pub(super) fn go_idle(&mut self, id: usize, waker: &Waker) {
        self.idle.push(id);
        self.remember(id, waker);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.is_idle = true;
        }
    }

    /// Notes how a worker is woken.
    pub(super) fn remember(&mut self, id: usize, waker: &Waker) {
        if let Some(worker) = self.workers.get_mut(id) {
            match &mut worker.waker {
                Some(known) => known.clone_from(waker),
                None => worker.waker = Some(waker.clone()),
            }
        }
    }

    /// Wakes the driver, or has it woken once the state is unlocked if others than the driver lock it.
    pub(super) fn wake_driver(&mut self) {
        if self.is_parallel() {
            (self.driver_is_woken, self.wakes_driver) = (true, true);
        } else {
            self.driver.wake_by_ref();
        }
    }

    /// Has the driver woken, if it sleeps beside parallel workers. Returns `true` if it is woken.
    #[inline]
    pub(super) fn notify_driver(&mut self) -> bool {
        let is_asleep = self.is_parallel() && !self.driver_is_woken;
        if is_asleep {
            (self.driver_is_woken, self.has_notified, self.wakes_driver) = (true, true, true);
        }
        is_asleep
    }

    /// Returns `true` if a signal from outside keeps everything from starting.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.signals.raised().is_paused()
    }

    /// The promised number of items, while the source keeps its promise.
    pub(super) fn total(&self) -> Option<usize> {
        self.promised.filter(|promised| *promised >= self.pulled)
    }

    /// Ends the account, with so many items that were pulled and have not started. Reports it, and judges the run.
    pub(super) fn end(&mut self, waiting_to_start: usize) -> Verdict {
        let summary = self.summary(waiting_to_start);
        self.end_report(&summary);
        let stop = self.stop.take();
        // More successes can be required than there are items, once it is known how many there are.
        let required = self.config.criteria.required(summary.total);
        let is_known = stop.is_none() || self.total().is_some();
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
        let first_failure = self.tally.first_failure;
        Verdict { name: mem::take(&mut self.name), summary, reason, first_failure, shortfall }
    }

    /// The account as it is now.
    pub(super) fn summary(&self, waiting_to_start: usize) -> Summary {
        let Tally { successes, failures, retries, timeouts, panics, recovered, cached, changed, .. } =
            self.tally;
        let total = self.final_total();
        let started = self.pulled - waiting_to_start;
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

    /// How many items there were: as many as came and, if the run stopped before the end of the source, as many as the source
    /// had promised.
    fn final_total(&self) -> usize {
        match self.total() {
            Some(promised) if self.source_state != SourceState::Ended => promised,
            _ => self.pulled,
        }
    }

    /// Notes why a run that is dropped has ended. The first cause counts. If there was none, the run is cancelled, unless its
    /// last item had settled and everything `is_durable`.
    pub(super) fn stop_dropped(&mut self, is_durable: bool) {
        let all_settled = self.tally.successes + self.tally.failures == self.pulled;
        let all_pulled = self.source_state == SourceState::Ended || self.total() == Some(self.pulled);
        match &self.stop {
            Some(Stop::Failed(_)) => {}
            Some(Stop::EarlySuccess) if is_durable => {}
            None if all_settled && all_pulled && is_durable => {}
            None | Some(Stop::EarlySuccess) => self.stop = Some(Stop::Failed(FailureReason::Cancelled)),
        }
    }

    /// The last report: nothing runs or waits any more.
    pub(super) fn end_report(&mut self, summary: &Summary) {
        if let Some(reporter) = self.reporter.take() {
            reporter.end(Progress { total: Some(summary.total), ..self.counts() }, summary.elapsed);
        }
    }

    pub(super) fn counts(&self) -> Progress {
        let Tally { successes, failures, retries, recovered, cached, .. } = self.tally;
        Progress { successes, failures, recovered, cached, retries, ..Progress::default() }
    }
}
