//! The task: the shared configuration of runs.

use std::sync::Arc;

use futures::Stream;

use crate::config::{Config, Settings};
use crate::engine::plan::Mapped;
use crate::engine::user::bounds::{CloneItem, ItemList, ResultFuture};
use crate::engine::user::call::Plain;
use crate::engine::user::source::{Fallible, FromIter, FromStream};
use crate::error::BoxError;
use crate::over::Over;
use crate::run::MapRun;
use crate::verdict::Criteria;

/// The configuration of a run over many items: the concurrency, the retries, the time limits and the success
/// criteria.
///
/// A task holds no items, no function and no run, and has no type parameters. Build it once with
/// [`builder`](Self::builder) and use it for any number of runs, also at the same time. Each run counts separately:
/// `concurrency(4)` means four attempts *in each run*.
///
/// A clone costs one reference count and refers to the same task. So a task fits in an `axum` state, in a struct of
/// your own, or in a `static`:
///
/// ```
/// use std::sync::LazyLock;
/// use async_map_task::AsyncMapTask;
///
/// static RESIZE: LazyLock<AsyncMapTask> = LazyLock::new(|| {
///     AsyncMapTask::builder().name("resize").concurrency(16).build().expect("the settings are valid")
/// });
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let widths = RESIZE.run([640, 1280], |width| async move { Ok::<u32, String>(width / 2) }).await?;
/// assert_eq!(widths.results, [Some(320), Some(640)]);
/// # Ok(())
/// # }
/// ```
///
/// [`AsyncMapTask::default()`](Self::default) is a task with all the builder's defaults: 4 attempts at once, no
/// retry, no time limit, and every item must succeed.
#[derive(Debug, Clone, Default)]
pub struct AsyncMapTask {
    config: Arc<Config>,
}

impl AsyncMapTask {
    pub(crate) fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Returns the same task for a run that has no end: no failure and no time limit stops it.
    pub(crate) fn endless(&self) -> Self {
        let criteria = Criteria { max_failures: Some(usize::MAX), ..Criteria::default() };
        Self::new(Config { criteria, run_timeout: None, ..Config::clone(&self.config) })
    }

    /// Returns the settings that the task was built with.
    pub(crate) fn settings(&self) -> &Settings {
        &self.config.given.0
    }

    /// Runs an async function over a list: short for [`over`](Self::over)`(items).`[`map`](Over::map)`(f)`.
    ///
    /// `items` is any `IntoIterator`, and `f` any `Fn` from an item to a future of a `Result`. Both may borrow. The
    /// run is lazy: nothing happens before it is awaited. The items must be `Clone`, because a retry needs the item
    /// again. For items that are not `Clone`, use [`map_once`](Over::map_once).
    ///
    /// # Cancel safety
    ///
    /// Dropping the run cancels it; see [`MapRun`](crate::MapRun).
    ///
    /// # Errors
    ///
    /// Awaiting the run returns a [`MapTaskError`](crate::MapTaskError) if the run did not succeed. It contains
    /// everything that was finished.
    ///
    /// # Examples
    ///
    /// `f` can be a plain `async fn`, or a closure that borrows:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// async fn parse(text: &str) -> Result<u32, std::num::ParseIntError> {
    ///     text.parse()
    /// }
    ///
    /// let task = AsyncMapTask::default();
    /// let numbers = task.run(["1", "2", "3"], parse).await?.into_successful_results();
    /// assert_eq!(numbers, [1, 2, 3]);
    ///
    /// let unit = String::from("kg");
    /// let unit = unit.as_str();
    /// let labels = task.run(numbers, |n| async move { Ok::<_, String>(format!("{n} {unit}")) }).await?;
    /// assert_eq!(labels.into_successful_results(), ["1 kg", "2 kg", "3 kg"]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias(
        "join_all",
        "try_join_all",
        "gather",
        "fan-out",
        "fan_out",
        "pmap",
        "parallel map",
        "concurrent map",
        "buffer_unordered"
    ))]
    pub fn run<I, F, Fut, T, E>(
        &self,
        items: I,
        f: F,
    ) -> MapRun<Mapped<FromIter<I::Iter>, Plain<F>, I::Item, Fut, T, E>>
    where
        I: ItemList<Item: CloneItem>,
        F: Fn(I::Item) -> Fut,
        Fut: ResultFuture<Ok = T, Error = E>,
    {
        self.over(items).map(f)
    }

    /// Takes the items of a list or any other iterator. Pass the function next: [`map`](Over::map),
    /// [`map_with_context`](Over::map_with_context), [`map_once`](Over::map_once) or
    /// [`map_blocking`](Over::map_blocking).
    ///
    /// The run pulls one item at a time, and only while one of its own permits is free. So the iterator may be
    /// endless, or create each item on demand.
    ///
    /// If its [`size_hint`](Iterator::size_hint) is exact, as that of every `Vec`, array, slice and range is, the run
    /// knows its total from the start. It then stops at the first failure that makes the success criteria
    /// unreachable. The items that remain count as [`not_started`](crate::Summary::not_started). Adapters such as
    /// `filter` or `flat_map` have no exact hint; see [`over_stream`](Self::over_stream) for the effects of an
    /// unknown total.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let result = AsyncMapTask::default()
    ///     .over((1..=5).filter(|n| n % 2 == 1))
    ///     .map_with_context(|cx, n| async move { Ok::<_, String>((cx.index(), n)) })
    ///     .await?;
    /// assert_eq!(result.into_successful_results(), [(0, 1), (1, 3), (2, 5)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn over<I: ItemList>(&self, items: I) -> Over<FromIter<I::Iter>> {
        Over::new(Arc::clone(&self.config), FromIter(items.into_items()))
    }

    /// Takes the items of an iterator that can fail, such as the lines of a reader. An `Err` of the iterator ends the
    /// run; see [`over_try_stream`](Self::over_try_stream), which does the same for streams.
    ///
    /// The iterator is called in the task that polls the run, and everything else waits meanwhile. This is right for a file.
    /// For lines of a terminal, of a pipe or of a socket, which may take a while to come, use
    /// [`over_try_stream`](Self::over_try_stream) with an async reader.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, FailureReason};
    /// use std::io::{BufRead, Cursor};
    ///
    /// let task = AsyncMapTask::default();
    /// let lines = Cursor::new("one\ntwo\n").lines();
    /// let lengths = task.over_try(lines).map(|line| async move { Ok::<_, String>(line.len()) }).await?;
    /// assert_eq!(lengths.results, [Some(3), Some(3)]);
    ///
    /// let broken = Cursor::new(b"one\n\xff\n".as_slice()).lines();
    /// let error = task.over_try(broken).map(|line| async move { Ok::<_, String>(line.len()) }).await.unwrap_err();
    /// assert!(matches!(error.reason(), FailureReason::Source(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn over_try<N, I, X>(&self, items: N) -> Over<Fallible<FromIter<N::IntoIter>>>
    where
        N: IntoIterator<Item = Result<I, X>>,
        X: Into<BoxError>,
    {
        Over::new(Arc::clone(&self.config), Fallible(FromIter(items.into_iter())))
    }

    /// Takes the items of a stream: a channel, the rows of a query, the lines of a socket.
    ///
    /// The run polls the stream only while one of its own permits is free. So a slow function holds the stream back,
    /// and at most `concurrency` attempts run. Running items make progress while the stream has nothing, and the
    /// stream is polled while items run. It need not be `Unpin`.
    ///
    /// Most streams do not know how many items they will yield. With an unknown total, the run cannot detect that
    /// [`min_success_ratio`](crate::AsyncMapTaskBuilder::min_success_ratio) or
    /// [`min_successes`](crate::AsyncMapTaskBuilder::min_successes) has become unreachable, so it judges them when
    /// the stream has ended. [`max_failures`](crate::AsyncMapTaskBuilder::max_failures) and
    /// [`fail_fast`](crate::AsyncMapTaskBuilder::fail_fast) still stop such a run early. A stream with an exact
    /// [`size_hint`](Stream::size_hint) is treated as a list.
    ///
    /// A wrong hint affects only the accuracy of the total: no item is lost, and no memory is reserved for items that
    /// never come. If a stream yields less than it promised, the criteria use the promised number until the stream
    /// ends. If it yields more, its total counts as unknown from the first extra item.
    ///
    /// # Examples
    ///
    /// A channel as the source. A Tokio receiver is not a `Stream`; `poll_fn` converts it:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use futures::stream;
    ///
    /// let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    /// tokio::spawn(async move {
    ///     for n in 0..100 {
    ///         sender.send(n).await.unwrap();
    ///     }
    /// });
    ///
    /// let result = AsyncMapTask::default()
    ///     .over_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    ///     .map(|n: u64| async move { Ok::<_, String>(n * n) })
    ///     .await?;
    /// assert_eq!(result.total(), 100);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("async source", "channel", "queue"))]
    pub fn over_stream<S: Stream>(&self, stream: S) -> Over<FromStream<S>> {
        Over::new(Arc::clone(&self.config), FromStream(Box::pin(stream)))
    }

    /// Takes the items of a stream that can fail, such as a database cursor. An `Err` of the stream ends the run.
    ///
    /// The error belongs to the source, not to an item: it has no index, is not retried, and no success criterion
    /// tolerates it. The run starts nothing new, gives running attempts the
    /// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace), and ends with
    /// [`FailureReason::Source`](crate::FailureReason::Source). [`partial`](crate::MapTaskError::partial) contains
    /// everything that was finished. The stream's error is the [`source`](std::error::Error::source) of the run's
    /// error. In all other respects this is [`over_stream`](Self::over_stream).
    ///
    /// To treat an error of the stream as the failure of one item instead, use `over_stream`. Pass the `Result` to
    /// the function, and let the function return its error.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, FailureReason};
    /// use futures::stream;
    ///
    /// let rows = stream::iter([Ok("ada"), Ok("grace"), Err("the connection was closed")]);
    /// let error = AsyncMapTask::builder()
    ///     .concurrency(1)
    ///     .build()?
    ///     .over_try_stream(rows)
    ///     .map(|name: &str| async move { Ok::<_, String>(name.len()) })
    ///     .await
    ///     .unwrap_err();
    /// assert!(matches!(error.reason(), FailureReason::Source(_)));
    /// assert_eq!(error.into_partial().results, [Some(3), Some(5)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn over_try_stream<S, I, X>(&self, stream: S) -> Over<Fallible<FromStream<S>>>
    where
        S: Stream<Item = Result<I, X>>,
        X: Into<BoxError>,
    {
        Over::new(Arc::clone(&self.config), Fallible(FromStream(Box::pin(stream))))
    }
}
