//! Outcomes on their way to another task.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::queue::Queue;
use crate::lock::lock;
use crate::outcome::ItemOutcome;
use crate::rt::{Mutex, MutexGuard};

/// Holds the outcomes that a stream has not given yet.
///
/// No waker is woken or dropped while it is locked.
#[derive(Debug)]
pub(crate) struct Outbox<T, E> {
    ordered: bool,
    state: Arc<Mutex<State<T, E>>>,
}

#[derive(Debug)]
struct State<T, E> {
    queue: Queue<T, E>,
    taker: Option<Waker>,
    giver: Option<Waker>,
}

impl<T, E> Clone for Outbox<T, E> {
    fn clone(&self) -> Self {
        Self { ordered: self.ordered, state: Arc::clone(&self.state) }
    }
}

impl<T, E> Outbox<T, E> {
    pub(crate) fn new(ordered: bool) -> Self {
        let state = State { queue: Queue::new(ordered), taker: None, giver: None };
        Self { ordered, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns how many outcomes are held now, and whether the taker was woken for this one.
    fn push(&self, outcome: ItemOutcome<T, E>) -> (usize, bool) {
        let mut state = lock(&self.state);
        state.queue.push(outcome);
        (state.queue.len(), wake(state.taker_to_wake(), state))
    }

    /// Returns how many outcomes are held. If these are `capacity` or more, `giver` is woken when one was taken.
    fn held(&self, capacity: usize, giver: &Waker) -> usize {
        let mut state = lock(&self.state);
        let held = state.queue.len();
        let is_known = state.giver.as_ref().is_some_and(|known| known.will_wake(giver));
        let former = if held < capacity || is_known { None } else { state.giver.replace(giver.clone()) };
        drop(state);
        drop(former);
        held
    }

    /// Takes the next outcome, if it is there.
    pub(crate) fn take(&self) -> Option<ItemOutcome<T, E>> {
        let mut state = lock(&self.state);
        let outcome = state.queue.take();
        let giver = state.giver.take_if(|_| outcome.is_some());
        wake(giver, state);
        outcome
    }

    /// Takes the next outcome, or has the task woken when it is there.
    pub(crate) fn take_or_wake(&self, cx: &Context<'_>) -> Option<ItemOutcome<T, E>> {
        self.take().or_else(|| {
            let former = lock(&self.state).taker.replace(cx.waker().clone());
            drop(former);
            // It may have come between the two.
            self.take()
        })
    }

    /// No further outcome will come.
    fn complete(&self) {
        let mut state = lock(&self.state);
        state.queue.complete();
        wake(state.taker_to_wake(), state);
    }
}

/// The end of an outbox that takes outcomes in.
#[derive(Debug)]
pub(crate) struct Inlet<T, E> {
    outbox: Outbox<T, E>,
    /// How many outcomes were held when the outbox was last locked here. Since then it can only have become fewer.
    held_at_most: Cell<usize>,
}

impl<T, E> Inlet<T, E> {
    pub(crate) fn new(outbox: Outbox<T, E>) -> Self {
        Self { outbox, held_at_most: Cell::new(0) }
    }

    /// Returns `true` if it gives out outcomes in the order of the input.
    #[inline]
    pub(super) fn is_ordered(&self) -> bool {
        self.outbox.ordered
    }

    /// Returns `true` if the taker was woken for it.
    pub(super) fn push(&self, outcome: ItemOutcome<T, E>) -> bool {
        let (held, has_woken) = self.outbox.push(outcome);
        self.held_at_most.set(held);
        has_woken
    }

    /// Returns `true` if fewer than so many outcomes are held; if not, `giver` is woken when one was taken.
    #[inline]
    pub(super) fn has_room(&self, capacity: usize, giver: &Waker) -> bool {
        self.held_at_most.get() < capacity || self.look_for_room(capacity, giver)
    }

    #[cold]
    fn look_for_room(&self, capacity: usize, giver: &Waker) -> bool {
        self.held_at_most.set(self.outbox.held(capacity, giver));
        self.held_at_most.get() < capacity
    }

    pub(super) fn complete(&self) {
        self.outbox.complete();
    }
}

impl<T, E> State<T, E> {
    fn taker_to_wake(&mut self) -> Option<Waker> {
        self.taker.take_if(|_| self.queue.is_to_call())
    }
}

/// Unlocks the outbox, then wakes. Returns `true` if there was a waker.
fn wake<T>(waker: Option<Waker>, locked: MutexGuard<'_, T>) -> bool {
    drop(locked);
    let wakes = waker.is_some();
    if let Some(waker) = waker {
        waker.wake();
    }
    wakes
}
