//! A timer that is kept, and re-armed only when necessary.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::shutdown::ShutDown;
use crate::panic_payload::discard;
use crate::rt::{Instant, Sleep, coop, sleep_until};

/// A timer that has fired this far from its deadline was fired by the shutdown of its runtime.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits for one deadline after another and registers with Tokio's timer as rarely as it can.
///
/// A registration that is earlier than the deadline stays as it is, and is moved when it fires. So a worker that runs
/// thousands of items within one limit registers once for all of them.
///
/// A deadline that has passed is registered as well, unless Tokio's timer knows that it has passed. So the timers of
/// attempts with the same deadline, or an earlier one, fire first.
#[derive(Debug, Default)]
pub(super) struct Timer {
    registration: Option<Registration>,
}

#[derive(Debug)]
struct Registration {
    sleep: Pin<Box<Sleep>>,
    waker: Waker,
}

impl Timer {
    /// Ready once the deadline has passed. Otherwise the task is woken at the deadline at the latest.
    ///
    /// # Errors
    ///
    /// Returns [`ShutDown`] if the timer's runtime was shut down. Tokio would panic.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<(), ShutDown>> {
        if self.is_early_enough(cx, deadline) { Poll::Pending } else { self.register(cx, deadline) }
    }

    /// Returns `true` if the current registration wakes the task at the deadline or before.
    #[inline]
    pub(super) fn is_early_enough(&self, cx: &Context<'_>, deadline: Instant) -> bool {
        self.registration.as_ref().is_some_and(|Registration { sleep, waker }| {
            !sleep.is_elapsed() && sleep.deadline() <= deadline && waker.will_wake(cx.waker())
        })
    }

    #[cold]
    fn register(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<(), ShutDown>> {
        let is_new = self.registration.is_none();
        let registration = self.registration.get_or_insert_with(|| Registration {
            sleep: Box::pin(sleep_until(deadline)),
            waker: cx.waker().clone(),
        });
        registration.waker.clone_from(cx.waker());
        let sleep = &mut registration.sleep;
        // `reset` registers a new timer as well. Its first poll would register it, too, but panics if the runtime is gone.
        if is_new || sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            if sleep.is_elapsed() {
                if Instant::now() >= deadline {
                    return Poll::Ready(Ok(()));
                }
                if is_shut_down(sleep.as_mut()) {
                    return Poll::Ready(Err(ShutDown));
                }
                sleep.as_mut().reset(deadline);
            }
            if poll_outside_budget(sleep.as_mut(), cx)?.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Polls a timer outside the budget of the task, so that it fires even if the items have used up the budget.
fn poll_outside_budget(mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Result<Poll<()>, ShutDown> {
    let polled =
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut coop::unconstrained(sleep.as_mut())).poll(cx)));
    polled.map_err(|payload| {
        // The runtime may have been shut down since the last check.
        if !is_shut_down(sleep) {
            resume_unwind(payload);
        }
        discard(payload);
        ShutDown
    })
}

/// Returns `true` if the timer has no runtime any more. Then every deadline has passed.
fn is_shut_down(mut sleep: Pin<&mut Sleep>) -> bool {
    sleep.as_mut().reset(Instant::now() + FAR);
    sleep.is_elapsed()
}
