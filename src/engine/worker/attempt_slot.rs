//! The slot in which a worker makes its attempts.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::super::caught_drop::drop_copy;
use super::super::items::ItemsOf;
use super::super::persist::durability::Persist;
use super::super::state_guard::StateGuard;
use super::super::user::call::Call;
use super::super::user::hooks::Hooks;
use super::super::user::leftovers::Leftovers;
use super::super::{Mode, Plan, Work, trace};
use super::attempt::{AttemptDeadline, drop_in_span, interrupted, panic_error, poll_caught};
use super::attempt_control::{AttemptControl, context};
use crate::config::Config;
use crate::outcome::ItemError;
use crate::rt::Instant;

pin_project! {
    /// The slot in which a worker makes its attempts, one after another. An attempt is built in place and never moves.
    #[project = SlotProjection]
    pub(in super::super) struct AttemptSlot<W: Plan> {
        pub(in super::super) control: AttemptControl,
        // A clone of the item, if another attempt may follow.
        pub(in super::super) kept: Option<W::Item>,
        // The other items of a call until it begins, and then their clones.
        pub(in super::super) others: Vec<Option<W::Item>>,
        #[pin]
        attempt: Option<W::Future>,
    }

    impl<W: Plan> PinnedDrop for AttemptSlot<W> {
        fn drop(this: Pin<&mut Self>) {
            this.project().clear();
        }
    }
}

/// What an attempt of a run returns.
type AnswerOf<W> = <<W as Plan>::Call as Call<<W as Plan>::Item>>::Answer;

impl<W: Plan> SlotProjection<'_, W> {
    /// Cancels and drops an attempt that is running.
    pub(in super::super) fn clear(&mut self) {
        if self.attempt.is_some() {
            self.control.cancel();
            drop_in_span(&self.control.job.span, self.attempt.as_mut());
        }
    }

    /// Takes the item that was kept during an attempt which has succeeded, if the run may still have to give it back: it is
    /// settled once its output is stored. Drops any other.
    #[inline(always)]
    pub(in super::super) fn take_copy(&mut self) -> Option<W::Item> {
        if W::Hooks::GIVES_BACK && W::Store::KEEPS {
            return self.kept.take();
        }
        if mem::needs_drop::<W::Item>() && self.kept.is_some() {
            drop_copy(self.kept);
        }
        None
    }
}

impl<W: Work> AttemptSlot<W> {
    pub(in super::super) fn new() -> Self {
        Self { control: AttemptControl::new(), kept: None, others: Vec::new(), attempt: None }
    }
}

impl<W: Work> SlotProjection<'_, W> {
    /// Returns `true` if there is an attempt in the slot.
    #[inline]
    pub(in super::super) fn is_taken(&self) -> bool {
        self.attempt.is_some()
    }

    /// Calls the map function. It is the caller's code, so it may panic.
    #[inline(always)]
    pub(in super::super) fn begin(
        &mut self,
        call: &W::Call,
        config: &Config,
        run_deadline: Option<Instant>,
        item: W::Item,
    ) -> Result<(), ItemError<W::Error>> {
        let AttemptControl { job, deadline, signal, held, .. } = &mut *self.control;
        let may_retry = config.retry.allows_after(job.attempt);
        let (future, kept) = (&mut self.attempt, &mut *self.kept);
        let built = trace::in_span(&job.span, || {
            catch_unwind(AssertUnwindSafe(|| {
                let context = || context(job, deadline, signal, config, run_deadline);
                if W::Call::BATCHES {
                    let others = take_others::<W>(self.others, kept, &item, call, may_retry);
                    future.set(Some(call.call_batch(context, item, others, &mut held.shared)));
                } else {
                    *kept = if may_retry { call.clone_item(&item) } else { W::Hooks::copy(&item) };
                    future.set(Some(call.call(context, item, &mut held.shared)));
                }
            }))
        });
        built.map_err(|payload| panic_error(payload, job.attempt))
    }

    /// Polls the attempt, then its limit: a finished result takes precedence over a timeout in the same poll.
    #[inline(always)]
    pub(in super::super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        guard: &mut StateGuard<'_, ItemsOf<W>>,
    ) -> Poll<Result<AnswerOf<W>, ItemError<W::Error>>> {
        let control = &mut *self.control;
        if W::Mode::PARALLEL && mem::take(&mut control.is_unpolled) {
            control.correct_start(Instant::now(), AttemptDeadline::BegunSince);
        }
        let attempts = control.job.attempt;
        match trace::in_span(&control.job.span, || poll_caught(self.attempt.as_mut(), cx, attempts)) {
            Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.counted_error(error))),
            Poll::Pending if control.is_within_first_limit(cx, config, W::Mode::PARALLEL) => Poll::Pending,
            Poll::Pending => self.poll_limit(cx, config, guard).map(Err),
        }
    }

    /// Returns the error that counts for a failed attempt.
    #[cold]
    fn counted_error(&self, error: ItemError<W::Error>) -> ItemError<W::Error> {
        match (error, &self.control.deadline) {
            // The attempt was told to end, so its error is a consequence of the timeout.
            (ItemError::Failed { attempts, .. }, AttemptDeadline::Grace(limit, _)) => limit.error(attempts),
            (error, _) => error,
        }
    }

    /// Ready once the limit of the attempt has passed, or its runtime has no timer any more. The attempt is dropped, unless
    /// its function still runs.
    fn poll_limit(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        guard: &mut StateGuard<'_, ItemsOf<W>>,
    ) -> Poll<ItemError<W::Error>> {
        let attempts = self.control.job.attempt;
        let limit = ready!(self.control.poll_limit(cx, config, &mut |limit| {
            let clock = &mut guard.get().scheduler.clock;
            let read = (clock.read(), limit.latest(clock));
            guard.release(W::Mode::PARALLEL);
            read
        }));
        let error = limit.map_or_else(interrupted, |limit| limit.error(attempts));
        let still_running =
            || self.attempt.as_ref().as_pin_ref().is_some_and(|attempt| W::Call::still_running(&attempt));
        if W::Call::LINGERS && still_running() {
            self.control.lingers = true;
        } else {
            drop_in_span(&self.control.job.span, self.attempt.as_mut());
        }
        Poll::Ready(error)
    }

    /// Ready once the function of an attempt that counts as ended has returned.
    pub(in super::super) fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if W::Call::LINGERS && self.control.lingers {
            ready!(poll_caught(self.attempt.as_mut(), cx, 0)).ok();
            self.control.lingers = false;
        }
        Poll::Ready(())
    }

    /// Tells a running attempt to end. From now on, the grace of the run is its only limit.
    pub(in super::super) fn stop(&mut self) {
        if self.attempt.is_some() {
            self.control.stop();
        }
    }
}

/// Takes the other items of a call that begins. Leaves clones, if the call may have to be made again, or to be split.
fn take_others<W: Work>(
    others: &mut Vec<Option<W::Item>>,
    kept: &mut Option<W::Item>,
    first: &W::Item,
    call: &W::Call,
    may_retry: bool,
) -> Vec<W::Item> {
    let mut items = Vec::with_capacity(others.len());
    items.extend(others.drain(..).flatten());
    if may_retry || !items.is_empty() {
        *kept = call.clone_item(first);
        others.extend(items.iter().map(|item| call.clone_item(item)));
    } else {
        *kept = W::Hooks::copy(first);
    }
    items
}
