//! Other shapes of work: one call for many items, and items that compute on several cores.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::Result;
use async_map_task::AsyncMapTask;
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;

use crate::client::{Client, FetchError};
use crate::server::{Answer, Server};
use crate::table::Facts;

/// One request for ten items, some of which fail alone.
pub(crate) async fn batches() -> Result<Facts> {
    const ITEMS: usize = 100;
    let server = Server::start(|_| Some(Answer::Ok)).await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder().allow_failures().build()?;
    let result = task
        .over(0..ITEMS)
        .map_batches(10, async |items: Vec<usize>| {
            client.fetch(items.first().copied().unwrap_or_default()).await?;
            let answer = |item: usize| {
                if item % 7 == 0 { Err(FetchError::Answer(item.to_string())) } else { Ok(item) }
            };
            Ok(items.into_iter().map(answer).collect())
        })
        .await?;
    let failed: Vec<usize> = result.errors.keys().copied().collect();
    let in_place = result.results.iter().zip(0..).filter(|(result, item)| **result == Some(*item)).count();
    Ok(Facts::default()
        .equal("requests for 100 items", server.saw(|seen| seen.arrivals.len()), ITEMS / 10)
        .equal("items that failed", failed.len(), (0..ITEMS).filter(|item| item % 7 == 0).count())
        .equal("items that failed in error", failed.iter().filter(|item| **item % 7 != 0).count(), 0)
        .equal("results in the place of their input", in_place, ITEMS - failed.len()))
}

/// Two items compute without a pause until both have begun. In one task, the first would never see the second.
pub(crate) async fn cores() -> Result<Facts> {
    let begun = Arc::new(AtomicUsize::new(0));
    let met = spawn_blocking(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let task = AsyncMapTask::builder().concurrency(2).build()?;
            let run = task.over(0..2_usize).map(move |_| {
                let begun = Arc::clone(&begun);
                async move {
                    begun.fetch_add(1, SeqCst);
                    let end = Instant::now() + Duration::from_secs(20);
                    while begun.load(SeqCst) < 2 && Instant::now() < end {
                        std::hint::spin_loop();
                    }
                    Ok::<_, Infallible>(begun.load(SeqCst))
                }
            });
            let result = run.parallel().await?;
            anyhow::Ok(result.successful_results().filter(|met| **met == 2).count())
        })
    })
    .await??;
    Ok(Facts::default().equal("items that computed at the same moment", met, 2))
}
