//! What reaches a run from outside while it goes on: a flag for each order, and the driver's waker.

use crate::rt::{AtomicU8, AtomicWaker};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};

const CANCELLED: u8 = 1;
const DRAINING: u8 = 2;
const PAUSED: u8 = 4;
const TOKEN: u8 = 8;
const RESIZED: u8 = 16;

/// Tells a run what it is to do, from wherever.
///
/// It is the waker of the caller's cancellation token, too. So a token that is cancelled is seen at once, in the
/// middle of a poll as well, and looking for it costs no more than looking at a flag.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    flags: AtomicU8,
    driver: AtomicWaker,
}

/// What was ordered.
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

    /// Whether the caller's token has rung, so that it is worth a look.
    pub(crate) fn is_token(self) -> bool {
        self.0 & TOKEN != 0
    }

    /// Whether another concurrency was asked for.
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
        self.order(CANCELLED);
    }

    pub(crate) fn drain(&self) {
        self.order(DRAINING);
    }

    pub(crate) fn pause(&self) {
        self.order(PAUSED);
    }

    pub(crate) fn resume(&self) {
        self.flags.fetch_and(!PAUSED, Ordering::AcqRel);
        self.notify();
    }

    /// Has the run look at the caller's token.
    pub(crate) fn look_at_token(&self) {
        self.order(TOKEN);
    }

    /// Has the run look at the concurrency that was asked for.
    pub(crate) fn resize(&self) {
        self.order(RESIZED);
    }

    /// To be called before the run looks at it, so that it is not missed if it changes once more.
    pub(crate) fn acknowledge_size(&self) {
        self.flags.fetch_and(!RESIZED, Ordering::AcqRel);
    }

    fn order(&self, order: u8) {
        self.flags.fetch_or(order, Ordering::AcqRel);
        self.notify();
    }

    /// Wakes the driver.
    pub(crate) fn notify(&self) {
        self.driver.wake();
    }

    /// From here on the signals is heard by this waker.
    pub(crate) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.look_at_token();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.look_at_token();
    }
}
