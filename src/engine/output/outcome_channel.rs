//! Moves outcomes to another task, in groups.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Waker};

use super::outcome_queue::OutcomeQueue;
use crate::lock::lock;
use crate::outcome::ItemOutcome;
use crate::rt::{AtomicBool, AtomicUsize, Mutex};

/// Creates a channel, and returns both of its ends.
pub(crate) fn outcome_channel<T, E>(ordered: bool) -> (Inlet<T, E>, Outlet<T, E>) {
    let state = State { outcomes: VecDeque::new(), taker: None, giver: None };
    let shared =
        Shared { state: Mutex::new(state), taken: AtomicUsize::new(0), is_full: AtomicBool::new(false) };
    let (shared, queue) = (Arc::new(shared), OutcomeQueue::new(ordered));
    let inlet = Inlet { queue, pushed: 0, held_at_most: Cell::new(0), shared: Arc::clone(&shared) };
    (inlet, Outlet { fetched: VecDeque::new(), taken: 0, shared })
}

/// The part that both ends share. No waker is woken, cloned or dropped while it is locked.
#[derive(Debug)]
struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    /// How many outcomes were taken so far.
    taken: AtomicUsize,
    /// `true` if the giver is to be woken when the next outcome is taken.
    is_full: AtomicBool,
}

#[derive(Debug)]
struct State<T, E> {
    /// Outcomes that were flushed and not fetched.
    outcomes: VecDeque<Option<ItemOutcome<T, E>>>,
    taker: Option<Waker>,
    giver: Option<Waker>,
}

/// The end that takes outcomes in.
#[derive(Debug)]
pub struct Inlet<T, E> {
    /// Outcomes that were not flushed yet.
    queue: OutcomeQueue<T, E>,
    pushed: usize,
    /// An upper bound of the held outcomes: those at the last check, and all that were pushed since.
    held_at_most: Cell<usize>,
    shared: Arc<Shared<T, E>>,
}

impl<T, E> Inlet<T, E> {
    /// Returns `true` if outcomes leave in the order of the input.
    #[inline(always)]
    pub(in super::super) fn is_ordered(&self) -> bool {
        self.queue.is_ordered()
    }

    #[inline]
    pub(in super::super) fn push(&mut self, outcome: ItemOutcome<T, E>) {
        self.queue.push(outcome);
        self.pushed = self.pushed.wrapping_add(1);
        self.held_at_most.set(self.held_at_most.get() + 1);
    }

    /// Returns `true` if fewer than `capacity` outcomes are held. If not, `giver` is woken when one is taken.
    #[inline(always)]
    pub(in super::super) fn has_room_for_more(&self, capacity: usize, giver: &Waker) -> bool {
        self.held_at_most.get() < capacity || self.look_for_room(capacity, giver)
    }

    /// Marks that no further outcome will come, and flushes the rest, as [`flush_queue`](Self::flush_queue) does.
    pub(in super::super) fn flush_last(&mut self) -> Option<Waker> {
        self.queue.set_complete();
        self.flush_queue()
    }

    /// Moves the outcomes that may be taken to the other end. Returns the waker of that end, which must be woken after
    /// everything is unlocked.
    pub(in super::super) fn flush_queue(&mut self) -> Option<Waker> {
        if !self.queue.is_next_there() {
            return None;
        }
        let mut state = lock(&self.shared.state);
        self.queue.move_to(&mut state.outcomes);
        state.taker.take()
    }

    #[cold]
    fn look_for_room(&self, capacity: usize, giver: &Waker) -> bool {
        let mut held = self.held();
        if held >= capacity {
            self.shared.wake_when_taken(giver.clone());
            // An outcome may have been taken before the waker was set.
            held = self.held();
        }
        self.held_at_most.set(held);
        held < capacity
    }

    /// Returns how many outcomes were pushed and not taken.
    fn held(&self) -> usize {
        self.pushed.wrapping_sub(self.shared.taken.load(SeqCst))
    }
}

/// Flushes the outcomes, so that none is lost, however the run ends.
impl<T, E> Drop for Inlet<T, E> {
    fn drop(&mut self) {
        if let Some(taker) = self.flush_queue() {
            taker.wake();
        }
    }
}

/// The end that gives outcomes out.
#[derive(Debug)]
pub(crate) struct Outlet<T, E> {
    /// Outcomes that were fetched from the other end and not taken.
    fetched: VecDeque<Option<ItemOutcome<T, E>>>,
    taken: usize,
    shared: Arc<Shared<T, E>>,
}

impl<T, E> Outlet<T, E> {
    /// Takes the next outcome, if it was fetched already.
    #[inline]
    pub(crate) fn take_fetched(&mut self) -> Option<ItemOutcome<T, E>> {
        let outcome = self.fetched.pop_front().flatten()?;
        self.taken = self.taken.wrapping_add(1);
        self.shared.taken.store(self.taken, SeqCst);
        if self.shared.is_full.load(SeqCst) {
            self.shared.wake_giver();
        }
        Some(outcome)
    }

    /// Takes the next outcome, if it is available.
    pub(crate) fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        if self.fetched.is_empty() {
            mem::swap(&mut lock(&self.shared.state).outcomes, &mut self.fetched);
        }
        self.take_fetched()
    }

    /// Takes the next outcome, or registers the task to be woken when it is available.
    pub(crate) fn take_or_wake(&mut self, cx: &Context<'_>) -> Option<ItemOutcome<T, E>> {
        self.take().or_else(|| {
            let waker = cx.waker().clone();
            let former = lock(&self.shared.state).taker.replace(waker);
            drop(former);
            // The outcome may have arrived before the waker was set.
            self.take()
        })
    }
}

impl<T, E> Shared<T, E> {
    fn wake_when_taken(&self, giver: Waker) {
        let mut state = lock(&self.state);
        let former = state.giver.replace(giver);
        self.is_full.store(true, SeqCst);
        drop(state);
        drop(former);
    }

    #[cold]
    fn wake_giver(&self) {
        let mut state = lock(&self.state);
        self.is_full.store(false, SeqCst);
        let giver = state.giver.take();
        drop(state);
        if let Some(giver) = giver {
            giver.wake();
        }
    }
}
