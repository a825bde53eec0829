//! The snippets of the documented interface about limits, ends and handles, as they are written there.

use std::io;
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, BoxError, Event, FailureReason, ItemContext, ItemError, ItemOutcome, Limiter, MapHandle,
    MapStream, MapTaskError, MapTaskResult, Progress, RunError, Summary,
};
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::support::task;

#[test]
fn the_snippet_of_the_builder() -> Result<(), Box<dyn std::error::Error>> {
    let limiter = Limiter::new(100);
    let task = AsyncMapTask::builder()
        .name("resize")
        .concurrency(64)
        .look_ahead(1_000)
        .retries(3)
        .retry_delay(Duration::from_millis(200))
        .max_retry_delay(Duration::from_secs(30))
        .retry_multiplier(2.0)
        .retry_jitter(0.5)
        .timeout_per_attempt(Duration::from_secs(5))
        .timeout_per_item(Duration::from_secs(30))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .min_successes(10)
        .max_failures(100)
        .early_success(true)
        .fail_fast(true)
        .cancel_grace(Duration::from_secs(2))
        .limiter(&limiter)
        .build()?;
    fn is_shared_freely<T: Clone + Send + Sync + 'static>(_: &T) {}
    is_shared_freely(&task);
    is_shared_freely(&limiter);
    Ok(())
}

#[tokio::test]
async fn the_snippets_of_the_options_and_the_ends() {
    let task = task();
    let items = [1_u32, 2, 3];
    let f = |n: u32| async move { Ok::<_, io::Error>(n * 2) };
    let token = CancellationToken::new();
    let observer = |_: &Event<'_>| {};
    let run = || {
        task.over(items)
            .map(f)
            .retry_if(|e| e.kind() == io::ErrorKind::TimedOut)
            .retry_after(|_| None)
            .weight(|item| *item)
            .cancellation_token(token.clone())
            .observe(observer)
    };
    let _: Result<MapTaskResult<u32, io::Error>, MapTaskError<u32, io::Error>> = run().await;
    let _: Result<_, MapTaskError<u32, io::Error>> = run().parallel().await;
    let _: Result<Summary, RunError> = run().for_each(|_outcome| async move {}).await;
    let sink = |outcome: ItemOutcome<u32, io::Error>| async move {
        let ItemOutcome { index, attempts, elapsed, result, .. } = outcome;
        let _: (usize, u32, Duration, Result<u32, ItemError<io::Error>>) = (index, attempts, elapsed, result);
        if index > 9 { Err("too many") } else { Ok(()) }
    };
    let _: Result<Summary, RunError> = run().parallel().ordered().try_for_each(sink).await;

    fn is_the_stream<T, E>(_: &impl Stream<Item = Result<ItemOutcome<T, E>, RunError>>) {}
    let mut stream: MapStream<u32, io::Error> = run().ordered().stream();
    is_the_stream(&stream);
    let mut doubled = Vec::new();
    while let Some(outcome) = stream.next().await {
        doubled.push(outcome.unwrap().result.unwrap());
        let _: Progress = stream.progress();
    }
    assert_eq!(doubled, [2, 4, 6]);
    let _: Option<&Summary> = stream.summary();
    assert_eq!(stream.summary().unwrap().successes, 3);

    let blocking = task.over(items).map_blocking(|n| n.checked_mul(2).ok_or("overflow")).await.unwrap();
    assert_eq!(blocking.into_successful_results(), [2, 4, 6]);
}

#[tokio::test]
async fn the_snippets_of_limits_contexts_and_handles() {
    let limiter = Limiter::new(100);
    limiter.set_permits(50);
    let _: (usize, usize) = (limiter.in_use(), limiter.permits());

    let items = 0..100_u32;
    let f = |cx: ItemContext, n: u32| async move {
        let _ = (cx.index(), cx.attempt(), cx.is_last_attempt());
        let _: Option<tokio::time::Instant> = cx.deadline();
        let _: &CancellationToken = cx.cancellation_token();
        Ok::<_, String>(n)
    };
    let handle: MapHandle<u32, String> = task().over(items).map_with_context(f).spawn();
    let Progress { total, successes, failures, running, waiting_for_retry, retries, elapsed, eta, .. } =
        handle.progress();
    let _: (Option<usize>, [usize; 5]) = (total, [successes, failures, running, waiting_for_retry, retries]);
    let _: (Duration, Option<Duration>) = (elapsed, eta);
    let _: tokio::sync::watch::Receiver<Progress> = handle.watch();
    handle.pause();
    handle.resume();
    handle.set_concurrency(16);
    let result: Result<MapTaskResult<u32, String>, _> = handle.await;
    assert_eq!(result.unwrap().successes(), 100);

    let run = || task().over(0..100_u32).map(|n| async move { Ok::<_, String>(n) }).spawn();
    let (drained, cancelled) = (run(), run());
    drained.drain();
    cancelled.cancel();
    for handle in [drained, cancelled] {
        assert!(matches!(handle.await.unwrap_err().reason(), FailureReason::Cancelled));
    }
}

/// A run that borrows can run inside a task if the task owns the borrowed values.
#[tokio::test]
async fn for_each_over_borrowed_items_runs_inside_a_task() {
    async fn total_length(lines: Vec<String>) -> Result<usize, BoxError> {
        let (unit, mut total) = (String::from("x"), 0);
        let run = AsyncMapTask::default()
            .over(lines.iter().map(String::as_str))
            .map(async |line: &str| Ok::<_, io::Error>(line.len() + unit.len()));
        run.for_each(|outcome| {
            total += outcome.result.unwrap_or_default();
            async {}
        })
        .await?;
        Ok(total)
    }
    let lines = vec![String::from("one"), String::from("three")];
    assert_eq!(tokio::spawn(total_length(lines)).await.unwrap().unwrap(), 10);
}

#[test]
fn results_of_a_run_are_send_and_static() {
    fn is_send_sync<T: Send + Sync + 'static>() {}
    fn is_send<T: Send + Unpin + 'static>() {}
    is_send_sync::<RunError>();
    is_send_sync::<ItemOutcome<u32, String>>();
    is_send_sync::<Progress>();
    is_send::<MapHandle<u32, String>>();
    is_send::<MapStream<u32, String>>();
    let anyhow: fn(RunError) -> anyhow::Error = anyhow::Error::from;
    let _ = anyhow;
}
