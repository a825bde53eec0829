//! The destinations of the outcomes of the items that have settled.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use super::super::outlined::Outlined;
use super::outcome_channel::Inlet;
use super::outcome_queue::OutcomeQueue;
use crate::outcome::{ItemError, ItemOutcome};
use crate::result::Notes;

/// The most bytes of result slots that are reserved ahead, however many slots the source promises.
const RESERVED_BYTES: usize = 1 << 20;

/// The most bytes of empty slots that a result gets for items that never started.
const UNSTARTED_BYTES: usize = 1 << 28;

/// A destination of outcomes. Each way to end a run has its own: a result, the queue of a sink, or the channel of a stream.
pub trait Outcomes<T, E> {
    /// `true` if the outcomes contain how long each item took.
    const ARE_TIMED: bool;

    /// `true` if the outcomes of a failed store are kept: all of them are, until the end.
    const ARE_RESULTS: bool;

    /// The part that is left at the end of the run.
    type Rest: Default;

    /// Reserves memory for this many items.
    fn expect(&mut self, _total: Option<usize>) {}

    /// Takes the outcome of an item.
    fn settle(&mut self, outcome: ItemOutcome<T, E>);

    /// Keeps the label of an item that has failed, or was pulled and does not settle.
    fn keep_label(&mut self, _index: usize, _label: Option<&str>) {}

    /// Returns `true` if an outcome can go directly to the sink, because no other outcome must come before it.
    #[inline(always)]
    fn can_bypass(&self) -> bool {
        false
    }

    /// Flushes the outcomes to the task that takes them. Returns the waker of that task, which must be woken after the state
    /// is unlocked.
    #[inline(always)]
    fn flush(&mut self) -> Option<Waker> {
        None
    }

    /// Returns `true` if fewer than `capacity` outcomes wait to be taken, so that an attempt may start. If not, `driver` is
    /// woken when one is taken, unless the driver itself takes them. Outcomes in the order of the input do not count here;
    /// [`is_within_window`](Self::is_within_window) bounds them.
    #[inline(always)]
    fn has_room(&self, _capacity: usize, _driver: &Waker) -> bool {
        true
    }

    /// Returns `true` if fewer than `window` outcomes are held for the order of the input. If not, `driver` is woken when
    /// one is taken, unless the driver itself takes them.
    #[inline(always)]
    fn is_within_window(&self, _window: usize, _driver: &Waker) -> bool {
        true
    }

    /// Takes the next outcome for the driver. Returns `None` if another task takes the outcomes.
    #[inline(always)]
    fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        None
    }

    /// Returns `true` once if the driver found no outcome before and can take one now.
    #[inline(always)]
    fn should_wake_driver(&mut self) -> bool {
        false
    }

    /// Marks that no further outcome will come. Returns a waker as [`flush`](Self::flush) does.
    fn complete(&mut self) -> Option<Waker> {
        None
    }

    /// Drops the outcomes that the sink will not take any more.
    fn clear(&mut self) {}

    /// Takes the part that is left at the end of the run.
    fn take_rest(&mut self) -> Self::Rest;
}

/// Keeps all outcomes until the end, by input index.
#[derive(Debug)]
pub struct Results<T, E> {
    results: Outlined<Vec<Option<T>>>,
    errors: Outlined<BTreeMap<usize, ItemError<E>>>,
    notes: Notes,
    /// The first index after those of all errors.
    errors_end: usize,
}

impl<T, E> Default for Results<T, E> {
    fn default() -> Self {
        Self {
            results: Outlined::default(),
            errors: Outlined::default(),
            notes: Notes::default(),
            errors_end: 0,
        }
    }
}

impl<T, E> Outcomes<T, E> for Results<T, E> {
    const ARE_TIMED: bool = false;
    const ARE_RESULTS: bool = true;

    type Rest = Self;

    fn expect(&mut self, total: Option<usize>) {
        if let Some(total) = total {
            self.results.reserve(total.min(RESERVED_BYTES / size_of::<Option<T>>().max(1)));
        }
    }

    #[inline(always)]
    fn settle(&mut self, ItemOutcome { index, result, not_retried, .. }: ItemOutcome<T, E>) {
        match result {
            Ok(output) if self.results.len() == index => self.results.push(Some(output)),
            Ok(output) => self.insert(index, output),
            Err(error) => {
                self.errors_end = self.errors_end.max(index + 1);
                self.errors.insert(index, error);
                self.notes.not_retried.extend(not_retried.map(|why| (index, why)));
            }
        }
    }

    fn keep_label(&mut self, index: usize, label: Option<&str>) {
        self.notes.labels.extend(label.map(|label| (index, label.to_owned())));
    }

    fn take_rest(&mut self) -> Self {
        mem::take(self)
    }
}

/// The outcomes of a run by input index, and what is known of the items without a result.
type Parts<T, E> = (Vec<Option<T>>, BTreeMap<usize, ItemError<E>>, Notes);

impl<T, E> Results<T, E> {
    /// Inserts a result at its index, in any order.
    fn insert(&mut self, index: usize, output: T) {
        if index >= self.results.len() {
            self.extend_to(index + 1);
        }
        if let Some(slot) = self.results.get_mut(index) {
            *slot = Some(output);
        }
    }

    /// Adds empty slots, up to this number of slots.
    #[inline(never)]
    fn extend_to(&mut self, slots: usize) {
        let slots = slots.max(self.results.len());
        self.results.resize_with(slots, || None);
    }

    /// Returns the results, the errors and the notes. There is a slot for each of the `total` items or, if these take too many bytes,
    /// for each item that has `started` or settled. An item with a known output settles without a start, possibly before
    /// earlier items have started.
    pub(in super::super) fn into_parts(mut self, started: usize, total: usize) -> Parts<T, E> {
        let settled = self.errors_end.max(self.results.len());
        let missing = (total - started).saturating_mul(size_of::<Option<T>>().max(1));
        let slots = if missing <= UNSTARTED_BYTES { total } else { started.max(settled) };
        self.extend_to(slots);
        (Outlined::take(&mut self.results), Outlined::take(&mut self.errors), self.notes)
    }
}

/// Passes each outcome to a sink as soon as it is available.
impl<T, E> Outcomes<T, E> for OutcomeQueue<T, E> {
    const ARE_TIMED: bool = true;
    const ARE_RESULTS: bool = false;

    type Rest = ();

    #[inline]
    fn settle(&mut self, outcome: ItemOutcome<T, E>) {
        self.push(outcome);
    }

    #[inline(always)]
    fn can_bypass(&self) -> bool {
        self.len() == 0 && !self.is_ordered()
    }

    #[inline(always)]
    fn has_room(&self, capacity: usize, _driver: &Waker) -> bool {
        self.is_ordered() || self.len() < capacity
    }

    #[inline(always)]
    fn is_within_window(&self, window: usize, _driver: &Waker) -> bool {
        !self.is_ordered() || self.len() < window
    }

    #[inline]
    fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        self.pop()
    }

    fn should_wake_driver(&mut self) -> bool {
        self.should_wake_taker()
    }

    fn complete(&mut self) -> Option<Waker> {
        self.set_complete();
        None
    }

    fn clear(&mut self) {
        self.drop_all();
    }

    fn take_rest(&mut self) {}
}

/// Passes each outcome to another task as soon as it is available.
impl<T, E> Outcomes<T, E> for Inlet<T, E> {
    const ARE_TIMED: bool = true;
    const ARE_RESULTS: bool = false;

    type Rest = ();

    #[inline]
    fn settle(&mut self, outcome: ItemOutcome<T, E>) {
        self.push(outcome);
    }

    #[inline]
    fn flush(&mut self) -> Option<Waker> {
        self.flush_queue()
    }

    #[inline(always)]
    fn has_room(&self, capacity: usize, driver: &Waker) -> bool {
        self.is_ordered() || self.has_room_for_more(capacity, driver)
    }

    #[inline(always)]
    fn is_within_window(&self, window: usize, driver: &Waker) -> bool {
        !self.is_ordered() || self.has_room_for_more(window, driver)
    }

    fn complete(&mut self) -> Option<Waker> {
        self.flush_last()
    }

    fn take_rest(&mut self) {}
}
