//! The driver: the only loop of a run. It pulls items, admits attempts, settles items and judges the run.

mod admission;
mod attempt;
mod attempt_slot;
pub(crate) mod background;
pub(crate) mod blocking;
pub(crate) mod call;
mod closing;
pub(crate) mod collector;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod commit_log;
mod control;
mod drop_notice;
mod durable;
mod ending;
mod finish;
pub(crate) mod hooks;
pub(crate) mod in_context;
mod job;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod lookups;
pub(crate) mod mode;
mod next_step;
pub(crate) mod outcome_channel;
pub(crate) mod outcome_queue;
mod outlined;
mod relay;
mod retry_slots;
pub(crate) mod running;
mod scheduler;
mod settle;
pub(crate) mod shutdown;
pub(crate) mod sink;
pub(crate) mod source;
mod state;
mod state_guard;
mod stopping;
mod time_slice;
mod timer;
mod trace;
mod types;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Span;

use self::call::Call;
pub(crate) use self::ending::Ending;
use self::hooks::Hooks;
use self::mode::PollWorkers;
use self::relay::Relay;
use self::running::Setup;
use self::scheduler::{Admission, Timers};
use self::shutdown::ShutDown;
use self::sink::Deliver;
use self::state::State;
use self::state_guard::DriverGuard;
use self::stopping::Stopping;
pub(crate) use self::types::{Drive, Mode, Parts, Types, Work};
use self::worker::{ParallelParts, Worker};
use crate::config::Config;
use crate::error::FailureReason;
use crate::observe::Event;
use crate::panic_payload::{Payload, discard};
use crate::rt::{AtomicBool, Instant, Mutex, coop};
use crate::signals::Signals;

/// Drives one run. It owns all parts of the run, so that dropping it leaves nothing behind.
pub(crate) struct Driver<W: Types> {
    config: Arc<Config>,
    span: Span,
    /// Tells parallel workers to end their attempts. `None` if the driver polls the workers.
    alarm: Option<Arc<AtomicBool>>,
    signals: Arc<Signals>,
    /// Declared before the state, because the attempts in the workers are dropped before the values that they may use.
    workers: <W::Mode as Mode>::Workers<W>,
    /// Wakes the driver for the workers that the driver polls.
    relay: Relay,
    state: Arc<Mutex<State<W>>>,
    /// Notifies the signals when the caller's token is cancelled, for as long as this exists.
    _cancelled: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    timers: Timers,
    /// The time until which the run waits for its store. Set once nothing runs any more, if the run has a time limit.
    store_until: Option<Instant>,
    /// `true` once nothing runs any more, or may run.
    is_over: bool,
    /// The end of the run. It is returned only after the store is released.
    ending: Option<Ending<W::Output, W::Error>>,
    /// A panic of the caller's code. It is resumed once every running item is dropped.
    panic: Option<Payload>,
}

impl<W: Drive> Driver<W> {
    /// Creates the driver and starts the clock of the run.
    pub(crate) fn new(setup: Setup<W>) -> Self {
        let started = Instant::now();
        let config = Arc::clone(&setup.options.config);
        let mut state = State::<W>::new(setup, started);
        if let Some(observer) = state.hooks.observer() {
            observer.on_event(&Event::RunStarted);
        }
        let cancelled = state.scheduler.listen_to_token();
        let span = trace::run_span(&state.scheduler.name, state.scheduler.total(), config.concurrency);
        if let Some(notice) = &mut state.notice {
            notice.set_span(span.clone());
        }
        Self {
            span,
            config,
            alarm: state.scheduler.alarm.clone(),
            signals: Arc::clone(&state.scheduler.signals),
            workers: Default::default(),
            relay: Relay::new(Arc::clone(&state.scheduler.signals)),
            state: Arc::new(Mutex::new(state)),
            _cancelled: cancelled,
            timers: Timers::default(),
            store_until: None,
            is_over: false,
            ending: None,
            panic: None,
        }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Deliver<W::Output, W::Error>,
    ) -> Poll<Ending<W::Output, W::Error>> {
        ready!(coop::poll_proceed(cx)).made_progress();
        let span = self.span.clone();
        let _entered = span.enter();
        if self.panic.is_none() {
            // Only the source, the sink, the observer and the hooks can panic here. The caller gets the panic, but only
            // after every running item is dropped.
            match catch_unwind(AssertUnwindSafe(|| self.drive(cx, sink))) {
                Ok(polled) => return polled,
                Err(payload) => {
                    self.sound_alarm();
                    self.panic = Some(payload);
                }
            }
        }
        // The first panic is the one that is resumed.
        ready!(W::Mode::poll_clear(&mut self.workers, cx)).into_iter().for_each(discard);
        let Some(payload) = self.panic.take() else { return Poll::Pending };
        self.withdraw_notice();
        resume_unwind(payload)
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Deliver<W::Output, W::Error>,
    ) -> Poll<Ending<W::Output, W::Error>> {
        if !self.is_over {
            ready!(self.work(cx, sink));
            self.is_over = true;
        }
        if let Some(payload) = ready!(W::Mode::poll_clear(&mut self.workers, cx)) {
            resume_unwind(payload);
        }
        if self.ending.is_none() {
            ready!(self.poll_settled(cx));
            ready!(self.poll_sink(cx, sink));
            self.ending = Some(self.finish());
        }
        ready!(self.poll_closed(cx));
        self.withdraw_notice();
        self.ending.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ready once nothing runs any more, or may run.
    fn work(&mut self, cx: &mut Context<'_>, sink: &mut impl Deliver<W::Output, W::Error>) -> Poll<()> {
        // If the run was stopped from outside, finished items still deliver their results. If a failure stops the run, no
        // later result counts.
        self.signals.register(cx.waker());
        let (_former, mut stopped, mut polls_workers) = {
            let mut guard = self.state();
            let state = guard.get();
            let (former, stopped) = (state.scheduler.set_driver(cx.waker()), state.begin_poll());
            (former, stopped, stopped || state.scheduler.stop.is_none())
        };
        self.relay.begin_poll(W::Mode::count(&self.workers));
        let mut must_yield = false;
        loop {
            if polls_workers {
                self.poll_workers(cx, stopped);
            }
            let Some(admission) = self.admit(cx, sink) else {
                match self.poll_stopping(cx) {
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
                Admission::Open { id } => {
                    let parallel = {
                        let mut guard = self.state();
                        let state = guard.get();
                        let parallel = state.call.clone_fn().zip(state.scheduler.alarm.clone());
                        let (run_deadline, timed) = (state.scheduler.run_deadline, state.scheduler.timed);
                        parallel.map(|(call, alarm)| ParallelParts { call, alarm, run_deadline, timed })
                    };
                    let (state, config) = (Arc::clone(&self.state), Arc::clone(&self.config));
                    let worker = Worker::new(state, config, id, parallel);
                    W::Mode::open(&mut self.workers, worker, &self.span);
                }
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
            if W::Mode::PARALLEL {
                cx.waker().wake_by_ref();
            } else {
                self.relay.yield_to_executor(cx);
            }
        }
        self.end_poll(cx);
        Poll::Pending
    }

    /// Takes the items that have settled outside the workers, delivers outcomes to the sink, and assigns the next attempt.
    /// Returns `None` if the run is stopping.
    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Deliver<W::Output, W::Error>,
    ) -> Option<Admission> {
        if W::Mode::PARALLEL {
            self.state().get().take_kept();
            let _is_busy = self.poll_sink(cx, sink);
        }
        let mut guard = self.state();
        let state = guard.get();
        if !W::Mode::PARALLEL {
            state.take_kept();
            let _is_busy = state.deliver();
        }
        if state.scheduler.stop.is_some() { None } else { Some(state.admit()) }
    }

    /// Polls the woken workers until no worker is woken, the budget of this poll is spent, or the run stops. If the run had
    /// `stopped` before, only the first two end the loop.
    fn poll_workers(&mut self, cx: &mut Context<'_>, stopped: bool) {
        // All workers that are ready are polled before running attempts are told to end, and again before these are dropped.
        let is_last_round = stopped && self.timers.stop_at.is_none_or(|stop_at| Instant::now() >= stop_at);
        if is_last_round {
            self.relay.begin_poll(W::Mode::count(&self.workers));
        }
        loop {
            let waker = if W::Mode::PARALLEL { cx.waker() } else { self.relay.waker() };
            match W::Mode::poll_next(&mut self.workers, &mut Context::from_waker(waker)) {
                Poll::Ready(Some(ended)) => {
                    let mut guard = DriverGuard::new(&self.state);
                    let state = guard.get();
                    if let Err(ShutDown) = ended {
                        state.halt(FailureReason::Cancelled);
                    }
                    if !stopped && state.scheduler.stop.is_some() {
                        break;
                    }
                }
                // The set returns after two futures that have woken themselves, and after each future was polled once.
                // Without Tokio's budget, a worker does nothing.
                Poll::Pending
                    if self.relay.may_poll_again(|| {
                        let mut guard = DriverGuard::new(&self.state);
                        let state = guard.get();
                        coop::has_budget_remaining()
                            && (is_last_round || state.may_start())
                            && (stopped || state.scheduler.stop.is_none())
                    }) => {}
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
    }

    /// Delivers outcomes to the sink. Pending while the sink is busy.
    fn poll_sink(&mut self, cx: &mut Context<'_>, sink: &mut impl Deliver<W::Output, W::Error>) -> Poll<()> {
        let mut state = DriverGuard::new(&self.state);
        if !W::Mode::PARALLEL {
            return state.get().deliver();
        }
        if !state.get().scheduler.sink_failed {
            state.release();
            let next = || {
                let outcome = state.get().collector.take();
                state.release();
                outcome
            };
            if let Err(error) = ready!(sink.poll_deliver(cx, next)) {
                state.get().stop_for_sink(error);
            }
        }
        Poll::Ready(())
    }

    fn state(&self) -> DriverGuard<'_, W> {
        DriverGuard::new(&self.state)
    }

    /// Makes the run wake the task that polls it now. Returns the waker of the task that polled it before. It must be
    /// dropped while the state is not locked.
    fn set_waker(&self, cx: &Context<'_>) -> Option<Waker> {
        self.signals.register(cx.waker());
        self.state().get().scheduler.set_driver(cx.waker())
    }

    /// Ends a poll: makes sure that the driver is woken in time.
    fn end_poll(&mut self, cx: &mut Context<'_>) {
        let mut guard = DriverGuard::new(&self.state);
        let state = guard.get();
        state.publish();
        let running = state.running();
        match state.scheduler.end_poll(running, &mut self.timers, cx) {
            Ok(wakers) if wakers.is_empty() => {}
            Ok(wakers) => {
                drop(guard);
                self.sweep(wakers);
            }
            Err(ShutDown) => state.halt(FailureReason::Cancelled),
        }
    }

    /// Makes every worker check the limit of its attempt from now on.
    ///
    /// Nearly all attempts end long before their limit, and a timer for each worker costs as much as several short items. So
    /// the driver has one timer for the first attempts of all items, which have the same limit. Only an attempt that is
    /// running when this timer fires gets a timer of its own. This happens at the latest when half of its limit has passed.
    #[cold]
    fn sweep(&mut self, wakers: Vec<Waker>) {
        W::Mode::for_each(&mut self.workers, Worker::watch_limit);
        wakers.into_iter().for_each(Waker::wake);
    }
}
