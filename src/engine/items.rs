//! The items of a run and the caller's code: the part of a run's state that depends on the types of the run.

use std::task::{Context, Poll, Waker};

use tracing::Span;

use super::drop_notice::Notice;
use super::job::Job;
use super::outlined::Outlined;
use super::output::outcomes::Outcomes;
use super::output::sink::Deliver;
use super::persist::commit_log::CommitLog;
use super::persist::durability::Persist;
use super::persist::durable::DurableItems;
use super::scheduler::key_request::Room;
use super::scheduler::later::Later;
use super::scheduler::{Pulled, Refusal, Scheduler, SourceState};
use super::slots::{Kept, Slots};
use super::user::call::Call;
use super::user::hooks::Hooks;
use super::user::leftovers::Leftovers;
use super::user::source::Source;
use super::{Ending, Plan, Rest, Work};
use crate::limiter::LimiterSet;
use crate::observe::Observer;

/// The items of a run, their outcomes, and the caller's code.
pub(super) struct ItemsOf<W: Plan> {
    pub(super) source: W::Source,
    pub(super) call: W::Call,
    pub(super) hooks: W::Hooks,
    /// Items that were pulled and wait for an attempt.
    pub(super) waiting: Outlined<Slots<Kept<W::Item, W::Error>>>,
    pub(super) outcomes: W::Outcomes,
    pub(super) store: W::Store,
    /// Notifies the handle or the stream, if there is one, of a run that is dropped.
    pub(super) notice: Option<Box<dyn Notice<Rest<W>>>>,
    pub(super) sink: W::Sink,
}

/// The release of the items when a run is dropped. It needs no bounds on the types of the run.
pub(super) trait Release {
    /// Sends the account of a dropped run to the handle or the stream that may still await it.
    fn release(&mut self, scheduler: &mut Scheduler);
}

/// The operations on the items that need not know their types.
pub(super) trait Items: Release {
    fn observer(&self) -> Option<&dyn Observer>;

    /// Pulls the next item, and keeps it until its attempt starts.
    fn pull(&mut self, scheduler: &mut Scheduler) -> Option<Pulled>;

    /// Returns the limiters of the keys of a waiting item, if its run has keys. If a keyed limiter has no room for a key, or is not
    /// to add one, returns when it may have room.
    fn key_limiters(
        &mut self,
        slot: usize,
        may_add: bool,
        later: &mut Later,
    ) -> Option<Result<LimiterSet, Room>>;

    /// Returns the job of a waiting item.
    fn job(&mut self, slot: usize) -> Option<&mut Job>;

    /// Drops a waiting item that will not be tried again, unless it is to be given back. Keeps its label.
    fn discard(&mut self, slot: usize);

    /// Gives the items that did not settle back to the caller, if it wants them. Keeps their labels.
    fn give_back(&mut self);

    /// Returns `true` if fewer than `capacity` outcomes wait to be taken; see [`Outcomes::has_room`].
    fn has_room(&self, capacity: usize, driver: &Waker) -> bool;

    /// Returns `true` if fewer than `window` outcomes are held for their order; see [`Outcomes::is_within_window`].
    fn is_within_window(&self, window: usize, driver: &Waker) -> bool;

    /// Flushes the outcomes; see [`Outcomes::flush`].
    fn flush(&mut self) -> Option<Waker>;

    /// Marks that no further outcome will come; see [`Outcomes::complete`].
    fn complete(&mut self) -> Option<Waker>;

    /// Drops the outcomes that the sink will not take any more.
    fn clear_outcomes(&mut self);

    /// Delivers outcomes to a sink that the workers can reach. Pending while the sink is busy.
    fn deliver(&mut self, scheduler: &mut Scheduler) -> Poll<()>;

    /// Fails an item that did not start its retry before its time was up.
    fn fail_late(&mut self, scheduler: &mut Scheduler, slot: usize, refusal: Refusal);

    /// Returns the operations of a run with a store, if it has one.
    fn durable(&mut self) -> Option<&mut dyn DurableItems>;

    /// Prepares the notice to be logged in the span of the run.
    fn set_notice_span(&mut self, span: &Span);
}

impl dyn Items + '_ {
    /// Returns the weight of a waiting item.
    pub(super) fn weight(&mut self, slot: usize) -> u32 {
        self.job(slot).map_or(1, |job| job.weight)
    }

    /// Takes the job of a waiting item, whose attempt starts now.
    pub(super) fn take_job(&mut self, slot: usize) -> Job {
        self.job(slot).map_or_else(Job::none, Job::take)
    }
}

impl<W: Work> Items for ItemsOf<W> {
    fn observer(&self) -> Option<&dyn Observer> {
        self.hooks.observer()
    }

    fn pull(&mut self, scheduler: &mut Scheduler) -> Option<Pulled> {
        self.pull_item(scheduler).map(|(index, item, weight)| self.keep_waiting(index, item, weight))
    }

    fn key_limiters(
        &mut self,
        slot: usize,
        may_add: bool,
        later: &mut Later,
    ) -> Option<Result<LimiterSet, Room>> {
        let item = self.waiting.get_mut(slot)?.item.as_ref()?;
        self.hooks.key_limiters(item, may_add, later).transpose()
    }

    fn job(&mut self, slot: usize) -> Option<&mut Job> {
        let waiting = self.waiting.get_mut(slot)?;
        Some(&mut waiting.job)
    }

    fn discard(&mut self, slot: usize) {
        let waiting = self.waiting.take(slot);
        if W::Hooks::GIVES_BACK || W::Hooks::LABELS {
            if let Some(Kept { item, job, .. }) = waiting {
                self.leave(job, item);
            }
        }
    }

    fn give_back(&mut self) {
        if W::Hooks::GIVES_BACK || W::Hooks::LABELS {
            (0..self.waiting.len()).for_each(|slot| self.discard(slot));
            self.hooks.give_back();
        }
    }

    fn has_room(&self, capacity: usize, driver: &Waker) -> bool {
        self.outcomes.has_room(capacity, driver)
    }

    fn is_within_window(&self, window: usize, driver: &Waker) -> bool {
        self.outcomes.is_within_window(window, driver)
    }

    fn flush(&mut self) -> Option<Waker> {
        self.outcomes.flush()
    }

    fn complete(&mut self) -> Option<Waker> {
        self.outcomes.complete()
    }

    fn clear_outcomes(&mut self) {
        self.outcomes.clear();
    }

    fn deliver(&mut self, scheduler: &mut Scheduler) -> Poll<()> {
        if !W::Sink::TAKES || scheduler.sink_failed {
            return Poll::Ready(());
        }
        self.poll_sink(scheduler, &mut W::Outcomes::take)
    }

    fn fail_late(&mut self, scheduler: &mut Scheduler, slot: usize, refusal: Refusal) {
        if let Some(Kept { mut job, error: Some(error), .. }) = self.waiting.take(slot) {
            self.fail(scheduler, &mut job, error, refusal);
        }
    }

    fn durable(&mut self) -> Option<&mut dyn DurableItems> {
        if W::Store::KEEPS { Some(self) } else { None }
    }

    fn set_notice_span(&mut self, span: &Span) {
        if let Some(notice) = &mut self.notice {
            notice.set_span(span.clone());
        }
    }
}

impl<W: Work> ItemsOf<W> {
    /// Pulls the next item. Returns its index and its weight as well.
    #[inline(always)]
    pub(super) fn pull_item(&mut self, scheduler: &mut Scheduler) -> Option<(usize, W::Item, u32)> {
        if scheduler.source_state != SourceState::Open {
            return None;
        }
        let other = match self.source.poll_pull(&mut Context::from_waker(&scheduler.driver)) {
            Poll::Ready(Some(Ok(item))) => {
                let (index, weight) = (scheduler.pulled, self.hooks.weight(&item));
                scheduler.pulled += 1;
                return Some((index, item, weight));
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(error)),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        scheduler.count_no_item(other);
        None
    }

    /// Keeps a pulled item until its attempt starts.
    pub(super) fn keep_waiting(&mut self, index: usize, item: W::Item, weight: u32) -> Pulled {
        let slot = self.waiting.keep(Kept { item: Some(item), job: Job::new(index, weight), error: None });
        Pulled { index, slot, weight: permits::<W>(weight) }
    }
}

/// Returns how many permits an attempt at an item of this weight takes. A call for a batch takes one.
pub(super) fn permits<W: Work>(weight: u32) -> u32 {
    if W::Call::BATCHES { 1 } else { weight }
}

// Without the bounds of `Work`, because dropping a run needs it as well.
impl<W: Plan> ItemsOf<W> {
    /// Ends the account of a run that is being dropped.
    #[cold]
    fn end_dropped(&mut self, scheduler: &mut Scheduler) -> Ending<Rest<W>> {
        scheduler.stop_dropped(self.commit_log().is_none());
        if W::Store::KEEPS && W::Outcomes::ARE_RESULTS {
            self.rescue_unkept(scheduler);
            self.add_previous(scheduler);
        }
        if let Some(taker) = self.outcomes.complete() {
            taker.wake();
        }
        Ending { verdict: scheduler.end(), rest: self.outcomes.take_rest() }
    }

    /// Adds the successes that are not durable to the result, as if their store had failed. A stream gets them when the run
    /// is recovered instead.
    fn rescue_unkept(&mut self, scheduler: &mut Scheduler) {
        while let Some(success) = self.commit_log().and_then(CommitLog::give_up) {
            scheduler.tally.successes += 1;
            self.outcomes.settle(success.into_outcome());
        }
    }
}

impl<W: Plan> Release for ItemsOf<W> {
    fn release(&mut self, scheduler: &mut Scheduler) {
        if let Some(mut notice) = self.notice.take() {
            if notice.is_awaited() {
                return notice.send(self.end_dropped(scheduler));
            }
            notice.withdraw();
        }
        scheduler.end_report_of_dropped();
    }
}
