//! The driver: the only loop. It pulls, admits, settles and judges.

mod attempt;
pub(crate) mod call;
mod clock;
mod core;
pub(crate) mod hooks;
mod job;
mod lane;
mod settle;
pub(crate) mod source;
mod timer;

mod trace;
mod waiting;

use std::marker::PhantomData;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::task::coop;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::Span;

use self::call::Call;
use self::clock::deadline;
use self::core::{Admission, Core, Stop, Tally};
use self::hooks::Hooks;
use self::lane::Lane;
use self::source::Source;
use self::timer::Timer;
use crate::config::Config;
use crate::error::{FailureReason, MapTaskError};
use crate::observe::Event;
use crate::result::{MapTaskResult, Summary};
use crate::verdict::Exceeded;

/// How many bytes of empty slots a result may get for items that were never started.
const UNSTARTED_BYTES: usize = 1 << 28;

/// The types of one run, and nothing else: no bound, so that the compiler can tell what they are, and
/// whether a run is `Send`, without having to prove anything of a closure.
///
/// It matters where items hold references: inside a spawned future the compiler forgets which lifetime
/// is which, and a proof that a closure takes an item would have to hold for all of them
/// (<https://github.com/rust-lang/rust/issues/102211>).
pub trait Types {
    type Item;
    type Output;
    type Error;
    type Future;
    type Source;
    type Call;
    type Hooks;
}

/// The [`Types`] of a run, one by one.
#[derive(Debug)]
pub struct Parts<S, C, H, I, T, E, Fut>(PhantomData<fn() -> (S, C, H, I, T, E, Fut)>);

impl<S, C, H, I, T, E, Fut> Types for Parts<S, C, H, I, T, E, Fut> {
    type Item = I;
    type Output = T;
    type Error = E;
    type Future = Fut;
    type Source = S;
    type Call = C;
    type Hooks = H;
}

/// [`Types`] that fit together, so that a run can be driven.
pub trait Work:
    Types<
        Source: Source<Item = Self::Item>,
        Call: Call<Self::Item, Output = Self::Output, Error = Self::Error, Future = Self::Future>,
        Hooks: Hooks<Self::Error>,
        Future: Future<Output = Result<Self::Output, Self::Error>>,
    >
{
}

impl<W> Work for W where
    W: Types<
            Source: Source<Item = W::Item>,
            Call: Call<W::Item, Output = W::Output, Error = W::Error, Future = W::Future>,
            Hooks: Hooks<W::Error>,
            Future: Future<Output = Result<W::Output, W::Error>>,
        >
{
}

/// What a run ends with.
pub(crate) type Outcome<W> = Result<
    MapTaskResult<<W as Types>::Output, <W as Types>::Error>,
    MapTaskError<<W as Types>::Output, <W as Types>::Error>,
>;

/// Drives one run. Everything of the run is in here, so that dropping it leaves nothing behind.
pub(crate) struct Driver<W: Types> {
    config: Arc<Config>,
    span: Span,
    started: Instant,
    /// The lanes come first, because what runs in them is dropped before what it may use.
    lanes: FuturesUnordered<Lane<W>>,
    core: Arc<Mutex<Core<W>>>,
    permits: Arc<Semaphore>,
    cancelled: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    timer: Timer,
    /// Set once the run is stopping: when what still runs is dropped.
    stop_at: Option<Instant>,
}

impl<W: Work> Driver<W> {
    /// Begins the run: its clock starts here.
    pub(crate) fn new(
        config: Arc<Config>,
        name: String,
        parts: (W::Source, W::Call, W::Hooks),
        token: Option<CancellationToken>,
    ) -> Self {
        let started = Instant::now();
        let permits = config.concurrency.min(Semaphore::MAX_PERMITS);
        let cancelled = token.clone().map(|token| Box::pin(token.cancelled_owned()));
        let core = Core::<W>::new(Arc::clone(&config), name, parts, token, started);
        if let Some(observer) = core.hooks.observer() {
            observer.on_event(&Event::RunStarted);
        }
        Self {
            span: trace::run_span(&core.name, core.total, config.concurrency),
            config,
            started,
            lanes: FuturesUnordered::new(),
            core: Arc::new(Mutex::new(core)),
            permits: Arc::new(Semaphore::new(permits)),
            cancelled,
            timer: Timer::default(),
            stop_at: None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<W>> {
        ready!(coop::poll_proceed(cx)).made_progress();
        let span = self.span.clone();
        let _entered = span.enter();
        // Only the source, the observer and the retry hooks can panic here. That is the caller's to
        // see, but not before every running item is dropped.
        match catch_unwind(AssertUnwindSafe(|| self.drive(cx))) {
            Ok(polled) => polled,
            Err(payload) => {
                self.lanes.clear();
                resume_unwind(payload)
            }
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<W>> {
        // Registered before the token is looked at, so that no cancellation falls between.
        if let Some(cancelled) = &mut self.cancelled {
            if cancelled.as_mut().poll(cx).is_ready() {
                self.cancelled = None;
            }
        }
        // What has stopped the run from outside does not keep finished items from handing in their
        // results; a failure that stops it is the last that counts.
        let mut stopped = lock(&self.core).begin_poll(cx.waker());
        loop {
            self.poll_lanes(cx, stopped);
            if self.is_stopping() {
                match self.poll_stopping(cx) {
                    Stopping::Told => {
                        stopped = true;
                        continue;
                    }
                    Stopping::Waiting => break,
                    Stopping::Over => return Poll::Ready(self.finish()),
                }
            }
            let admission = lock(&self.core).admit(&self.permits);
            match admission {
                Admission::Wake(waker) => waker.wake(),
                Admission::Open { seat, permit } => {
                    let (core, config) = (Arc::clone(&self.core), Arc::clone(&self.config));
                    self.lanes.push(Lane::new(core, config, seat, permit));
                }
                Admission::Stop => stopped = true,
                Admission::Yield => {
                    cx.waker().wake_by_ref();
                    break;
                }
                Admission::Wait => break,
                Admission::Finish => return Poll::Ready(self.finish()),
            }
            if !coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.rest(cx);
        Poll::Pending
    }

    /// Polls every lane that was woken, until none is or until the run stops, unless it had `stopped` before.
    fn poll_lanes(&mut self, cx: &mut Context<'_>, stopped: bool) {
        // The set takes a break after two futures that have woken themselves. Before running attempts are
        // told to end, and before they are dropped, all that are ready must have their turn.
        let is_last_turn = stopped && self.stop_at.is_none_or(|stop_at| Instant::now() >= stop_at);
        let mut breaks = if is_last_turn { self.lanes.len() / 2 + 1 } else { 0 };
        while stopped || !self.is_stopping() {
            match Pin::new(&mut self.lanes).poll_next(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Pending if breaks > 0 => breaks -= 1,
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        lock(&self.core).stop.is_some()
    }

    fn poll_stopping(&mut self, cx: &mut Context<'_>) -> Stopping {
        let mut core = lock(&self.core);
        if core.running == 0 {
            if self.stop_at.is_none() {
                core.forgive_timeout();
            }
            return Stopping::Over;
        }
        match self.stop_at {
            None => {
                let now = core.clock.read();
                drop(core);
                for lane in Pin::new(&mut self.lanes).iter_pin_mut() {
                    lane.stop();
                }
                if self.config.cancel_grace.is_zero() {
                    return Stopping::Over;
                }
                self.stop_at = Some(deadline(now, self.config.cancel_grace));
                Stopping::Told
            }
            Some(stop_at) if self.timer.poll(cx, stop_at).is_ready() => Stopping::Over,
            Some(_) => Stopping::Waiting,
        }
    }

    /// Ends a poll: sees to it that somebody wakes the driver in time.
    fn rest(&mut self, cx: &mut Context<'_>) {
        let mut core = lock(&self.core);
        core.clock.rest();
        let next = self.stop_at.or_else(|| core.next_deadline());
        if next.is_some_and(|next| self.timer.poll(cx, next).is_ready()) {
            cx.waker().wake_by_ref();
        }
    }

    fn finish(&mut self) -> Outcome<W> {
        self.lanes.clear();
        let mut core = lock(&self.core);
        let Tally { started, successes, failures, retries, timeouts, panics, first_failure } =
            mem::take(&mut core.tally);
        let total = core.final_total();
        let summary = Summary {
            total,
            successes,
            failures,
            cancelled: started - successes - failures,
            not_started: total - started,
            retries,
            timeouts,
            panics,
            elapsed: self.started.elapsed(),
        };
        let stop = core.stop.take();
        // More successes can be required than there are items, once it is known how many there are.
        let required = self.config.criteria.required(total);
        let known = stop.is_none() || core.total.is_some();
        let shortfall = Some(required).filter(|required| known && *required > total);
        let reason = match stop {
            Some(Stop::EarlySuccess) => None,
            Some(Stop::Failed(reason)) => Some(reason),
            None => match self.config.criteria.at_end(successes, failures) {
                Ok(()) => None,
                Err(Exceeded { failures, allowed }) => {
                    Some(FailureReason::TooManyFailures { failures, allowed })
                }
            },
        };
        match (&reason, shortfall) {
            (Some(FailureReason::TooManyFailures { .. }), Some(required)) => {
                let text = format_args!("{successes} items succeeded, {required} required");
                trace::verdict(&core.name, &summary, reason.as_ref(), &text);
            }
            (Some(text), _) => trace::verdict(&core.name, &summary, Some(text), text),
            (None, _) => trace::verdict(&core.name, &summary, None, &""),
        }
        if let Some(observer) = core.hooks.observer() {
            observer.on_event(&Event::RunFinished { summary: &summary, reason: reason.as_ref() });
        }
        let mut results = mem::take(&mut core.results);
        if (total - results.len()).saturating_mul(size_of::<Option<W::Output>>().max(1)) <= UNSTARTED_BYTES {
            results.resize_with(total, || None);
        }
        let result = MapTaskResult { results, errors: mem::take(&mut core.errors), summary };
        match reason {
            None => Ok(result),
            Some(reason) => {
                let name = mem::take(&mut core.name);
                Err(MapTaskError::new(name, reason, first_failure, shortfall, result))
            }
        }
    }
}

/// How far a run that stops has come.
enum Stopping {
    /// The running attempts have just been told.
    Told,
    /// They have time left to end.
    Waiting,
    /// Nothing runs any more, or the time is up.
    Over,
}

/// Locks what the lanes share. It is poisoned only where a panic of the caller's is on its way out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
