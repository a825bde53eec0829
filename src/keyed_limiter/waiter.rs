//! A task that waits until a new key fits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::limiter::Room;
use crate::rt::{Instant, Sleep, sleep_until};

/// A task in the queue for room. It leaves the queue when it has what it waits for, or when this is dropped.
pub(super) struct Waiter {
    room: Arc<Room>,
    /// The hash of the key that the task waits for, if it waits for one key only.
    hash: Option<u64>,
    number: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiter {
    pub(super) fn new(room: &Arc<Room>, hash: Option<u64>) -> Self {
        Self { room: Arc::clone(room), hash, number: None, timer: None }
    }

    /// Polls an attempt that returns a value, or the earliest time at which room may come without a wake-up. It gets the number
    /// of this task in the queue.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut impl FnMut(Option<u64>) -> Result<T, Option<Instant>>,
    ) -> Poll<T> {
        loop {
            // The waker is in the queue before the attempt, so no key that becomes unused after the attempt is missed.
            let waker = cx.waker().clone();
            let number = match self.number {
                Some(number) => {
                    self.room.renew(number, waker);
                    number
                }
                None => *self.number.insert(self.room.join(self.hash, waker)),
            };
            let next_time = match attempt(Some(number)) {
                Ok(value) => {
                    self.leave();
                    return Poll::Ready(value);
                }
                Err(next_time) => next_time,
            };
            // Only the first needs a timer. A task that becomes the first after this check is woken then.
            let Some(time) = next_time.filter(|_| self.room.first() == Some(number)) else {
                return Poll::Pending;
            };
            ready!(self.poll_timer(time, cx));
        }
    }

    fn poll_timer(&mut self, time: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if timer.deadline() != time {
            timer.as_mut().reset(time);
        }
        timer.as_mut().poll(cx)
    }

    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            self.room.leave(number);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.leave();
    }
}
