//! An item on its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::Span;

use super::attempt::{Watch, panic_message};
use super::call::Call;
use super::clock::earliest;
use super::gate::Place;
use super::{Types, Work};
use crate::config::Config;
use crate::context::{ItemContext, Signal};
use crate::outcome::ItemError;

/// An item on its way through its attempts.
pub(super) struct Job<I> {
    pub(super) index: usize,
    /// The number of the attempt under way; the first is 1.
    pub(super) attempt: u32,
    /// How many permits each of its attempts takes.
    pub(super) weight: u32,
    /// The item once more, where another attempt may follow.
    pub(super) kept: Option<I>,
    /// When the first attempt began, where somebody needs to know.
    pub(super) started: Option<Instant>,
    pub(super) span: Span,
}

/// An item that waits for its next attempt.
pub(super) struct Retry<I, E> {
    pub(super) job: Job<I>,
    pub(super) item: I,
    pub(super) error: ItemError<E>,
}

/// Where a lane keeps the attempt that it makes. An attempt is built in place and stays there.
pub(super) struct Desk<'a, W: Types> {
    pub(super) job: &'a mut Option<Job<W::Item>>,
    pub(super) attempt: Pin<&'a mut Option<W::Future>>,
    pub(super) watch: &'a mut Watch,
    pub(super) signal: &'a mut Arc<Signal>,
    pub(super) place: &'a mut Place,
    /// Whether the attempt has ended for its item and not yet in truth.
    pub(super) lingers: bool,
    /// Set where the lane has woken the driver, which may have to wait for it: it yields before it goes on.
    pub(super) yields: bool,
    /// Whether the lane has had its share of this poll.
    pub(super) is_tired: bool,
}

/// An item that was pulled and has not started.
pub(super) struct Pulled<I> {
    pub(super) index: usize,
    pub(super) item: I,
    pub(super) weight: u32,
}

/// What became of an attempt.
pub(super) type Ended<W> = Result<<W as Types>::Output, ItemError<<W as Types>::Error>>;

impl<W: Work> Desk<'_, W> {
    /// Notes when an attempt begins.
    pub(super) fn date(&mut self, config: &Config, now: Instant) {
        if let Some(job) = self.job {
            job.started.get_or_insert(now);
            if config.first_limit.is_some() {
                *self.watch = Watch::Begun(now);
            }
        }
    }

    /// Calls the map function. It is the caller's code, so it may panic.
    pub(super) fn call(
        &mut self,
        call: &W::Call,
        config: &Config,
        run_deadline: Option<Instant>,
        item: W::Item,
    ) -> Result<(), ItemError<W::Error>> {
        let Some(job) = self.job else { return Ok(()) };
        let Job { index, attempt, ref mut kept, started, ref span, .. } = *job;
        let may_retry = config.retry.allows_after(attempt);
        let (future, watch, signal) = (&mut self.attempt, &*self.watch, &mut *self.signal);
        let permit = &mut self.place.shared;
        let context = || {
            Signal::renew(signal);
            let limit = watch.limit(config, started).map(|limit| limit.deadline());
            let deadline = earliest(limit, run_deadline);
            ItemContext { index, attempt, is_last_attempt: !may_retry, deadline, signal: Arc::clone(signal) }
        };
        let _entered = span.enter();
        let built = catch_unwind(AssertUnwindSafe(|| {
            if may_retry {
                *kept = call.again(&item);
            }
            future.set(Some(call.call(context, item, permit)));
        }));
        built.map_err(|payload| ItemError::Panicked { message: panic_message(&*payload), attempts: attempt })
    }
}
