//! A place that works through one item after another.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;

use super::attempt::{Watch, drop_caught, poll_caught};
use super::call::Call;
use super::clock::deadline;
use super::core::{Core, Turn};
use super::gate::Place;
use super::job::{Desk, Ended, Job};
use super::shift::Shift;
use super::timer::Timer;
use super::{Mode, Types, Work};
use crate::config::Config;
use crate::context::Signal;
use crate::lock::{lock, lock_patiently};
use crate::outcome::ItemError;

pin_project! {
    /// A place of the run at work: it takes an item, makes one attempt at it, hands in what became of it and
    /// takes the next. It holds its permits for as long as there is work. Between two items it allocates nothing.
    #[project = LaneProjection]
    pub struct Lane<W: Types> {
        core: Arc<Mutex<Core<W>>>,
        config: Arc<Config>,
        seat: usize,
        place: Place,
        // Only where lanes run by themselves.
        alone: Option<Alone<W::Call>>,
        job: Option<Job<W::Item>>,
        // Whether the attempt was begun before the lane had to yield, and not polled since.
        is_unpolled: bool,
        #[pin]
        attempt: Option<W::Future>,
        // Whether the attempt has ended for its item and not yet in truth.
        lingers: bool,
        watch: Watch,
        timer: Timer,
        signal: Arc<Signal>,
    }

    impl<W: Types> PinnedDrop for Lane<W> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(job), true) = (this.job, this.attempt.is_some()) {
                Signal::cancel(this.signal);
                job.span.in_scope(|| drop_caught(this.attempt));
            }
        }
    }
}

/// What a lane needs to run by itself, side by side with others.
pub(super) struct Alone<C> {
    pub(super) call: C,
    pub(super) alarm: Arc<AtomicBool>,
    pub(super) run_deadline: Option<Instant>,
    /// Whether somebody is told how long each item took.
    pub(super) timed: bool,
}

impl<W: Work> Lane<W> {
    pub(super) fn new(
        core: Arc<Mutex<Core<W>>>,
        config: Arc<Config>,
        seat: usize,
        place: Place,
        alone: Option<Alone<W::Call>>,
    ) -> Self {
        Self {
            core,
            config,
            seat,
            place,
            alone,
            job: None,
            is_unpolled: false,
            attempt: None,
            lingers: false,
            watch: Watch::Unlimited,
            timer: Timer::default(),
            signal: Arc::default(),
        }
    }

    /// Tells a running attempt to end. From here on the run's grace is its only limit.
    pub(super) fn stop(self: Pin<&mut Self>) {
        self.project().stop();
    }
}

impl<W: Work> LaneProjection<'_, W> {
    fn stop(&mut self) {
        if self.attempt.is_some() {
            Signal::cancel(self.signal);
            if !matches!(self.watch, Watch::Grace(..)) {
                *self.watch = Watch::Unlimited;
            }
        }
    }

    /// Polls the attempt, then its limit: a finished result beats a timeout of the same poll.
    #[inline]
    fn poll_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Ended<W>> {
        let Some(job) = &*self.job else { return Poll::Pending };
        let attempts = job.attempt;
        let polled = job.span.in_scope(|| poll_caught(self.attempt.as_mut(), cx, attempts));
        match polled {
            Poll::Ready(Err(ItemError::Failed { error, attempts })) => Poll::Ready(Err(match self.watch {
                // Whatever it says now, it says because it was told to end.
                Watch::Grace(limit, _) => limit.error(attempts),
                _ => ItemError::Failed { error, attempts },
            })),
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                if let Watch::Begun(dated) = *self.watch {
                    if W::Mode::SPAWNED {
                        self.date_anew(Shift::latest_start(dated));
                    }
                    let started = self.job.as_ref().and_then(|job| job.started);
                    *self.watch =
                        self.watch.limit(self.config, started).map_or(Watch::Unlimited, Watch::Until);
                }
                self.poll_watch(cx, attempts)
            }
        }
    }

    /// Corrects when an attempt began that has not waited yet: its limits run from its first poll.
    fn date_anew(&mut self, start: Instant) {
        if let Some(job) = self.job.as_mut().filter(|job| job.attempt == 1) {
            job.started = Some(start);
        }
        if let Watch::Begun(_) = self.watch {
            *self.watch = Watch::Begun(start);
        }
    }

    /// Ready once the attempt is out of time, and dropped.
    fn poll_watch(&mut self, cx: &mut Context<'_>, attempts: u32) -> Poll<Ended<W>> {
        let limit = match *self.watch {
            Watch::Unlimited | Watch::Begun(_) => return Poll::Pending,
            Watch::Grace(limit, until) => {
                ready!(self.timer.poll(cx, until));
                limit
            }
            Watch::Until(limit) => {
                ready!(self.timer.poll(cx, limit.deadline()));
                let (now, latest) = {
                    let mut core = lock(self.core);
                    (core.clock.read(), limit.latest_deadline(&core.clock))
                };
                if now < latest {
                    ready!(self.timer.poll(cx, latest));
                }
                Signal::cancel(self.signal);
                if !self.config.cancel_grace.is_zero() {
                    let until = deadline(now, self.config.cancel_grace);
                    *self.watch = Watch::Grace(limit, until);
                    ready!(self.timer.poll(cx, until));
                }
                limit
            }
        };
        if self.attempt.as_ref().as_pin_ref().is_some_and(|attempt| W::Call::goes_on(&attempt)) {
            *self.lingers = true;
        } else if let Some(job) = &*self.job {
            job.span.in_scope(|| drop_caught(self.attempt.as_mut()));
        }
        Poll::Ready(Err(limit.error(attempts)))
    }
}

impl<W: Work> Future for Lane<W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Without budget nothing of Tokio's would be ready here, and what was polled for nothing would
        // come after those that have used it up, time and again.
        if !coop::has_budget_remaining() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut this = self.project();
        if let (true, Some(alone)) = (W::Mode::SPAWNED, &this.alone) {
            if alone.alarm.load(Ordering::Acquire) {
                this.stop();
            }
        }
        if *this.lingers {
            ready!(poll_caught(this.attempt.as_mut(), cx, 0)).ok();
            *this.lingers = false;
        }
        let mut ended = None;
        let mut shift = W::Mode::SPAWNED.then(Shift::begin);
        if mem::take(this.is_unpolled) {
            this.date_anew(Instant::now());
        }
        loop {
            if this.attempt.is_none() || ended.is_some() {
                let is_tired = shift.as_mut().is_some_and(Shift::is_over);
                let mut desk = Desk {
                    job: this.job,
                    attempt: this.attempt.as_mut(),
                    watch: this.watch,
                    signal: this.signal,
                    place: this.place,
                    lingers: *this.lingers,
                    yields: false,
                    is_tired,
                };
                let turn = lock_patiently(this.core).turn(*this.seat, ended.take(), &mut desk, cx.waker());
                match (turn, this.alone.as_ref().zip(shift.as_mut())) {
                    (Turn::Attempt, _) => {}
                    (Turn::Begin(item), Some((alone, shift))) => {
                        desk.date(this.config, shift.turn(alone.timed));
                        let begun = desk.call(&alone.call, this.config, alone.run_deadline, item);
                        if let Err(error) = begun {
                            ended = Some(Err(error));
                            continue;
                        }
                        if desk.yields {
                            *this.is_unpolled = true;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                    (Turn::Yield, _) => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    (Turn::Rest | Turn::Linger | Turn::Begin(_), _) => return Poll::Pending,
                    (Turn::Retire, _) => return Poll::Ready(()),
                }
            }
            ended = Some(ready!(this.poll_attempt(cx)));
        }
    }
}
