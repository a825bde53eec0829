//! A timer that is kept and re-armed only when it must be.

use crate::rt::{Instant, Sleep, coop, sleep_until};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Waits for one deadline after another and registers with Tokio's timer as rarely as it can.
///
/// A registration that is earlier than the deadline is left as it is: when it fires, it is moved. So
/// a lane that runs thousands of items within one limit registers once for all of them.
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
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
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
    fn register(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        let registration = self.registration.get_or_insert_with(|| Registration {
            sleep: Box::pin(sleep_until(deadline)),
            waker: cx.waker().clone(),
        });
        registration.waker.clone_from(cx.waker());
        let sleep = &mut registration.sleep;
        if sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        // Outside the task's budget: a timer must be heard also where the items have used it up.
        while Pin::new(&mut coop::unconstrained(sleep.as_mut())).poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
