//! Outcomes on their way to another task.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use super::queue::Queue;
use crate::lock::lock;
use crate::outcome::ItemOutcome;

/// Holds the outcomes that a stream has not given yet.
#[derive(Debug)]
pub(crate) struct Outbox<T, E> {
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
        Self { state: Arc::clone(&self.state) }
    }
}

impl<T, E> Outbox<T, E> {
    pub(crate) fn new(ordered: bool) -> Self {
        let state = State { queue: Queue::new(ordered), taker: None, giver: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Says whether somebody was woken for it.
    pub(super) fn push(&self, outcome: ItemOutcome<T, E>) -> bool {
        let mut state = lock(&self.state);
        state.queue.push(outcome);
        state.call_taker()
    }

    /// Whether fewer than so many outcomes are held; if not, `giver` is woken when one was taken.
    pub(super) fn has_room(&self, capacity: usize, giver: &Waker) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.queue.len() < capacity;
        if !has_room {
            state.giver.get_or_insert_with(|| giver.clone()).clone_from(giver);
        }
        has_room
    }

    /// Takes the next outcome, if it is there.
    pub(crate) fn take(&self) -> Option<ItemOutcome<T, E>> {
        let mut state = lock(&self.state);
        let outcome = state.queue.take();
        let giver = state.giver.take_if(|_| outcome.is_some());
        drop(state);
        if let Some(giver) = giver {
            giver.wake();
        }
        outcome
    }

    /// Takes the next outcome, or has the task woken when it is there.
    pub(crate) fn take_or_wake(&self, cx: &Context<'_>) -> Option<ItemOutcome<T, E>> {
        self.take().or_else(|| {
            lock(&self.state).taker = Some(cx.waker().clone());
            // It may have come between the two.
            self.take()
        })
    }

    /// No further outcome will come.
    pub(super) fn complete(&self) {
        let mut state = lock(&self.state);
        state.queue.complete();
        state.call_taker();
    }
}

impl<T, E> State<T, E> {
    fn call_taker(&mut self) -> bool {
        let taker = self.taker.take_if(|_| self.queue.is_to_call());
        let has_called = taker.is_some();
        if let Some(taker) = taker {
            taker.wake();
        }
        has_called
    }
}
