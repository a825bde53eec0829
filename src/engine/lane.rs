//! A place that works through one item after another.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::access::Access;
use super::core::Core;
use super::desk::Desk;
use super::shift::Shift;
use super::turn::Turn;
use super::{Mode, Types, Work};
use crate::config::Config;
use crate::outcome::ItemError;
use crate::rt::{AtomicBool, Instant, Mutex, coop};

pin_project! {
    /// A place of the run at work: it takes an item, makes one attempt at it, hands in what became of it and
    /// takes the next. It holds its permits for as long as there is work. Between two items it allocates nothing.
    #[project = LaneProjection]
    pub struct Lane<W: Types> {
        core: Arc<Mutex<Core<W>>>,
        config: Arc<Config>,
        seat: usize,
        // Only where lanes run by themselves.
        alone: Option<Alone<W::Call>>,
        #[pin]
        desk: Desk<W>,
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
        alone: Option<Alone<W::Call>>,
    ) -> Self {
        Self { core, config, seat, alone, desk: Desk::new() }
    }

    /// Looks after the limit of a running attempt from here on. It is to be polled.
    pub(super) fn watch_limit(self: Pin<&mut Self>) {
        let this = self.project();
        this.desk.project().work_out_limit(this.config);
    }

    /// Tells a running attempt to end. From here on the run's grace is its only limit.
    pub(super) fn stop(self: Pin<&mut Self>) {
        self.project().desk.project().stop();
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
        let LaneProjection { core, config, seat, alone, mut desk } = self.project();
        if let (true, Some(alone)) = (W::Mode::SPAWNED, &*alone) {
            if alone.alarm.load(Ordering::Acquire) {
                desk.as_mut().project().stop();
            }
        }
        ready!(desk.as_mut().project().poll_lingering(cx));
        let mut shift = W::Mode::SPAWNED.then(Shift::default);
        let mut core = Access::new(core);
        let mut begun = Ok(());
        if !desk.as_mut().project().is_taken() {
            let turn = core.get().arrive(*seat, desk.as_mut(), cx.waker());
            core.release();
            begun = match take_up(turn, alone.as_ref().zip(shift.as_mut()), config, desk.as_mut(), cx) {
                ControlFlow::Continue(begun) => begun,
                ControlFlow::Break(polled) => return polled,
            };
        }
        loop {
            let mut is_tired = false;
            let at_once = match begun {
                Ok(()) => loop {
                    match desk.as_mut().project().poll(cx, config, &mut core) {
                        Poll::Pending => {
                            // A lane that has been to the core has begun an attempt, which was counted. Two lanes that
                            // have woken themselves end the poll of all.
                            if !W::Mode::SPAWNED {
                                if core.is_held() {
                                    core.get().cover_first_wait();
                                } else {
                                    count_poll(&mut core, cx);
                                }
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(output)) => {
                            if let Some(shift) = &mut shift {
                                is_tired = come_back(shift, &mut core, desk.as_mut());
                            }
                            let (state, mut parts) = (core.get(), desk.as_mut().project());
                            state.take_success(output, &mut parts);
                            let turn = state.begin_at_once(&mut parts, is_tired);
                            match (turn, alone.as_ref().zip(shift.as_mut())) {
                                (Some(Turn::Attempt), _) => {}
                                (Some(Turn::Begin { item, .. }), Some((alone, shift))) => {
                                    core.release();
                                    let begun = begin_alone(alone, config, shift, desk.as_mut(), item);
                                    if let Err(error) = begun {
                                        core.get().take_failure(error, desk.as_mut());
                                        break None;
                                    }
                                }
                                (turn, _) => break turn,
                            }
                        }
                        Poll::Ready(Err(error)) => {
                            if let Some(shift) = &mut shift {
                                is_tired = come_back(shift, &mut core, desk.as_mut());
                            }
                            core.get().take_failure(error, desk.as_mut());
                            break None;
                        }
                    }
                },
                Err(error) => {
                    leave_shared(&mut core, desk.as_mut());
                    core.get().take_failure(error, desk.as_mut());
                    None
                }
            };
            let turn = match at_once {
                Some(turn) => turn,
                None => core.get().go_on(*seat, is_tired, desk.as_mut(), cx.waker()),
            };
            core.release();
            begun = match take_up(turn, alone.as_ref().zip(shift.as_mut()), config, desk.as_mut(), cx) {
                ControlFlow::Continue(begun) => begun,
                ControlFlow::Break(polled) => return polled,
            };
        }
    }
}

/// Does what the lane is to do next: breaks with the end of its poll, or goes on with an attempt that is under way or
/// has failed at once.
fn take_up<W: Work>(
    turn: Turn<W::Item>,
    by_itself: Option<(&Alone<W::Call>, &mut Shift)>,
    config: &Config,
    desk: Pin<&mut Desk<W>>,
    cx: &Context<'_>,
) -> ControlFlow<Poll<()>, Result<(), ItemError<W::Error>>> {
    match (turn, by_itself) {
        (Turn::Attempt, _) => ControlFlow::Continue(Ok(())),
        (Turn::Begin { item, after_yield }, Some((alone, shift))) => {
            let mut desk = desk;
            let begun = begin_alone(alone, config, shift, desk.as_mut(), item);
            if after_yield && begun.is_ok() {
                *desk.project().is_unpolled = true;
                cx.waker().wake_by_ref();
                return ControlFlow::Break(Poll::Pending);
            }
            ControlFlow::Continue(begun)
        }
        (Turn::Yield, _) => {
            cx.waker().wake_by_ref();
            ControlFlow::Break(Poll::Pending)
        }
        (Turn::Rest | Turn::Linger | Turn::Begin { .. }, _) => ControlFlow::Break(Poll::Pending),
        (Turn::Retire, _) => ControlFlow::Break(Poll::Ready(())),
    }
}

/// Counts the poll of a lane whose attempt goes on.
#[inline(never)]
fn count_poll<W: Work>(core: &mut Access<'_, W>, cx: &Context<'_>) {
    if !core.get().may_poll_lane() {
        cx.waker().wake_by_ref();
    }
}

/// Prepares the way to the core for a lane whose attempt has ended. Returns `true` if the lane has had its share.
#[inline(always)]
fn come_back<W: Work>(shift: &mut Shift, core: &mut Access<'_, W>, desk: Pin<&mut Desk<W>>) -> bool {
    let is_tired = shift.is_over();
    core.come(shift.visit());
    leave_shared(core, desk);
    is_tired
}

/// Gives back what an attempt that has ended held of the shared limit. It wakes others, so the core is not locked then.
#[inline]
fn leave_shared<W: Work>(core: &mut Access<'_, W>, desk: Pin<&mut Desk<W>>) {
    if W::Mode::SPAWNED && desk.project().release_shared() {
        core.get().has_called = true;
    }
}

/// Begins an attempt outside the lock.
#[inline(always)]
fn begin_alone<W: Work>(
    alone: &Alone<W::Call>,
    config: &Config,
    shift: &mut Shift,
    desk: Pin<&mut Desk<W>>,
    item: W::Item,
) -> Result<(), ItemError<W::Error>> {
    let mut desk = desk.project();
    desk.date(config, shift.turn(alone.timed));
    desk.begin(&alone.call, config, alone.run_deadline, item)
}
