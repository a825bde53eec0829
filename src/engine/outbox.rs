//! Outcomes on their way to another task.

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

    /// Returns `true` if it gives out outcomes in the order of the input.
    #[inline]
    pub(super) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Returns `true` if the taker was woken for it.
    pub(super) fn push(&self, outcome: ItemOutcome<T, E>) -> bool {
        let mut state = lock(&self.state);
        state.queue.push(outcome);
        wake(state.taker_to_wake(), state)
    }

    /// Returns `true` if fewer than so many outcomes are held; if not, `giver` is woken when one was taken.
    pub(super) fn has_room(&self, capacity: usize, giver: &Waker) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.queue.len() < capacity;
        let is_known = state.giver.as_ref().is_some_and(|known| known.will_wake(giver));
        let former = if has_room || is_known { None } else { state.giver.replace(giver.clone()) };
        drop(state);
        drop(former);
        has_room
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
    pub(super) fn complete(&self) {
        let mut state = lock(&self.state);
        state.queue.complete();
        wake(state.taker_to_wake(), state);
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
