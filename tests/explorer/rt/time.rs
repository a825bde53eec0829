//! Tokio's clock and timers. A timer may fire at any time after it was armed, and moves the clock to its deadline. One that
//! is far away never fires: an event that only such a timer would bring about is missing, and the schedule a deadlock.

use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shuttle::{future, thread};

use super::world;
use crate::flag::Flag;

/// A timer this far away never fires.
pub(crate) const FAR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(world::read_clock())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now() - *self
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
        *self - earlier
    }

    pub(crate) fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[derive(Debug)]
pub(crate) struct Sleep {
    deadline: Instant,
    /// Set by a task of the timer's own. A reset replaces the flag, so the earlier task has no effect on the timer.
    fired: Option<Arc<Flag>>,
}

pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, fired: None }
}

impl Sleep {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_elapsed(&self) -> bool {
        self.fired.as_ref().is_some_and(|fired| fired.is_set())
    }

    pub(crate) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        *self = sleep_until(deadline);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.0;
        let fired = self.fired.get_or_insert_with(|| {
            let fired = Arc::new(Flag::default());
            let firing = Arc::clone(&fired);
            if deadline < FAR {
                drop(future::spawn(async move {
                    thread::yield_now();
                    world::advance_to(deadline);
                    firing.set();
                }));
            }
            fired
        });
        fired.poll(cx)
    }
}
