//! The state that the driver and all workers share: running attempts, waiting items and outcomes.

use std::collections::VecDeque;

use super::call::Call;
use super::collector::Collector;
use super::commit_log::Durability;
use super::drop_notice::Notice;
use super::hooks::Hooks;
use super::job::{Next, Pulled, Retry};
use super::outlined::Outlined;
use super::retry_slots::{Due, RetrySlots};
use super::running::{Options, Setup};
use super::scheduler::permits::HeldPermits;
use super::scheduler::{Scheduler, Setting};
use super::source::Source;
use super::{Mode, Types, Work};
use crate::config::Config;
use crate::error::{ConfigError, FailureReason};
use crate::rt::Instant;

/// An attempt that is to start, with the permits that were taken for it.
pub(super) struct Assignment<I, E> {
    pub(super) held: HeldPermits,
    pub(super) next: Next<I, E>,
}

/// The state that the driver and all workers share.
///
/// Aligned so that it shares no cache line with the mutex word; waiters then do not invalidate the holder's data.
#[repr(align(128))]
pub(super) struct State<W: Types> {
    /// The part that does not depend on the types of the run.
    pub(super) scheduler: Scheduler,
    pub(super) source: W::Source,
    pub(super) call: W::Call,
    pub(super) hooks: W::Hooks,
    /// Notifies the handle or the stream, if there is one, of a run that is dropped.
    pub(super) notice: Option<Box<dyn Notice<W::Output, W::Error>>>,
    /// Items that were pulled and wait for permits, in their order.
    pub(super) backlog: Outlined<VecDeque<Pulled<W::Item>>>,
    pub(super) waiting: Outlined<RetrySlots<Retry<W::Item, W::Error>>>,
    /// Attempts for which a worker was woken or opened, in their order. The first worker that asks makes the first of them,
    /// so that they start in this order. The worker that was woken for it then takes the next one.
    pub(super) assigned: Outlined<VecDeque<Assignment<W::Item, W::Error>>>,
    pub(super) collector: Outlined<Collector<W::Output, W::Error>>,
    /// The durability and the cache lookups of the run.
    pub(super) durability: Outlined<Durability<W::Item, W::Output, W::Error>>,
    pub(super) sink: W::Sink,
}

impl<W: Types> State<W> {
    /// Releases all permits held for attempts that have not started, and leaves the queue of the shared limit. None of these
    /// attempts starts any more.
    pub(super) fn abandon(&mut self) {
        self.scheduler.permits.leave_queue();
        self.take_back_assigned();
    }

    /// Takes back the attempts that were assigned and do not start now.
    pub(super) fn take_back_assigned(&mut self) {
        // The last attempt is put back first, so that all keep their order.
        while let Some(assignment) = self.assigned.pop_back() {
            self.put_back(assignment);
        }
    }

    /// Returns how many items were pulled and have not started: they are looked up, or wait for permits or for their worker.
    pub(super) fn not_started(&self) -> usize {
        self.backlog.len() + self.scheduler.assigned_new + self.durability.pending()
    }

    fn put_back(&mut self, Assignment { held, next }: Assignment<W::Item, W::Error>) {
        self.scheduler.permits.abandon(held);
        match next {
            Next::New(pulled) => {
                self.scheduler.assigned_new -= 1;
                self.backlog.push_front(pulled);
            }
            Next::Retry(Due { job, ticket }) => {
                let slot = self.waiting.keep(job);
                self.scheduler.retries.put_back(slot, ticket);
            }
        }
    }
}

/// Returns an error if a setting of the task does not fit the run.
fn invalid_setting<W: Work>(config: &Config) -> Option<ConfigError> {
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
        let Setup { source, call, hooks, sink, mut options } = setup;
        let promised = source.promised_total();
        options.collector.expect(promised);
        let timed = options.collector.is_timed() || hooks.observer().is_some() || W::Call::KEEPS;
        let invalid_setting = invalid_setting::<W>(&options.config);
        let Options { config, function, token, collector, durability, reporter, notice, .. } = options;
        let setting = Setting { config, function, token, reporter, promised, timed, invalid_setting };
        Self {
            scheduler: Scheduler::new(setting, now, W::Mode::PARALLEL),
            source,
            call,
            hooks,
            notice,
            backlog: Outlined::default(),
            waiting: Outlined::default(),
            assigned: Outlined::default(),
            collector,
            durability,
            sink,
        }
    }

    /// Begins a poll of the driver: checks the time, the caller's token and the signals. Returns `true` if these, or an
    /// earlier cause, have stopped the run.
    pub(super) fn begin_poll(&mut self) -> bool {
        self.scheduler.begin_poll();
        self.apply_signals();
        if self.scheduler.run_deadline.is_none() && self.scheduler.retries.len() == 0 {
            return self.scheduler.stop.is_some();
        }
        let now = self.scheduler.clock.coarse();
        if let Some(limit) = self.scheduler.passed_limit(now) {
            self.halt(FailureReason::TimedOut { limit });
        }
        let stopped = self.scheduler.stop.is_some();
        self.scheduler.retries.release(now);
        while let Some(slot) = self.scheduler.retries.pop_given_up(now) {
            if let Some(Retry { job, error, .. }) = self.waiting.take(slot) {
                self.fail(&job, error, "no permit was free before the item's time was up");
            }
        }
        stopped
    }

    /// Returns `true` if this poll of the driver may start another attempt, or poll another worker.
    #[inline(always)]
    pub(super) fn may_start(&mut self) -> bool {
        self.scheduler.may_start(W::Mode::PARALLEL) || (!W::Mode::PARALLEL && self.renew_budget())
    }

    /// Counts the poll of a worker with a pending attempt. Returns `true` if this poll of the driver may poll another
    /// worker. If the run is stopping, every worker is polled.
    pub(super) fn may_poll_worker(&mut self) -> bool {
        let is_left = self.may_start();
        if is_left {
            self.scheduler.budget.spend();
        }
        is_left || self.scheduler.stop.is_some()
    }

    #[cold]
    fn renew_budget(&mut self) -> bool {
        self.publish();
        self.scheduler.renew_budget()
    }
}
