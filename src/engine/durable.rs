//! Runs with a store: a success counts once it is durable, and an item with a known output does not run.

use std::task::{Context, Poll};
use std::time::Duration;

use super::call::Call;
use super::commit_log::{Recalled, Success};
use super::job::{Job, Pulled};
use super::scheduler::SourceState;
use super::shutdown::ShutDown;
use super::state::State;
use super::{Work, trace};
use crate::error::{BoxError, FailureReason};
use crate::outcome::{ItemError, Origin};

/// How many items one call pulls at most before other work continues.
const MOST_AT_ONCE: usize = 256;

impl<W: Work> State<W> {
    /// Stores a success, which counts once it is durable.
    #[cold]
    pub(super) fn keep(&mut self, job: &Job<W::Item>, output: W::Output) {
        let (index, attempts, elapsed) = (job.index, job.attempt, self.since_start(job));
        if let Some(cache) = &mut self.durability.cache {
            cache.keep(index, &output);
            self.scheduler.notify_driver();
        }
        self.make_durable(Success { index, attempts, elapsed, origin: Origin::Ran, output });
    }

    fn make_durable(&mut self, success: Success<W::Output>) {
        let Some(commit_log) = &mut self.durability.commit_log else { return self.count_kept(success) };
        if let Err((success, error)) = commit_log.keep_success(success) {
            self.stop_for_store(error);
            self.rescue(success);
        }
    }

    /// Records that an item has failed.
    #[cold]
    pub(super) fn keep_failure(&mut self, index: usize, elapsed: Duration, error: &ItemError<W::Error>) {
        if let Some(cache) = &mut self.durability.cache {
            cache.release(index);
            self.scheduler.notify_driver();
        }
        if let Some(commit_log) = &mut self.durability.commit_log {
            commit_log.keep_failure(index, elapsed, error);
        }
    }

    /// Takes the successes that have become durable, and the items that were looked up.
    #[inline]
    pub(super) fn take_kept(&mut self) {
        if W::Call::KEEPS {
            self.take_durable();
            self.take_found();
        }
    }

    fn take_durable(&mut self) {
        while let Some(commit_log) = &mut self.durability.commit_log {
            match commit_log.poll_kept(&mut Context::from_waker(&self.scheduler.driver)) {
                Poll::Ready(Ok(success)) => self.count_kept(success),
                Poll::Ready(Err(error)) => self.give_up(error),
                Poll::Pending => break,
            }
        }
    }

    fn take_found(&mut self) {
        while let (Some(cache), None) = (&mut self.durability.cache, &self.scheduler.stop) {
            match cache.poll_found(&mut Context::from_waker(&self.scheduler.driver)) {
                Poll::Ready((pulled, None)) => self.backlog.push_back(pulled),
                Poll::Ready((Pulled { index, .. }, Some(output))) => {
                    let (attempts, elapsed) = (0, Duration::ZERO);
                    self.make_durable(Success { index, attempts, elapsed, origin: Origin::Cached, output });
                }
                Poll::Pending => break,
            }
        }
    }

    /// Ready once every success has counted: it is durable, or was rescued from a store that has failed.
    pub(super) fn poll_settled(&mut self) -> Poll<()> {
        self.take_durable();
        match &self.durability.commit_log {
            Some(commit_log) if !commit_log.is_settled() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn count_kept(&mut self, success: Success<W::Output>) {
        let Success { index, attempts, elapsed, origin, output } = success;
        match origin {
            Origin::Ran => {}
            Origin::Cached => self.scheduler.tally.cached += 1,
            Origin::Recovered => self.scheduler.tally.recovered += 1,
        }
        self.count_success();
        self.emit_settled(index, attempts, elapsed, origin, None);
        self.emit_outcome(index, attempts, elapsed, origin, Ok(output));
    }

    /// Stops the run because something cannot be stored. An early success does not count then.
    fn stop_for_store(&mut self, error: BoxError) {
        self.scheduler.revoke_early_success();
        // The runtime has dropped the task of the store, which is not a failure of the store.
        let is_shut_down = error.is::<ShutDown>();
        self.halt(if is_shut_down { FailureReason::Cancelled } else { FailureReason::Store(error) });
    }

    /// Stops the run because nothing is stored any more. Durable successes have counted.
    fn give_up(&mut self, error: BoxError) {
        self.stop_for_store(error);
        self.rescue_all();
    }

    /// Stops waiting for the store, because the time limit of the run has passed.
    pub(super) fn give_up_late(&mut self) {
        self.scheduler.revoke_early_success();
        if let Some(limit) = self.scheduler.config.run_timeout {
            self.halt(FailureReason::TimedOut { limit });
        }
        self.rescue_all();
    }

    fn rescue_all(&mut self) {
        while let Some(success) =
            self.durability.commit_log.as_mut().and_then(|commit_log| commit_log.give_up())
        {
            self.rescue(success);
        }
    }

    /// Counts a success that is not durable, for the result only. A sink gets it when the run is recovered instead.
    fn rescue(&mut self, success: Success<W::Output>) {
        if self.collector.is_result() {
            self.count_kept(success);
        }
    }

    /// Pulls the next item that is to run and needs no look-up. Items that succeeded in an earlier run settle on the way.
    #[cold]
    pub(super) fn pull_unknown(&mut self) -> Option<Pulled<W::Item>> {
        let pending = self.durability.pending();
        for _ in 0..MOST_AT_ONCE {
            if self.scheduler.stop.is_some() || !self.may_pull_more() || !self.is_known() {
                break;
            }
            let Some(pulled) = self.pull_any() else { break };
            let Some(pulled) = self.recall(pulled) else { continue };
            let to_run = match &mut self.durability.cache {
                Some(cache) => cache.look_up(pulled),
                None => Some(pulled),
            };
            if to_run.is_some() {
                return to_run;
            }
        }
        // The driver polls the look-ups that were started here. It also continues to pull if this call ended at its bound.
        if self.durability.pending() > pending || self.may_pull_more() {
            self.scheduler.wake_driver();
        }
        None
    }

    /// Returns `true` if another item may be pulled. No more items are looked up than there are free permits, because other
    /// runs may wait for the items that this run claims.
    fn may_pull_more(&self) -> bool {
        let busy = self.backlog.len() + self.running() - self.durability.unkept_successes();
        self.scheduler.source_state == SourceState::Open
            && self.admits_new_items()
            && self.durability.has_room(self.scheduler.permits.capacity().saturating_sub(busy))
    }

    /// Returns `true` if it is known how the next item ended in an earlier run.
    fn is_known(&mut self) -> bool {
        let Some(commit_log) = &mut self.durability.commit_log else { return true };
        match commit_log.poll_known(self.scheduler.pulled, &mut Context::from_waker(&self.scheduler.driver)) {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(error)) => {
                self.take_durable();
                self.give_up(error);
            }
            Poll::Pending => self.scheduler.source_state = SourceState::Stalled,
        }
        false
    }

    /// Settles an item that succeeded in an earlier run. Returns any other item, unless it cannot be hashed, which stops the
    /// run.
    fn recall(&mut self, pulled: Pulled<W::Item>) -> Option<Pulled<W::Item>> {
        let Some(commit_log) = &mut self.durability.commit_log else { return Some(pulled) };
        match commit_log.recall(pulled.index, &pulled.item) {
            Ok(Recalled::Success(success)) => self.count_kept(success),
            Ok(Recalled::Nothing) => return Some(pulled),
            Ok(Recalled::Changed) => {
                self.scheduler.tally.changed += 1;
                return Some(pulled);
            }
            Ok(Recalled::Unreadable(error)) => {
                trace::unreadable(&self.scheduler.name, pulled.index, &error);
                self.scheduler.tally.changed += 1;
                return Some(pulled);
            }
            Err(error) => {
                self.backlog.push_back(pulled);
                self.stop_for_store(error);
            }
        }
        None
    }
}
