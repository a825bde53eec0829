//! Outcomes that were not taken yet.

use std::collections::VecDeque;
use std::mem;

use crate::outcome::ItemOutcome;

/// Queues outcomes, and returns them in the order of completion or of the input.
#[derive(Debug)]
pub struct OutcomeQueue<T, E> {
    ordered: bool,
    /// The index of the first slot, if outcomes are ordered.
    first: usize,
    slots: VecDeque<Option<ItemOutcome<T, E>>>,
    held: usize,
    /// `true` if no further outcome will come. Then empty slots belong to items that were cancelled.
    complete: bool,
    /// `true` if an outcome was requested when there was none.
    is_awaited: bool,
}

impl<T, E> OutcomeQueue<T, E> {
    pub(crate) fn new(ordered: bool) -> Self {
        Self { ordered, first: 0, slots: VecDeque::new(), held: 0, complete: false, is_awaited: false }
    }

    /// Returns `true` if outcomes leave in the order of the input.
    #[inline]
    pub(in super::super) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Returns how many outcomes are held.
    pub(in super::super) fn len(&self) -> usize {
        self.held
    }

    #[inline]
    pub(in super::super) fn push(&mut self, outcome: ItemOutcome<T, E>) {
        self.held += 1;
        if self.ordered {
            let at = outcome.index - self.first;
            while self.slots.len() <= at {
                self.slots.push_back(None);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = Some(outcome);
            }
        } else {
            self.slots.push_back(Some(outcome));
        }
    }

    /// Returns `true` if the next outcome may be taken.
    pub(in super::super) fn is_next_there(&self) -> bool {
        self.complete || self.slots.front().is_some_and(Option::is_some)
    }

    /// Returns `true` once if an outcome was requested when there was none, and can be taken now.
    pub(in super::super) fn should_wake_taker(&mut self) -> bool {
        self.is_next_there() && mem::take(&mut self.is_awaited)
    }

    /// Moves all outcomes that may be taken to the end of `others`.
    pub(in super::super) fn move_to(&mut self, others: &mut VecDeque<Option<ItemOutcome<T, E>>>) {
        if !self.ordered {
            self.held = 0;
            if others.is_empty() {
                mem::swap(&mut self.slots, others);
            } else {
                others.append(&mut self.slots);
            }
            return;
        }
        while let Some(outcome) = self.pop() {
            others.push_back(Some(outcome));
        }
    }

    #[inline]
    pub(in super::super) fn pop(&mut self) -> Option<ItemOutcome<T, E>> {
        while self.slots.front().is_some_and(|first| first.is_some() || self.complete) {
            self.first += 1;
            if let Some(outcome) = self.slots.pop_front().flatten() {
                self.held -= 1;
                return Some(outcome);
            }
        }
        self.is_awaited = true;
        None
    }

    /// Marks that no further outcome will come.
    pub(in super::super) fn set_complete(&mut self) {
        self.complete = true;
    }

    /// Drops the outcomes that will not be taken.
    pub(in super::super) fn drop_all(&mut self) {
        self.held = 0;
        self.slots.clear();
    }
}
