//! A task and its items, before the function is set.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::context::ItemContext;
use crate::engine::output::outcomes::Results;
use crate::engine::output::sink::NoSink;
use crate::engine::persist::durability::NoStore;
use crate::engine::plan::Mapped;
use crate::engine::running::{Options, Parts, Setup};
use crate::engine::user::batches::{Batches, BatchesWithContext};
use crate::engine::user::bounds::{CloneItem, ResultFuture};
use crate::engine::user::call::{Blocking, BlockingWithContext, Once, Plain, WithContext};
use crate::engine::user::hooks::NoHooks;
use crate::engine::user::source::{Source, WithTotal};
use crate::engine::worker::blocking::BlockingAttempt;
use crate::run::MapRun;

/// A task and its items, before the function is set.
#[must_use = "a run does nothing until it has a function and is awaited"]
pub struct Over<S> {
    config: Arc<Config>,
    source: S,
}

impl<S: Source> Over<S> {
    pub(crate) fn new(config: Arc<Config>, source: S) -> Self {
        Self { config, source }
    }

    /// Sets the number of items of a source that does not know it: a stream, a channel, a filtered list.
    ///
    /// The run then treats its source as a list of this length. It stops at the first failure that makes the success
    /// criteria unreachable, and [`Progress`](crate::Progress) knows its total. A wrong number loses no item. If the
    /// source gives fewer items, the criteria use this number until the source ends; if it gives more, the total counts
    /// as unknown from the first extra item.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use futures::{StreamExt, stream};
    ///
    /// let even = stream::iter(0..100).filter(|n| std::future::ready(n % 2 == 0));
    /// let error = AsyncMapTask::builder()
    ///     .concurrency(1)
    ///     .build()?
    ///     .over_stream(even)
    ///     .with_total(50)
    ///     .map(|n| async move { if n == 0 { Err("down") } else { Ok(n) } })
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!((error.summary().total, error.summary().not_started), (50, 49));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_total(self, total: usize) -> Over<WithTotal<S>> {
        let Self { config, source } = self;
        Over { config, source: WithTotal { source, total } }
    }

    /// Runs an async function over every item.
    ///
    /// The item is cloned for each attempt that may be followed by another, so never if the task has no retries. For
    /// items that are not `Clone`, use [`map_once`](Self::map_once).
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
    pub fn map<F, Fut, T, E>(self, f: F) -> MapRun<Mapped<S, Plain<F>, S::Item, Fut, T, E>>
    where
        F: Fn(S::Item) -> Fut,
        Fut: ResultFuture<Ok = T, Error = E>,
        S::Item: CloneItem,
    {
        self.start_with(Plain(f), type_name::<F>())
    }

    /// Like [`map`](Self::map), and also passes an [`ItemContext`] to the function. It has the index, the attempt,
    /// the deadline and the cancellation token.
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
    pub fn map_with_context<F, Fut, T, E>(self, f: F) -> MapRun<Mapped<S, WithContext<F>, S::Item, Fut, T, E>>
    where
        F: Fn(ItemContext, S::Item) -> Fut,
        Fut: ResultFuture<Ok = T, Error = E>,
        S::Item: CloneItem,
    {
        self.start_with(WithContext(f), type_name::<F>())
    }

    /// Like [`map`](Self::map), for items that are not `Clone`: each gets one attempt.
    ///
    /// # Errors
    ///
    /// A task with retries is refused: the run ends with [`FailureReason::Config`](crate::FailureReason::Config)
    /// before any item starts.
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
    #[doc(alias("not Clone"))]
    pub fn map_once<F, Fut, T, E>(self, f: F) -> MapRun<Mapped<S, Once<F>, S::Item, Fut, T, E>>
    where
        F: Fn(S::Item) -> Fut,
        Fut: ResultFuture<Ok = T, Error = E>,
    {
        self.start_with(Once(f), type_name::<F>())
    }

    /// Like [`map`](Self::map), for a function that blocks. It runs on Tokio's blocking pool and does not hold up the
    /// runtime. Use it for file work, for compression, for a C library, for a database client without async.
    ///
    /// Nothing can stop a blocking function. An item that exceeds its time limit settles at the limit. Its permits,
    /// also those of a [`Limiter`](crate::Limiter), are released only when its function has returned, so the bound on
    /// running work stays true. If the function still runs, a retry of the item needs permits of its own. When the
    /// run has ended or was dropped, it does not wait for such functions. They run to their end, and their results
    /// are discarded. Functions that the pool has not started never start.
    ///
    /// The pool belongs to the runtime and is shared with everything that uses it. It has up to 512 threads by
    /// default; see
    /// [`max_blocking_threads`](https://docs.rs/tokio/1/tokio/runtime/struct.Builder.html#method.max_blocking_threads).
    /// While it is full, attempts wait in its queue and their limits run. If the system provides no thread, the
    /// attempt is [`Faulted`](crate::ItemError::Faulted): it is retried while retries are left, and its function
    /// never runs.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let files = ["Cargo.toml", "README.md"];
    /// let sizes = AsyncMapTask::default()
    ///     .over(files)
    ///     .map_blocking(|path| std::fs::metadata(path).map(|metadata| metadata.len()))
    ///     .await?
    ///     .into_successful_results();
    /// assert!(sizes.iter().all(|size| *size > 0));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("spawn_blocking", "rayon", "par_iter", "parallel", "threads"))]
    pub fn map_blocking<F, T, E>(
        self,
        f: F,
    ) -> MapRun<Mapped<S, Blocking<F>, S::Item, BlockingAttempt<T, E>, T, E>>
    where
        S::Item: CloneItem + Send + 'static,
        F: Fn(S::Item) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.start_with(Blocking(Arc::new(f)), type_name::<F>())
    }

    /// Like [`map_blocking`](Self::map_blocking), and also passes an [`ItemContext`] to the function.
    ///
    /// Nothing can stop a blocking function, but it can end early: the
    /// [`cancellation_token`](ItemContext::cancellation_token) of its context is cancelled when its time limit has passed,
    /// and when the run is stopped or dropped. A long function checks it from time to time.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::time::Duration;
    ///
    /// let task = AsyncMapTask::builder().timeout_per_attempt(Duration::from_millis(10)).allow_failures().build()?;
    /// let result = task
    ///     .over([1])
    ///     .map_blocking_with_context(|cx, n| {
    ///         let token = cx.cancellation_token();
    ///         while !token.is_cancelled() {
    ///             std::thread::yield_now(); // one part of the work
    ///         }
    ///         Err::<(), _>(format!("{n} was stopped"))
    ///     })
    ///     .await?;
    /// assert_eq!(result.summary.timeouts, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_blocking_with_context<F, T, E>(
        self,
        f: F,
    ) -> MapRun<Mapped<S, BlockingWithContext<F>, S::Item, BlockingAttempt<T, E>, T, E>>
    where
        S::Item: CloneItem + Send + 'static,
        F: Fn(ItemContext, S::Item) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.start_with(BlockingWithContext(Arc::new(f)), type_name::<F>())
    }

    /// Runs an async function over batches of up to `size` items, with an outcome for each item. Use it for calls that take
    /// many items at once: an embeddings API, a bulk insert, the batch calls of a queue. The [guide](crate::guide::batches) has
    /// such jobs.
    ///
    /// The function returns one result for each item, in their order, or an error if the call has failed as a whole. Everything
    /// else is about items, as with [`map`](Self::map): the account, the success criteria, retries,
    /// [`recover`](crate::MapRun::recover) and [`cache`](crate::MapRun::cache).
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), a [`limiter`](crate::AsyncMapTaskBuilder::limiter) and
    /// [`timeout_per_attempt`](crate::AsyncMapTaskBuilder::timeout_per_attempt) are about calls. So `concurrency(4)` with
    /// batches of 96 has up to 384 items in flight.
    ///
    /// The items must be `Clone`, because those of a failed call are needed again. For large items, use references or `Arc`s.
    ///
    /// A batch is called as soon as nothing more can join it without waiting;
    /// [`batch_wait`](crate::MapRun::batch_wait) lets it wait for a slow stream.
    /// [`batch_weight`](crate::MapRun::batch_weight) bounds a batch by tokens or bytes. Items that wait for a retry lead the
    /// next batch.
    ///
    /// # A call that fails as a whole
    ///
    /// An error, a timeout or a panic of the call is one failed attempt of each of its items. The call is made again for all of
    /// them while they have retries left. Then it is split in halves, until the items that fail alone are known, so
    /// one bad item does not cost its batch. These smaller calls start before any other, also if the task has no retries, and are
    /// no attempts. One bad item of n costs at most 2 x log2(n) of them, rounded up;
    /// [`split_failed(false)`](crate::MapRun::split_failed) switches this off.
    ///
    /// # Errors
    ///
    /// - An answer with another number of results than items fails each of its items as
    ///   [`Faulted`](crate::ItemError::Faulted), with both numbers. They are not tried again.
    /// - A `size` of 0, [`weight`](crate::MapRun::weight) and [`limit_per`](crate::MapRun::limit_per) end the run with
    ///   [`FailureReason::Config`](crate::FailureReason::Config) before any item starts.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let texts = (0..100).map(|n| if n == 42 { String::new() } else { format!("text {n}") });
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let result = task
    ///     .over(texts)
    ///     .map_batches(32, |texts: Vec<String>| async move {
    ///         // One request. It refuses single texts, and can fail as a whole.
    ///         Ok(texts
    ///             .iter()
    ///             .map(|text| if text.is_empty() { Err("empty text") } else { Ok(text.len()) })
    ///             .collect())
    ///     })
    ///     .await?;
    /// assert_eq!((result.successes(), result.failures()), (99, 1));
    /// assert!(result.errors.contains_key(&42));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("batch", "chunk"))]
    #[doc(alias = "chunks")]
    #[doc(alias = "bulk")]
    pub fn map_batches<F, Fut, T, E>(
        self,
        size: usize,
        f: F,
    ) -> MapRun<Mapped<S, Batches<F>, S::Item, Fut, T, E>>
    where
        F: Fn(Vec<S::Item>) -> Fut,
        Fut: ResultFuture<Ok = Vec<Result<T, E>>, Error = E>,
        S::Item: CloneItem,
    {
        self.start_with(Batches(f), type_name::<F>()).with_options(|options| options.set_batch_size(size))
    }

    /// Like [`map_batches`](Self::map_batches), and also passes an [`ItemContext`] to the function: that of the first item of
    /// the batch, with the deadline and the cancellation token of the call. It has no checkpoint.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let starts = AsyncMapTask::default()
    ///     .over(0..10)
    ///     .map_batches_with_context(4, |cx, items: Vec<u32>| async move {
    ///         Ok::<_, String>(items.iter().map(|_| Ok(cx.index())).collect())
    ///     })
    ///     .await?;
    /// assert_eq!(starts.into_successful_results(), [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_batches_with_context<F, Fut, T, E>(
        self,
        size: usize,
        f: F,
    ) -> MapRun<Mapped<S, BatchesWithContext<F>, S::Item, Fut, T, E>>
    where
        F: Fn(ItemContext, Vec<S::Item>) -> Fut,
        Fut: ResultFuture<Ok = Vec<Result<T, E>>, Error = E>,
        S::Item: CloneItem,
    {
        self.start_with(BatchesWithContext(f), type_name::<F>())
            .with_options(|options| options.set_batch_size(size))
    }

    fn start_with<C, T, E, Fut>(
        self,
        call: C,
        function: &'static str,
    ) -> MapRun<Mapped<S, C, S::Item, Fut, T, E>> {
        let Self { config, source } = self;
        let (outcomes, options) = (Results::default(), Options::new(config, function));
        let parts = Parts { call, hooks: NoHooks, sink: NoSink, outcomes, store: NoStore };
        MapRun::new(Some(Setup { source, parts, options, notice: None }))
    }
}

/// A type that has the options and the ends of a run.
#[diagnostic::on_unimplemented(
    message = "the options of a run come after its map function",
    label = "there is no map function yet",
    note = "call `map` first: `task.over(items).map(function).retry_if(..)`"
)]
pub trait HasFunction {}

/// Declares the options and the ends of a run for `Over`, where a call is a mistake. Nothing implements [`HasFunction`], so
/// each call is an error that names the cure.
macro_rules! after_the_function {
    ($($option:ident$(<$($argument:ident),+>)?)*) => {
        impl<S> Over<S> {
            $(
                #[doc(hidden)]
                pub fn $option$(<$($argument),+>)?(self $($(, _: $argument)+)?) -> Self
                where
                    Self: HasFunction,
                {
                    self
                }
            )*
        }
    };
}

after_the_function! {
    retry_if<A> retry_after<A> hold_back<A> weight<A> limit_per<A, B> label<A> observe<A> cancellation_token<A> drain_token<A>
    overload<A> cancel_on_ctrl_c redo<A> give_back<A> ordered parallel for_each<A> try_for_each<A> stream spawn
    batch_weight<A, B> batch_wait<A> split_failed<A> progress_with<A> error_text<A>
}

impl<S> fmt::Debug for Over<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over").field("config", &self.config).finish_non_exhaustive()
    }
}
