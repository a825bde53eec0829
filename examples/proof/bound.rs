//! At most n at once, and no fewer while there is work.

use std::cell::Cell;

use anyhow::Result;
use async_map_task::{AsyncMapTask, Limiter};
use tokio::try_join;

use crate::client::Client;
use crate::server::{Answer, Server};
use crate::table::Facts;

/// The server answers one request at a time, oldest, newest or in between. Before each answer it waits until all permits
/// are in use again. A run that begins its items in groups, or waits for the oldest one, would not come to that.
pub(crate) async fn permits() -> Result<Facts> {
    const CONCURRENCY: usize = 8;
    const ITEMS: usize = 400;
    let server = Server::start(|_| None).await?;
    let (client, pulled) = (Client::of(&server), Cell::new(0));
    let task = AsyncMapTask::builder().concurrency(CONCURRENCY).build()?;
    let run = task.over((0..ITEMS).inspect(|_| pulled.set(pulled.get() + 1))).map(|item| client.fetch(item));

    let (mut refilled, mut most_ahead) = (0, 0);
    let answers = async {
        for answered in 0..ITEMS {
            let in_use = CONCURRENCY.min(ITEMS - answered);
            server.until("request for each permit", |seen| seen.waiting() >= in_use).await?;
            refilled += usize::from(in_use == CONCURRENCY);
            most_ahead = most_ahead.max(pulled.get() - server.saw(|seen| seen.arrivals.len()));
            server.answer(answered * 5 % in_use, Answer::Ok);
        }
        anyhow::Ok(())
    };
    let (result, ()) = try_join!(async { anyhow::Ok(run.await?) }, answers)?;
    let in_place = result.results.iter().zip(0..).filter(|(result, item)| **result == Some(*item)).count();
    Ok(Facts::default()
        .equal("most requests at the server at once", server.saw(|seen| seen.most_running), CONCURRENCY)
        .equal("most calls of the function at once", client.calls().most_running(), CONCURRENCY)
        .equal("answers for which all permits were in use", refilled, ITEMS + 1 - CONCURRENCY)
        .equal("most items pulled before a permit was free", most_ahead, 0)
        .equal("requests", server.saw(|seen| seen.arrivals.len()), ITEMS)
        .equal("results in the place of their input", in_place, ITEMS))
}

/// Three runs of 8 share a limit of 10: one in this task, one in the background, and one on tasks of its own.
pub(crate) async fn shared_limit() -> Result<Facts> {
    const PERMITS: usize = 10;
    const ITEMS: usize = 100;
    let server = Server::start(|_| None).await?;
    let client = Client::of(&server);
    let limiter = Limiter::new(PERMITS);
    let task = AsyncMapTask::builder().concurrency(8).limiter(&limiter).build()?;
    let run = |first: usize| {
        let client = client.clone();
        task.over(first..first + ITEMS).map(move |item| {
            let client = client.clone();
            async move { client.fetch(item).await }
        })
    };

    let answers = async {
        for answered in 0..3 * ITEMS {
            // Near the end, the rest may be items of one run, which has 8 permits of its own.
            let in_use = if answered < 2 * ITEMS { PERMITS } else { 1 };
            server.until("request for each permit", |seen| seen.waiting() >= in_use).await?;
            server.answer(answered * 3 % in_use, Answer::Ok);
        }
        anyhow::Ok(())
    };
    let runs = async {
        let background = run(ITEMS).spawn();
        let (here, parallel, background) = try_join!(run(0), run(2 * ITEMS).parallel(), background)?;
        anyhow::Ok(here.successes() + parallel.successes() + background.successes())
    };
    let (successes, ()) = try_join!(runs, answers)?;
    Ok(Facts::default()
        .equal("most requests at the server at once", server.saw(|seen| seen.most_running), PERMITS)
        .equal("most calls of the functions at once", client.calls().most_running(), PERMITS)
        .equal("items that succeeded", successes, 3 * ITEMS)
        .equal("permits in use at the end", limiter.in_use(), 0))
}
