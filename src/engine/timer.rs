//! A timer that is kept and re-armed only when it must be.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::shutdown::ShutDown;
use crate::panic_payload::discard;
use crate::rt::{Instant, Sleep, coop, sleep_until};

/// A timer that is this far from its deadline and has fired was fired by the end of its runtime.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits for one deadline after another and registers with Tokio's timer as rarely as it can.
///
/// A registration that is earlier than the deadline is left as it is: when it fires, it is moved. So
/// a worker that runs thousands of items within one limit registers once for all of them.
///
/// A deadline that has passed already is registered as well, unless Tokio's timer knows that it has: the timers of
/// attempts that have passed with it, or before, ring first.
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
    /// Ready once the deadline has passed; otherwise the task is woken at it, at the latest.
    ///
    /// # Errors
    ///
    /// [`ShutDown`] if the timer's runtime was shut down. Tokio would panic.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<(), ShutDown>> {
        if self.is_early_enough(cx, deadline) { Poll::Pending } else { self.register(cx, deadline) }
    }

    /// Whether the task is woken at the deadline or before it, as things are.
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
        // `reset` registers a new one as well. Its first poll would, too, but panics if the runtime is gone.
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

/// Polls a timer outside the task's budget: it must be heard also if the items have used that up.
fn poll_outside_budget(mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Result<Poll<()>, ShutDown> {
    let polled =
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut coop::unconstrained(sleep.as_mut())).poll(cx)));
    polled.map_err(|payload| {
        // The runtime may have been shut down since the last look.
        if !is_shut_down(sleep) {
            resume_unwind(payload);
        }
        discard(payload);
        ShutDown
    })
}

/// Returns `true` if the timer has no runtime any more: every deadline has passed then.
fn is_shut_down(mut sleep: Pin<&mut Sleep>) -> bool {
    sleep.as_mut().reset(Instant::now() + FAR);
    sleep.is_elapsed()
}
