//! The driver: the only loop. It pulls, admits, settles and judges.

mod access;
mod admission;
mod attempt;
pub(crate) mod background;
pub(crate) mod blocking;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "only with `store` is there one"))]
pub(crate) mod cache;
pub(crate) mod call;
mod clock;
mod closing;
pub(crate) mod collector;
mod core;
mod desk;
mod drop_notice;
mod durable;
mod ending;
mod finish;
mod gate;
pub(crate) mod hooks;
pub(crate) mod in_context;
mod job;
mod lane;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "only with `store` is there one"))]
pub(crate) mod ledger;
pub(crate) mod mode;
mod orders;
pub(crate) mod outbox;
mod poll_budget;
pub(crate) mod queue;
mod relay;
pub(crate) mod running;
mod settle;
mod shift;
pub(crate) mod shutdown;
pub(crate) mod sink;
pub(crate) mod source;
mod stopping;
mod timer;
mod trace;
mod turn;
mod types;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Span;

use self::access::Locked;
use self::admission::Admission;
use self::call::Call;
use self::core::Core;
pub(crate) use self::ending::Ending;
use self::hooks::Hooks;
use self::lane::{Alone, Lane};
use self::mode::PollLanes;
use self::relay::Relay;
use self::running::Setup;
use self::shutdown::ShutDown;
use self::sink::Deliver;
use self::stopping::Stopping;
use self::timer::Timer;
pub(crate) use self::types::{Drive, Mode, Parts, Types, Work};
use crate::bell::Bell;
use crate::config::Config;
use crate::error::FailureReason;
use crate::observe::Event;
use crate::panic_payload::{Payload, discard};
use crate::rt::{AtomicBool, Instant, Mutex, coop};

/// Drives one run. Everything of the run is in here, so that dropping it leaves nothing behind.
pub(crate) struct Driver<W: Types> {
    config: Arc<Config>,
    span: Span,
    /// Where lanes run by themselves: set when they are to end.
    alarm: Option<Arc<AtomicBool>>,
    bell: Arc<Bell>,
    /// The lanes come before the core, because what runs in them is dropped before what it may use.
    lanes: <W::Mode as Mode>::Lanes<W>,
    /// Wakes the driver for the lanes that it polls itself.
    relay: Relay,
    core: Arc<Mutex<Core<W>>>,
    /// The caller's token, for as long as it may ring the bell.
    _cancelled: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    timer: Timer,
    /// Rings for the next [`sweep`](Self::sweep).
    sweep_timer: Timer,
    /// Set once the run is stopping: when what still runs is dropped.
    stop_at: Option<Instant>,
    /// Set once nothing runs any more, if the run has a time limit: when its store is no longer waited for.
    store_until: Option<Instant>,
    /// Whether nothing runs any more, or shall.
    is_over: bool,
    /// The end of the run, which nobody is told before the store is let go of.
    ending: Option<Ending<W::Output, W::Error>>,
    /// A panic of the caller's, which goes on once every running item was dropped.
    panic: Option<Payload>,
}

impl<W: Drive> Driver<W> {
    /// Begins the run: its clock starts here.
    pub(crate) fn new(setup: Setup<W>) -> Self {
        let started = Instant::now();
        let (config, token) = (Arc::clone(&setup.config), setup.token.clone());
        let mut core = Core::<W>::new(setup, started);
        if let Some(observer) = core.hooks.observer() {
            observer.on_event(&Event::RunStarted);
        }
        let cancelled = token.map(|token| {
            let mut cancelled = Box::pin(token.cancelled_owned());
            let waker = Waker::from(Arc::clone(&core.bell));
            let mut registered = coop::unconstrained(cancelled.as_mut());
            if Pin::new(&mut registered).poll(&mut Context::from_waker(&waker)).is_ready() {
                core.bell.look_at_token();
            }
            cancelled
        });
        let span = trace::run_span(&core.name, core.total(), config.concurrency);
        if let Some(notice) = &mut core.notice {
            notice.span = span.clone();
        }
        Self {
            span,
            config,
            alarm: core.alarm.clone(),
            bell: Arc::clone(&core.bell),
            lanes: Default::default(),
            relay: Relay::new(Arc::clone(&core.bell)),
            core: Arc::new(Mutex::new(core)),
            _cancelled: cancelled,
            timer: Timer::default(),
            sweep_timer: Timer::default(),
            stop_at: None,
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
            // Only the source, the sink, the observer and the hooks can panic here. That is the caller's to
            // see, but not before every running item is dropped.
            match catch_unwind(AssertUnwindSafe(|| self.drive(cx, sink))) {
                Ok(polled) => return polled,
                Err(payload) => {
                    self.sound_alarm();
                    self.panic = Some(payload);
                }
            }
        }
        // The first panic is the one that goes on.
        ready!(W::Mode::poll_clear(&mut self.lanes, cx)).into_iter().for_each(discard);
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
        if let Some(payload) = ready!(W::Mode::poll_clear(&mut self.lanes, cx)) {
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

    /// Ready once nothing runs any more, or shall.
    fn work(&mut self, cx: &mut Context<'_>, sink: &mut impl Deliver<W::Output, W::Error>) -> Poll<()> {
        // What has stopped the run from outside does not keep finished items from handing in their
        // results; a failure that stops it is the last that counts.
        self.bell.listen(cx.waker());
        let (_former, mut stopped, mut polls_lanes) = {
            let mut access = self.core();
            let core = access.get();
            let (former, stopped) = (core.set_driver(cx.waker()), core.begin_poll());
            (former, stopped, stopped || core.stop.is_none())
        };
        self.relay.begin_poll(W::Mode::count(&self.lanes));
        let mut is_tired = false;
        loop {
            if polls_lanes {
                self.poll_lanes(cx, stopped);
            }
            let Some(admission) = self.admit(cx, sink) else {
                match self.poll_stopping(cx) {
                    Stopping::Told => {
                        (stopped, polls_lanes) = (true, true);
                        continue;
                    }
                    Stopping::Waiting => break,
                    Stopping::Over => return Poll::Ready(()),
                }
            };
            match admission {
                Admission::Wake(waker) => waker.wake(),
                Admission::Open { seat } => {
                    let alone = {
                        let mut access = self.core();
                        let core = access.get();
                        let alone = core.call.share().zip(core.alarm.clone());
                        let (run_deadline, timed) = (core.run_deadline, core.timed);
                        alone.map(|(call, alarm)| Alone { call, alarm, run_deadline, timed })
                    };
                    let (core, config) = (Arc::clone(&self.core), Arc::clone(&self.config));
                    let lane = Lane::new(core, config, seat, alone);
                    W::Mode::open(&mut self.lanes, lane, &self.span);
                }
                Admission::Stop => stopped = true,
                Admission::Yield => {
                    is_tired = true;
                    break;
                }
                Admission::Wait => break,
                Admission::Finish => return Poll::Ready(()),
            }
            if !coop::has_budget_remaining() {
                is_tired = true;
                break;
            }
        }
        if self.relay.end_poll() || is_tired {
            if W::Mode::SPAWNED {
                cx.waker().wake_by_ref();
            } else {
                self.relay.yield_turn(cx);
            }
        }
        self.rest(cx);
        Poll::Pending
    }

    /// Takes what has settled beside the lanes, lets the sink have it, and assigns the next attempt. Returns `None` if the
    /// run is stopping.
    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Deliver<W::Output, W::Error>,
    ) -> Option<Admission> {
        if W::Mode::SPAWNED {
            self.core().get().take_kept();
            let _is_busy = self.poll_sink(cx, sink);
        }
        let mut access = self.core();
        let core = access.get();
        if !W::Mode::SPAWNED {
            core.take_kept();
            let _is_busy = core.deliver();
        }
        if core.stop.is_some() { None } else { Some(core.admit()) }
    }

    /// Polls every lane that was woken, until none is, until the budget of this poll is spent, or until the run stops,
    /// unless it had `stopped` before.
    fn poll_lanes(&mut self, cx: &mut Context<'_>, stopped: bool) {
        // Before running attempts are told to end, and before they are dropped, all that are ready must have their turn.
        let is_last_turn = stopped && self.stop_at.is_none_or(|stop_at| Instant::now() >= stop_at);
        if is_last_turn {
            self.relay.begin_poll(W::Mode::count(&self.lanes));
        }
        loop {
            let waker = if W::Mode::SPAWNED { cx.waker() } else { self.relay.waker() };
            match W::Mode::poll_next(&mut self.lanes, &mut Context::from_waker(waker)) {
                Poll::Ready(Some(ended)) => {
                    let mut access = Locked::new(&self.core);
                    let core = access.get();
                    if let Err(ShutDown) = ended {
                        core.halt(FailureReason::Cancelled);
                    }
                    if !stopped && core.stop.is_some() {
                        break;
                    }
                }
                // The set returns after two futures that have woken themselves, and after each future was polled once.
                // Without Tokio's budget no lane does anything.
                Poll::Pending
                    if self.relay.may_poll_again(|| {
                        let mut access = Locked::new(&self.core);
                        let core = access.get();
                        coop::has_budget_remaining()
                            && (is_last_turn || core.may_start())
                            && (stopped || core.stop.is_none())
                    }) => {}
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
    }

    /// Lets the sink have what has settled. Pending while it is busy.
    fn poll_sink(&mut self, cx: &mut Context<'_>, sink: &mut impl Deliver<W::Output, W::Error>) -> Poll<()> {
        let mut core = Locked::new(&self.core);
        if !W::Mode::SPAWNED {
            return core.get().deliver();
        }
        if !core.get().sink_failed {
            core.release();
            let next = || {
                let outcome = core.get().collector.take();
                core.release();
                outcome
            };
            if let Err(error) = ready!(sink.poll_deliver(cx, next)) {
                core.get().stop_for_sink(error);
            }
        }
        Poll::Ready(())
    }

    fn core(&self) -> Locked<'_, W> {
        Locked::new(&self.core)
    }

    /// From here on the run wakes the task that polls it now. Returns a waker of the task that polled it before, which is to
    /// be dropped while the core is not locked.
    fn set_waker(&self, cx: &Context<'_>) -> Option<Waker> {
        self.bell.listen(cx.waker());
        self.core().get().set_driver(cx.waker())
    }

    /// Ends a poll: sees to it that somebody wakes the driver in time.
    fn rest(&mut self, cx: &mut Context<'_>) {
        let mut access = Locked::new(&self.core);
        let core = access.get();
        core.publish();
        if let Some(took) = core.clock.rest() {
            core.budget.end_poll(took);
        }
        if core.running() == 0 {
            core.next_sweep = None;
        }
        let next = self.stop_at.or_else(|| core.next_deadline());
        let passed = next.map_or(Poll::Pending, |next| self.timer.poll(cx, next));
        let swept = core.next_sweep.map_or(Poll::Pending, |next| self.sweep_timer.poll(cx, next));
        if let (Poll::Ready(Err(ShutDown)), _) | (_, Poll::Ready(Err(ShutDown))) = (&passed, &swept) {
            core.halt(FailureReason::Cancelled);
        }
        if passed.is_ready() {
            cx.waker().wake_by_ref();
        }
        if swept.is_ready() {
            core.next_sweep = None;
            let wakers: Vec<_> = core.running_lanes().collect();
            drop(access);
            self.sweep(wakers);
        }
    }

    /// Has every lane look after the limit of its attempt from here on.
    ///
    /// Nearly all attempts end long before their limit, and a timer for each lane costs as much as several short items. So
    /// the driver has one for the first attempts of all items, which have the same limit. Only an attempt that is under way
    /// when it rings gets a timer of its own, at the latest when half of its limit has passed.
    #[cold]
    fn sweep(&mut self, wakers: Vec<Waker>) {
        W::Mode::for_each(&mut self.lanes, Lane::watch_limit);
        wakers.into_iter().for_each(Waker::wake);
    }
}
