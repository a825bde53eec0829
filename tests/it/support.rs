//! The parts that the tests share: their usual tasks, sources with any size hint, and short functions for the ends of items
//! and runs.

mod http;
mod notes;
mod random;
mod shared;

use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, FailureReason, ItemError, MapTaskError, MapTaskResult, TimeoutScope,
};
use futures::stream::{self, Stream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) use self::http::Client;
pub(crate) use self::notes::*;
pub(crate) use self::random::Random;
pub(crate) use self::shared::*;

/// Returns the value after some time.
pub(crate) async fn after<T>(wait: Duration, value: T) -> T {
    sleep(wait).await;
    value
}

pub(crate) const SECOND: Duration = secs(1);

/// Sets an option of a task.
pub(crate) type Set = fn(AsyncMapTaskBuilder) -> AsyncMapTaskBuilder;

/// The default task.
pub(crate) fn task() -> AsyncMapTask {
    AsyncMapTask::default()
}

/// A task with this concurrency and the defaults.
pub(crate) fn at_once(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(concurrency)
}

/// One retry after exactly a second for every item, and any number of failures is fine.
pub(crate) fn retrying(concurrency: usize) -> AsyncMapTaskBuilder {
    at_once(concurrency).retries(1).retry_delay(secs(1)).retry_jitter(0.0).min_success_ratio(0.0)
}

/// One item at a time, so that items settle in input order.
pub(crate) fn one_by_one() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(1)
}

/// Any number of failures is fine, and retries have no jitter.
pub(crate) fn lenient() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().retry_jitter(0.0).min_success_ratio(0.0)
}

/// An iterator with a given size hint, which may be wrong.
#[derive(Debug)]
pub(crate) struct Hinted<I> {
    pub(crate) items: I,
    pub(crate) hint: (usize, Option<usize>),
}

impl<I: Iterator> Iterator for Hinted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.hint
    }
}

/// A stream that is not `Unpin` and does not know its length.
pub(crate) fn count_to(end: u32) -> impl Stream<Item = u32> {
    stream::unfold(0, move |n| async move {
        tokio::task::yield_now().await;
        (n < end).then_some((n, n + 1))
    })
}

/// A map function that waits a moment.
pub(crate) async fn double(n: u32) -> Result<u32, String> {
    tokio::task::yield_now().await;
    Ok(n * 2)
}

/// Makes the task be polled again. Tokio's `yield_now` would put it where no other worker can take it, and does not work
/// with wakers that poll their task.
pub(crate) async fn once_more() {
    let mut again = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut again) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}

/// Returns a runtime of one thread with a paused clock.
pub(crate) fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Returns the number of random cases: the value of the variable, or this default.
pub(crate) fn cases(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |cases| cases.parse().unwrap())
}

/// Lets all other tasks continue, repeatedly, until they wait.
pub(crate) async fn let_others_run() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Returns the error of an item if its last attempt returned this error.
pub(crate) fn failed(error: &'static str, attempts: u32) -> ItemError<&'static str> {
    ItemError::Failed { error, attempts }
}

/// Returns the error of an item that timed out.
pub(crate) fn timed_out(limit: Duration, scope: TimeoutScope, attempts: u32) -> ItemError<&'static str> {
    ItemError::TimedOut { limit, scope, attempts }
}

/// Returns the error of an item that panicked.
pub(crate) fn panicked(message: &str, attempts: u32) -> ItemError<&'static str> {
    ItemError::Panicked { message: message.to_owned(), attempts }
}

/// Panics when it is dropped, except during another panic.
#[derive(Debug)]
pub(crate) struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

/// Returns a token that is cancelled after some time.
pub(crate) fn cancelled_after(wait: Duration) -> CancellationToken {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        sleep(wait).await;
        stop.cancel();
    });
    token
}

/// The end of a run by [`run`].
pub(crate) type Outcome = Result<MapTaskResult<usize, &'static str>, MapTaskError<usize, &'static str>>;

/// `Known` if the source has an exact size hint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Total {
    Known,
    Unknown,
}

/// Runs over items that succeed if the script has `true` for them, one after another.
pub(crate) async fn run(builder: AsyncMapTaskBuilder, total: Total, script: &[bool]) -> Outcome {
    let task = builder.build().unwrap();
    let items = script.iter().copied().enumerate();
    let call = |(index, succeeds): (usize, bool)| async move { if succeeds { Ok(index) } else { Err("no") } };
    match total {
        Total::Known => task.run(items, call).await,
        Total::Unknown => task.run(items.filter(|_| true), call).await,
    }
}

/// `successes` items that succeed, then `failures` that fail.
pub(crate) fn script(successes: usize, failures: usize) -> Vec<bool> {
    (0..successes + failures).map(|index| index < successes).collect()
}

/// Returns the failures at the end, the failures allowed, and the items that were started.
pub(crate) fn too_many(outcome: Outcome) -> (usize, usize, usize) {
    let error = outcome.expect_err("too many have failed");
    let started = error.summary().total - error.summary().not_started;
    match *error.reason() {
        FailureReason::TooManyFailures { failures, allowed } => (failures, allowed, started),
        ref other => panic!("{other:?}"),
    }
}
