//! The part of a run's state that does not depend on the types of the run: permits, retries, workers, clocks, the account
//! and the causes to stop. It is compiled once for all runs. It contains no items, no futures and no functions of the
//! caller.

mod account;
mod backlog;
pub(super) mod batches;
pub(super) mod clock;
mod control;
pub(super) mod key_request;
mod keys;
pub(super) mod later;
mod options;
pub(super) mod permits;
mod poll_budget;
pub(super) mod retries;
mod retry_wait;
mod timers;
mod wake;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(super) use self::account::{Tally, Verdict};
pub(super) use self::backlog::{Assignment, Next, Pulled, Start};
use self::batches::{BatchOptions, Batches};
use self::clock::{Clock, deadline};
use self::keys::Keys;
pub(super) use self::later::Later;
pub(crate) use self::options::Options;
use self::permits::Permits;
use self::poll_budget::PollBudget;
pub(super) use self::poll_budget::STARTS_PER_POLL;
use self::retries::RetrySchedule;
pub(super) use self::retry_wait::{AttemptEnd, Refusal, Wait};
pub(super) use self::timers::Timers;
use self::workers::Workers;
use crate::config::Config;
use crate::error::{ConfigError, FailureReason};
use crate::progress::Reporter;
use crate::rt::{AtomicBool, Instant};
use crate::signals::{SignalSource, Signals};

/// The reason why no further attempt starts.
pub(super) enum Stop {
    EarlySuccess,
    Failed(FailureReason),
}

/// The last answer of the source.
#[derive(PartialEq, Eq)]
pub(super) enum SourceState {
    Open,
    /// It had no item; it is not asked again in this poll of the driver.
    Stalled,
    /// The store has to tell how the next item ended in an earlier run; it is not asked again in this poll of the driver.
    Loading,
    Ended,
}

/// The settings of a run, apart from its types.
pub(super) struct Setting {
    pub(super) options: Options,
    pub(super) promised: Option<usize>,
    pub(super) timed: bool,
    pub(super) observed: bool,
    pub(super) is_durable: bool,
    /// `true` if errors of the run can hold back its items.
    pub(super) holds: bool,
    /// `true` if the items have keys with limiters of their own.
    pub(super) keyed: bool,
    /// The error of a setting that does not fit the run.
    pub(super) invalid_setting: Option<ConfigError>,
}

/// The untyped part of a run's state; see the module.
pub(super) struct Scheduler {
    pub(super) config: Arc<Config>,
    pub(super) name: String,
    pub(super) token: Option<CancellationToken>,
    pub(super) drain_token: Option<CancellationToken>,
    pub(super) listen: Option<fn(Arc<Signals>, String) -> SignalSource>,
    /// The signals from a handle, a stream or the caller's token.
    pub(super) signals: Arc<Signals>,
    pub(super) reporter: Option<Reporter>,
    /// The time of the first poll.
    pub(super) started: Instant,
    pub(super) source_state: SourceState,
    /// The waker of the driver. The source and the shared limit are polled only with this waker.
    pub(super) driver: Waker,
    /// The number of items that the exact size hint of the source promised.
    pub(super) promised: Option<usize>,
    pub(super) pulled: usize,
    /// `true` if the promised number is that of an earlier run, which did not know its total either.
    pub(super) may_be_more: bool,
    pub(super) retries: RetrySchedule,
    /// The slots of items that waited for a retry when the run was stopped. The driver drops these items: a running attempt
    /// may wait for something that they own.
    pub(super) discarded: Vec<usize>,
    pub(super) permits: Permits,
    pub(super) workers: Workers,
    /// Items that were pulled and wait for permits, in their order.
    pub(super) backlog: VecDeque<Pulled>,
    /// Attempts for which a worker was woken or opened, in their order. The first worker that asks makes the first of them,
    /// so that they start in this order. The worker that was woken for it then takes the next one.
    pub(super) assigned: VecDeque<Assignment>,
    /// How many items of the assigned attempts have not started.
    pub(super) assigned_new: usize,
    /// How many of them have started before.
    pub(super) assigned_retries: usize,
    /// The batches, if one call takes several items.
    pub(super) batches: Option<Box<Batches>>,
    /// The attempts that need a permit of their item's key, if items have keys.
    pub(super) keys: Option<Box<Keys>>,
    /// How many items that have not started wait for a permit of their key.
    pub(super) keyed_new: usize,
    /// How many items wait for a permit of their key for their next attempt.
    pub(super) keyed_retries: usize,
    /// The items that were pulled and have not started, because they are looked up in a cache.
    pub(super) looked_up: BTreeMap<usize, Pulled>,
    /// How many successes are not durable yet, and do not count.
    pub(super) unkept_successes: usize,
    /// How many items may be held in addition to those that run.
    pub(super) look_ahead: usize,
    /// With parallel workers: how many of them this poll of the driver may still wake or open.
    pub(super) starts_left: u32,
    /// If the driver polls the workers: the budget of this poll.
    pub(super) budget: PollBudget,
    /// With parallel workers: set once they are to end their attempts.
    pub(super) alarm: Option<Arc<AtomicBool>>,
    /// `true` if the driver was woken since it was last polled.
    pub(super) driver_is_woken: bool,
    /// `true` if the driver is to be woken once the state is unlocked.
    pub(super) wakes_driver: bool,
    /// The task that waits for an outcome and is to be woken once the state is unlocked.
    pub(super) wakes_taker: Option<Waker>,
    /// `true` if the current step has woken a task that may have to wait until the worker yields.
    pub(super) has_notified: bool,
    pub(super) clock: Clock,
    /// If the driver polls the workers: when they are to check the limits of their attempts.
    pub(super) next_sweep: Option<Instant>,
    pub(super) run_deadline: Option<Instant>,
    pub(super) stop: Option<Stop>,
    /// `true` if running attempts may continue to their end although the run is stopping.
    pub(super) draining: bool,
    /// `true` if the shutdown of the runtime has stopped the run.
    pub(super) is_shut_down: bool,
    pub(super) tally: Tally,
    /// `true` while a call of the sink is pending. That call wakes the driver.
    pub(super) sink_is_busy: bool,
    /// `true` if the sink has failed, so that it gets no further outcomes.
    pub(super) sink_failed: bool,
    /// `true` if the run reports how long each item took.
    pub(super) timed: bool,
    /// `true` if the run has an observer.
    pub(super) observed: bool,
    /// `true` if the run has a store.
    pub(super) is_durable: bool,
}

/// The next action of the driver.
pub(super) enum Admission {
    /// Wakes this idle worker, which has an attempt now.
    Wake(Waker),
    /// Opens a new worker, which starts with an attempt.
    Open { id: usize },
    /// Yields: this poll has started enough attempts.
    Yield,
    /// Waits.
    Wait,
    /// Handles the cause that has just stopped the run.
    Stop,
    /// Ends: every item has settled.
    Finish,
}

/// A queue in which an attempt waits for its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Parts of batches that have failed as a whole.
    Part,
    /// Retries with a delay that is over.
    Due,
    /// Retries without a delay.
    Immediate,
    /// Items that have not started.
    New,
}

impl Scheduler {
    pub(super) fn new(setting: Setting, now: Instant, parallel: bool) -> Self {
        let Setting { options, promised, timed, observed, is_durable, holds, keyed, invalid_setting } =
            setting;
        let Options { config, function, token, drain_token, listen, reporter, batches, .. } = options;
        if let Some(reporter) = &reporter {
            reporter.start(now);
        }
        Self {
            name: config.name.as_deref().unwrap_or(function).to_owned(),
            run_deadline: config.run_timeout.map(|limit| deadline(now, limit)),
            permits: Permits::new(&config, holds, keyed),
            look_ahead: look_ahead(&config, batches.as_ref()),
            timed,
            observed,
            is_durable,
            config,
            token,
            drain_token,
            listen,
            signals: reporter.as_ref().map_or_else(Arc::default, |reporter| Arc::clone(reporter.signals())),
            reporter,
            started: now,
            source_state: SourceState::Open,
            driver: Waker::noop().clone(),
            promised,
            pulled: 0,
            may_be_more: false,
            retries: RetrySchedule::default(),
            discarded: Vec::new(),
            workers: Workers::default(),
            backlog: VecDeque::new(),
            assigned: VecDeque::new(),
            assigned_new: 0,
            assigned_retries: 0,
            batches: batches.map(|options| Box::new(Batches::new(options))),
            keys: keyed.then(Box::default),
            keyed_new: 0,
            keyed_retries: 0,
            looked_up: BTreeMap::new(),
            unkept_successes: 0,
            starts_left: 0,
            budget: PollBudget::new(),
            alarm: parallel.then(Arc::default),
            driver_is_woken: false,
            wakes_driver: false,
            wakes_taker: None,
            has_notified: false,
            clock: Clock::new(now, parallel),
            next_sweep: None,
            stop: invalid_setting.map(|error| Stop::Failed(FailureReason::Config(error))),
            draining: false,
            is_shut_down: false,
            tally: Tally::default(),
            sink_is_busy: false,
            sink_failed: false,
        }
    }

    /// Returns `true` if workers run in parallel with the driver.
    pub(super) fn is_parallel(&self) -> bool {
        self.alarm.is_some()
    }

    pub(super) fn begin_poll(&mut self) {
        self.driver_is_woken = false;
        self.starts_left = STARTS_PER_POLL;
        if !self.is_parallel() {
            self.budget.begin_poll(self.workers.busy());
        }
        if matches!(self.source_state, SourceState::Stalled | SourceState::Loading) {
            self.source_state = SourceState::Open;
        }
    }

    /// Returns the time limit of the run, if it has passed.
    pub(super) fn passed_limit(&self, now: Instant) -> Option<Duration> {
        let is_over = self.run_deadline.is_some_and(|deadline| now >= deadline);
        self.config.run_timeout.filter(|_| is_over)
    }

    /// Returns `true` if this poll of the driver may start another attempt, or poll another worker. It does not read the
    /// clock.
    #[inline(always)]
    pub(super) fn may_start(&self, parallel: bool) -> bool {
        if parallel { self.starts_left > 0 } else { self.budget.is_left() }
    }

    /// Returns how many outcomes may be held for their order besides the items that wait for a retry or for their key. `None` if
    /// these fill the window, so that no new item may start.
    pub(super) fn window(&self) -> Option<usize> {
        self.window_besides(self.retries.len() + self.keyed_new + self.keyed_retries)
    }

    /// As [`window`](Self::window), in a run without keys.
    #[inline(always)]
    pub(super) fn window_without_keys(&self) -> Option<usize> {
        self.window_besides(self.retries.len())
    }

    #[inline(always)]
    fn window_besides(&self, held: usize) -> Option<usize> {
        (held < self.look_ahead).then(|| self.look_ahead - held)
    }

    /// Returns `true` if items wait for retries.
    pub(super) fn has_retries(&self) -> bool {
        self.retries.len() + self.keyed_retries > 0
    }

    /// Returns `true` if a retry that may start, or waits for its key, may have a time after which it is not made.
    pub(super) fn may_be_late(&self) -> bool {
        self.retries.may_be_late() || self.keyed_retries > 0
    }

    /// Reads the clock. Returns `true` if there is budget left in this poll.
    pub(super) fn renew_budget(&mut self) -> bool {
        let is_read_anyway = self.config.first_limit.is_some() && !self.budget.are_steps_long();
        let now = if is_read_anyway { self.clock.coarse() } else { self.clock.read() };
        self.budget.renew(now)
    }

    /// Returns the queue of the attempt that starts next, and its weight. The weight is `None` if the next item must be
    /// pulled first. `backlog` is the weight of the first pulled item, and `admitted` the number of new items admitted so
    /// far. `admits_new` returns `true` if another new item may be admitted.
    pub(super) fn next_queue(
        &self,
        backlog: Option<u32>,
        admitted: usize,
        admits_new: &dyn Fn() -> bool,
    ) -> Option<(Queue, Option<u32>)> {
        let (part, due, immediate) = (self.retries.part(), self.retries.due(), self.retries.immediate());
        let retries = [(Queue::Part, part), (Queue::Due, due), (Queue::Immediate, immediate)];
        let [first, second, immediate] = retries;
        let new = (Queue::New, backlog);
        if let Some(queued) = self.permits.queued_weight() {
            // The waiting attempt keeps its position in the queue of the shared limit. Only an attempt of the same weight
            // can take it over.
            let mut heads = retries.into_iter().chain([new]);
            let first = heads.find(|(_, weight)| *weight == Some(queued));
            if first.is_some() {
                return first;
            }
        }
        if part.is_some() {
            return Some(first);
        }
        if due.is_some() {
            return Some(second);
        }
        let immediate = Some(immediate).filter(|(_, weight)| weight.is_some());
        if self.retries.is_turn_of_immediate(admitted) {
            return immediate;
        }
        let is_new = backlog.is_some() || self.source_state == SourceState::Open;
        if is_new && admits_new() { Some(new) } else { immediate }
    }

    /// Tells the attempts of parallel workers to end. Returns the wakers of these workers, which must be woken after the
    /// state is unlocked.
    #[must_use]
    pub(super) fn sound_alarm(&self) -> Vec<Waker> {
        let Some(alarm) = &self.alarm else { return Vec::new() };
        alarm.store(true, Ordering::Release);
        self.workers.wakers()
    }

    /// Returns `true` if the run is paused, so that nothing starts.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.signals.raised().is_paused()
    }

    /// Returns the promised number of items, unless the source has given more.
    pub(super) fn total(&self) -> Option<usize> {
        self.promised.filter(|promised| *promised >= self.pulled)
    }
}

/// Returns how many items may be held. Unless it is set, there is room for two batches for each permit.
fn look_ahead(config: &Config, batches: Option<&BatchOptions>) -> usize {
    let least = match (batches, config.given.0.look_ahead) {
        (Some(batches), None) => config.concurrency.saturating_mul(batches.size).saturating_mul(2),
        _ => 0,
    };
    config.look_ahead.max(least)
}
