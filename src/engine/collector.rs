//! What is kept of the items that have settled.

use std::collections::BTreeMap;
use std::fmt;
use std::task::Waker;
use std::time::Duration;

use super::outcome_channel::OutcomeInlet;
use super::outcome_queue::OutcomeQueue;
use crate::outcome::{ItemError, ItemOutcome, Origin};

/// How many bytes of result slots are reserved ahead, however many slots the source says it will need.
const RESERVED_BYTES: usize = 1 << 20;

/// How many bytes of empty slots a result may get for items that were never started.
const UNSTARTED_BYTES: usize = 1 << 28;

/// Where the outcomes go.
pub(crate) enum Collector<T, E> {
    /// All are kept until the end, by input index.
    Results { results: Vec<Option<T>>, errors: BTreeMap<usize, ItemError<E>> },
    /// Each is given to a sink as soon as it is there.
    Queue(OutcomeQueue<T, E>),
    /// Each is given to another task as soon as it is there.
    Channel(Box<dyn OutcomeInlet<T, E>>),
}

impl<T, E> Default for Collector<T, E> {
    fn default() -> Self {
        Self::Results { results: Vec::new(), errors: BTreeMap::new() }
    }
}

impl<T, E> Collector<T, E> {
    /// Prepares for so many items.
    pub(super) fn expect(&mut self, total: Option<usize>) {
        if let (Self::Results { results, .. }, Some(total)) = (self, total) {
            results.reserve(total.min(RESERVED_BYTES / size_of::<Option<T>>().max(1)));
        }
    }

    /// Whether somebody is told how long each item took.
    pub(super) fn is_timed(&self) -> bool {
        !matches!(self, Self::Results { .. })
    }

    /// Whether all outcomes are kept until the end.
    pub(super) fn is_result(&self) -> bool {
        matches!(self, Self::Results { .. })
    }

    /// Whether an outcome can go to the sink at once, because none has to come before it.
    #[inline(always)]
    pub(super) fn lets_pass(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.lets_pass(),
            Self::Results { .. } | Self::Channel(_) => false,
        }
    }

    /// Takes what became of an item.
    #[inline(always)]
    pub(super) fn settle(
        &mut self,
        index: usize,
        attempts: u32,
        elapsed: Duration,
        origin: Origin,
        result: Result<T, ItemError<E>>,
    ) {
        let Self::Results { results, errors } = self else {
            return self.give(ItemOutcome { index, attempts, elapsed, origin, result });
        };
        match result {
            Ok(output) if results.len() == index => results.push(Some(output)),
            Ok(output) => held(results, index, output),
            Err(error) => {
                errors.insert(index, error);
            }
        }
    }

    fn give(&mut self, outcome: ItemOutcome<T, E>) {
        match self {
            Self::Results { .. } => {}
            Self::Queue(queue) => queue.push(outcome),
            Self::Channel(inlet) => inlet.push(outcome),
        }
    }

    /// Lets another task have what was given for it. Returns its waker, which is to be woken after the state is unlocked.
    #[inline]
    pub(super) fn flush(&mut self) -> Option<Waker> {
        match self {
            Self::Channel(inlet) => inlet.flush(),
            Self::Results { .. } | Self::Queue(_) => None,
        }
    }

    /// Returns `true` if fewer outcomes than `capacity` wait to be taken, so that an attempt may start. If not, `driver` is
    /// woken when one is taken, unless the driver itself takes them. Outcomes in the order of the input keep nothing from
    /// starting; [`is_within_window`](Self::is_within_window) bounds them.
    #[inline(always)]
    pub(super) fn has_room(&self, capacity: usize, driver: &Waker) -> bool {
        match self {
            Self::Results { .. } => true,
            Self::Queue(queue) => queue.is_ordered() || queue.len() < capacity,
            Self::Channel(inlet) => inlet.is_ordered() || inlet.has_room(capacity, driver),
        }
    }

    /// Returns `true` if a new item may start: both [`has_room`](Self::has_room) and, beside so many `retries` that are held,
    /// [`is_within_window`](Self::is_within_window).
    #[inline(always)]
    pub(super) fn admits(&self, capacity: usize, look_ahead: usize, retries: usize, driver: &Waker) -> bool {
        if retries >= look_ahead {
            return false;
        }
        match self {
            Self::Results { .. } => true,
            Self::Queue(queue) => {
                queue.len() < if queue.is_ordered() { look_ahead - retries } else { capacity }
            }
            Self::Channel(inlet) => {
                inlet.has_room(if inlet.is_ordered() { look_ahead - retries } else { capacity }, driver)
            }
        }
    }

    /// Returns `true` if fewer outcomes than `window` are held for the order of the input. If not, `driver` is woken when one
    /// is taken, unless the driver itself takes them.
    #[inline(always)]
    pub(super) fn is_within_window(&self, window: usize, driver: &Waker) -> bool {
        match self {
            Self::Results { .. } => true,
            Self::Queue(queue) => !queue.is_ordered() || queue.len() < window,
            Self::Channel(inlet) => !inlet.is_ordered() || inlet.has_room(window, driver),
        }
    }

    /// The next outcome, where it is the driver who takes it.
    #[inline]
    pub(super) fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        match self {
            Self::Queue(queue) => queue.take(),
            Self::Results { .. } | Self::Channel(_) => None,
        }
    }

    /// Whether to call the driver, who came for an outcome and found none.
    pub(super) fn is_to_call_driver(&mut self) -> bool {
        match self {
            Self::Queue(queue) => queue.is_to_call(),
            Self::Results { .. } | Self::Channel(_) => false,
        }
    }

    /// No further outcome will come. Returns a waker as [`hand_over`](Self::hand_over) does.
    #[must_use]
    pub(super) fn complete(&mut self) -> Option<Waker> {
        match self {
            Self::Results { .. } => {}
            Self::Queue(queue) => queue.complete(),
            Self::Channel(inlet) => return inlet.complete(),
        }
        None
    }

    /// Forgets what its sink will not take any more.
    pub(super) fn clear(&mut self) {
        if let Self::Queue(queue) = self {
            queue.clear();
        }
    }

    /// The results and the errors, with a slot for each of the items that were `started` or have settled, and of all
    /// `total`. What is known already settles without a start, and before those in front of it may have started.
    pub(super) fn into_parts(
        self,
        started: usize,
        total: usize,
    ) -> (Vec<Option<T>>, BTreeMap<usize, ItemError<E>>) {
        match self {
            Self::Results { mut results, errors } => {
                let settled = errors.last_key_value().map_or(0, |(last, _)| last + 1).max(results.len());
                let missing = (total - started).saturating_mul(size_of::<Option<T>>().max(1));
                let slots = if missing <= UNSTARTED_BYTES { total } else { started.max(settled) };
                results.resize_with(slots, || None);
                (results, errors)
            }
            Self::Queue(_) | Self::Channel(_) => (Vec::new(), BTreeMap::new()),
        }
    }
}

impl<T, E> fmt::Debug for Collector<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Results { .. } => "Results",
            Self::Queue(_) => "Queue",
            Self::Channel(_) => "Channel",
        })
    }
}

/// Puts a result where it belongs, before or after those that have come already.
fn held<T>(results: &mut Vec<Option<T>>, index: usize, output: T) {
    if results.len() <= index {
        results.resize_with(index + 1, || None);
    }
    if let Some(slot) = results.get_mut(index) {
        *slot = Some(output);
    }
}
