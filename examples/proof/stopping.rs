//! A run that is dropped, a run that is drained, and a run of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Result, bail};
use async_map_task::{AsyncMapTask, Completion, Limiter};

use crate::client::Client;
use crate::server::{Answer, Server};
use crate::table::Facts;

const CONCURRENCY: usize = 8;
const ITEMS: usize = 100;

/// No request gets an answer. The first run is in this task, and is gone when it was dropped. The second one has tasks of its
/// own, which are aborted.
pub(crate) async fn dropped() -> Result<Facts> {
    let server = Server::start(|_| None).await?;
    let client = Client::of(&server);
    let limiter = Limiter::new(CONCURRENCY);
    let task = AsyncMapTask::builder().concurrency(CONCURRENCY).limiter(&limiter).build()?;
    let fetcher = client.clone();
    let run = || {
        let fetcher = fetcher.clone();
        task.over(0..ITEMS).map(move |item| {
            let client = fetcher.clone();
            async move { client.fetch(item).await }
        })
    };
    drop_halfway(run().into_future(), &server).await?;
    let left = (limiter.in_use(), client.calls().running());
    server.until("end of the requests", |seen| seen.running == 0).await?;

    drop_halfway(run().parallel().into_future(), &server).await?;
    server.until("end of the requests", |seen| seen.running == 0).await?;
    Ok(Facts::default()
        .equal("permits in use, calls that run, immediately", left, (0, 0))
        .equal("permits in use, on several cores, soon", limiter.in_use(), 0)
        .equal("calls that run, on several cores, soon", client.calls().running(), 0)
        .equal("requests that were dropped", server.saw(|seen| seen.dropped), 2 * CONCURRENCY)
        .equal("items that were started", client.calls().begun(), 2 * CONCURRENCY))
}

/// Drops a run when all of its permits are in use.
async fn drop_halfway(run: impl Future, server: &Server) -> Result<()> {
    tokio::select! {
        biased;
        _ = run => bail!("the run has ended"),
        all = server.until("request for each permit", |seen| seen.waiting() >= CONCURRENCY) => all,
    }
}

pub(crate) async fn drained() -> Result<Facts> {
    let server = Server::start(|_| None).await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder().concurrency(CONCURRENCY).accept_partial(true).build()?;
    let fetcher = client.clone();
    let run = task.over(0..ITEMS).map(move |item| {
        let client = fetcher.clone();
        async move { client.fetch(item).await }
    });
    let handle = run.spawn();
    server.until("request for each permit", |seen| seen.waiting() >= CONCURRENCY).await?;
    handle.drain();
    (0..CONCURRENCY).for_each(|_| server.answer(0, Answer::Ok));
    let result = handle.await?;
    Ok(Facts::default()
        .equal("ended by", result.summary.completion, Completion::Cancelled)
        .equal("running items that succeeded", result.successes(), CONCURRENCY)
        .equal("items that were started", client.calls().begun(), CONCURRENCY)
        .equal("not started", result.not_started(), ITEMS - CONCURRENCY))
}

/// Half of the items fail, until the server is repaired.
pub(crate) async fn rest() -> Result<Facts> {
    let is_repaired = Arc::new(AtomicBool::new(false));
    let repaired = Arc::clone(&is_repaired);
    let server = Server::start(move |arrival| {
        let fails = arrival.item % 2 == 1 && !repaired.load(Relaxed);
        Some(if fails { Answer::Gone } else { Answer::Ok })
    })
    .await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder().concurrency(CONCURRENCY).allow_failures().build()?;
    let first = task.over(0..ITEMS).map(|item| client.fetch(item)).await?;
    let failures = first.failures();
    is_repaired.store(true, Relaxed);
    let second = task.over(0..ITEMS).map(|item| client.fetch(item)).redo(first).await?;
    let again: Vec<_> =
        server.saw(|seen| seen.arrivals.iter().skip(ITEMS).map(|arrival| arrival.item % 2).collect());
    Ok(Facts::default()
        .equal("items that failed first", failures, ITEMS / 2)
        .equal("requests of the second run", again.len(), ITEMS / 2)
        .equal("of them for items that had succeeded", again.iter().filter(|odd| **odd == 0).count(), 0)
        .equal("results in the end", second.successes(), ITEMS))
}
