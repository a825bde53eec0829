//! Time limits: of an attempt, of an item over all its attempts, and of the whole run.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_map_task::{AsyncMapTask, FailureReason, ItemError};

use crate::client::Client;
use crate::server::{Answer, Server};
use crate::table::{Facts, whole_ms};

/// The first request for each item hangs.
pub(crate) async fn attempt() -> Result<Facts> {
    const ITEMS: usize = 8;
    let limit = Duration::from_millis(500);
    let server = Server::start(|arrival| (arrival.attempt > 1).then_some(Answer::Ok)).await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder()
        .concurrency(ITEMS)
        // On a busy machine, an answer may take longer than the limit, too.
        .retries(20)
        .retry_delay(Duration::from_millis(1))
        .timeout_per_attempt(limit)
        .build()?;
    let shortest = Cell::new(Duration::MAX);
    let run = task.over(0..ITEMS).map_with_context(async |context, item| {
        let _hung = (context.attempt() == 1).then(|| Watch { begun: Instant::now(), shortest: &shortest });
        client.fetch(item).await
    });
    let result = run.await?;
    server.until("hung request without its client", |seen| seen.dropped >= ITEMS).await?;
    Ok(Facts::default()
        .equal("items that succeeded", result.successes(), ITEMS)
        .at_least("hung requests that were cut off", server.saw(|seen| seen.dropped), ITEMS)
        .equal("timeouts", result.summary.timeouts, result.summary.retries)
        .at_least("the shortest of them had", whole_ms(shortest.get()), limit - Duration::from_millis(5)))
}

/// Measures a call until it is dropped.
struct Watch<'a> {
    begun: Instant,
    shortest: &'a Cell<Duration>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.shortest.set(self.shortest.get().min(self.begun.elapsed()));
    }
}

/// The server is down, and an item may be tried a million times, every 10 ms. The count of attempts shows the time limit.
pub(crate) async fn item() -> Result<Facts> {
    const ITEMS: usize = 4;
    let server = Server::start(|_| Some(Answer::Busy)).await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder()
        .retries(1_000_000)
        .retry_delay(Duration::from_millis(10))
        .retry_multiplier(1.0)
        .retry_jitter(0.0)
        .timeout_per_item(Duration::from_millis(300))
        .allow_failures()
        .build()?;
    let result = task.over(0..ITEMS).map(|item| client.fetch(item)).await?;
    let attempts = result.errors.values().map(|error| match error {
        ItemError::Failed { attempts, .. } | ItemError::TimedOut { attempts, .. } => *attempts,
        _ => 0,
    });
    let (fewest, most) = (attempts.clone().min().context("no item failed")?, attempts.max());
    Ok(Facts::default()
        .equal("items that failed", result.failures(), ITEMS)
        .at_least("fewest attempts in 300 ms, one every 10 ms", fewest, 2)
        .at_most("most attempts", most.unwrap_or_default(), 31))
}

/// Every request hangs.
pub(crate) async fn run() -> Result<Facts> {
    const ITEMS: usize = 100;
    let limit = Duration::from_millis(300);
    let server = Server::start(|_| None).await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder().concurrency(8).run_timeout(limit).build()?;
    let error =
        task.over(0..ITEMS).map(|item| client.fetch(item)).await.err().context("the run has succeeded")?;
    let summary = error.summary();
    server.until("end of the requests", |seen| seen.running == 0).await?;
    Ok(Facts::default()
        .equal("ended by its time limit", matches!(error.reason(), FailureReason::TimedOut { .. }), true)
        .at_least("after", whole_ms(summary.elapsed), limit)
        .equal("cancelled, not started", (summary.cancelled, summary.not_started), (8, ITEMS - 8))
        .equal("calls that still run", client.calls().running(), 0)
        .equal("requests that still run", server.saw(|seen| seen.running), 0))
}
