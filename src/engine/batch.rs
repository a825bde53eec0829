//! The end of a call for several items: each settles, fails, waits for a retry, or joins a smaller call.

use std::iter;
use std::mem;

use super::Work;
use super::caught_drop::drop_copy;
use super::failure::Failure;
use super::items::ItemsOf;
use super::job::{Job, Other};
use super::persist::durability::Persist;
use super::scheduler::retries::Group;
use super::scheduler::{AttemptEnd, Refusal, Scheduler, Wait};
use super::slots::Kept;
use super::trace;
use super::user::hooks::Hooks;
use super::user::leftovers::Leftovers;
use crate::count::Count;
use crate::outcome::{ItemError, NotRetried, TimeoutScope};

/// An item of a call.
pub(super) struct Member<I> {
    pub(super) job: Job,
    /// A clone of the item, if it may be needed again.
    pub(super) item: Option<I>,
}

/// Takes the items of a call that has ended.
pub(super) fn take_members<I>(
    (job, others): (&mut Job, &mut Vec<Other>),
    kept: &mut Option<I>,
    copies: &mut Vec<Option<I>>,
) -> Vec<Member<I>> {
    let first = Member { job: job.take(), item: kept.take() };
    let copies = mem::take(copies).into_iter().chain(iter::repeat_with(|| None));
    let others = mem::take(others).into_iter().zip(copies);
    iter::once(first).chain(others.map(|(other, item)| Member { job: other.job, item })).collect()
}

/// The error of a call for several items. An error of the map function cannot be cloned, so one item gets it and the others
/// get a fault.
struct CallError<E> {
    original: ItemError<E>,
    is_taken: bool,
}

impl<E> CallError<E> {
    /// Returns the error for another item.
    fn copy(&self, attempts: u32) -> ItemError<E> {
        match &self.original {
            ItemError::Failed { .. } => ItemError::Faulted {
                message: "the call for its batch failed as a whole".to_owned(),
                attempts,
            },
            ItemError::TimedOut { limit, scope, .. } => {
                ItemError::TimedOut { limit: *limit, scope: *scope, attempts }
            }
            ItemError::Panicked { message, .. } => ItemError::Panicked { message: message.clone(), attempts },
            ItemError::Faulted { message, .. } => ItemError::Faulted { message: message.clone(), attempts },
        }
    }

    /// Returns the error itself to the first item that asks, and a copy to each other.
    fn take(&mut self, attempts: u32) -> ItemError<E> {
        let copy = self.copy(attempts);
        if mem::replace(&mut self.is_taken, true) {
            return copy;
        }
        let mut original = mem::replace(&mut self.original, copy);
        if let ItemError::Failed { attempts: of_first, .. } = &mut original {
            *of_first = attempts;
        }
        original
    }
}

impl<W: Work> ItemsOf<W> {
    /// Takes the other items of a call that begins.
    pub(super) fn take_others(&mut self, others: &mut [Other], items: &mut Vec<Option<W::Item>>) {
        items.clear();
        items.extend(others.iter_mut().map(|other| {
            let item = self.waiting.take_item(other.slot)?;
            self.set_label(&mut other.job, &item);
            Some(item)
        }));
    }

    /// Settles the items of a call that has returned a result for each of them. All of them settle, also if one of them stops
    /// the run.
    pub(super) fn settle_batch(
        &mut self,
        scheduler: &mut Scheduler,
        (job, others): (&mut Job, &mut Vec<Other>),
        kept: &mut Option<W::Item>,
        copies: &mut Vec<Option<W::Item>>,
        results: Vec<Result<W::Output, W::Error>>,
    ) {
        if results.len() != others.len() + 1 {
            return self.fail_unanswered(scheduler, take_members((job, others), kept, copies), results.len());
        }
        copies.resize_with(others.len(), || None);
        let items = iter::once(kept).chain(copies.iter_mut());
        let jobs = iter::once(job).chain(others.iter_mut().map(|other| &mut other.job));
        for ((job, item), result) in jobs.zip(items).zip(results) {
            let attempts = job.attempt;
            let is_needed = match result {
                Ok(_) => W::Hooks::GIVES_BACK && W::Store::KEEPS,
                Err(_) => W::Hooks::GIVES_BACK || scheduler.config.retry.allows_after(attempts),
            };
            if mem::needs_drop::<W::Item>() && item.is_some() && !is_needed {
                drop_copy(item);
            }
            match result {
                Ok(output) => self.succeed(scheduler, job, item.take().filter(|_| is_needed), output),
                Err(error) => {
                    let (mut item, error) =
                        (item.take().filter(|_| is_needed), ItemError::Failed { error, attempts });
                    self.fail_attempt(scheduler, job, &mut item, None, error);
                }
            }
        }
        others.clear();
        copies.clear();
    }

    /// Fails the items of a call that has returned the wrong number of results: it is not known which result belongs to which item.
    #[cold]
    fn fail_unanswered(&mut self, scheduler: &mut Scheduler, members: Vec<Member<W::Item>>, found: usize) {
        let (found, expected) = (Count(found, "result"), Count(members.len(), "item"));
        let message = format!("the call for a batch of {expected} returned {found}");
        for member in members {
            let error = ItemError::Faulted { message: message.clone(), attempts: member.job.attempt };
            let refusal = Refusal::new(NotRetried::NotRetryable, "its call has answered");
            self.fail_member(scheduler, member, error, refusal);
        }
    }

    /// Ends a call for several items that has failed as a whole.
    #[cold]
    pub(super) fn fail_batch(
        &mut self,
        scheduler: &mut Scheduler,
        mut members: Vec<Member<W::Item>>,
        error: ItemError<W::Error>,
    ) {
        let failure = Failure::from(&error);
        if failure.is_interruption() {
            return self.cancel_members(scheduler, members, &failure);
        }
        scheduler.note_timeout(&failure);
        let called = members.len();
        if let Some(first) = members.first() {
            self.heed(scheduler, &first.job, None, &error);
        }
        let mut end = failure.end(self.end_of(&error));
        let error = CallError { original: error, is_taken: false };
        if let AttemptEnd::TimedOut(TimeoutScope::Item) = end {
            members = self.fail_late_members(scheduler, members, &error);
            end = AttemptEnd::Faulted;
            if scheduler.stop.is_some() {
                return self.cancel_members(scheduler, members, &Failure::from(&error.original));
            }
        }
        let (members, kind) = self.retry_call(scheduler, members, &error, end);
        if scheduler.splits_batches() {
            self.split(scheduler, members, called, error);
        } else {
            self.fail_members(scheduler, members, error, kind);
        }
    }

    /// Fails the items that have exceeded their time limits. Returns the others: their call was dropped only because of these.
    fn fail_late_members(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        error: &CallError<W::Error>,
    ) -> Vec<Member<W::Item>> {
        let now = scheduler.clock.read();
        let is_late = |member: &Member<W::Item>| {
            scheduler.give_up_at(member.job.started).is_some_and(|give_up| give_up <= now)
        };
        let (late, others): (Vec<_>, Vec<_>) = members.into_iter().partition(is_late);
        for member in late {
            let error = error.copy(member.job.attempt);
            self.fail_member(scheduler, member, error, Refusal::ITEM_LIMIT);
        }
        others
    }

    /// Makes the call again later, for all items that have retries left. Returns the others, and why those with retries left are not
    /// retried.
    fn retry_call(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        error: &CallError<W::Error>,
        end: AttemptEnd,
    ) -> (Vec<Member<W::Item>>, NotRetried) {
        let retry = scheduler.config.retry;
        let has_retries =
            |member: &&Member<W::Item>| member.item.is_some() && retry.allows_after(member.job.attempt);
        let Some(attempt) = members.iter().filter(has_retries).map(|member| member.job.attempt).max() else {
            return (members, NotRetried::NoRetriesLeft);
        };
        let wait = match scheduler.wait_before_retry(attempt, None, end, None) {
            Ok(wait) => wait,
            Err(refusal) => return (members, refusal.kind),
        };
        let is_in_time = |member: &Member<W::Item>| {
            scheduler.give_up_at(member.job.started).is_none_or(|give_up| wait.until < give_up)
        };
        let (mut retried, left): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| has_retries(&member) && is_in_time(member));
        let name = &scheduler.name;
        trace::call_retry(name, retried.len(), attempt, error.original.kind(), wait.length);
        for member in &mut retried {
            self.set_error_text(&mut member.job, &error.original);
            let failure = Failure { attempts: member.job.attempt, ..Failure::from(&error.original) };
            scheduler.count_failed_attempt(&failure);
            scheduler.emit_failed(self.hooks.observer(), &mut member.job, &failure, Some(wait.length));
        }
        self.park_call(scheduler, retried, false, &wait);
        (left, NotRetried::TimeLimit)
    }

    /// Makes smaller calls after a call of `called` items has failed as a whole, until the items that fail alone are known.
    fn split(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        called: usize,
        mut error: CallError<W::Error>,
    ) {
        // An item cannot be tried again if its `clone` has panicked.
        let (mut first, lost): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.item.is_some());
        let second = if first.len() == called { first.split_off(called.div_ceil(2)) } else { Vec::new() };
        trace::split(&scheduler.name, called, first.len(), second.len(), error.original.kind());
        let parts = [first, second].map(|part| {
            let wait = if part.is_empty() { None } else { Some(scheduler.wait_of_part()) };
            (part, wait)
        });
        // The part that is parked last starts first.
        let mut refused = Vec::new();
        for (part, wait) in parts.into_iter().rev() {
            match wait {
                None => {}
                Some(Ok(wait)) => {
                    scheduler.tally.failed_attempts += part.len();
                    self.park_call(scheduler, part, true, &wait);
                }
                Some(Err(refusal)) => refused.extend(part.into_iter().map(|member| (member, refusal))),
            }
        }
        // The first failure may stop the run, which then drops the parts.
        let no_clone = Refusal::new(NotRetried::NotRetryable, "there is no clone of it");
        for (member, refusal) in lost.into_iter().map(|member| (member, no_clone)).chain(refused) {
            let error = error.take(member.job.attempt);
            self.fail_member(scheduler, member, error, refusal);
        }
    }

    /// Makes a call again, for exactly these items. A part of a larger call continues the attempts of its items.
    fn park_call(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        is_part: bool,
        wait: &Wait,
    ) {
        let mut slots = members.into_iter().filter_map(|Member { job, item }| {
            item.is_some().then(|| self.waiting.keep(Kept { item, job, error: None }))
        });
        if let Some(first) = slots.next() {
            let others = slots.collect();
            scheduler.park_group(first, Group { others, is_part }, wait);
        }
    }

    /// Ends the items of a call that has failed as a whole and is not split. If the run has stopped, it is not known which of
    /// them would have failed alone: they are cancelled.
    fn fail_members(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        mut error: CallError<W::Error>,
        kind: NotRetried,
    ) {
        if let (ItemError::Failed { .. }, true) = (&error.original, scheduler.stop.is_some()) {
            return self.cancel_members(scheduler, members, &Failure::from(&error.original));
        }
        for member in members {
            let has_retries = scheduler.config.retry.allows_after(member.job.attempt);
            let kind = if has_retries { kind } else { NotRetried::NoRetriesLeft };
            let error = error.take(member.job.attempt);
            self.fail_member(scheduler, member, error, Refusal::new(kind, "its call failed as a whole"));
        }
    }

    fn cancel_members(
        &mut self,
        scheduler: &mut Scheduler,
        members: Vec<Member<W::Item>>,
        failure: &Failure<'_>,
    ) {
        for Member { job, item } in members {
            scheduler.count_failed_attempt(failure);
            self.leave(job, item);
        }
    }

    fn fail_member(
        &mut self,
        scheduler: &mut Scheduler,
        Member { mut job, mut item }: Member<W::Item>,
        error: ItemError<W::Error>,
        refusal: Refusal,
    ) {
        drop_copy(&mut item);
        self.set_error_text(&mut job, &error);
        let failure = Failure::from(&error);
        scheduler.count_failed_attempt(&failure);
        scheduler.emit_failed(self.hooks.observer(), &mut job, &failure, None);
        self.fail(scheduler, &mut job, error, refusal);
    }
}
