//! The signals to a run from outside while it is running: a flag for each signal, and the waker of the driver.

use crate::rt::{AtomicU8, AtomicWaker};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};

const CANCELLED: u8 = 1;
const DRAINING: u8 = 2;
const PAUSED: u8 = 4;
const TOKEN: u8 = 8;
const RESIZED: u8 = 16;

/// A future that raises signals of a run. The run polls it.
pub(crate) type SignalSource = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends signals to a run, from any thread.
///
/// It is also the waker of the caller's cancellation token. So a cancelled token is seen immediately, even in the middle of
/// a poll, and the check costs no more than reading a flag.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    flags: AtomicU8,
    driver: AtomicWaker,
}

/// The signals that are raised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raised(u8);

impl Raised {
    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn is_cancelled(self) -> bool {
        self.0 & CANCELLED != 0
    }

    pub(crate) fn is_draining(self) -> bool {
        self.0 & DRAINING != 0
    }

    /// Returns `true` if the caller's token has woken the signals, so that it must be checked.
    pub(crate) fn is_token(self) -> bool {
        self.0 & TOKEN != 0
    }

    /// Returns `true` if another concurrency was requested.
    pub(crate) fn is_resized(self) -> bool {
        self.0 & RESIZED != 0
    }

    #[inline]
    pub(crate) fn is_paused(self) -> bool {
        self.0 & PAUSED != 0
    }
}

impl Signals {
    #[inline]
    pub(crate) fn raised(&self) -> Raised {
        Raised(self.flags.load(Ordering::Acquire))
    }

    pub(crate) fn cancel(&self) {
        self.raise(CANCELLED);
    }

    pub(crate) fn drain(&self) {
        self.raise(DRAINING);
    }

    pub(crate) fn pause(&self) {
        self.raise(PAUSED);
    }

    pub(crate) fn resume(&self) {
        self.flags.fetch_and(!PAUSED, Ordering::AcqRel);
        self.notify();
    }

    /// Makes the run check the caller's token.
    pub(crate) fn check_token(&self) {
        self.raise(TOKEN);
    }

    /// Makes the run apply the requested concurrency.
    pub(crate) fn resize(&self) {
        self.raise(RESIZED);
    }

    /// Clears the signal of [`resize`](Self::resize). Called before the run reads the concurrency, so that a further change
    /// is not missed.
    pub(crate) fn acknowledge_size(&self) {
        self.flags.fetch_and(!RESIZED, Ordering::AcqRel);
    }

    fn raise(&self, signal: u8) {
        self.flags.fetch_or(signal, Ordering::AcqRel);
        self.notify();
    }

    /// Wakes the driver.
    pub(crate) fn notify(&self) {
        self.driver.wake();
    }

    /// Sets the waker of the driver.
    pub(crate) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.check_token();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.check_token();
    }
}
