//! How the driver is woken.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Scheduler;
use crate::rt::coop;

impl Scheduler {
    /// Sets the waker of the driver. Returns the former one, which must be dropped after the state is unlocked.
    pub(in super::super) fn set_driver(&mut self, waker: &Waker) -> Option<Waker> {
        let is_known = self.driver.will_wake(waker);
        (!is_known).then(|| mem::replace(&mut self.driver, waker.clone()))
    }

    /// Wakes the driver. With parallel workers, it is woken once the state is unlocked.
    pub(in super::super) fn wake_driver(&mut self) {
        if self.is_parallel() {
            (self.driver_is_woken, self.wakes_driver) = (true, true);
        } else {
            self.driver.wake_by_ref();
        }
    }

    /// Wakes the driver, if workers are parallel and the driver sleeps. Returns `true` if it is woken.
    #[inline]
    pub(in super::super) fn notify_driver(&mut self) -> bool {
        let is_asleep = self.is_parallel() && !self.driver_is_woken;
        if is_asleep {
            (self.driver_is_woken, self.has_notified, self.wakes_driver) = (true, true, true);
        }
        is_asleep
    }

    /// Makes the caller's tokens notify the signals, for as long as the returned futures are kept.
    pub(in super::super) fn listen_to_tokens(&self) -> [Option<Pin<Box<WaitForCancellationFutureOwned>>>; 2] {
        [&self.token, &self.drain_token].map(|token| self.listen_to(token.as_ref()?))
    }

    fn listen_to(&self, token: &CancellationToken) -> Option<Pin<Box<WaitForCancellationFutureOwned>>> {
        let mut cancelled = Box::pin(token.clone().cancelled_owned());
        let waker = Waker::from(Arc::clone(&self.signals));
        let mut registered = coop::unconstrained(cancelled.as_mut());
        if Pin::new(&mut registered).poll(&mut Context::from_waker(&waker)).is_ready() {
            self.signals.check_token();
        }
        Some(cancelled)
    }
}
