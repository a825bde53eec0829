//! The part of a run's state that does not depend on its types: permits, retries, workers, clocks, the account and the causes
//! to stop. It is compiled once for all runs. It knows no items, no futures and no functions of the caller's.

mod account;
pub(super) mod clock;
pub(super) mod permits;
mod poll_budget;
pub(super) mod retries;
mod retry_wait;
mod timers;
mod wake;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(super) use self::account::{Tally, Verdict};
use self::clock::{Clock, deadline};
use self::permits::Permits;
use self::poll_budget::PollBudget;
pub(super) use self::poll_budget::STARTS_PER_POLL;
use self::retries::RetrySchedule;
pub(super) use self::retry_wait::{AttemptEnd, Wait};
pub(super) use self::timers::Timers;
use self::workers::Workers;
use crate::config::Config;
use crate::error::{ConfigError, FailureReason};
use crate::progress::Reporter;
use crate::rt::{AtomicBool, Instant};
use crate::signals::Signals;

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
    pub(super) retries: RetrySchedule,
    pub(super) permits: Permits,
    pub(super) workers: Workers,
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

/// What the driver does next.
pub(super) enum Admission {
    /// It wakes this resting worker, which has work now.
    Wake(Waker),
    /// It opens a new worker, which has work at once.
    Open { id: usize },
    /// It yields: this poll has begun enough attempts.
    Yield,
    /// It waits.
    Wait,
    /// It looks at the cause that has just stopped the run.
    Stop,
    /// It ends: every item has settled.
    Finish,
}

/// A queue in which an attempt waits for its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Retries whose delay is over.
    Due,
    /// Retries without a delay.
    Immediate,
    /// Items that have not started.
    New,
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
            retries: RetrySchedule::default(),
            workers: Workers::default(),
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

    fn is_parallel(&self) -> bool {
        self.alarm.is_some()
    }

    pub(super) fn begin_poll(&mut self) {
        self.driver_is_woken = false;
        self.starts_left = STARTS_PER_POLL;
        if !self.is_parallel() {
            self.budget.begin_poll(self.workers.busy());
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

    /// The queue of the attempt that starts next, and its weight; no weight, if the next item has to be pulled. `backlog` is
    /// the weight of the first item that was pulled, `admitted` the number of new items admitted so far, and `admits_new`
    /// tells whether another may be.
    pub(super) fn next_queue(
        &self,
        backlog: Option<u32>,
        admitted: usize,
        admits_new: &dyn Fn() -> bool,
    ) -> Option<(Queue, Option<u32>)> {
        let (due, immediate) = (self.retries.due(), self.retries.immediate());
        let heads = [(Queue::Due, due), (Queue::Immediate, immediate), (Queue::New, backlog)];
        if let Some(queued) = self.permits.queued_weight() {
            // It keeps its place in the queue of the shared limit. Another takes it over only with the same weight.
            let first = heads.into_iter().find(|(_, weight)| *weight == Some(queued));
            if first.is_some() {
                return first;
            }
        }
        let [first, immediate, new] = heads;
        if due.is_some() {
            return Some(first);
        }
        let immediate = Some(immediate).filter(|(_, weight)| weight.is_some());
        if self.retries.is_turn_of_immediate(admitted) {
            return immediate;
        }
        let is_new = backlog.is_some() || self.source_state == SourceState::Open;
        if is_new && admits_new() { Some(new) } else { immediate }
    }

    /// Tells the attempts of parallel workers to end. Returns the wakers of these workers, which are to be woken
    /// after the state is unlocked.
    #[must_use]
    pub(super) fn sound_alarm(&self) -> Vec<Waker> {
        let Some(alarm) = &self.alarm else { return Vec::new() };
        alarm.store(true, Ordering::Release);
        self.workers.wakers()
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
}
