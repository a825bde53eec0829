//! One run of a task: its options, and the future of its result.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::mode::OwnTasks;
use crate::engine::output::outcomes::Results;
use crate::engine::output::sink::NoSink;
use crate::engine::running::{Options, Parts, Running, Setup};
use crate::engine::user::call::Shared;
use crate::engine::user::hooks::{
    Observe, OnObserve, OnRetryAfter, OnRetryIf, OnWeight, RetryAfter, RetryIf, Weight,
};
use crate::engine::wraps::wraps;
use crate::engine::{Drive, Ending, Plan};
use crate::error::MapTaskError;
use crate::observe::Observer;
use crate::result::MapTaskResult;

/// One run of a task: a future that does nothing until it is polled, and cancels the run when it is dropped.
///
/// Created by [`AsyncMapTask::run`](crate::AsyncMapTask::run) or by [`Over::map`](crate::Over::map) and its siblings.
/// Awaiting it returns `Result<MapTaskResult<T, E>, MapTaskError<T, E>>`.
///
/// To return a run from a function, declare the type as `impl Future<Output = Result<MapTaskResult<T, E>,
/// MapTaskError<T, E>>>`. The run is `Send` if the source, the function and its futures, the options, `T` and `E`
/// are.
///
/// # Cancel safety
///
/// Dropping the run at any point stops it: all running items are dropped with it, and nothing of the run is left
/// behind. The results are lost. So do not await a run by value in a branch of `select!` in a loop. Await `&mut run`
/// there, and do nothing slow in the other branches, because the items make progress only while the run is polled.
///
/// # Errors
///
/// Returns a [`MapTaskError`], with everything that was finished, if the run did not succeed.
///
/// # Panics
///
/// The run panics in these cases:
///
/// - The source, the observer, a function of one of the options, or the destructor of an item, a result or an error
///   panics. The panic propagates after all running items are dropped.
/// - The run is polled after it has ended.
/// - An option is set after the first poll. That drops the run, and polling the new one panics.
/// - The run is polled outside a Tokio runtime with its time driver enabled, and needs a timer: for a limit, or for
///   the delay before a retry.
///
/// A panic of the map function is not among these. Its item settles as [`Panicked`](crate::ItemError::Panicked).
#[must_use = "a run does nothing until it is awaited"]
pub struct MapRun<W: Plan> {
    running: Running<W, NoSink>,
}

impl<W: Plan> MapRun<W> {
    pub(crate) fn new(setup: Option<Setup<W>>) -> Self {
        Self { running: Running::new(setup, NoSink) }
    }

    pub(crate) fn into_setup(self) -> Option<Setup<W>> {
        self.running.into_setup()
    }

    /// Returns the same run with other options, unless it has started.
    pub(crate) fn with_options(self, change: impl FnOnce(&mut Options)) -> Self {
        let mut setup = self.into_setup();
        if let Some(setup) = &mut setup {
            change(&mut setup.options);
        }
        Self::new(setup)
    }

    /// Returns the same run with other parts, unless it has started.
    pub(crate) fn change<V>(self, change: impl FnOnce(Parts<W>, &Options) -> Parts<V>) -> MapRun<V>
    where
        V: Plan<Source = W::Source>,
    {
        MapRun::new(self.into_setup().map(|setup| setup.change(change)))
    }
}

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

impl<R: Plan> MapRun<R> {
    /// Retries only the errors that this function accepts. The default is every error.
    ///
    /// The function is called only if a retry is left. A timeout of one attempt is always retried, a panic never.
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
    pub fn retry_if<F>(self, function: F) -> MapRun<RetryIf<R, F>>
    where
        F: Fn(&R::Error) -> bool,
    {
        hook!(self, below => OnRetryIf { below, function })
    }

    /// Takes the delay before the next attempt from the error, such as the `Retry-After` of an HTTP response. This
    /// delay replaces the backoff, at most [`max_retry_delay`](crate::AsyncMapTaskBuilder::max_retry_delay), and has no
    /// jitter. `None` keeps the backoff. A server that asks for a longer wait gets the next attempt too early; raise
    /// `max_retry_delay` for it.
    ///
    /// This function does not decide whether there is a next attempt; [`retry_if`](Self::retry_if) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
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
    ///         if cx.attempt() == 1 { Err(Busy { retry_after: Some(Duration::ZERO) }) } else { Ok(n) }
    ///     })
    ///     .retry_after(|error| error.retry_after)
    ///     .await
    ///     .unwrap();
    /// assert_eq!(result.results, [Some(1)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_after<F>(self, function: F) -> MapRun<RetryAfter<R, F>>
    where
        F: Fn(&R::Error) -> Option<Duration>,
    {
        hook!(self, below => OnRetryAfter { below, function })
    }

    /// Passes every event of the run to an observer; see [`Observer`].
    ///
    /// If the observer is a closure, write the type of its parameter: `|event: &Event<'_>| ..`. Without it, the
    /// compiler infers a closure for a single lifetime, which is not general enough.
    pub fn observe<O: Observer>(self, observer: O) -> MapRun<Observe<R, O>> {
        hook!(self, below => OnObserve { below, function: observer })
    }

    /// Sets how many permits an item takes from the run's own limit,
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), and from the shared
    /// [`limiter`](crate::AsyncMapTaskBuilder::limiter). The default is 1, and 0 counts as 1.
    ///
    /// With weights, both limits count an amount of any scarce resource instead of items: megabytes, connections,
    /// cores. Items still start in their order. A heavy item waits until there is room for it, and the items behind
    /// it wait, too, so it is not starved. The function is called once per item, when the item is pulled.
    ///
    /// With weights, set `concurrency` to the available amount: the default of 4 lets no item of weight 5 start.
    ///
    /// # Errors
    ///
    /// An item that weighs more than the largest value that a limit has had can never start. It ends the run with
    /// [`FailureReason::Config`](crate::FailureReason::Config) when its turn comes.
    ///
    /// # Examples
    ///
    /// At most 100 megabytes at once:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// #[derive(Clone)]
    /// struct Image { megabytes: u32 }
    ///
    /// let images = [40, 80, 20, 60].map(|megabytes| Image { megabytes });
    /// let in_memory = &std::cell::Cell::new(0);
    /// let task = AsyncMapTask::builder().concurrency(100).build()?;
    /// task.over(images)
    ///     .map(|image| async move {
    ///         in_memory.set(in_memory.get() + image.megabytes);
    ///         assert!(in_memory.get() <= 100);
    ///         tokio::task::yield_now().await;
    ///         in_memory.set(in_memory.get() - image.megabytes);
    ///         Ok::<_, String>(())
    ///     })
    ///     .weight(|image| image.megabytes)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn weight<F>(self, function: F) -> MapRun<Weight<R, F>>
    where
        F: Fn(&R::Item) -> u32,
    {
        hook!(self, below => OnWeight { below, function })
    }

    /// Cancels the run when this token is cancelled. The run ends with
    /// [`FailureReason::Cancelled`](crate::FailureReason::Cancelled) and everything that was finished.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let token = CancellationToken::new();
    /// let stop = &token;
    /// let error = AsyncMapTask::builder()
    ///     .concurrency(1)
    ///     .build()?
    ///     .over(0..1_000)
    ///     .map(|n| async move {
    ///         if n == 9 {
    ///             stop.cancel();
    ///         }
    ///         Ok::<_, String>(n)
    ///     })
    ///     .cancellation_token(token.clone())
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.partial().successes(), 10);
    /// assert_eq!(error.partial().not_started(), 990);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancellation_token(self, token: CancellationToken) -> Self {
        self.with_options(|options| options.token = Some(token))
    }

    /// Drains the run when this token is cancelled: nothing more starts, running attempts finish, and the run ends with
    /// [`FailureReason::Cancelled`](crate::FailureReason::Cancelled), or with its partial result; see
    /// [`accept_partial`](crate::AsyncMapTaskBuilder::accept_partial).
    ///
    /// Use it for a shutdown in which started work is finished, and
    /// [`cancellation_token`](Self::cancellation_token) for the moment after which it is not. Items that wait for a retry
    /// are not tried again.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Completion};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let shutdown = CancellationToken::new();
    /// let requested = &shutdown;
    /// let done = AsyncMapTask::builder()
    ///     .concurrency(3)
    ///     .accept_partial(true)
    ///     .build()?
    ///     .over(0..1_000)
    ///     .map(|n| async move {
    ///         if n == 8 {
    ///             requested.cancel();
    ///         }
    ///         tokio::task::yield_now().await;
    ///         Ok::<_, String>(n)
    ///     })
    ///     .drain_token(shutdown.clone())
    ///     .await?;
    /// assert_eq!((done.cancelled(), done.summary.completion), (0, Completion::Cancelled));
    /// assert!(done.successes() >= 9 && done.not_started() > 900);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain_token(self, token: CancellationToken) -> Self {
        self.with_options(|options| options.drain_token = Some(token))
    }

    /// Delivers the outcomes of [`for_each`](Self::for_each), [`try_for_each`](Self::try_for_each) or
    /// [`stream`](Self::stream) in input order. The default is the order of completion. The results of a run that is
    /// awaited or [spawned](Self::spawn) are in input order anyway.
    ///
    /// Only the delivery waits. Items start and end as without it, and a failure that ends the run takes effect when
    /// it happens. Outcomes that come before their turn are held. While
    /// [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead) items are held, those that wait for a retry included,
    /// no new item starts. Running attempts can still join them: fewer than `look_ahead + concurrency` are ever held.
    /// Retries always start, because the first outcome may need one.
    ///
    /// So a slow item costs no time as long as the window has room, and never fills the memory. The guide has [the
    /// numbers](crate::guide::streaming#in-the-order-of-the-input). Cancelled items are skipped.
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
    pub fn ordered(self) -> Self {
        self.with_options(|options| options.ordered = true)
    }

    /// Runs the items on Tokio tasks of their own, so that they use all cores of the runtime.
    ///
    /// By default the items run in the task that awaits the run: many at once, but one core for all of them, as with
    /// `join_all` or `buffer_unordered`. That is right for items that mostly wait, and it is cheaper. The function
    /// may also borrow, and items need not be `Send`. Use `parallel` for items that compute between their waits, from
    /// about a microsecond each. For a function that blocks its thread, use
    /// [`map_blocking`](crate::Over::map_blocking).
    ///
    /// The run spawns at most [`concurrency`](crate::AsyncMapTaskBuilder::concurrency) tasks, and each processes one
    /// item after another. Order, limits, retries, success criteria and account stay the same. The source, the hooks,
    /// the observer and the function's own body, up to its future, may be called on any thread of the runtime. Calls
    /// of the source, the hooks and the observer never overlap; calls of the function may. The items use the
    /// subscriber and the span of the run's first poll.
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
    pub fn parallel(self) -> MapRun<Parallel<R>>
    where
        R::Source: Send + 'static,
        R::Call: Send + Sync + 'static,
        R::Hooks: Send + 'static,
        R::Item: Send + 'static,
        R::Output: Send + 'static,
        R::Error: Send + 'static,
        R::Future: Send + 'static,
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

impl<W> Future for MapRun<W>
where
    W: Drive + Plan<Outcomes = Results<<W as Plan>::Output, <W as Plan>::Error>>,
{
    type Output = Result<MapTaskResult<W::Output, W::Error>, MapTaskError<W::Output, W::Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.running).poll(cx).map(Ending::into_result)
    }
}

impl<W: Plan> fmt::Debug for MapRun<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRun").field("state", &self.running).finish_non_exhaustive()
    }
}
