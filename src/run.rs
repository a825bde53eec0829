//! One run of a task, and the future of its result.

mod batches;
mod limits;
pub(crate) mod options;
mod stopping;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::engine::output::outcomes::Results;
use crate::engine::output::sink::NoSink;
use crate::engine::running::{Options, Parts, Running, Setup};
use crate::engine::{Drive, Ending, Plan};
use crate::error::MapTaskError;
use crate::result::MapTaskResult;

/// One run of a task. It is a future: it does nothing until it is polled, and dropping it stops the run.
///
/// Created by [`AsyncMapTask::run`](crate::AsyncMapTask::run) or by [`Over::map`](crate::Over::map) and its siblings.
/// The methods of a run set its options, such as [`retry_if`](Self::retry_if), or finish it in another way than
/// `.await`, such as [`for_each`](Self::for_each).
///
/// Awaiting the run returns `Result<MapTaskResult<T, E>, MapTaskError<T, E>>`. `T` is the output of the map function,
/// and `E` is its error. The run is `Send` if the source, the map function, its futures, the options, `T` and `E`
/// are.
///
/// To return a run from a function, declare the type as `impl Future<Output = Result<MapTaskResult<T, E>,
/// MapTaskError<T, E>>>`. The module [`plan`](crate::plan) has examples, also of functions that take a run.
///
/// # Cancel safety
///
/// Dropping the run at any point stops it. All running items are dropped with it, and no task, timer or permit of the
/// run is left. The results are lost. So do not await a run by value in a branch of `select!` in a loop. Await `&mut
/// run` there, and do nothing slow in the other branches: the items make progress only while the run is polled.
///
/// # Errors
///
/// Returns a [`MapTaskError`] if the run did not succeed. The error contains all finished results.
///
/// # Panics
///
/// The run panics in these cases:
///
/// - The source, the observer, a function of one of the options, or the destructor of an item, a result or an error
///   panics. The panic propagates after all running items are dropped.
/// - The run is polled after it has ended.
/// - An option is set after the first poll, and the run is polled again. Setting the option drops the running items.
/// - The run needs a timer, and is polled outside a Tokio runtime with its time driver enabled. Time limits and
///   delays before retries need a timer.
///
/// A panic of the map function does not propagate. Its item fails as [`Panicked`](crate::ItemError::Panicked).
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::AsyncMapTask;
/// use std::time::Duration;
///
/// let task = AsyncMapTask::builder().retries(2).retry_delay(Duration::ZERO).build()?;
/// let run = task
///     .over(["1", "2", "3"])
///     .map(|text| async move { text.parse::<u32>() })
///     .retry_if(|_| false); // nothing has run yet
/// let result = run.await?;
/// assert_eq!(result.results, [Some(1), Some(2), Some(3)]);
/// # Ok(())
/// # }
/// ```
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
