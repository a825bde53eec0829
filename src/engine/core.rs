//! What all lanes and the driver share: what runs, what waits, and what became of each item.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::clock::{Clock, deadline, earliest};
use super::collector::Collector;
use super::gate::{Gate, Place};
use super::hooks::Hooks;
use super::job::{Pulled, Retry};
use super::ledger::Keeping;
use super::running::Setup;
use super::shift::STARTS_PER_POLL;
use super::source::Source;
use super::waiting::Waiting;
use super::{Mode, Types, Work};
use crate::bell::Bell;
use crate::config::Config;
use crate::error::{ConfigError, FailureReason};
use crate::progress::Reporter;

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

/// A lane as the admission sees it.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) waker: Option<Waker>,
    pub(super) resting: bool,
    /// It was called for work that is there, and has not come yet. This is its place, unless it was opened with
    /// one.
    pub(super) called: bool,
    pub(super) place: Option<Place>,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) successes: usize,
    pub(super) failures: usize,
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
pub(super) struct Core<W: Types> {
    pub(super) config: Arc<Config>,
    /// The name of the run.
    pub(super) name: String,
    pub(super) source: W::Source,
    pub(super) call: W::Call,
    pub(super) hooks: W::Hooks,
    pub(super) token: Option<CancellationToken>,
    /// Rings where the run is to do something else; the caller's token rings it.
    pub(super) bell: Arc<Bell>,
    pub(super) reporter: Option<Reporter>,

    pub(super) source_state: SourceState,
    /// The driver's own waker: the source and the shared limit are polled with it and with nothing else.
    pub(super) driver: Waker,
    /// The number of items, as the source's exact size hint has promised it.
    pub(super) promised: Option<usize>,
    pub(super) pulled: usize,
    /// Items that were pulled and wait for their lane or for permits, in their order.
    pub(super) handed: VecDeque<Pulled<W::Item>>,
    pub(super) waiting: Waiting<Retry<W::Item, W::Error>>,
    pub(super) gate: Gate,
    pub(super) seats: Vec<Seat>,
    pub(super) resting: Vec<usize>,
    /// How many lanes are on their way to work that is there for them.
    pub(super) called: usize,
    pub(super) starts_left: u32,
    /// Where lanes run by themselves: set once they are to end their attempts.
    pub(super) alarm: Option<Arc<AtomicBool>>,
    /// Whether the driver was woken since it was last polled.
    pub(super) driver_is_woken: bool,
    /// Whether this turn has woken somebody who may have to wait now until the lane rests.
    pub(super) has_called: bool,

    pub(super) clock: Clock,
    pub(super) run_deadline: Option<Instant>,
    pub(super) stop: Option<Stop>,
    /// Whether what runs may end by itself although the run is stopping.
    pub(super) draining: bool,
    pub(super) tally: Tally,
    pub(super) collector: Collector<W::Output, W::Error>,
    /// What is done beside running items.
    pub(super) keeping: Keeping<W::Item, W::Output, W::Error>,
    pub(super) sink: W::Sink,
    /// Whether the sink is in the middle of a call, which wakes the driver.
    pub(super) sink_is_busy: bool,
    /// Whether the sink has failed, so that nothing more is handed to it.
    pub(super) sink_failed: bool,
    /// Whether somebody is told how long each item took.
    pub(super) timed: bool,
}

impl<W: Types> Core<W> {
    /// Lets go of all that is held of the limits for attempts that have not begun.
    pub(super) fn abandon(&mut self) {
        self.gate.leave_queue();
        self.seats.iter_mut().for_each(|seat| seat.place = None);
    }
}

impl<W: Work> Core<W> {
    pub(super) fn new(setup: Setup<W>, now: Instant) -> Self {
        let name = setup.name().to_owned();
        let Setup { config, source, call, hooks, token, mut collector, sink, keeping, reporter, .. } = setup;
        let promised = match source.size_hint() {
            (least, Some(most)) if least == most => Some(most),
            _ => None,
        };
        let timed = collector.is_timed() || hooks.observer().is_some() || W::Call::KEEPS;
        let stop = (W::Call::ONE_ATTEMPT && config.retry.retries > 0).then(|| {
            let allowed = "0 with map_once, whose items cannot be tried again";
            Stop::Failed(FailureReason::Config(ConfigError::new("retries", config.retry.retries, allowed)))
        });
        collector.expect(promised);
        if let Some(reporter) = &reporter {
            reporter.start(now);
        }
        Self {
            run_deadline: config.run_timeout.map(|limit| deadline(now, limit)),
            gate: Gate::new(config.concurrency, config.limiter.clone()),
            timed,
            config,
            name,
            source,
            call,
            hooks,
            token,
            bell: reporter.as_ref().map_or_else(Arc::default, |reporter| Arc::clone(reporter.bell())),
            reporter,
            source_state: SourceState::Open,
            driver: Waker::noop().clone(),
            promised,
            pulled: 0,
            handed: VecDeque::new(),
            waiting: Waiting::new(),
            seats: Vec::new(),
            resting: Vec::new(),
            called: 0,
            starts_left: 0,
            alarm: W::Mode::SPAWNED.then(Arc::default),
            driver_is_woken: false,
            has_called: false,
            clock: Clock::new(now, W::Mode::SPAWNED),
            stop,
            draining: false,
            tally: Tally::default(),
            collector,
            keeping,
            sink,
            sink_is_busy: false,
            sink_failed: false,
        }
    }

    /// Begins a poll of the driver: looks at the time, at the caller's token and at what was ordered. Says
    /// whether these, or what came before, have stopped the run.
    pub(super) fn begin_poll(&mut self, waker: &Waker) -> bool {
        self.driver.clone_from(waker);
        self.driver_is_woken = false;
        self.starts_left = STARTS_PER_POLL;
        if self.source_state == SourceState::Stalled {
            self.source_state = SourceState::Open;
        }
        self.bell.listen(waker);
        self.heed_orders();
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
            self.fail(&job, error, "no place was free before the item's time was up");
        }
        stopped
    }

    /// When the driver must look again, if nothing wakes it before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.run_deadline, self.waiting.next_deadline())
    }

    /// Tells the attempts of lanes that run by themselves to end.
    pub(super) fn sound_alarm(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.store(true, Ordering::Release);
            self.seats.iter().filter_map(|seat| seat.waker.as_ref()).for_each(Waker::wake_by_ref);
        }
    }

    /// Wakes the driver, where it does not look anyway after each lane and is not awake. Says whether it did.
    pub(super) fn call_driver(&mut self) -> bool {
        let is_asleep = W::Mode::SPAWNED && !self.driver_is_woken;
        if is_asleep {
            (self.driver_is_woken, self.has_called) = (true, true);
            self.driver.wake_by_ref();
        }
        is_asleep
    }
}
