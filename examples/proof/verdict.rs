//! When a run ends: at the first failure, at one failure too many, at enough successes. And when it does not: at a panic.

use std::panic;

use anyhow::{Context, Result};
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Completion, FailureReason, ItemError, Limiter};
use async_map_task::{MapTaskError, MapTaskResult};
use tokio::join;

use crate::client::{Client, FetchError};
use crate::server::{Answer, Server};
use crate::table::Facts;

const CONCURRENCY: usize = 8;
const ITEMS: usize = 100;

/// A run that has ended, while the server still had requests without an answer.
struct Ended {
    result: Result<MapTaskResult<usize, FetchError>, MapTaskError<usize, FetchError>>,
    /// The calls of the map function.
    calls: usize,
}

/// Starts a run, and gives these answers to its first items, one at a time. No other request gets an answer, so a run that waits for its
/// running attempts would not end.
async fn end_after(task: AsyncMapTaskBuilder, answers: &[Answer]) -> Result<Ended> {
    let server = Server::start(|_| None).await?;
    let client = Client::of(&server);
    let task = task.concurrency(CONCURRENCY).build()?;
    let run = task.over(0..ITEMS).map(|item| client.fetch(item));
    let answering = async {
        for (answer, item) in answers.iter().zip(0..) {
            server.until("request for each permit", |seen| seen.waiting() >= CONCURRENCY).await?;
            server.answer_item(item, *answer);
        }
        anyhow::Ok(())
    };
    let (result, answered) = join!(run, answering);
    answered?;
    server.until("end of the requests", |seen| seen.running == 0).await?;
    Ok(Ended { result, calls: client.calls().begun() })
}

/// The settings are the defaults.
pub(crate) async fn first_failure() -> Result<Facts> {
    let answers = [Answer::Ok, Answer::Ok, Answer::Ok, Answer::Ok, Answer::Ok, Answer::Gone];
    let Ended { result, calls } = end_after(AsyncMapTask::builder(), &answers).await?;
    let error = result.err().context("the run has succeeded")?;
    let summary = error.summary();
    let kept: Vec<_> = error.partial().successful_results().copied().collect();
    Ok(Facts::default()
        .equal("items that were started", calls, CONCURRENCY + 5)
        .equal("the item that failed", error.first_failure().map_or(ITEMS, |(index, _)| index), 5)
        .equal("finished results in the error", kept, vec![0, 1, 2, 3, 4])
        .equal("cancelled, not started", (summary.cancelled, summary.not_started), (7, ITEMS - 13)))
}

pub(crate) async fn too_many_failures() -> Result<Facts> {
    let task = AsyncMapTask::builder().max_failures(2);
    let Ended { result, calls } = end_after(task, &[Answer::Gone; 3]).await?;
    let error = result.err().context("the run has succeeded")?;
    let counts = match error.reason() {
        FailureReason::TooManyFailures { failures, allowed } => (*failures, *allowed),
        _ => (0, 0),
    };
    Ok(Facts::default()
        .equal("failures, allowed", counts, (3, 2))
        .equal("items that were started", calls, CONCURRENCY + 2)
        .equal("not started", error.summary().not_started, ITEMS - 10))
}

pub(crate) async fn enough_successes() -> Result<Facts> {
    let task = AsyncMapTask::builder().min_successes(10).early_success(true);
    let Ended { result, calls } = end_after(task, &[Answer::Ok; 10]).await?;
    let result = result?;
    Ok(Facts::default()
        .equal("ended by", result.summary.completion, Completion::EarlySuccess)
        .equal("successes", result.successes(), 10)
        .equal("items that were started", calls, CONCURRENCY + 9))
}

/// As many items panic as there are permits. Without a permit for each, the run would not come to its last item.
pub(crate) async fn panics() -> Result<Facts> {
    const PERMITS: usize = 4;
    let server = Server::start(|_| Some(Answer::Ok)).await?;
    let client = Client::of(&server);
    let limiter = Limiter::new(PERMITS);
    let task = AsyncMapTask::builder().concurrency(PERMITS).limiter(&limiter).allow_failures().build()?;
    let run = task.over(0..ITEMS).map(async |item| {
        let item = client.fetch(item).await?;
        assert!(item % 25 != 5, "item {item} is odd");
        Ok::<_, FetchError>(item)
    });
    // The hook would print each of them on stderr.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = run.await;
    panic::set_hook(hook);
    let result = result?;
    let is_own = |(item, error): (&usize, &ItemError<_>)| match error {
        ItemError::Panicked { message, .. } => *message == format!("item {item} is odd"),
        _ => false,
    };
    let own = result.errors.iter().filter(|(item, error)| is_own((item, error))).count();
    let panicked: Vec<usize> = result.errors.keys().copied().collect();
    Ok(Facts::default()
        .equal("items that failed", panicked, (0..ITEMS).filter(|item| item % 25 == 5).collect())
        .equal("failures with the message of their panic", own, PERMITS)
        .equal("items that succeeded", result.successes(), ITEMS - PERMITS)
        .equal("permits in use at the end", limiter.in_use(), 0))
}
