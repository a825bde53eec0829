//! Runs with a store: a success counts once it is durable, and an item with a known output does not run.

use std::task::{Context, Poll};
use std::time::Duration;

use super::super::events::Settled;
use super::super::items::ItemsOf;
use super::super::job::Job;
use super::super::output::outcomes::Outcomes;
use super::super::scheduler::{Pulled, Scheduler, SourceState, Stop};
use super::super::shutdown::ShutDown;
use super::super::user::hooks::Hooks;
use super::super::user::leftovers::Leftovers;
use super::super::{Plan, Work, trace};
use super::commit_log::{CommitLog, Recalled, Success};
use super::durability::Persist;
use super::lookups::Lookups;
use super::previous::Previous;
use crate::count::Count;
use crate::error::{BoxError, ConfigError, FailureReason};
use crate::outcome::{ItemError, Origin};

/// How many items one call pulls at most before other work continues.
const MOST_AT_ONCE: usize = 256;

/// The operations on the items of a run with a store that need not know their types.
pub(in super::super) trait DurableItems {
    /// Takes the successes that have become durable, and the items that were looked up.
    fn take_kept(&mut self, scheduler: &mut Scheduler);

    /// Pulls the next item that is to run and needs no look-up. Items that succeeded in an earlier run settle on the way.
    fn pull_unknown(&mut self, scheduler: &mut Scheduler) -> Option<Pulled>;

    /// Returns `true` if items are looked up, without those that wait for other runs.
    fn is_looking_up(&mut self) -> bool;

    /// Ready once every success has counted: it is durable, or was rescued from a store that has failed.
    fn poll_settled(&mut self, scheduler: &mut Scheduler) -> Poll<()>;

    /// Adds the outputs of an earlier run to the result, if the run ends before their items were pulled.
    fn carry_rest(&mut self, scheduler: &mut Scheduler);

    /// Stops waiting for the store, because the time limit of the run has passed.
    fn give_up_late(&mut self, scheduler: &mut Scheduler);

    /// Ready once the store holds nothing of the run. `reason` is the reason why the run did not succeed.
    fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()>;
}

impl<W: Work> DurableItems for ItemsOf<W> {
    fn take_kept(&mut self, scheduler: &mut Scheduler) {
        self.take_durable(scheduler);
        self.take_found(scheduler);
    }

    fn pull_unknown(&mut self, scheduler: &mut Scheduler) -> Option<Pulled> {
        let looked_up = scheduler.looked_up.len();
        for _ in 0..MOST_AT_ONCE {
            if scheduler.stop.is_some() || !self.may_pull_more(scheduler) || !self.is_known(scheduler) {
                break;
            }
            let Some((index, item, weight)) = self.pull_item(scheduler) else {
                self.check_previous_total(scheduler);
                break;
            };
            let Some(item) = self.recall(scheduler, index, item, weight) else { continue };
            let hash = self.cache().and_then(|cache| cache.hash(index, &item));
            let pulled = self.keep_waiting(index, item, weight);
            let (Some(cache), Some(hash)) = (self.cache(), hash) else { return Some(pulled) };
            cache.look_up(index, hash);
            scheduler.looked_up.insert(index, pulled);
        }
        // The driver polls the look-ups that were started here. It also continues to pull if this call ended at its bound.
        if scheduler.looked_up.len() > looked_up || self.may_pull_more(scheduler) {
            scheduler.wake_driver();
        }
        None
    }

    fn is_looking_up(&mut self) -> bool {
        self.cache().is_some_and(|cache| cache.is_looking_up())
    }

    fn poll_settled(&mut self, scheduler: &mut Scheduler) -> Poll<()> {
        self.take_durable(scheduler);
        match self.commit_log() {
            Some(commit_log) if !commit_log.is_settled() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn carry_rest(&mut self, scheduler: &mut Scheduler) {
        self.add_previous(scheduler);
    }

    fn give_up_late(&mut self, scheduler: &mut Scheduler) {
        scheduler.revoke_early_success();
        if let Some(limit) = scheduler.config.run_timeout {
            scheduler.halt(FailureReason::TimedOut { limit });
        }
        self.rescue_all(scheduler);
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()> {
        self.store.durability().map_or(Poll::Ready(()), |durability| durability.poll_closed(cx, reason))
    }
}

// Without the bounds of `Work`, because dropping a run needs it as well.
impl<W: Plan> ItemsOf<W> {
    pub(in super::super) fn commit_log(&mut self) -> Option<&mut CommitLog<W::Item, W::Output, W::Error>> {
        self.store.durability()?.commit_log.as_deref_mut()
    }

    /// Adds the outputs that the items of an earlier run have left to the result. The items between them count as not started.
    pub(in super::super) fn add_previous(&mut self, scheduler: &mut Scheduler) {
        if !W::Outcomes::ARE_RESULTS {
            return;
        }
        for _ in 0..self.previous().map_or(0, |previous| previous.left()) {
            let (index, weight) = (scheduler.pulled, 1);
            scheduler.pulled += 1;
            match self.previous().and_then(|previous| previous.take(index)) {
                None => {
                    scheduler.looked_up.insert(index, Pulled { index, slot: usize::MAX, weight });
                }
                Some(output) => {
                    scheduler.tally.successes += 1;
                    scheduler.tally.carried += 1;
                    let success = Success::<W::Item, _>::without_run(index, Origin::Carried, output);
                    self.outcomes.settle(success.into_outcome());
                }
            }
        }
    }

    fn previous(&mut self) -> Option<&mut Previous<W::Output>> {
        self.store.durability()?.previous.as_mut()
    }

    fn cache(&mut self) -> Option<&mut Lookups<W::Item, W::Output>> {
        self.store.durability()?.cache.as_deref_mut()
    }
}

impl<W: Work> ItemsOf<W> {
    /// Stores a success, which counts once it is durable.
    #[cold]
    pub(in super::super) fn keep(
        &mut self,
        scheduler: &mut Scheduler,
        job: &mut Job,
        item: Option<W::Item>,
        output: W::Output,
    ) {
        if scheduler.observed {
            scheduler.emit_succeeded(self.hooks.observer(), job);
        }
        let (index, attempts, label) = (job.index, job.attempt, job.label.take());
        let (elapsed, origin) = (scheduler.since(job.started), Origin::Ran);
        if let Some(cache) = self.cache() {
            cache.keep(index, &output);
            scheduler.notify_driver();
        }
        self.make_durable(scheduler, Success { item, label, index, attempts, elapsed, origin, output });
    }

    fn make_durable(&mut self, scheduler: &mut Scheduler, success: Success<W::Item, W::Output>) {
        let Some(commit_log) = self.commit_log() else {
            return self.count_kept(scheduler, success);
        };
        match commit_log.keep_success(success) {
            Ok(()) => scheduler.unkept_successes += 1,
            Err((success, error)) => {
                scheduler.stop_for_store(error);
                self.rescue(scheduler, success);
            }
        }
    }

    /// Records that an item has failed.
    #[cold]
    pub(in super::super) fn keep_failure(
        &mut self,
        scheduler: &mut Scheduler,
        index: usize,
        elapsed: Duration,
        error: &ItemError<W::Error>,
    ) {
        if let Some(cache) = self.cache() {
            cache.release(index);
            scheduler.notify_driver();
        }
        if let Some(commit_log) = self.commit_log() {
            commit_log.keep_failure(index, elapsed, error);
        }
    }

    /// Takes the successes that have become durable.
    fn take_durable(&mut self, scheduler: &mut Scheduler) {
        while let Some(commit_log) = self.commit_log() {
            match commit_log.poll_kept(&mut Context::from_waker(&scheduler.driver)) {
                Poll::Ready(Ok(success)) => {
                    scheduler.unkept_successes -= 1;
                    self.count_kept(scheduler, success);
                }
                Poll::Ready(Err(error)) => self.give_up(scheduler, error),
                Poll::Pending => break,
            }
        }
    }

    /// Takes the items that were looked up.
    fn take_found(&mut self, scheduler: &mut Scheduler) {
        while let (Some(cache), None) = (self.cache(), &scheduler.stop) {
            let Poll::Ready((index, found)) = cache.poll_found(&mut Context::from_waker(&scheduler.driver))
            else {
                break;
            };
            let Some(pulled) = scheduler.looked_up.remove(&index) else { continue };
            match found.and_then(|text| cache.decode(index, &text)) {
                None => scheduler.backlog.push_back(pulled),
                Some(output) => {
                    let item = self.waiting.take_item(pulled.slot);
                    let label = item.as_ref().and_then(|item| self.hooks.label(item));
                    let success = Success::without_run(index, Origin::Cached, output);
                    let item = item.filter(|_| W::Hooks::GIVES_BACK);
                    self.make_durable(scheduler, Success { item, label, ..success });
                }
            }
        }
    }

    fn count_kept(&mut self, scheduler: &mut Scheduler, success: Success<W::Item, W::Output>) {
        match success.origin {
            Origin::Ran => {}
            Origin::Cached => scheduler.tally.cached += 1,
            Origin::Recovered => scheduler.tally.recovered += 1,
            Origin::Carried => scheduler.tally.carried += 1,
        }
        scheduler.count_success();
        let Success { index, attempts, elapsed, origin, ref label, .. } = success;
        let label = label.as_deref();
        let settled = Settled { index, attempts, elapsed, label, origin, failure: None };
        scheduler.emit_settled(self.hooks.observer(), &settled);
        self.emit_rare_outcome(scheduler, success.into_outcome());
    }

    /// Stops the run because nothing is stored any more. Durable successes have counted.
    fn give_up(&mut self, scheduler: &mut Scheduler, error: BoxError) {
        scheduler.stop_for_store(error);
        self.rescue_all(scheduler);
    }

    fn rescue_all(&mut self, scheduler: &mut Scheduler) {
        while let Some(success) = self.commit_log().and_then(CommitLog::give_up) {
            scheduler.unkept_successes -= 1;
            self.rescue(scheduler, success);
        }
    }

    /// Counts a success that is not durable, for the result only. A sink gets it when the run is recovered instead.
    fn rescue(&mut self, scheduler: &mut Scheduler, success: Success<W::Item, W::Output>) {
        if W::Outcomes::ARE_RESULTS {
            self.count_kept(scheduler, success);
        } else {
            let Success { index, attempts: attempt, label, item, .. } = success;
            self.leave(Job { attempt, label, ..Job::new(index, 0) }, item);
        }
    }

    /// Returns `true` if another item may be pulled. No more items are looked up than can start, because other
    /// runs may wait for the items that this run claims.
    fn may_pull_more(&mut self, scheduler: &Scheduler) -> bool {
        let busy = scheduler.backlog.len() + scheduler.running() - scheduler.unkept_successes;
        let free = scheduler.item_capacity().saturating_sub(busy);
        let is_within = |window| self.outcomes.is_within_window(window, &scheduler.driver);
        scheduler.source_state == SourceState::Open
            && scheduler.window().is_some_and(is_within)
            && self.store.durability().is_none_or(|durability| durability.has_room(free))
    }

    /// Stops the run if the source has ended before the items of the run that this one repeats.
    fn check_previous_total(&mut self, scheduler: &mut Scheduler) {
        let expected = self.previous().map(|previous| previous.total());
        let Some(expected) = expected.filter(|(total, _)| scheduler.pulled < *total) else { return };
        if scheduler.source_state == SourceState::Ended {
            let error = redo_error(scheduler.pulled, expected);
            scheduler.stop(Stop::Failed(FailureReason::Config(error)));
            // The items that are missing have not started.
            scheduler.source_state = SourceState::Stalled;
            scheduler.expect_again(expected);
        }
    }

    /// Returns `true` if it is known how the next item ended in an earlier run.
    fn is_known(&mut self, scheduler: &mut Scheduler) -> bool {
        let Some(commit_log) = self.commit_log() else { return true };
        match commit_log.poll_known(scheduler.pulled, &mut Context::from_waker(&scheduler.driver)) {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(error)) => {
                self.take_durable(scheduler);
                self.give_up(scheduler, error);
            }
            Poll::Pending => scheduler.source_state = SourceState::Loading,
        }
        false
    }

    /// Settles an item that succeeded in an earlier run. Returns any other item, unless it cannot be hashed, which stops the
    /// run.
    fn recall(
        &mut self,
        scheduler: &mut Scheduler,
        index: usize,
        item: W::Item,
        weight: u32,
    ) -> Option<W::Item> {
        if let Some(output) = self.previous().and_then(|previous| previous.take(index)) {
            let label = self.hooks.label(&item);
            let success = Success::without_run(index, Origin::Carried, output);
            self.count_kept(scheduler, Success { label, ..success });
            return None;
        }
        let Some(commit_log) = self.commit_log() else { return Some(item) };
        match commit_log.recall(index, &item) {
            Ok(Recalled::Success(success)) => {
                let label = self.hooks.label(&item);
                self.count_kept(scheduler, Success { label, ..success });
            }
            Ok(Recalled::Nothing) => return Some(item),
            Ok(Recalled::Changed) => {
                scheduler.tally.changed += 1;
                return Some(item);
            }
            Ok(Recalled::Unreadable(error)) => {
                trace::unreadable(&scheduler.name, index, &error);
                scheduler.tally.changed += 1;
                return Some(item);
            }
            Err(error) => {
                let pulled = self.keep_waiting(index, item, weight);
                scheduler.backlog.push_back(pulled);
                scheduler.stop_for_store(error);
            }
        }
        None
    }
}

/// Returns the error of a run that repeats a run of another number of items.
pub(in super::super) fn redo_error(found: usize, (total, may_be_more): (usize, bool)) -> ConfigError {
    let allowed = if may_be_more {
        format!("used with the same items, at least {total}")
    } else {
        format!("used with the same {}", Count(total, "item"))
    };
    ConfigError::new("redo", Count(found, "item"), allowed)
}

impl Scheduler {
    /// Sets the total of a run that repeats one of another total: the account is about the items of the earlier run.
    pub(in super::super) fn expect_again(&mut self, (total, may_be_more): (usize, bool)) {
        (self.promised, self.may_be_more) = (Some(total), may_be_more);
    }

    /// Stops the run because something cannot be stored. An early success does not count then.
    fn stop_for_store(&mut self, error: BoxError) {
        self.revoke_early_success();
        // The runtime has dropped the task of the store, which is not a failure of the store.
        if error.is::<ShutDown>() {
            self.halt_for_shutdown();
        } else {
            self.halt(FailureReason::Store(error));
        }
    }
}
