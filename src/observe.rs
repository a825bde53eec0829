//! Watching a run: what happened, told as it happens.

use std::sync::Arc;
use std::time::Duration;

use crate::error::FailureReason;
use crate::outcome::{FailureKind, Origin};
use crate::result::Summary;

/// Something that happened in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run was polled for the first time.
    RunStarted,
    /// The first attempt of an item begins.
    ItemStarted {
        /// The item's place in the input.
        index: usize,
    },
    /// An attempt returned an error, ran out of time, panicked or could not begin.
    #[non_exhaustive]
    AttemptFailed {
        /// The item's place in the input.
        index: usize,
        /// The number of the attempt; the first is 1.
        attempt: u32,
        /// What kind of failure it was.
        kind: FailureKind,
        /// The wait before the next attempt; `None` where this failure is the item's last.
        retry_in: Option<Duration>,
    },
    /// An item has succeeded or failed for good.
    #[non_exhaustive]
    ItemSettled {
        /// The item's place in the input.
        index: usize,
        /// How many attempts were made.
        attempts: u32,
        /// From the start of the first attempt to now.
        elapsed: Duration,
        /// Where its result is from.
        origin: Origin,
        /// `None` where the item succeeded.
        failure: Option<FailureKind>,
    },
    /// The run has ended. It comes last, and not at all if the run was dropped, by its owner or by its runtime.
    #[non_exhaustive]
    RunFinished {
        /// The account of the run.
        summary: &'a Summary,
        /// `None` where the run succeeded.
        reason: Option<&'a FailureReason>,
    },
}

/// Sees every event of a run and steers nothing; see [`observe`](crate::MapRun::observe).
///
/// It is called on the driver, between the items, so it must be quick. A type of your own is given by value or
/// in an [`Arc`], so that it can be read while the run goes on:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, Event, Observer};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Metrics { retries: AtomicU64 }
///
/// impl Observer for Metrics {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::AttemptFailed { retry_in: Some(_), .. } = event {
///             self.retries.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let metrics = Arc::new(Metrics::default());
/// let task = AsyncMapTask::builder().retries(1).retry_delay(std::time::Duration::ZERO).build()?;
/// task.over([1])
///     .map_with_context(|cx, n| async move { if cx.attempt() == 1 { Err("again") } else { Ok(n) } })
///     .observe(Arc::clone(&metrics))
///     .await?;
/// assert_eq!(metrics.retries.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
///
/// A closure is an observer, too. Its parameter needs its type:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, Event};
///
/// let settled = std::cell::Cell::new(0);
/// AsyncMapTask::default()
///     .over(0..10)
///     .map(|n| async move { Ok::<_, String>(n) })
///     .observe(|event: &Event<'_>| {
///         if let Event::ItemSettled { .. } = event {
///             settled.set(settled.get() + 1);
///         }
///     })
///     .await?;
/// assert_eq!(settled.get(), 10);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// A panic in an observer is the caller's: it goes on through the run's poll, after every running item
/// was dropped.
pub trait Observer {
    /// Takes note of an event.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>)> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}
