//! What a lane does next.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::core::Core;
use super::desk::{Desk, DeskProjection};
use super::gate::Place;
use super::job::Job;
use super::{Mode, Work};
use crate::error::FailureReason;
use crate::outcome::ItemError;

/// What a lane does next.
pub(super) enum Turn<I> {
    /// It makes the attempt that is on its desk.
    Attempt,
    /// It begins the attempt that is on its desk, with this item. It yields before it polls it where it has woken
    /// the driver, which may have to wait for it.
    Begin { item: I, after_yield: bool },
    /// It lets others have their turn, and comes back at once.
    Yield,
    /// It waits until it is woken.
    Rest,
    /// It waits until the attempt that has ended for its item has ended in truth.
    Linger,
    /// It ends: there will be no more work.
    Retire,
}

impl<W: Work> Core<W> {
    /// Gives a lane that has come without an attempt its next one.
    #[inline(never)]
    pub(super) fn arrive(&mut self, seat: usize, desk: Pin<&mut Desk<W>>, waker: &Waker) -> Turn<W::Item> {
        let desk = &mut desk.project();
        self.look_around();
        let Some(own) = self.seats.get_mut(seat) else { return Turn::Retire };
        // A lane that rests until it is called may be woken by what an earlier attempt left behind.
        if own.resting {
            return Turn::Rest;
        }
        if !W::Mode::SPAWNED && own.waker.is_none() {
            own.waker = Some(waker.clone());
        }
        if !*desk.lingers {
            self.give_back(desk);
        }
        let turn = self.next_turn(seat, desk, waker);
        self.look_after(turn)
    }

    /// Takes back what an attempt held that has ended, except for what the next one may have at once.
    fn give_back(&mut self, desk: &mut DeskProjection<'_, W>) {
        self.gate.give_back(desk.place);
        self.has_called |= desk.release_shared();
    }

    /// Takes what a lane's attempt has given.
    #[inline(always)]
    pub(super) fn take_success(&mut self, output: W::Output, desk: &mut DeskProjection<'_, W>) {
        self.look_around();
        self.succeed(desk.job, output);
    }

    /// Takes why a lane's attempt has failed.
    // The rare ways of a lane take its desk as a whole: the compiler would keep the places of all its parts at hand for them
    // in each poll.
    #[cold]
    pub(super) fn take_failure(&mut self, error: ItemError<W::Error>, desk: Pin<&mut Desk<W>>) {
        self.look_around();
        self.fail_attempt(desk.project().job, error);
    }

    /// Begins the next new item, where nothing has happened or was asked for that could come before it: the way of
    /// most items, without a look at what is rare.
    #[inline(always)]
    pub(super) fn begin_at_once(
        &mut self,
        desk: &mut DeskProjection<'_, W>,
        is_tired: bool,
    ) -> Option<Turn<W::Item>> {
        if !self.is_way_clear() || (W::Mode::SPAWNED && (is_tired || self.is_driver_wanted())) {
            return None;
        }
        let pulled = self.pull()?;
        if desk.place.own_permits() != pulled.weight as usize {
            self.handed.push_back(pulled);
            return None;
        }
        desk.job.renew(pulled.index, pulled.weight);
        self.begin_attempt(desk, true);
        let item = pulled.item;
        let turn = if W::Mode::SPAWNED {
            Turn::Begin { item, after_yield: false }
        } else if let Err(error) = desk.begin(&self.call, &self.config, self.run_deadline, item) {
            self.fail_attempt(desk.job, error);
            return None;
        } else {
            Turn::Attempt
        };
        self.report_at_once();
        Some(turn)
    }

    /// What a lane does next whose attempt has ended.
    #[inline(never)]
    pub(super) fn go_on(
        &mut self,
        seat: usize,
        is_tired: bool,
        desk: Pin<&mut Desk<W>>,
        waker: &Waker,
    ) -> Turn<W::Item> {
        let desk = &mut desk.project();
        if !*desk.lingers {
            self.give_back(desk);
        }
        let turn = if W::Mode::SPAWNED && self.is_to_yield(is_tired, *desk.lingers) {
            *desk.job = Job::none();
            Turn::Yield
        } else {
            self.next_turn(seat, desk, waker)
        };
        self.look_after(turn)
    }

    /// Whether somebody has been woken who may have to wait for this lane, or the driver is asleep while there are
    /// places for others.
    #[inline]
    fn is_driver_wanted(&self) -> bool {
        self.has_called || !(self.gate.is_full() || self.driver_is_woken)
    }

    /// Learns what has happened outside since the last turn.
    #[inline]
    fn look_around(&mut self) {
        if W::Mode::SPAWNED && self.alarm.as_ref().is_some_and(|alarm| alarm.load(Ordering::Acquire)) {
            // The driver may be gone, and what it left is no longer anybody's.
            self.halt(FailureReason::Cancelled);
        }
        self.heed_orders();
    }

    /// Tells those who have to know what a turn has changed.
    #[inline]
    fn look_after(&mut self, mut turn: Turn<W::Item>) -> Turn<W::Item> {
        if W::Mode::SPAWNED {
            let has_called = self.call_driver_for_others();
            if let Turn::Begin { after_yield, .. } = &mut turn {
                *after_yield = has_called;
            }
        }
        self.report_at_once();
        turn
    }

    /// Whether a lane that runs by itself is to rest a moment before its next item: because it has had its share,
    /// or because whoever it has woken may have to wait for it, in a place where no other thread can fetch him.
    fn is_to_yield(&mut self, is_tired: bool, lingers: bool) -> bool {
        self.call_driver_for_others();
        let has_called = mem::take(&mut self.has_called);
        (has_called || is_tired) && !lingers && self.stop.is_none()
    }

    fn next_turn(&mut self, seat: usize, desk: &mut DeskProjection<'_, W>, waker: &Waker) -> Turn<W::Item> {
        loop {
            self.heed_orders();
            if self.stop.is_some() {
                *desk.job = Job::none();
                return Turn::Retire;
            }
            if *desk.lingers {
                if self.running() == 0 {
                    // It may have been the last.
                    self.call_driver();
                }
                return Turn::Linger;
            }
            if !W::Mode::SPAWNED && !self.may_start() {
                *desk.job = Job::none();
                return Turn::Yield;
            }
            let Some(next) = self.next_item(desk) else {
                *desk.job = Job::none();
                if self.stop.is_some() || self.is_exhausted() {
                    return Turn::Retire;
                }
                *desk.place = Place::default();
                self.rest(seat, waker);
                return Turn::Rest;
            };
            let item = next.prepare(desk.job);
            self.begin_attempt(desk, false);
            if W::Mode::SPAWNED {
                if self.seats.get(seat).is_some_and(|seat| seat.waker.is_none()) {
                    self.remember(seat, waker);
                }
                return Turn::Begin { item, after_yield: false };
            }
            match desk.begin(&self.call, &self.config, self.run_deadline, item) {
                Ok(()) => return Turn::Attempt,
                Err(error) => {
                    self.fail_attempt(desk.job, error);
                    self.give_back(desk);
                }
            }
        }
    }

    fn rest(&mut self, seat: usize, waker: &Waker) {
        self.resting.push(seat);
        self.remember(seat, waker);
        if let Some(seat) = self.seats.get_mut(seat) {
            seat.resting = true;
        }
    }

    fn remember(&mut self, seat: usize, waker: &Waker) {
        if let Some(seat) = self.seats.get_mut(seat) {
            match &mut seat.waker {
                Some(known) => known.clone_from(waker),
                None => seat.waker = Some(waker.clone()),
            }
        }
    }
}
