//! One task over one input: the function, the options of the run, and its end.

use std::any::type_name;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::ItemContext;
use crate::engine::call::{Once, Plain, WithContext};
use crate::engine::hooks::{HookSet, NoHooks};
use crate::engine::source::Source;
use crate::engine::{Driver, Parts, Types, Work};
use crate::error::MapTaskError;
use crate::observe::Observer;
use crate::result::MapTaskResult;

/// A task and the items it is to run over, until the function is given. Made by
/// [`AsyncMapTask::over`](crate::AsyncMapTask::over) and its siblings.
#[must_use = "a run does nothing until it has a function and is awaited"]
pub struct Over<S> {
    config: Arc<Config>,
    source: S,
}

impl<S: Source> Over<S> {
    pub(crate) fn new(config: Arc<Config>, source: S) -> Self {
        Self { config, source }
    }

    /// Runs an async function over every item.
    ///
    /// The item is cloned for each attempt that another one may follow: never, where the task has no
    /// retries. For items that are not `Clone` there is [`map_once`](Self::map_once).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let words = ["snow", "rain"];
    /// let lengths = AsyncMapTask::default()
    ///     .over(words)
    ///     .map(|word| async move { u8::try_from(word.len()) })
    ///     .await?;
    /// assert_eq!(lengths.results, [Some(4), Some(4)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, Fut, T, E>(self, f: F) -> Plan<S, Plain<F>, S::Item, T, E, Fut>
    where
        F: Fn(S::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S::Item: Clone,
    {
        self.start_with(Plain(f), type_name::<F>())
    }

    /// As [`map`](Self::map), with an [`ItemContext`] that tells the function its index, its attempt, its
    /// deadline and when to stop.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let numbered = AsyncMapTask::default()
    ///     .over(["a", "b"])
    ///     .map_with_context(|cx, name| async move { Ok::<_, String>(format!("{} {name}", cx.index())) })
    ///     .await?;
    /// assert_eq!(numbered.into_successful_results(), ["0 a", "1 b"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_with_context<F, Fut, T, E>(self, f: F) -> Plan<S, WithContext<F>, S::Item, T, E, Fut>
    where
        F: Fn(ItemContext, S::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        S::Item: Clone,
    {
        self.start_with(WithContext(f), type_name::<F>())
    }

    /// As [`map`](Self::map), for items that are not `Clone`: each gets one attempt.
    ///
    /// # Errors
    ///
    /// A task with retries cannot keep its promise here; its run ends with
    /// [`FailureReason::Config`](crate::FailureReason::Config) before any item is started.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// struct Ticket(u32); // not Clone
    ///
    /// let task = AsyncMapTask::default();
    /// let result = task.over([Ticket(7)]).map_once(|ticket| async move { Ok::<_, String>(ticket.0) }).await?;
    /// assert_eq!(result.results, [Some(7)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_once<F, Fut, T, E>(self, f: F) -> Plan<S, Once<F>, S::Item, T, E, Fut>
    where
        F: Fn(S::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.start_with(Once(f), type_name::<F>())
    }

    fn start_with<C, T, E, Fut>(self, call: C, function: &'static str) -> Plan<S, C, S::Item, T, E, Fut> {
        let Self { config, source } = self;
        let hooks = HookSet::NONE;
        MapRun { state: State::Ready(Ready { config, function, source, call, hooks, token: None }) }
    }
}

/// A run without hooks.
pub(crate) type Plan<S, C, I, T, E, Fut> = MapRun<Parts<S, C, NoHooks<E>, I, T, E, Fut>>;

impl<S> fmt::Debug for Over<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over").field("config", &self.config).finish_non_exhaustive()
    }
}

/// One run of a task: a future that does nothing until it is polled, and cancels the run when it is dropped.
///
/// Made by [`AsyncMapTask::run`](crate::AsyncMapTask::run) or by [`Over::map`] and its siblings. Awaiting
/// it gives `Result<MapTaskResult<T, E>, MapTaskError<T, E>>`.
///
/// A function of yours returns it as `impl Future<Output = Result<MapTaskResult<T, E>, MapTaskError<T, E>>>`. It
/// is `Send` where the source, the function and its futures, the options, `T` and `E` are.
///
/// # Cancel safety
///
/// Dropping the run at any point stops it: all running items are dropped with it, and nothing of it is
/// left behind. Their results are lost, so do not await a run by value in a branch of `select!` whose
/// loop comes round again; await `&mut run` there, and do nothing slow in the other branches, because
/// the items make progress only while the run is polled.
///
/// # Errors
///
/// [`MapTaskError`], with all that was finished, where the run did not succeed.
///
/// # Panics
///
/// Where the source, the observer, `retry_if` or `retry_after` panic, or the destructor of an item, a result or
/// an error does: their panic goes on after every running item was dropped. Where it is polled after it has
/// ended, or after an option was set that should have been set before its first poll, which drops the run. Where it needs a timer (a limit, or a
/// wait before a retry) and is polled outside a Tokio runtime with its time driver enabled.
///
/// A panic of the map function is not among these: it is its item's
/// [`Panicked`](crate::ItemError::Panicked).
#[must_use = "a run does nothing until it is awaited"]
pub struct MapRun<W: Types> {
    state: State<W>,
}

enum State<W: Types> {
    Ready(Ready<W>),
    Running(Box<Driver<W>>),
    Over,
}

/// A run that was not polled yet.
struct Ready<W: Types> {
    config: Arc<Config>,
    /// The type name of the map function, which names the run where the task has no name.
    function: &'static str,
    source: W::Source,
    call: W::Call,
    hooks: W::Hooks,
    token: Option<CancellationToken>,
}

impl<S, C, P, A, O, I, T, E, Fut> MapRun<Parts<S, C, HookSet<P, A, O>, I, T, E, Fut>> {
    /// Retries only the errors that this function accepts. The default is every error.
    ///
    /// It is asked only where a retry is left. A timeout of one attempt is always retried, a panic never.
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
    pub fn retry_if<Q>(self, retry_if: Q) -> MapRun<Parts<S, C, HookSet<Q, A, O>, I, T, E, Fut>>
    where
        Q: Fn(&E) -> bool,
    {
        self.with_hooks(|HookSet { retry_after, observer, .. }| HookSet {
            retry_if: Some(retry_if),
            retry_after,
            observer,
        })
    }

    /// Takes the wait before the next attempt from the error, such as the `Retry-After` of an HTTP answer.
    /// It replaces the backoff, unjittered and however long; `None` keeps the backoff.
    ///
    /// It does not decide whether there is a next attempt; [`retry_if`](Self::retry_if) does.
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
    pub fn retry_after<B>(self, retry_after: B) -> MapRun<Parts<S, C, HookSet<P, B, O>, I, T, E, Fut>>
    where
        B: Fn(&E) -> Option<Duration>,
    {
        self.with_hooks(|HookSet { retry_if, observer, .. }| HookSet {
            retry_if,
            retry_after: Some(retry_after),
            observer,
        })
    }

    /// Shows every event of the run to an observer; see [`Observer`].
    ///
    /// Where it is a closure, write its type, `|event: &Event<'_>| ..`: without it the compiler takes the
    /// closure for one of a single lifetime, which is not general enough.
    pub fn observe<N: Observer>(self, observer: N) -> MapRun<Parts<S, C, HookSet<P, A, N>, I, T, E, Fut>> {
        self.with_hooks(|HookSet { retry_if, retry_after, .. }| HookSet {
            retry_if,
            retry_after,
            observer: Some(observer),
        })
    }

    /// Cancels the run when this token is cancelled. It ends with
    /// [`FailureReason::Cancelled`](crate::FailureReason::Cancelled) and all that was finished.
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
    pub fn cancellation_token(mut self, token: CancellationToken) -> Self {
        match &mut self.state {
            State::Ready(ready) => ready.token = Some(token),
            State::Running(_) | State::Over => self.state = State::Over,
        }
        self
    }

    fn with_hooks<G>(
        self,
        change: impl FnOnce(HookSet<P, A, O>) -> G,
    ) -> MapRun<Parts<S, C, G, I, T, E, Fut>> {
        let state = match self.state {
            State::Ready(Ready { config, function, source, call, hooks, token }) => {
                State::Ready(Ready { config, function, source, call, hooks: change(hooks), token })
            }
            // Options come before the first poll, as the type says.
            State::Running(_) | State::Over => State::Over,
        };
        MapRun { state }
    }
}

// Nothing in a run is pinned in place: the source, the lanes and the timers have heap places of their own.
impl<W: Types> Unpin for MapRun<W> {}

impl<W: Work> Future for MapRun<W> {
    type Output = Result<MapTaskResult<W::Output, W::Error>, MapTaskError<W::Output, W::Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Out of its place while it is polled, so that a panic leaves nothing half done behind.
        let mut driver = match std::mem::replace(&mut self.state, State::Over) {
            State::Ready(Ready { config, function, source, call, hooks, token }) => {
                let name = config.name.as_deref().unwrap_or(function).to_owned();
                Box::new(Driver::new(config, name, (source, call, hooks), token))
            }
            State::Running(driver) => driver,
            State::Over => unreachable!("a run was polled after it had ended"),
        };
        let polled = driver.poll(cx);
        if polled.is_pending() {
            self.state = State::Running(driver);
        }
        polled
    }
}

impl<W: Types> fmt::Debug for MapRun<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready(_) => "ready",
            State::Running(_) => "running",
            State::Over => "over",
        };
        f.debug_struct("MapRun").field("state", &state).finish_non_exhaustive()
    }
}
