//! The poll loop of a run. It is compiled once for all runs: it reaches the items and the workers through traits.

mod closing;
mod key_requests;
mod stopping;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};

use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Span;

use self::key_requests::KeyRequests;
use self::stopping::Stopping;
use super::items::Items;
use super::relay::Relay;
use super::scheduler::{Admission, Scheduler, Timers, Verdict};
use super::shutdown::ShutDown;
use super::state::{AnyState, State};
use super::state_guard::DriverGuard;
use super::trace;
use crate::config::Config;
use crate::error::BoxError;
use crate::observe::{Event, RunSettings};
use crate::panic_payload::{Payload, discard};
use crate::rt::{AtomicBool, Instant, coop};
use crate::signals::{SignalSource, Signals};

/// The part of a [`Driver`](super::Driver) that does not depend on the types of the run.
pub(super) struct DriverCore {
    config: Arc<Config>,
    span: Span,
    /// Tells parallel workers to end their attempts. `None` if the driver polls the workers.
    alarm: Option<Arc<AtomicBool>>,
    signals: Arc<Signals>,
    /// Wakes the driver for the workers that the driver polls.
    relay: Relay,
    /// Notifies the signals when a token of the caller is cancelled, for as long as this exists.
    _cancelled: [Option<Pin<Box<WaitForCancellationFutureOwned>>>; 2],
    /// Raises signals of the run, if an option asks for it.
    signal_source: Option<SignalSource>,
    timers: Timers,
    /// The requests for permits of keys, if items have keys.
    key_requests: Option<KeyRequests>,
    /// The time until which the run waits for its store. Set once nothing runs any more, if the run has a time limit.
    store_until: Option<Instant>,
    /// If the observers know that the run is stopping: `true` if its attempts may finish.
    told_stopping: Option<bool>,
    /// `true` once nothing runs any more, or may run.
    is_over: bool,
    /// The verdict of the run. It is returned only after the store is released.
    pub(super) verdict: Option<Verdict>,
    /// A panic of the caller's code. It is resumed once every running item is dropped.
    pub(super) panic: Option<Payload>,
}

/// The operations on the workers and the sink that need not know the types of the run.
pub(super) trait Workers {
    /// Opens a worker.
    fn open(&mut self, id: usize, span: &Span);

    /// Polls the workers that were woken, until the rounds are over.
    // The loop is here, and not in the driver: the compiler then knows that the code below it is hot.
    fn poll(&mut self, cx: &mut Context<'_>, rounds: &mut dyn Rounds);

    /// Returns how many workers there are.
    fn count(&self) -> usize;

    /// Makes every worker check the limit of its attempt from now on, if the driver polls the workers.
    fn watch_limits(&mut self);

    /// Tells the running attempts to end, if the driver polls the workers.
    fn stop(&mut self);

    /// Drops all workers. Ready once nothing of them is left, with the first panic of the caller's code on the way.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<Option<Payload>>;

    /// Delivers outcomes to the sink that only the driver can reach. Pending while the sink is busy.
    fn poll_sink(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
}

/// Decides how long the workers are polled.
pub(super) trait Rounds {
    /// Takes the end of a worker; `Err` if its runtime has dropped it. Returns `true` if other workers are to be polled.
    fn end_worker(&mut self, ended: Result<(), ShutDown>) -> bool;

    /// Returns `true` if the workers are to be polled again, although none of them was ready in this round.
    fn may_poll_again(&mut self) -> bool;
}

impl DriverCore {
    /// Creates the driver of a run, and starts it.
    pub(super) fn new(scheduler: &mut Scheduler, items: &mut dyn Items) -> Self {
        scheduler.use_observers_of_run();
        let (total, concurrency) = (scheduler.total(), scheduler.config.concurrency);
        let (name, settings) = (&*scheduler.name, RunSettings(&*scheduler.config));
        scheduler.emit(items.observer(), &Event::RunStarted { name, total, concurrency, settings });
        let cancelled = scheduler.listen_to_tokens();
        let listen =
            scheduler.listen.map(|listen| listen(Arc::clone(&scheduler.signals), scheduler.name.clone()));
        let span = trace::run_span(&scheduler.name, total, concurrency);
        items.set_notice_span(&span);
        Self {
            span,
            config: Arc::clone(&scheduler.config),
            alarm: scheduler.alarm.clone(),
            signals: Arc::clone(&scheduler.signals),
            relay: Relay::new(Arc::clone(&scheduler.signals)),
            _cancelled: cancelled,
            signal_source: listen,
            timers: Timers::default(),
            key_requests: scheduler.keys.is_some().then(KeyRequests::default),
            store_until: None,
            told_stopping: None,
            is_over: false,
            verdict: None,
            panic: None,
        }
    }

    fn is_parallel(&self) -> bool {
        self.alarm.is_some()
    }

    /// Ready with the verdict, or with a panic of the caller's code.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
    ) -> Poll<Result<Verdict, Payload>> {
        ready!(coop::poll_proceed(cx)).made_progress();
        let span = self.span.clone();
        let _entered = span.enter();
        if self.panic.is_none() {
            // Only the source, the sink, the observer and the hooks can panic here. The caller gets the panic, but only
            // after every running item is dropped.
            match catch_unwind(AssertUnwindSafe(|| self.drive(cx, state, workers))) {
                Ok(polled) => return polled.map(Ok),
                Err(payload) => {
                    self.sound_alarm();
                    self.panic = Some(payload);
                }
            }
        }
        // The first panic is the one that is resumed.
        ready!(workers.poll_clear(cx)).into_iter().for_each(discard);
        self.panic.take().map_or(Poll::Pending, |payload| Poll::Ready(Err(payload)))
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
    ) -> Poll<Verdict> {
        if !self.is_over {
            ready!(self.work(cx, state, workers));
            self.is_over = true;
        }
        if let Some(payload) = ready!(workers.poll_clear(cx)) {
            resume_unwind(payload);
        }
        if self.verdict.is_none() {
            ready!(self.poll_settled(cx, state));
            ready!(self.poll_sink(cx, state, workers));
            self.verdict = Some(finish(state));
        }
        ready!(self.poll_closed(cx, state));
        self.verdict.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ready once nothing runs any more, or may run.
    fn work(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>, workers: &mut dyn Workers) -> Poll<()> {
        // If the run was stopped from outside, finished items still deliver their results. If a failure stops the run, no
        // later result counts.
        self.signals.register(cx.waker());
        self.poll_signal_source(cx);
        let (_former, mut stopped, mut polls_workers) = {
            let mut guard = DriverGuard::new(state);
            let state = guard.get();
            let (former, stopped) = (state.scheduler.set_driver(cx.waker()), state.begin_poll());
            (former, stopped, stopped || state.scheduler.stop.is_none())
        };
        self.has_key_grants(cx, state);
        self.relay.begin_poll(workers.count());
        let mut must_yield = false;
        loop {
            if polls_workers {
                self.poll_workers(cx, state, workers, stopped);
            }
            let admission = self.admit(cx, state, workers);
            if matches!(admission, None | Some(Admission::Wait)) && self.has_key_grants(cx, state) {
                continue;
            }
            let Some(admission) = admission else {
                match self.poll_stopping(cx, state, workers) {
                    Stopping::Notified => {
                        (stopped, polls_workers) = (true, true);
                        continue;
                    }
                    Stopping::Waiting => break,
                    Stopping::Over => return Poll::Ready(()),
                }
            };
            match admission {
                Admission::Wake(waker) => waker.wake(),
                Admission::Open { id } => workers.open(id, &self.span),
                Admission::Stop => stopped = true,
                Admission::Yield => {
                    must_yield = true;
                    break;
                }
                Admission::Wait => break,
                Admission::Finish => return Poll::Ready(()),
            }
            if !coop::has_budget_remaining() {
                must_yield = true;
                break;
            }
        }
        if self.relay.end_poll() || must_yield {
            if self.is_parallel() {
                cx.waker().wake_by_ref();
            } else {
                self.relay.yield_to_executor(cx);
            }
        }
        self.end_poll(cx, state, workers);
        Poll::Pending
    }

    fn poll_signal_source(&mut self, cx: &mut Context<'_>) {
        if self.signal_source.as_mut().is_some_and(|source| source.as_mut().poll(cx).is_ready()) {
            self.signal_source = None;
        }
    }

    /// Takes the items that have settled outside the workers, delivers outcomes to the sink, and assigns the next attempt.
    /// Returns `None` if the run is stopping.
    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
    ) -> Option<Admission> {
        if self.is_parallel() {
            take_kept(DriverGuard::new(state).get());
            let _is_busy = self.poll_sink(cx, state, workers);
        }
        let mut guard = DriverGuard::new(state);
        let state = guard.get();
        if !self.is_parallel() {
            take_kept(state);
            let _is_busy = state.items.deliver(&mut state.scheduler);
        }
        if state.scheduler.stop.is_some() { None } else { Some(state.admit()) }
    }

    /// Polls the woken workers until no worker is woken, the budget of this poll is spent, or the run stops. If the run had
    /// `stopped` before, only the first two end the loop.
    fn poll_workers(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
        stopped: bool,
    ) {
        // All workers that are ready are polled before running attempts are told to end, and again before these are dropped.
        let is_last_round = stopped && self.timers.stop_at.is_none_or(|stop_at| Instant::now() >= stop_at);
        if is_last_round {
            self.relay.begin_poll(workers.count());
        }
        let waker = if self.is_parallel() { cx.waker() } else { self.relay.waker() };
        let mut rounds = PollRounds { relay: &self.relay, state, stopped, is_last_round };
        workers.poll(&mut Context::from_waker(waker), &mut rounds);
    }

    /// Delivers outcomes to the sink. Pending while the sink is busy.
    fn poll_sink(
        &mut self,
        cx: &mut Context<'_>,
        state: &AnyState<'_>,
        workers: &mut dyn Workers,
    ) -> Poll<()> {
        if self.is_parallel() {
            if let Err(error) = ready!(workers.poll_sink(cx)) {
                let mut guard = DriverGuard::new(state);
                let state = guard.get();
                state.scheduler.stop_for_sink(error);
                state.items.clear_outcomes();
            }
            return Poll::Ready(());
        }
        let mut guard = DriverGuard::new(state);
        let state = guard.get();
        state.items.deliver(&mut state.scheduler)
    }

    /// Makes the run wake the task that polls it now. Returns the waker of the task that polled it before. It must be
    /// dropped while the state is not locked.
    fn set_waker(&self, cx: &Context<'_>, state: &AnyState<'_>) -> Option<Waker> {
        self.signals.register(cx.waker());
        DriverGuard::new(state).get().scheduler.set_driver(cx.waker())
    }

    /// Ends a poll: makes sure that the driver is woken in time.
    fn end_poll(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>, workers: &mut dyn Workers) {
        if self.key_requests.is_some() {
            self.end_key_requests(cx, state);
        }
        let mut guard = DriverGuard::new(state);
        let state = guard.get();
        state.publish();
        let running = state.scheduler.running();
        match state.scheduler.end_poll(running, &mut self.timers, cx) {
            Ok(wakers) if wakers.is_empty() => {}
            Ok(wakers) => {
                drop(guard);
                sweep(workers, wakers);
            }
            Err(ShutDown) => state.scheduler.halt_for_shutdown(),
        }
    }

    pub(super) fn sound_alarm(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.store(true, Ordering::Release);
        }
    }
}

/// The rounds in which one poll of the driver polls the workers.
struct PollRounds<'a, 'b> {
    relay: &'a Relay,
    state: &'a AnyState<'b>,
    /// `true` if the run had stopped before.
    stopped: bool,
    is_last_round: bool,
}

impl Rounds for PollRounds<'_, '_> {
    fn end_worker(&mut self, ended: Result<(), ShutDown>) -> bool {
        let mut guard = DriverGuard::new(self.state);
        let state = guard.get();
        if let Err(ShutDown) = ended {
            state.scheduler.halt_for_shutdown();
        }
        self.stopped || state.scheduler.stop.is_none()
    }

    // The set returns after two futures that have woken themselves, and after each future was polled once. Without Tokio's
    // budget, a worker does nothing.
    fn may_poll_again(&mut self) -> bool {
        self.relay.may_poll_again(|| {
            let mut guard = DriverGuard::new(self.state);
            let state = guard.get();
            coop::has_budget_remaining()
                && (self.is_last_round || state.may_start())
                && (self.stopped || state.scheduler.stop.is_none())
        })
    }
}

/// Makes every worker check the limit of its attempt from now on.
///
/// Nearly all attempts end long before their limit, and a timer for each worker costs as much as several short items. So the
/// driver has one timer for the first attempts of all items, which have the same limit. Only an attempt that is running when
/// this timer fires gets a timer of its own. This happens at the latest when half of its limit has passed.
#[cold]
fn sweep(workers: &mut dyn Workers, wakers: Vec<Waker>) {
    workers.watch_limits();
    wakers.into_iter().for_each(Waker::wake);
}

/// Takes the items that have settled outside the workers.
fn take_kept(state: &mut State<dyn Items + '_>) {
    if let Some(items) = state.items.durable() {
        items.take_kept(&mut state.scheduler);
    }
}

/// Ends the account of the run and judges it, logs the verdict and notifies the observer.
fn finish(state: &AnyState<'_>) -> Verdict {
    let mut guard = DriverGuard::new(state);
    let state = guard.get();
    if let (Some(items), true) = (state.items.durable(), state.scheduler.stop.is_some()) {
        items.carry_rest(&mut state.scheduler);
    }
    state.items.give_back();
    let verdict = state.scheduler.end();
    verdict.log();
    let (summary, reason) = (&verdict.summary, verdict.reason.as_ref());
    state.scheduler.emit(state.items.observer(), &Event::RunFinished { summary, reason });
    verdict
}
