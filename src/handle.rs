//! A run in the background.

use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

use crate::engine::background::{Background, RunTask};
use crate::engine::output::outcomes::Results;
use crate::engine::output::sink::NoSink;
use crate::engine::running::Running;
use crate::engine::user::bounds::Transferable;
use crate::engine::{Drive, Plan};
use crate::error::MapTaskError;
use crate::progress::{Control, Progress};
use crate::result::MapTaskResult;
use crate::run::MapRun;

impl<W: Plan> MapRun<W> {
    /// Starts the run immediately in a Tokio task and returns a handle to it. Use it for a run that must continue
    /// after its request is answered, and that can be observed and controlled meanwhile.
    ///
    /// Because of that task, every part of the run must be `Send + 'static`. Its items share that one task; with
    /// [`parallel`](Self::parallel) they have tasks of their own.
    ///
    /// # Panics
    ///
    /// Panics if it is called outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let handle = AsyncMapTask::default().over(0..100).map(|n| async move { Ok::<_, String>(n * 2) }).spawn();
    /// println!("{:?}", handle.progress());
    /// let result = handle.await?;
    /// assert_eq!(result.successes(), 100);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("background", "JoinSet", "detach"))]
    pub fn spawn(self) -> MapHandle<W::Output, W::Error>
    where
        W: SpawnPlan, // Own all values, with `Arc` if they are shared; or await the run, which may borrow.
    {
        W::spawn(self)
    }
}

/// The plan of a run that can continue in the background; see [`spawn`](MapRun::spawn). Implemented for every plan with
/// parts that are `Send + 'static`.
pub trait SpawnPlan: Plan + Sized {
    #[doc(hidden)]
    fn spawn(run: MapRun<Self>) -> MapHandle<Self::Output, Self::Error>;
}

// The values come first, so that their message is the one that is reported.
impl<W> SpawnPlan for W
where
    W: Drive + Plan<Outcomes = Results<<W as Plan>::Output, <W as Plan>::Error>>,
    W::Item: Transferable,
    W::Output: Transferable,
    W::Error: Transferable,
    Running<W, NoSink>: Send + 'static,
{
    fn spawn(run: MapRun<W>) -> MapHandle<W::Output, W::Error> {
        let (run, name, control) = Background::new(run.into_setup());
        MapHandle { name, control, task: run.spawn() }
    }
}

/// A handle to a run in the background, and a future of its result. Created by [`MapRun::spawn`].
///
/// Dropping the handle detaches the run, as with Tokio's `JoinHandle`, and its result is discarded. To end the run
/// with the handle, call [`cancel`](Self::cancel) first, or give the run a
/// [`cancellation_token`](MapRun::cancellation_token) and drop its guard.
///
/// Every control method takes effect immediately, and none blocks. After the run has ended they do nothing.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` is cancel safe: the run continues, and the next await returns its result.
///
/// # Errors
///
/// The same as those of the [run](MapRun#errors). If the runtime of the run is shut down, the handle still returns
/// everything that had settled, as [`Cancelled`](crate::FailureReason::Cancelled) with an exact account.
///
/// # Panics
///
/// Awaiting it panics as the [run](MapRun#panics) does, and if it is awaited again after it returned its result.
#[must_use = "without its handle a run cannot be stopped, and its result is lost"]
pub struct MapHandle<T, E> {
    name: String,
    control: Arc<Control>,
    task: RunTask<Results<T, E>>,
}

impl<T, E> MapHandle<T, E> {
    /// Returns the progress of the run.
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }

    /// Returns a receiver of every later change of the progress. A slow receiver misses intermediate values. The
    /// channel closes when the run has ended, and not before; its last value is the last progress.
    ///
    /// Do not keep the guard that [`borrow`](watch::Receiver::borrow) returns: while it lives, the run cannot make
    /// progress.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let run = AsyncMapTask::default().over(0..1_000).map(|n| async move { Ok::<_, String>(n) });
    /// let handle = run.spawn();
    /// let mut progress = handle.watch();
    /// while progress.changed().await.is_ok() {
    ///     println!("{} of 1000", progress.borrow_and_update().successes);
    /// }
    /// assert_eq!(progress.borrow().successes, 1_000);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("progress bar"))]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.control.watch()
    }

    /// Pauses the run until [`resume`](Self::resume): no new item starts, and no retry. Running attempts continue,
    /// and so do the time limits. An item that waits for its retry can exceed its
    /// [`timeout_per_item`](crate::AsyncMapTaskBuilder::timeout_per_item) meanwhile, and the run its
    /// [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    pub fn pause(&self) {
        self.control.signals().pause();
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.control.signals().resume();
    }

    /// Changes how many attempts may run at once; see [`concurrency`](crate::AsyncMapTaskBuilder::concurrency). With
    /// more, items start immediately. With fewer, running attempts continue, and nothing starts until enough of them
    /// have ended. 0 counts as 1; to start nothing, use [`pause`](Self::pause).
    ///
    /// With [`weight`](MapRun::weight) the value is an amount of permits. An item that is heavier than a lowered
    /// concurrency starts alone, once everything else has ended. Lowering never ends the run. Only a weight above the
    /// largest concurrency that the run has had does, with [`FailureReason::Config`](crate::FailureReason::Config).
    pub fn set_concurrency(&self, concurrency: usize) {
        self.control.set_concurrency(concurrency.max(1));
    }

    /// Starts nothing more, lets running attempts finish, and ends the run as
    /// [`Cancelled`](crate::FailureReason::Cancelled). Items that wait for their retry are not tried again. Running
    /// attempts keep their time limits. To stop them earlier, call [`cancel`](Self::cancel).
    #[doc(alias("graceful shutdown", "shutdown", "stop"))]
    pub fn drain(&self) {
        self.control.signals().drain();
    }

    /// Stops the run immediately. It cancels the tokens of the running attempts, waits up to
    /// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace), drops them, and ends the run as
    /// [`Cancelled`](crate::FailureReason::Cancelled).
    #[doc(alias("abort", "stop", "kill"))]
    pub fn cancel(&self) {
        self.control.signals().cancel();
    }
}

impl<T, E> Future for MapHandle<T, E> {
    type Output = Result<MapTaskResult<T, E>, MapTaskError<T, E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(ending) => Poll::Ready(ending.into_result()),
            Err(payload) => resume_unwind(payload),
        }
    }
}

impl<T, E> fmt::Debug for MapHandle<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, progress) = (&self.name, self.progress());
        f.debug_struct("MapHandle").field("name", name).field("progress", &progress).finish_non_exhaustive()
    }
}
