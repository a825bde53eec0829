//! Permits for code that is not a run.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::{Acquired, Limiter, LimiterSet, Permit, Ticket};
use crate::error::ConfigError;
use crate::rt::{Instant, Sleep, sleep_until};

/// # Your own code under the same limit
impl Limiter {
    /// Waits for one permit, in the same queue as the runs. It counts like that of an attempt, toward the permits and the rate,
    /// and is returned when it is dropped. For an [adaptive](super::LimiterBuilder::adaptive) limiter, that is the end of an attempt
    /// that was no overload.
    ///
    /// # Errors
    ///
    /// Returns an error if the limiter has never had a permit.
    ///
    /// # Panics
    ///
    /// Panics if it has to wait for a rate or a hold outside a Tokio runtime that has its time enabled.
    ///
    /// # Cancel safety
    ///
    /// It is cancel safe. A future that is dropped leaves the queue, and has consumed nothing.
    ///
    /// While a future of `acquire` is neither polled nor dropped, all requests behind it wait; see [what holds up other
    /// runs](Self#what-holds-up-other-runs). Await it, or drop it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::Limiter;
    ///
    /// let api = Limiter::new(10);
    /// let permit = api.acquire().await?;
    /// assert_eq!(api.in_use(), 1); // a request to the server belongs here
    /// drop(permit);
    /// assert_eq!(api.in_use(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("semaphore"))]
    pub async fn acquire(&self) -> Result<Permit, ConfigError> {
        self.acquire_many(1).await
    }

    /// Waits for this many permits, as an attempt with this [`weight`](crate::MapRun::weight) does; see
    /// [`acquire`](Self::acquire). 0 counts as 1.
    ///
    /// # Errors
    ///
    /// Returns an error if the number is above the largest number of permits that the limiter has ever had.
    ///
    /// # Panics
    ///
    /// Panics if it has to wait for a rate or a hold outside a Tokio runtime that has its time enabled.
    pub async fn acquire_many(&self, permits: u32) -> Result<Permit, ConfigError> {
        LimiterSet::from(self.clone()).acquire(permits.max(1)).await.map(Permit::ended)
    }

    /// Takes one permit if an attempt could begin now: a permit is free, the rate and a hold allow it, and no request waits.
    /// Returns `None` otherwise. A permit counts as a start of the rate, also if it is dropped at once.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.take_at_once(1).then(|| Permit::new(self.clone().into(), 1).ended())
    }
}

impl LimiterSet {
    /// Waits for permits of all limiters. The errors are those of [`request`](Self::request).
    pub(crate) fn acquire(self, weight: u32) -> Acquire {
        Acquire { limiters: self, weight, ticket: None, timer: None }
    }
}

/// A request that waits in a task of its own.
#[derive(Debug)]
pub(crate) struct Acquire {
    limiters: LimiterSet,
    weight: u32,
    ticket: Option<Ticket>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Future for Acquire {
    type Output = Result<Permit, ConfigError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(ready) = self.poll_ticket(cx.waker()) {
                return Poll::Ready(ready);
            }
            let Some(due) = self.ticket.as_ref().and_then(Ticket::due) else { return Poll::Pending };
            ready!(self.poll_timer(due, cx));
        }
    }
}

impl Acquire {
    fn poll_ticket(&mut self, waker: &Waker) -> Poll<Result<Permit, ConfigError>> {
        if let Some(ticket) = &self.ticket {
            let polled = ticket.poll(waker);
            drop(ticket.turn());
            return polled.map(Ok);
        }
        match self.limiters.request(self.weight, waker)? {
            Acquired::Now(permit) => Poll::Ready(Ok(permit)),
            Acquired::Later(ticket) => {
                drop(ticket.turn());
                self.ticket = Some(ticket);
                Poll::Pending
            }
        }
    }

    fn poll_timer(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}
