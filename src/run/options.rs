//! The options of a run.

use std::sync::Arc;
use std::time::Duration;

use super::MapRun;
use crate::engine::Plan;
use crate::engine::mode::OwnTasks;
use crate::engine::running::Parts;
use crate::engine::user::bounds::Transferable;
use crate::engine::user::call::Shared;
use crate::engine::user::hooks::{
    ErrorText, Label, Observe, OnErrorText, OnLabel, OnObserve, OnRetryAfter, OnRetryIf, RetryAfter, RetryIf,
};
use crate::engine::wraps::wraps;
use crate::observe::Observer;

/// Sets one more hook of a run.
macro_rules! hook {
    ($run:expr, $hooks:ident => $changed:expr) => {
        $run.change(|Parts { call, hooks: $hooks, sink, outcomes, store }, _| Parts {
            call,
            hooks: $changed,
            sink,
            outcomes,
            store,
        })
    };
}

pub(super) use hook;

impl<R: Plan> MapRun<R> {
    /// Retries an error only if this function returns `true`. The default is to retry every error.
    ///
    /// The function is called only if the item has a retry left, so it has no effect without
    /// [`retries`](crate::AsyncMapTaskBuilder::retries). It decides about errors only. A timeout of one attempt is
    /// retried unless [`retry_timeouts`](crate::AsyncMapTaskBuilder::retry_timeouts) is `false`. A panic is never
    /// retried.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::io;
    ///
    /// let task = AsyncMapTask::builder().retries(5).build()?;
    /// let error = task
    ///     .over(["a.txt"])
    ///     .map(|_| async { Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)) })
    ///     .retry_if(|error| error.kind() == io::ErrorKind::TimedOut)
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.summary().retries, 0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("transient", "retryable", "predicate"))]
    pub fn retry_if<F>(self, function: F) -> MapRun<RetryIf<R, F>>
    where
        F: Fn(&R::Error) -> bool,
    {
        hook!(self, below => OnRetryIf { below, function })
    }

    /// Takes the delay before the next attempt from the error, such as the `Retry-After` of an HTTP response. This delay
    /// replaces the backoff, at most [`max_retry_delay`](crate::AsyncMapTaskBuilder::max_retry_delay), and has no jitter.
    /// `None` keeps the backoff. If a server asks for a longer wait, the next attempt comes too early: raise
    /// `max_retry_delay` above the longest wait.
    ///
    /// This function does not select which errors are retried; [`retry_if`](Self::retry_if) does. If the delay ends
    /// after the deadline of the item or of the run, the item fails immediately with this error.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::time::Duration;
    ///
    /// #[derive(Debug)]
    /// struct Busy { retry_after: Option<Duration> }
    ///
    /// let task = AsyncMapTask::builder().retries(1).build()?;
    /// let result = task
    ///     .over([1])
    ///     .map_with_context(|cx, n| async move {
    ///         if cx.attempt() == 1 { Err(Busy { retry_after: Some(Duration::from_secs(7)) }) } else { Ok(n) }
    ///     })
    ///     .retry_after(|error| error.retry_after)
    ///     .await
    ///     .unwrap();
    /// assert_eq!(result.results, [Some(1)]);
    /// assert_eq!(result.summary.elapsed.as_secs(), 7); // instead of the backoff of about 1 s
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("backoff", "429"))]
    pub fn retry_after<F>(self, function: F) -> MapRun<RetryAfter<R, F>>
    where
        F: Fn(&R::Error) -> Option<Duration>,
    {
        hook!(self, below => OnRetryAfter { below, function })
    }

    /// Passes every event of the run to an observer; see [`Observer`]. The default is no observer.
    ///
    /// If the observer is a closure, write the type of its parameter: `|event: &Event<'_>| ..`. Without it, the
    /// compiler infers a closure for a single lifetime, which is not general enough.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Event};
    /// use std::cell::Cell;
    ///
    /// let started = &Cell::new(0);
    /// AsyncMapTask::default()
    ///     .over(0..10)
    ///     .map(|n| async move { Ok::<_, String>(n) })
    ///     .observe(|event: &Event<'_>| {
    ///         if let Event::ItemStarted { .. } = event {
    ///             started.set(started.get() + 1);
    ///         }
    ///     })
    ///     .await?;
    /// assert_eq!(started.get(), 10);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("metrics", "callback", "hook"))]
    pub fn observe<O>(self, observer: O) -> MapRun<Observe<R, O>>
    where
        O: Observer, // A closure needs the type of its parameter: `|event: &Event<'_>|`.
    {
        hook!(self, below => OnObserve { below, function: observer })
    }

    /// Names each item by a text, for people: a URL, a file, the number of an order. The default is no label.
    ///
    /// The label is in the log lines about the item, in its `tracing` span, in the message of the run's error, in the
    /// [`ItemOutcome`](crate::ItemOutcome) and in the events. The result of an awaited run has the
    /// [labels](crate::MapTaskResult::label) of the items without a result. The function is called once per item, at the latest
    /// when its first attempt starts.
    ///
    /// # Panics
    ///
    /// A panic in this function propagates through the run's poll, after every running item was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let task = AsyncMapTask::builder().name("resize").build()?;
    /// let error = task
    ///     .over(["dog.png", "cat.png"])
    ///     .map(|file| async move { if file == "cat.png" { Err("no such file") } else { Ok(()) } })
    ///     .label(|file| file.to_string())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "resize: 1 of 2 items failed, 0 allowed; item 1 (cat.png) failed first, after 1 attempt: no such file"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("name", "key"))]
    pub fn label<F>(self, function: F) -> MapRun<Label<R, F>>
    where
        F: Fn(&R::Item) -> String,
    {
        hook!(self, below => OnLabel { below, function })
    }

    /// Gives each error a text for log lines and events. The default is no text: the error type need not be `Display`.
    ///
    /// The text is in the log lines about attempts and items that fail, as the field `error`, and in
    /// [`Event::AttemptFailed`](crate::Event::AttemptFailed), as the `message`. Errors, outcomes and results contain the error
    /// itself. The function is called once for each attempt that fails with an error.
    ///
    /// # Panics
    ///
    /// A panic in this function propagates through the run's poll, after every running item was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Event};
    /// use std::cell::RefCell;
    ///
    /// let messages = RefCell::new(Vec::new());
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// task.over(["7", "x"])
    ///     .map(|text| async move { text.parse::<u32>() })
    ///     .error_text(|error| error.to_string())
    ///     .observe(|event: &Event<'_>| {
    ///         if let Event::AttemptFailed { message: Some(message), .. } = event {
    ///             messages.borrow_mut().push(message.to_string());
    ///         }
    ///     })
    ///     .await?;
    /// assert_eq!(messages.into_inner(), ["invalid digit found in string"]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("describe", "message", "log"))]
    pub fn error_text<F>(self, function: F) -> MapRun<ErrorText<R, F>>
    where
        F: Fn(&R::Error) -> String,
    {
        hook!(self, below => OnErrorText { below, function })
    }

    /// Delivers the outcomes of [`for_each`](Self::for_each), [`try_for_each`](Self::try_for_each) or
    /// [`stream`](Self::stream) in input order. The default is the order of completion. The results of a run that is
    /// awaited or [spawned](Self::spawn) are in input order anyway.
    ///
    /// Only the delivery waits. A failure that ends the run takes effect when it happens. Outcomes that come before
    /// their turn are *held*. While [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead) items are held, no new
    /// item starts. Items that wait for a retry count, too. Running attempts can still join them: fewer than
    /// `look_ahead + concurrency` are ever held. Retries always start, because the first outcome may need one.
    ///
    /// So a slow item costs no time while fewer than `look_ahead` items are held, and it never fills the memory. The
    /// guide has [the numbers](crate::guide::streaming#in-the-order-of-the-input). Cancelled items are skipped.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::time::Duration;
    ///
    /// let mut order = Vec::new();
    /// AsyncMapTask::default()
    ///     .over([30, 10, 20])
    ///     .map(|millis| async move {
    ///         tokio::time::sleep(Duration::from_millis(millis)).await;
    ///         Ok::<_, String>(millis)
    ///     })
    ///     .ordered()
    ///     .for_each(|outcome| {
    ///         order.push(outcome.index);
    ///         async {}
    ///     })
    ///     .await?;
    /// assert_eq!(order, [0, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("buffered", "in order"))]
    pub fn ordered(self) -> Self {
        self.with_options(|options| options.ordered = true)
    }

    /// Runs the items on several Tokio tasks, so that they use all cores of the runtime.
    ///
    /// By default the items run in the task that awaits the run: many at once, but on one core, as with `join_all` or
    /// `buffer_unordered`. This suits items that mostly wait, and it is cheaper. The map function may also borrow,
    /// and items need not be `Send`. Use `parallel` for items that compute for a microsecond or more between their
    /// waits. For a function that blocks its thread, use [`map_blocking`](crate::Over::map_blocking).
    ///
    /// The run spawns at most [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) tasks, and each processes one
    /// item after another. So every part of the run must be `Send + 'static`, and the map function also `Sync`.
    /// Order, limits, retries, success criteria and account stay the same.
    ///
    /// The source, the map function, the functions of the options and the observer may be called on any thread of the
    /// runtime. Only calls of the map function may overlap. The items use the `tracing` subscriber and the span that
    /// are current at the run's first poll.
    ///
    /// # Cancel safety
    ///
    /// Dropping the run aborts its tasks. If another thread polls an item at that moment, that poll finishes first,
    /// and the item is then dropped.
    ///
    /// # Panics
    ///
    /// The run panics if it is polled outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let primes = AsyncMapTask::builder()
    ///     .concurrency(64)
    ///     .build()?
    ///     .over(2..10_000_u32)
    ///     .map(|n| async move { Ok::<_, String>((2..n).take_while(|d| d * d <= n).all(|d| n % d != 0)) })
    ///     .parallel()
    ///     .await?
    ///     .into_successful_results();
    /// assert_eq!(primes.into_iter().filter(|is_prime| *is_prime).count(), 1_229);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("multi-core", "cores", "rayon", "JoinSet", "worker"))]
    pub fn parallel(self) -> MapRun<Parallel<R>>
    where
        R: ParallelPlan, // Own all values, with `Arc` if they are shared; or stay on one core, without `parallel`.
    {
        self.change(|Parts { call, hooks, sink, outcomes, store }, _| Parts {
            call: Shared(Arc::new(call)),
            hooks,
            sink,
            outcomes,
            store,
        })
    }
}

/// The plan of a run that can use several cores; see [`parallel`](MapRun::parallel). Implemented for every plan with
/// parts that are `Send + 'static`, and a map function that is also `Sync`.
pub trait ParallelPlan: Plan {}

// The values come first, so that their message is the one that is reported.
impl<R> ParallelPlan for R
where
    R: Plan,
    R::Item: Transferable,
    R::Output: Transferable,
    R::Error: Transferable,
    R::Source: Send + 'static,
    R::Call: Send + Sync + 'static,
    R::Hooks: Send + 'static,
    R::Future: Send + 'static,
{
}

wraps! {
    /// A run with [`parallel`](MapRun::parallel).
    Parallel<W> {
        Call: Shared<W::Call>,
        Hooks: W::Hooks,
        Mode: OwnTasks,
        Sink: W::Sink,
        Outcomes: W::Outcomes,
        Store: W::Store,
    }
}
