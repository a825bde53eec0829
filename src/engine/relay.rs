//! The waker of the workers that the driver polls.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};

use crate::rt::{AtomicU8, yield_now};
use crate::signals::Signals;

/// The driver is not being polled, so a wake-up goes to it.
const IDLE: u8 = 0;
/// The driver is being polled, and no worker was woken since the last check.
const POLLING: u8 = 1;
/// A worker was woken.
const WOKEN: u8 = 2;

/// Tells the driver of woken workers. While the driver is being polled, the relay only records them. Then the driver decides
/// to poll them at once or to yield.
#[derive(Debug)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    waker: Waker,
    /// How many times the set of workers may still be polled again in this poll.
    rounds_left: Cell<usize>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    signals: Arc<Signals>,
}

impl Relay {
    pub(super) fn new(signals: Arc<Signals>) -> Self {
        let shared = Arc::new(Shared { state: AtomicU8::new(IDLE), signals });
        Self { waker: Waker::from(Arc::clone(&shared)), shared, rounds_left: Cell::new(0) }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Begins a poll of the driver. The set returns after two workers at the earliest, so that these rounds poll each worker
    /// once.
    pub(super) fn begin_poll(&self, workers: usize) {
        self.rounds_left.set(workers / 2 + 1);
        self.shared.state.store(POLLING, Ordering::Release);
    }

    /// Returns `true` if the driver is to poll the set of workers again: one was woken, and there is time.
    pub(super) fn may_poll_again(&self, has_time: impl FnOnce() -> bool) -> bool {
        let is_woken = self.shared.state.load(Ordering::Acquire) == WOKEN;
        if !is_woken || self.rounds_left.get() == 0 || !has_time() {
            return false;
        }
        self.rounds_left.set(self.rounds_left.get() - 1);
        self.shared.state.store(POLLING, Ordering::Release);
        true
    }

    /// Yields to other tasks of the executor, and makes it poll the driver again after that.
    ///
    /// A task that wakes itself goes to the end of the queue of its Tokio worker. There, an idle Tokio worker steals it,
    /// together with all cache lines of the run's workers. A deferred wake-up comes once the Tokio worker has nothing else
    /// to do, and goes to the same Tokio worker. Tokio cannot defer another wake-up while it wakes a task, as it does if the
    /// waker polls the driver.
    pub(super) fn yield_to_executor(&self, cx: &Context<'_>) {
        if IS_WAKING.get() {
            cx.waker().wake_by_ref();
        } else {
            let _pending = pin!(yield_now()).poll(&mut Context::from_waker(&self.waker));
        }
    }

    /// Ends a poll of the driver. Returns `true` if a worker was woken, so that the driver has to be polled again.
    pub(super) fn end_poll(&self) -> bool {
        self.shared.state.swap(IDLE, Ordering::AcqRel) == WOKEN
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            let outer = IS_WAKING.replace(true);
            self.signals.notify();
            IS_WAKING.set(outer);
        }
    }
}

thread_local! {
    /// Set while a driver is woken on this thread. Its executor may poll it within that call.
    static IS_WAKING: Cell<bool> = const { Cell::new(false) };
}
