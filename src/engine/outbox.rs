//! Outcomes on their way to a sink or a stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use crate::lock::lock;
use crate::outcome::ItemOutcome;

/// Holds the outcomes that nobody has taken yet, and gives them out in the order of completion or of the input.
///
/// Admission stops while it holds as many as may run, `c`. What then runs, and what waits for its retry, can still
/// join: it never holds more than 3c - 2.
#[derive(Debug)]
pub(crate) struct Outbox<T, E> {
    state: Arc<Mutex<State<T, E>>>,
}

#[derive(Debug)]
struct State<T, E> {
    ordered: bool,
    /// The index of the first slot, where they are ordered.
    first: usize,
    slots: VecDeque<Option<ItemOutcome<T, E>>>,
    held: usize,
    /// No further outcome will come: empty slots are those of items that were cancelled.
    complete: bool,
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
        let slots = VecDeque::new();
        let state = State { ordered, first: 0, slots, held: 0, complete: false, taker: None, giver: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Says whether somebody was woken for it.
    pub(super) fn push(&self, outcome: ItemOutcome<T, E>) -> bool {
        let mut state = self.lock();
        state.held += 1;
        if state.ordered {
            let at = outcome.index - state.first;
            while state.slots.len() <= at {
                state.slots.push_back(None);
            }
            if let Some(slot) = state.slots.get_mut(at) {
                *slot = Some(outcome);
            }
        } else {
            state.slots.push_back(Some(outcome));
        }
        state.call_taker()
    }

    /// Whether fewer than so many outcomes are held; if not, `giver` is woken when one was taken.
    pub(super) fn has_room(&self, capacity: usize, giver: &Waker) -> bool {
        let mut state = self.lock();
        let has_room = state.held < capacity;
        if !has_room {
            state.giver.get_or_insert_with(|| giver.clone()).clone_from(giver);
        }
        has_room
    }

    /// Takes the next outcome, if it is there.
    pub(crate) fn take(&self) -> Option<ItemOutcome<T, E>> {
        let mut state = self.lock();
        let outcome = state.take();
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
            self.lock().taker = Some(cx.waker().clone());
            // It may have come between the two.
            self.take()
        })
    }

    /// No further outcome will come.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        state.complete = true;
        state.call_taker();
    }

    /// Forgets what nobody will take.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        let forgotten = std::mem::take(&mut state.slots);
        state.held = 0;
        drop(state);
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        lock(&self.state)
    }
}

impl<T, E> State<T, E> {
    fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        while self.slots.front().is_some_and(|first| first.is_some() || self.complete) {
            self.first += 1;
            if let Some(outcome) = self.slots.pop_front().flatten() {
                self.held -= 1;
                return Some(outcome);
            }
        }
        None
    }

    fn call_taker(&mut self) -> bool {
        let is_next_there = self.complete || self.slots.front().is_some_and(Option::is_some);
        match self.taker.take_if(|_| is_next_there) {
            Some(taker) => {
                taker.wake();
                true
            }
            None => false,
        }
    }
}
