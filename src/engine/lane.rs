//! A place that works through one item after another.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;

use super::attempt::{Limit, drop_caught, poll_caught};
use super::clock::deadline;
use super::core::{Begun, Core, Job, Turn};
use super::timer::Timer;
use super::{Work, lock};
use crate::context::Signal;
use crate::outcome::ItemError;

pin_project! {
    /// One permit of the run's semaphore at work: it takes an item, makes one attempt at it in place,
    /// hands in what became of it and takes the next. Between two items it allocates nothing.
    pub(super) struct Lane<W: Work> {
        core: Arc<Mutex<Core<W>>>,
        seat: usize,
        permit: OwnedSemaphorePermit,
        cancel_grace: Duration,
        job: Option<Job<W::Item>>,
        #[pin]
        attempt: Option<W::Future>,
        limit: Option<Limit>,
        timer: Timer,
        signal: Arc<Signal>,
    }

    impl<W: Work> PinnedDrop for Lane<W> {
        fn drop(this: Pin<&mut Self>) {
            this.abandon();
        }
    }
}

impl<W: Work> Lane<W> {
    pub(super) fn new(
        core: Arc<Mutex<Core<W>>>,
        seat: usize,
        permit: OwnedSemaphorePermit,
        cancel_grace: Duration,
    ) -> Self {
        Self {
            core,
            seat,
            permit,
            cancel_grace,
            job: None,
            attempt: None,
            limit: None,
            timer: Timer::default(),
            signal: Arc::default(),
        }
    }

    /// Tells a running attempt to end. From here on the run's grace is its only limit.
    pub(super) fn stop(self: Pin<&mut Self>) {
        let this = self.project();
        if this.job.is_some() {
            this.signal.cancel();
            if !this.limit.as_ref().is_some_and(Limit::in_grace) {
                *this.limit = None;
            }
        }
    }

    /// Drops a running attempt.
    fn abandon(self: Pin<&mut Self>) {
        let this = self.project();
        if let Some(job) = this.job.take() {
            this.signal.cancel();
            job.span.in_scope(|| drop_caught(this.attempt));
        }
    }

    /// Polls the attempt, then its limit: a finished result beats a timeout of the same poll.
    fn poll_attempt(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        attempts: u32,
    ) -> Poll<Result<W::Output, ItemError<W::Error>>> {
        let mut this = self.project();
        if let Poll::Ready(result) = poll_caught(this.attempt.as_mut(), cx, attempts) {
            return Poll::Ready(match (result, this.limit) {
                (Err(ItemError::Failed { .. }), Some(limit)) if limit.in_grace() => Err(limit.error(attempts)),
                (result, _) => result,
            });
        }
        let Some(limit) = this.limit else { return Poll::Pending };
        let mut wake_at = limit.deadline();
        loop {
            if this.timer.poll(cx, wake_at).is_pending() {
                return Poll::Pending;
            }
            let now = if limit.in_grace() {
                wake_at
            } else {
                let mut core = lock(this.core);
                let now = core.clock.read();
                let exact = limit.deadline() + core.clock.slack();
                if now < exact {
                    wake_at = exact;
                    continue;
                }
                now
            };
            this.signal.cancel();
            if limit.in_grace() || this.cancel_grace.is_zero() {
                drop_caught(this.attempt);
                return Poll::Ready(Err(limit.error(attempts)));
            }
            wake_at = deadline(now, *this.cancel_grace);
            limit.begin_grace(wake_at);
        }
    }
}

impl<W: Work> Future for Lane<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut ended = None;
        loop {
            let mut this = self.as_mut().project();
            if this.job.is_none() {
                match lock(this.core).turn(*this.seat, ended.take(), this.signal, cx.waker()) {
                    Turn::Attempt(Begun { job, future, limit }) => {
                        *this.job = Some(job);
                        *this.limit = limit;
                        this.attempt.set(Some(future));
                    }
                    Turn::Rest => return Poll::Pending,
                    Turn::Retire => return Poll::Ready(()),
                }
            }
            let Some(job) = self.as_mut().project().job.take() else { return Poll::Pending };
            let entered = job.span.enter();
            let polled = self.as_mut().poll_attempt(cx, job.attempt);
            drop(entered);
            match polled {
                Poll::Pending => {
                    *self.project().job = Some(job);
                    return Poll::Pending;
                }
                Poll::Ready(result) => ended = Some((job, result)),
            }
        }
    }
}
