//! Observers and the events of a run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::FailureReason;
use crate::outcome::{FailureKind, NotRetried, Origin};
use crate::result::Summary;
use crate::rt::Instant;

/// An event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run was polled for the first time.
    #[non_exhaustive]
    RunStarted {
        /// The name of the task, or the type name of the map function.
        name: &'a str,
        /// The number of items, if the source knows it or [`with_total`](crate::Over::with_total) names it.
        total: Option<usize>,
        /// The maximum number of permits that running items have together.
        concurrency: usize,
        /// The settings of the run.
        settings: RunSettings<'a>,
    },
    /// The first attempt of an item starts.
    ItemStarted {
        /// The item's position in the input.
        index: usize,
    },
    /// An attempt starts. The event of the first attempt follows [`ItemStarted`](Self::ItemStarted).
    #[non_exhaustive]
    AttemptStarted {
        /// The item's position in the input.
        index: usize,
        /// The number of the attempt. The first is 1.
        attempt: u32,
        /// The time at which it starts. It may be the end of another attempt of the run shortly before, so that the clock is not
        /// read twice. `elapsed` counts from the time after the calls of the observers.
        at: Instant,
        /// How long the attempt was ready and could not start: for want of a permit of the run, of a limiter or of its key, also
        /// because of a rate or a hold, or of a grant of the retry budget, or because the run was paused. It counts from the end of
        /// the delay before a retry and, for a first attempt, from the time at which the run tried to start it. An item that
        /// the run has not pulled does not wait.
        waited: Duration,
        /// `true` if the item joins the call of the item whose attempt has started just before, in a run of
        /// [batches](crate::Over::map_batches). A call has one permit, and each of its items has an attempt.
        shares_call: bool,
    },
    /// An attempt returned an output. In a durable run, the item settles later, once the output is stored.
    #[non_exhaustive]
    AttemptSucceeded {
        /// The item's position in the input.
        index: usize,
        /// The number of the attempt. The first is 1.
        attempt: u32,
        /// The time from the start of this attempt to its end.
        elapsed: Duration,
    },
    /// An attempt returned an error, exceeded a time limit, panicked or could not start.
    #[non_exhaustive]
    AttemptFailed {
        /// The item's position in the input.
        index: usize,
        /// The number of the attempt. The first is 1.
        attempt: u32,
        /// The time from the start of this attempt to its end.
        elapsed: Duration,
        /// The label of the item, if the run has [`label`](crate::MapRun::label).
        label: Option<&'a str>,
        /// The kind of the failure.
        kind: FailureKind,
        /// The message of a panic, the reason why an attempt could not start, or the text of an error, if the run has
        /// [`error_text`](crate::MapRun::error_text). Otherwise `None`.
        message: Option<&'a str>,
        /// The delay before the next attempt. `None` if this failure is the item's last. The wait for a permit, or for a
        /// [`RetryBudget`](crate::RetryBudget) with [`WhenSpent::Wait`](crate::WhenSpent::Wait), is not included.
        retry_in: Option<Duration>,
    },
    /// An item has succeeded or failed for good.
    #[non_exhaustive]
    ItemSettled {
        /// The item's position in the input.
        index: usize,
        /// The number of attempts.
        attempts: u32,
        /// The time from the start of the first attempt to now.
        elapsed: Duration,
        /// The label of the item, if the run has [`label`](crate::MapRun::label).
        label: Option<&'a str>,
        /// The origin of its result.
        origin: Origin,
        /// `None` if the item succeeded.
        failure: Option<FailureKind>,
        /// The reason why the item was not tried again. `None` if it succeeded.
        not_retried: Option<NotRetried>,
    },
    /// A [limiter](crate::AsyncMapTaskBuilder::limiter) of the run has changed its number of permits, because it is
    /// [adaptive](crate::LimiterBuilder::adaptive), or was set. Every run that shares the limiter emits it when it is polled next.
    /// A run that is not polled for long emits the last 64 changes.
    #[non_exhaustive]
    LimitChanged {
        /// The number of permits before.
        from: usize,
        /// The number of permits since then.
        to: usize,
        /// The reason.
        why: LimitChange,
    },
    /// The run stops before its end: no further attempt starts, and some are still running. It is emitted a second time if a
    /// run that was drained is cancelled.
    #[non_exhaustive]
    RunStopping {
        /// The number of attempts that are running.
        running: usize,
        /// `true` if they may finish, because the run was [drained](crate::MapHandle::drain). Otherwise they are told to end within
        /// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace).
        draining: bool,
        /// The reason. `None` if enough items have succeeded; see [`early_success`](crate::AsyncMapTaskBuilder::early_success).
        reason: Option<&'a FailureReason>,
    },
    /// The run has ended. This is the last event. It is not emitted if the run was dropped, by its owner or by its
    /// runtime; see [`Observer::for_run`].
    #[non_exhaustive]
    RunFinished {
        /// The account of the run.
        summary: &'a Summary,
        /// `None` if the run succeeded, also with an accepted partial result.
        reason: Option<&'a FailureReason>,
    },
}

/// The reason why an [adaptive](crate::LimiterBuilder::adaptive) limiter has changed its number of permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitChange {
    /// Attempts do not take longer than without a queue at the server.
    Growth,
    /// Attempts take longer, because they wait at the server.
    Queue,
    /// The limiter measures how long attempts take without a queue. It halves its limit for that, for a short time, and again if the
    /// server is still full.
    Measurement,
    /// Attempts ended as overloads; see [`overload`](crate::MapRun::overload).
    Overload,
    /// [`set_permits`](crate::Limiter::set_permits) was called.
    Set,
}

impl LimitChange {
    /// Returns the reason as a word: `growth`, `queue`, `measurement`, `overload` or `set`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::Queue => "queue",
            Self::Measurement => "measurement",
            Self::Overload => "overload",
            Self::Set => "set",
        }
    }
}

/// Receives every event of a run, and cannot influence it; see [`observe`](crate::MapRun::observe) for one run and
/// [`observer`](crate::AsyncMapTaskBuilder::observer) for all runs of a task.
///
/// The run calls its observer between the polls of the items, so the observer must be quick. Pass a type of your own
/// by value, or in an [`Arc`] to read it during the run:
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
/// A closure is an observer, too. Write the type of its parameter:
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
/// A panic in an observer is a bug of the caller. It propagates through the run's poll, after every running item was
/// dropped.
pub trait Observer {
    /// Handles an event.
    fn on_event(&self, event: &Event<'_>);

    /// Returns an observer for one run of a task, which gets the events of this run instead of `self`. The default is `None`:
    /// `self` gets the events of all runs.
    ///
    /// A task with this [`observer`](crate::AsyncMapTaskBuilder::observer) calls it once for each run, at its first poll. The
    /// run drops the observer when it ends and when it is dropped. So an observer can tell runs apart that overlap, and its
    /// `Drop` notices a run without [`RunFinished`](Event::RunFinished). An observer that contains another one must pass
    /// this call on, too. [`observe`](crate::MapRun::observe) does not call it: that observer belongs to one run already.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Event, Observer};
    /// use futures::FutureExt;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// /// Counts the runs that are alive.
    /// struct Alive(Arc<AtomicU64>);
    /// struct OfRun(Arc<AtomicU64>);
    ///
    /// impl Observer for Alive {
    ///     fn on_event(&self, _event: &Event<'_>) {}
    ///
    ///     fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
    ///         self.0.fetch_add(1, Ordering::Relaxed);
    ///         Some(Arc::new(OfRun(Arc::clone(&self.0))))
    ///     }
    /// }
    ///
    /// impl Observer for OfRun {
    ///     fn on_event(&self, _event: &Event<'_>) {}
    /// }
    ///
    /// impl Drop for OfRun {
    ///     fn drop(&mut self) {
    ///         self.0.fetch_sub(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let alive = Arc::new(AtomicU64::new(0));
    /// let task = AsyncMapTask::builder().observer(Alive(Arc::clone(&alive))).build()?;
    /// let mut run = task.run(0..10, |_| std::future::pending::<Result<(), String>>());
    /// assert!((&mut run).now_or_never().is_none());
    /// assert_eq!(alive.load(Ordering::Relaxed), 1);
    /// drop(run);
    /// assert_eq!(alive.load(Ordering::Relaxed), 0);
    /// # Ok(())
    /// # }
    /// ```
    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        None
    }
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

    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        (**self).for_run()
    }
}

/// The settings of a run, for people: those that take effect and have been set or are always of interest.
///
/// Its `Display` form is one line, such as `concurrency = 64, retries = 3, timeout_per_attempt = 5s`.
#[derive(Clone, Copy)]
pub struct RunSettings<'a>(pub(crate) &'a dyn Describe);

/// Lists settings by the names of their setters.
pub(crate) trait Describe {
    /// Calls a function for each setting, with its value.
    fn describe(&self, setting: &mut dyn FnMut(&'static str, &dyn fmt::Display));
}

impl RunSettings<'_> {
    /// Returns the names of the settings, which are those of the builder's functions, with their values.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Event};
    /// use std::cell::RefCell;
    ///
    /// let settings = RefCell::new(Vec::new());
    /// let task = AsyncMapTask::builder().concurrency(64).max_failures(5).build()?;
    /// task.over(0..10)
    ///     .map(|n| async move { Ok::<_, String>(n) })
    ///     .observe(|event: &Event<'_>| {
    ///         if let Event::RunStarted { settings: of_run, .. } = event {
    ///             *settings.borrow_mut() = of_run.entries();
    ///         }
    ///     })
    ///     .await?;
    /// let expected = [("concurrency", "64"), ("retries", "0"), ("max_failures", "5")];
    /// assert_eq!(settings.into_inner(), expected.map(|(name, value)| (name, value.to_owned())));
    /// # Ok(())
    /// # }
    /// ```
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let mut entries = Vec::new();
        self.0.describe(&mut |name, value| entries.push((name, value.to_string())));
        entries
    }
}

impl fmt::Display for RunSettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, value)) in self.entries().iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{name} = {value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RunSettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries()).finish()
    }
}

/// The observers of all runs of a task.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer + Send + Sync>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Observer + Send + Sync + 'static) {
        self.0.push(Arc::new(observer));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the observers for one run, if any of them has one of its own.
    pub(crate) fn for_run(&self) -> Option<Self> {
        let own: Vec<_> = self.0.iter().map(|observer| observer.for_run()).collect();
        if own.iter().all(Option::is_none) {
            return None;
        }
        let pairs = own.into_iter().zip(&self.0);
        Some(Self(pairs.map(|(own, shared)| own.unwrap_or_else(|| Arc::clone(shared))).collect()))
    }

    /// Passes an event to every observer of the task, and to that of the run.
    pub(crate) fn emit(&self, of_run: Option<&dyn Observer>, event: &Event<'_>) {
        for observer in &self.0 {
            observer.on_event(event);
        }
        if let Some(observer) = of_run {
            observer.on_event(event);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}
