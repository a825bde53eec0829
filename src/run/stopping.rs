//! The options for the end of a run before its input has ended.

use tokio_util::sync::CancellationToken;

use super::MapRun;
use super::options::hook;
use crate::engine::Plan;
use crate::engine::persist::durability::{Persist, Redo};
use crate::engine::persist::previous::Previous;
use crate::engine::running::Parts;
use crate::engine::user::leftovers::{GiveBack, OnGiveBack};
use crate::outcome::LeftOver;
use crate::result::MapTaskResult;

impl<R: Plan> MapRun<R> {
    /// Cancels the run when this token is cancelled. The default is no token.
    ///
    /// The run starts nothing more, and gives running attempts the
    /// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace). Then it ends with
    /// [`FailureReason::Cancelled`](crate::FailureReason::Cancelled). The error contains all finished results.
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
    #[doc(alias("abort", "stop", "shutdown"))]
    pub fn cancellation_token(self, token: CancellationToken) -> Self {
        self.with_options(|options| options.token = Some(token))
    }

    /// Drains the run when this token is cancelled: nothing more starts, running attempts finish, and the run ends with
    /// [`FailureReason::Cancelled`](crate::FailureReason::Cancelled), or with its partial result; see
    /// [`accept_partial`](crate::AsyncMapTaskBuilder::accept_partial).
    ///
    /// Use it for a shutdown in which started work is finished, and
    /// [`cancellation_token`](Self::cancellation_token) for the moment after which it is not. Items that wait for a retry
    /// are not tried again, and count as cancelled. An attempt that fails from then on is not tried again either, so its item
    /// has failed, even if it has retries left: with [`NotRetried::Stopping`](crate::NotRetried::Stopping). A [batch](crate::Over::map_batches)
    /// that fails as a whole is not split, and its items count as cancelled. A run that has nothing left to start when it is drained still ends as cancelled.
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
    #[doc(alias("graceful shutdown", "shutdown", "SIGTERM"))]
    pub fn drain_token(self, token: CancellationToken) -> Self {
        self.with_options(|options| options.drain_token = Some(token))
    }

    /// Drains the run at the first Ctrl-C, and cancels it at the second. Needs the feature `signal`.
    ///
    /// The first one acts as [`drain_token`](Self::drain_token): nothing more starts, and running attempts finish. The second
    /// one acts as [`cancellation_token`](Self::cancellation_token). Both are logged at INFO. An item that fails after the first
    /// one counts as failed, even if it has retries left; [`drain_token`](Self::drain_token) states how to recognise it. The run
    /// ends with [`FailureReason::Cancelled`](crate::FailureReason::Cancelled), or with its partial result; see
    /// [`accept_partial`](crate::AsyncMapTaskBuilder::accept_partial). By convention, a program that Ctrl-C has ended returns
    /// the exit code 130; that is up to the program. For SIGTERM, cancel a [`drain_token`](Self::drain_token) in a handler of your
    /// own; the guide has [the code](crate::guide::batch_jobs#a-machine-that-may-be-taken-away).
    ///
    /// Once such a run was polled, Ctrl-C alone no longer ends the process, also after the run: Tokio has [replaced the
    /// default](https://docs.rs/tokio/1/tokio/signal/fn.ctrl_c.html#caveats). A run sees it only while it is polled: a source
    /// that blocks its thread, such as the lines of a terminal, holds it up. After the second Ctrl-C, a further one has no
    /// effect. Blocking functions that still run keep the process alive until they return, unless it ends with
    /// [`exit`](std::process::exit). Several runs may use this option; each of them gets every Ctrl-C. If the system refuses to install the handler, the run logs a warning and continues without it.
    ///
    /// # Panics
    ///
    /// The run panics if the I/O driver of its runtime is not enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Completion};
    /// use std::process::ExitCode;
    ///
    /// let task = AsyncMapTask::builder().accept_partial(true).build()?;
    /// let done = task.over(0..100).map(|n| async move { Ok::<_, String>(n) }).cancel_on_ctrl_c().await?;
    /// let exit_code = match done.summary.completion {
    ///     Completion::Cancelled => ExitCode::from(130),
    ///     _ => ExitCode::SUCCESS,
    /// };
    /// # assert_eq!(exit_code, ExitCode::SUCCESS);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("SIGINT", "ctrl-c", "shutdown", "abort", "interrupt"))]
    #[cfg(feature = "signal")]
    pub fn cancel_on_ctrl_c(self) -> Self {
        self.with_options(|options| options.listen = Some(crate::ctrl_c::listen))
    }

    /// Keeps the successes of an earlier result, and runs the rest: the items that failed, were cancelled or not started. The
    /// source must give the same items in the same order.
    ///
    /// An item that has succeeded before does not run again. It settles with its earlier output and
    /// [`Origin::Carried`](crate::Origin::Carried), and counts in [`Summary::carried`](crate::Summary::carried). A run that
    /// ends early loses none of these outputs: they are all in its partial result, which can be passed to `redo` again.
    /// [`for_each`](Self::for_each), [`try_for_each`](Self::try_for_each) and [`stream`](Self::stream) deliver the outputs of
    /// the items that the run has pulled. If the process may end in between, use `recover` of the feature `store`.
    ///
    /// # Errors
    ///
    /// [`FailureReason::Config`](crate::FailureReason::Config) if the number of items differs: before anything starts if the
    /// source knows it, or when the source ends before the earlier number of items. If one of both runs does not know its
    /// number before the end of its source, there may be more items than the earlier run has pulled, and they simply run. The
    /// same error for a run that also has `recover`, because the store knows the earlier outputs then.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::cell::Cell;
    ///
    /// let (is_down, calls) = (&Cell::new(true), &Cell::new(0));
    /// let fetch = |n: u32| async move {
    ///     calls.set(calls.get() + 1);
    ///     if n == 3 && is_down.get() { Err("down") } else { Ok(2 * n) }
    /// };
    /// let task = AsyncMapTask::builder().allow_failures().build()?;
    /// let first = task.over(0..5).map(fetch).await?;
    /// assert_eq!((first.failures(), calls.get()), (1, 5));
    ///
    /// is_down.set(false);
    /// let second = task.over(0..5).map(fetch).redo(first).await?;
    /// assert_eq!((second.summary.carried, calls.get()), (4, 6));
    /// assert_eq!(second.into_successful_results(), [0, 2, 4, 6, 8]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("resume", "rerun", "retry failed"))]
    pub fn redo(self, previous: MapTaskResult<R::Output, R::Error>) -> MapRun<Redo<R>> {
        self.change(|Parts { call, hooks, sink, outcomes, store }, _| {
            let total = previous.total();
            let mut store = store.into_durability();
            store.previous = Some(Previous::new(previous.results, total, previous.started.may_be_more));
            Parts { call, hooks, sink, outcomes, store }
        })
    }

    /// Gives every item that was pulled and did not settle to this function: inputs from a queue are not lost when the run
    /// is cancelled, drained, fails or times out. The default is to drop them.
    ///
    /// The function gets each of these items once, in the order of the input, with its index and the number of its attempts.
    /// It is called at the end of the run, after the last attempt was dropped and before the result is returned. Items that
    /// were not pulled stay in the source. A [blocking function](crate::Over::map_blocking) may still be running on an item
    /// that is given back.
    ///
    /// Items must be [`Clone`], because each attempt gets a clone. For a value that exists once, such as a message with its
    /// acknowledgement, use an [`Arc`](std::sync::Arc) of it.
    ///
    /// An item that failed is not given back: neither after its last retry, nor if its attempt failed while the run was
    /// stopping. An item that succeeded or failed has settled, also if [`try_for_each`](Self::try_for_each) ended before its outcome was
    /// taken. A run that is dropped, by its owner or by the shutdown of its runtime, gives nothing back, and neither does one
    /// that panics.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let mut queue = Vec::new();
    /// let error = AsyncMapTask::builder()
    ///     .concurrency(3)
    ///     .fail_fast(true)
    ///     .build()?
    ///     .over(["a", "bad", "c", "d", "e"])
    ///     .map(|name| async move {
    ///         tokio::task::yield_now().await;
    ///         if name == "bad" { Err::<(), _>("refused") } else { std::future::pending().await }
    ///     })
    ///     .give_back(|left| queue.push((left.index, left.item, left.attempts)))
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.summary().not_started, 2); // "d" and "e" were not pulled
    /// assert_eq!(queue, [(0, "a", 1), (2, "c", 1)]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("requeue", "nack", "dead letter"))]
    pub fn give_back<F>(self, function: F) -> MapRun<GiveBack<R, F>>
    where
        R::Item: Clone,
        F: FnMut(LeftOver<R::Item>),
    {
        hook!(self, below => OnGiveBack::new(below, function))
    }
}
