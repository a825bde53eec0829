//! What all workers and the driver share: what runs, what waits, and what became of each item.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::clock::{Clock, deadline, earliest};
use super::collector::Collector;
use super::drop_notice::Notice;
use super::hooks::Hooks;
use super::job::{Next, Pulled, Retry};
use super::ledger::Keeping;
use super::outlined::Outlined;
use super::permits::{HeldPermits, Permits};
use super::poll_budget::PollBudget;
use super::retry_queue::RetryQueue;
use super::running::{Options, Setup};
use super::source::Source;
use super::time_slice::STARTS_PER_POLL;
use super::{Mode, Types, Work};
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

/// A worker as the admission sees it.
pub(super) struct WorkerState {
    pub(super) waker: Option<Waker>,
    pub(super) is_idle: bool,
}

/// An attempt that is to start, with the permits that were taken for it.
pub(super) struct Assignment<I, E> {
    pub(super) held: HeldPermits,
    pub(super) next: Next<I, E>,
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

/// It begins on cache lines of its own, away from the lock around it, so that those who look at the lock do not take
/// away from whoever holds it what he works with.
#[repr(align(128))]
pub(super) struct State<W: Types> {
    pub(super) config: Arc<Config>,
    /// The name of the run.
    pub(super) name: String,
    pub(super) source: W::Source,
    pub(super) call: W::Call,
    pub(super) hooks: W::Hooks,
    pub(super) token: Option<CancellationToken>,
    /// Rings where the run is to do something else; the caller's token rings it.
    pub(super) signals: Arc<Signals>,
    pub(super) reporter: Option<Reporter>,
    /// For the handle or the stream, if there is one.
    pub(super) notice: Option<Box<dyn Notice<W::Output, W::Error>>>,
    /// The time of the first poll.
    pub(super) started: Instant,

    pub(super) source_state: SourceState,
    /// The driver's own waker: the source and the shared limit are polled with it and with nothing else.
    pub(super) driver: Waker,
    /// The number of items, as the source's exact size hint has promised it.
    pub(super) promised: Option<usize>,
    pub(super) pulled: usize,
    /// Items that were pulled and wait for permits, in their order.
    pub(super) backlog: Outlined<VecDeque<Pulled<W::Item>>>,
    pub(super) waiting: Outlined<RetryQueue<Retry<W::Item, W::Error>>>,
    pub(super) permits: Permits,
    pub(super) workers: Vec<WorkerState>,
    pub(super) idle: Vec<usize>,
    /// Attempts for which a worker was woken or opened, in their order. The first worker that asks makes the first of them, so
    /// that they start in this order; the worker that was woken for it takes what comes next.
    pub(super) assigned: Outlined<VecDeque<Assignment<W::Item, W::Error>>>,
    /// How many of those are of items that have not started.
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
    pub(super) collector: Outlined<Collector<W::Output, W::Error>>,
    /// What is done beside running items.
    pub(super) keeping: Outlined<Keeping<W::Item, W::Output, W::Error>>,
    pub(super) sink: W::Sink,
    /// Whether the sink is in the middle of a call, which wakes the driver.
    pub(super) sink_is_busy: bool,
    /// Whether the sink has failed, so that nothing more is handed to it.
    pub(super) sink_failed: bool,
    /// Whether somebody is told how long each item took.
    pub(super) timed: bool,
}

impl<W: Types> State<W> {
    /// Lets go of all that is held of the limits for attempts that have not begun. None of them begins any more.
    pub(super) fn abandon(&mut self) {
        self.permits.leave_queue();
        self.take_back_assigned();
    }

    /// Takes back the attempts that were assigned and do not start now.
    pub(super) fn take_back_assigned(&mut self) {
        while let Some(assignment) = self.assigned.pop_front() {
            self.put_back(assignment);
        }
    }

    fn put_back(&mut self, Assignment { held, next }: Assignment<W::Item, W::Error>) {
        self.permits.abandon(held);
        match next {
            Next::New(pulled) => {
                self.assigned_new -= 1;
                let at = self.backlog.iter().position(|other| other.index > pulled.index);
                let at = at.unwrap_or(self.backlog.len());
                self.backlog.insert(at, pulled);
            }
            Next::Retry(due) => self.waiting.put_back(due),
        }
    }
}

/// The setting of the task that the run cannot work with.
fn misfit<W: Work>(config: &Config) -> Option<ConfigError> {
    if W::Call::ONE_ATTEMPT && config.retry.retries > 0 {
        let allowed = "0 with map_once, whose items cannot be tried again";
        return Some(ConfigError::new("retries", config.retry.retries, allowed));
    }
    if W::Call::KEEPS && config.name.as_deref().unwrap_or_default().is_empty() {
        // The default is a type name, which the closures of one function share.
        let allowed = "a name given by .name(..), by which recover and cache find what is kept";
        return Some(ConfigError::new("name", "not set", allowed));
    }
    None
}

impl<W: Work> State<W> {
    pub(super) fn new(setup: Setup<W>, now: Instant) -> Self {
        let name = setup.options.name().to_owned();
        let Setup { source, call, hooks, sink, options } = setup;
        let Options { config, token, mut collector, keeping, reporter, notice, .. } = options;
        let promised = source.promised_total();
        let timed = collector.is_timed() || hooks.observer().is_some() || W::Call::KEEPS;
        let misfit = misfit::<W>(&config);
        let stop = misfit.map(|error| Stop::Failed(FailureReason::Config(error)));
        collector.expect(promised);
        if let Some(reporter) = &reporter {
            reporter.start(now);
        }
        Self {
            run_deadline: config.run_timeout.map(|limit| deadline(now, limit)),
            permits: Permits::new(config.concurrency, config.limiter.clone()),
            look_ahead: config.look_ahead,
            timed,
            config,
            name,
            source,
            call,
            hooks,
            token,
            signals: reporter.as_ref().map_or_else(Arc::default, |reporter| Arc::clone(reporter.signals())),
            reporter,
            notice,
            started: now,
            source_state: SourceState::Open,
            driver: Waker::noop().clone(),
            promised,
            pulled: 0,
            backlog: Outlined::default(),
            waiting: Outlined::default(),
            workers: Vec::new(),
            idle: Vec::new(),
            assigned: Outlined::default(),
            assigned_new: 0,
            starts_left: 0,
            budget: PollBudget::new(),
            alarm: W::Mode::PARALLEL.then(Arc::default),
            driver_is_woken: false,
            wakes_driver: false,
            wakes_taker: None,
            has_notified: false,
            clock: Clock::new(now, W::Mode::PARALLEL),
            next_sweep: None,
            stop,
            draining: false,
            tally: Tally::default(),
            collector: Outlined::new(collector),
            keeping: Outlined::new(keeping),
            sink,
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

    /// Begins a poll of the driver: looks at the time, at the caller's token and at what was ordered. Says
    /// whether these, or what came before, have stopped the run.
    pub(super) fn begin_poll(&mut self) -> bool {
        self.driver_is_woken = false;
        self.starts_left = STARTS_PER_POLL;
        if !W::Mode::PARALLEL {
            self.budget.begin_poll(self.workers.len() - self.idle.len());
        }
        if self.source_state == SourceState::Stalled {
            self.source_state = SourceState::Open;
        }
        self.apply_signals();
        if self.run_deadline.is_none() && self.waiting.is_empty() {
            return self.stop.is_some();
        }
        let now = self.clock.coarse();
        if let (Some(deadline), Some(limit)) = (self.run_deadline, self.config.run_timeout) {
            if now >= deadline {
                self.halt(FailureReason::TimedOut { limit });
            }
        }
        let stopped = self.stop.is_some();
        self.waiting.release(now);
        while let Some(Retry { job, error, .. }) = self.waiting.pop_given_up(now) {
            self.fail(&job, error, "no held was free before the item's time was up");
        }
        stopped
    }

    /// Whether this poll of the driver may begin another attempt, or poll another worker.
    #[inline(always)]
    pub(super) fn may_start(&mut self) -> bool {
        if W::Mode::PARALLEL { self.starts_left > 0 } else { self.budget.is_left() || self.renew_budget() }
    }

    /// Counts the poll of a worker whose attempt goes on. Returns `true` if this poll of the driver may poll another worker.
    /// If the run is stopping, every worker has its turn.
    pub(super) fn may_poll_worker(&mut self) -> bool {
        let is_left = self.may_start();
        if is_left {
            self.budget.spend();
        }
        is_left || self.stop.is_some()
    }

    #[cold]
    fn renew_budget(&mut self) -> bool {
        self.publish();
        let is_read_anyway = self.config.first_limit.is_some() && !self.budget.is_close();
        let now = if is_read_anyway { self.clock.coarse() } else { self.clock.read() };
        self.budget.renew(now)
    }

    /// When the driver must look again, if nothing wakes it before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.run_deadline, self.waiting.next_deadline())
    }

    /// Tells the attempts of parallel workers to end. Returns the wakers of these workers, which are to be woken
    /// after the state is unlocked.
    #[must_use]
    pub(super) fn sound_alarm(&self) -> Vec<Waker> {
        let Some(alarm) = &self.alarm else { return Vec::new() };
        alarm.store(true, Ordering::Release);
        self.workers.iter().filter_map(|worker| worker.waker.clone()).collect()
    }

    /// Sees to it that an attempt that has just begun and has to wait is swept in time.
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

    /// The wakers of the workers that the driver polls and that do not rest.
    pub(super) fn busy_workers(&self) -> impl Iterator<Item = Waker> {
        self.workers.iter().filter(|worker| !worker.is_idle).filter_map(|worker| worker.waker.clone())
    }

    /// Wakes the driver, or has it woken once the state is unlocked if others than the driver lock it.
    pub(super) fn wake_driver(&mut self) {
        if W::Mode::PARALLEL {
            (self.driver_is_woken, self.wakes_driver) = (true, true);
        } else {
            self.driver.wake_by_ref();
        }
    }

    /// Has the driver woken, if it does not look anyway after each worker and is not awake. Returns `true` if it is woken.
    pub(super) fn notify_driver(&mut self) -> bool {
        let is_asleep = W::Mode::PARALLEL && !self.driver_is_woken;
        if is_asleep {
            (self.driver_is_woken, self.has_notified, self.wakes_driver) = (true, true, true);
        }
        is_asleep
    }
}
