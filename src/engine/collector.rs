//! The outcomes of the items that have settled.

use std::collections::BTreeMap;
use std::fmt;
use std::task::Waker;
use std::time::Duration;

use super::outcome_channel::OutcomeInlet;
use super::outcome_queue::OutcomeQueue;
use crate::outcome::{ItemError, ItemOutcome, Origin};

/// The most bytes of result slots that are reserved ahead, however many slots the source promises.
const RESERVED_BYTES: usize = 1 << 20;

/// The most bytes of empty slots that a result gets for items that never started.
const UNSTARTED_BYTES: usize = 1 << 28;

/// The destination of the outcomes.
pub(crate) enum Collector<T, E> {
    /// Keeps all outcomes until the end, by input index.
    Results { results: Vec<Option<T>>, errors: BTreeMap<usize, ItemError<E>> },
    /// Passes each outcome to a sink as soon as it is available.
    Queue(OutcomeQueue<T, E>),
    /// Passes each outcome to another task as soon as it is available.
    Channel(Box<dyn OutcomeInlet<T, E>>),
}

impl<T, E> Default for Collector<T, E> {
    fn default() -> Self {
        Self::Results { results: Vec::new(), errors: BTreeMap::new() }
    }
}

impl<T, E> Collector<T, E> {
    /// Reserves memory for this many items.
    pub(super) fn expect(&mut self, total: Option<usize>) {
        if let (Self::Results { results, .. }, Some(total)) = (self, total) {
            results.reserve(total.min(RESERVED_BYTES / size_of::<Option<T>>().max(1)));
        }
    }

    /// Returns `true` if the outcomes contain how long each item took.
    pub(super) fn is_timed(&self) -> bool {
        !matches!(self, Self::Results { .. })
    }

    /// Returns `true` if all outcomes are kept until the end.
    pub(super) fn is_result(&self) -> bool {
        matches!(self, Self::Results { .. })
    }

    /// Returns `true` if an outcome can go directly to the sink, because no other outcome must come before it.
    #[inline(always)]
    pub(super) fn can_bypass(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.can_bypass(),
            Self::Results { .. } | Self::Channel(_) => false,
        }
    }

    /// Takes the outcome of an item.
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
            return self.push(ItemOutcome { index, attempts, elapsed, origin, result });
        };
        match result {
            Ok(output) if results.len() == index => results.push(Some(output)),
            Ok(output) => insert(results, index, output),
            Err(error) => {
                errors.insert(index, error);
            }
        }
    }

    fn push(&mut self, outcome: ItemOutcome<T, E>) {
        match self {
            Self::Results { .. } => {}
            Self::Queue(queue) => queue.push(outcome),
            Self::Channel(inlet) => inlet.push(outcome),
        }
    }

    /// Flushes the outcomes to the task that takes them. Returns the waker of that task, which must be woken after the state
    /// is unlocked.
    #[inline]
    pub(super) fn flush(&mut self) -> Option<Waker> {
        match self {
            Self::Channel(inlet) => inlet.flush(),
            Self::Results { .. } | Self::Queue(_) => None,
        }
    }

    /// Returns `true` if fewer than `capacity` outcomes wait to be taken, so that an attempt may start. If not, `driver` is
    /// woken when one is taken, unless the driver itself takes them. Outcomes in the order of the input do not count here;
    /// [`is_within_window`](Self::is_within_window) bounds them.
    #[inline(always)]
    pub(super) fn has_room(&self, capacity: usize, driver: &Waker) -> bool {
        match self {
            Self::Results { .. } => true,
            Self::Queue(queue) => queue.is_ordered() || queue.len() < capacity,
            Self::Channel(inlet) => inlet.is_ordered() || inlet.has_room(capacity, driver),
        }
    }

    /// Returns `true` if a new item may start. It combines [`has_room`](Self::has_room) and, with `retries` held items,
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

    /// Returns `true` if fewer than `window` outcomes are held for the order of the input. If not, `driver` is woken when
    /// one is taken, unless the driver itself takes them.
    #[inline(always)]
    pub(super) fn is_within_window(&self, window: usize, driver: &Waker) -> bool {
        match self {
            Self::Results { .. } => true,
            Self::Queue(queue) => !queue.is_ordered() || queue.len() < window,
            Self::Channel(inlet) => !inlet.is_ordered() || inlet.has_room(window, driver),
        }
    }

    /// Takes the next outcome for the driver. Returns `None` if another task takes the outcomes.
    #[inline]
    pub(super) fn take(&mut self) -> Option<ItemOutcome<T, E>> {
        match self {
            Self::Queue(queue) => queue.take(),
            Self::Results { .. } | Self::Channel(_) => None,
        }
    }

    /// Returns `true` once if the driver found no outcome before and can take one now.
    pub(super) fn should_wake_driver(&mut self) -> bool {
        match self {
            Self::Queue(queue) => queue.should_wake_taker(),
            Self::Results { .. } | Self::Channel(_) => false,
        }
    }

    /// Marks that no further outcome will come. Returns a waker as [`flush`](Self::flush) does.
    #[must_use]
    pub(super) fn complete(&mut self) -> Option<Waker> {
        match self {
            Self::Results { .. } => {}
            Self::Queue(queue) => queue.complete(),
            Self::Channel(inlet) => return inlet.complete(),
        }
        None
    }

    /// Drops the outcomes that the sink will not take any more.
    pub(super) fn clear(&mut self) {
        if let Self::Queue(queue) = self {
            queue.clear();
        }
    }

    /// Returns the results and the errors. There is a slot for each of the `total` items or, if these take too many bytes,
    /// for each item that has `started` or settled. An item with a known output settles without a start, possibly before
    /// earlier items have started.
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

/// Inserts a result at its index, in any order.
fn insert<T>(results: &mut Vec<Option<T>>, index: usize, output: T) {
    if results.len() <= index {
        results.resize_with(index + 1, || None);
    }
    if let Some(slot) = results.get_mut(index) {
        *slot = Some(output);
    }
}
