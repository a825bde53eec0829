//! Failures that pass: retries, refusals, and the account of all attempts.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_map_task::{AsyncMapTask, Limiter};
use tokio::sync::Notify;
use tokio::try_join;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::server::{Answer, Server};
use crate::table::{Facts, whole_ms};

/// Twelve items fail and wait an hour for their retries, at a concurrency of 4. The others run meanwhile.
pub(crate) async fn waiting_holds_no_permit() -> Result<Facts> {
    const CONCURRENCY: usize = 4;
    const ITEMS: usize = 60;
    const FAIL: usize = 12;
    let server = Server::start(|arrival| (arrival.item < FAIL).then_some(Answer::Busy)).await?;
    let (client, stop, hour) = (Client::of(&server), CancellationToken::new(), Duration::from_secs(3_600));
    let task = AsyncMapTask::builder()
        .concurrency(CONCURRENCY)
        .retries(1)
        .retry_delay(hour)
        .max_retry_delay(hour)
        .retry_jitter(0.0)
        .accept_partial(true)
        .build()?;
    let run = task.over(0..ITEMS).map(|item| client.fetch(item)).cancellation_token(stop.clone());

    let mut full = 0;
    let answers = async {
        for answered in 0..ITEMS - FAIL {
            let in_use = CONCURRENCY.min(ITEMS - FAIL - answered);
            server.until("request for each permit", |seen| seen.waiting() >= in_use).await?;
            full += usize::from(in_use == CONCURRENCY);
            server.answer(0, Answer::Ok);
        }
        // The client has read the last answer when its call has ended.
        while client.calls().running() > 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        anyhow::Ok(())
    };
    let (result, ()) = try_join!(async { anyhow::Ok(run.await?) }, answers)?;
    Ok(Facts::default()
        .equal("items that succeeded while 12 wait", result.successes(), ITEMS - FAIL)
        .equal("items that wait for their retry at the end", result.cancelled(), FAIL)
        .equal("answers for which all permits were in use", full, ITEMS - FAIL + 1 - CONCURRENCY)
        .equal("most requests at the server at once", server.saw(|seen| seen.most_running), CONCURRENCY))
}

/// Two runs share a limiter of 8, whose requests are all at the server. It answers one of them with 429 and
/// `Retry-After: 1`, and the others with 200. So 7 permits are free, and nothing is on its way.
pub(crate) async fn refusal_slows_everybody() -> Result<Facts> {
    const PERMITS: usize = 8;
    const ITEMS: usize = 40;
    let server = Server::start(|arrival| (arrival.number >= PERMITS).then_some(Answer::Ok)).await?;
    let client = Client::of(&server);
    let limiter = Limiter::new(PERMITS);
    let task = AsyncMapTask::builder().concurrency(PERMITS).retries(1).limiter(&limiter).build()?;
    let is_read = Notify::new();
    let run = |first: usize| {
        task.over(first..first + ITEMS).map(|item| client.fetch(item)).hold_back(|error| {
            is_read.notify_one();
            error.retry_after()
        })
    };

    let refused = Cell::new(None);
    let answers = async {
        server.until("request for each permit", |seen| seen.waiting() >= PERMITS).await?;
        refused.set(Some(Instant::now()));
        server.answer(0, Answer::TooMany(1));
        is_read.notified().await;
        (1..PERMITS).for_each(|_| server.answer(0, Answer::Ok));
        anyhow::Ok(())
    };
    let runs = async { anyhow::Ok(try_join!(run(0), run(ITEMS))?) };
    let ((one, other), ()) = try_join!(runs, answers)?;
    let refused = refused.get().context("nothing was refused")?;
    let later: Vec<_> =
        server.saw(|seen| seen.arrivals.iter().skip(PERMITS).map(|arrival| arrival.at - refused).collect());
    let second = Duration::from_secs(1);
    let in_hold = later.iter().filter(|since| **since < second).count();
    let first = later.first().copied().unwrap_or_default();
    Ok(Facts::default()
        .equal("requests of both runs within the hold", in_hold, 0)
        .at_least("the next request came after", whole_ms(first), second)
        .at_most("and no later than", whole_ms(first), second * 5)
        .equal("requests after the hold", later.len(), 2 * ITEMS - PERMITS + 1)
        .equal("items that succeeded", one.successes() + other.successes(), 2 * ITEMS))
}

/// The quota of a server: any interval t sees at most `burst + t * per_second` requests. It compares each interval that
/// ends with a new request, and shares no code with the limiter.
struct Quota {
    per_second: f64,
    burst: f64,
    admitted: Vec<Instant>,
}

impl Quota {
    fn admits(&mut self, at: Instant) -> bool {
        let mut count = 1.0;
        for from in self.admitted.iter().rev() {
            count += 1.0;
            if count > self.burst + (at - *from).as_secs_f64() * self.per_second {
                return false;
            }
        }
        self.admitted.push(at);
        true
    }
}

/// The server has a quota and refuses what exceeds it. Two runs share a limiter with the same rate.
pub(crate) async fn rate() -> Result<Facts> {
    const PER_SECOND: u32 = 200;
    const PERMITS: u32 = 4;
    const ITEMS: usize = 100;
    // The limiter makes up for a timer that is late by 10 ms. A request that has its permit may be late on its way.
    let burst = 1.0 + 0.01 * f64::from(PER_SECOND) + f64::from(PERMITS);
    let mut quota = Quota { per_second: PER_SECOND.into(), burst, admitted: Vec::new() };
    let server = Server::start(move |arrival| {
        Some(if quota.admits(arrival.at) { Answer::Ok } else { Answer::TooMany(1) })
    })
    .await?;
    let client = Client::of(&server);
    let limiter =
        Limiter::builder().permits(PERMITS as usize).rate(PER_SECOND, Duration::from_secs(1)).build()?;
    let task = AsyncMapTask::builder().concurrency(64).limiter(&limiter).allow_failures().build()?;
    let run = |first: usize| task.over(first..first + ITEMS).map(|item| client.fetch(item));

    let begun = Instant::now();
    let (one, other) = try_join!(run(0), run(ITEMS))?;
    let took = whole_ms(begun.elapsed());
    let least = Duration::from_secs_f64(((2 * ITEMS) as f64 - burst) / f64::from(PER_SECOND));
    Ok(Facts::default()
        .equal("requests that the quota refused", one.failures() + other.failures(), 0)
        .equal("requests", server.saw(|seen| seen.arrivals.len()), 2 * ITEMS)
        .at_least("200 requests at 200 a second took", took, least)
        .at_most("and no more than", took, least * 5))
}

/// Items fail once, twice, three times or never, and every tenth one for good. Both sides count.
pub(crate) async fn exact_account() -> Result<Facts> {
    const ITEMS: usize = 400;
    let server = Server::start(|arrival| {
        Some(match arrival.item {
            item if item % 10 == 9 => Answer::Gone,
            item if arrival.attempt <= item % 4 => Answer::Busy,
            _ => Answer::Ok,
        })
    })
    .await?;
    let client = Client::of(&server);
    let task = AsyncMapTask::builder()
        .concurrency(16)
        .retries(2)
        .retry_delay(Duration::from_millis(1))
        .allow_failures()
        .build()?;
    let mut outcomes = vec![Vec::new(); ITEMS];
    let summary = task
        .over(0..ITEMS)
        .map(|item| client.fetch(item))
        .retry_if(|error| error.is_transient())
        .for_each(|outcome| {
            if let Some(of_item) = outcomes.get_mut(outcome.index) {
                of_item.push((outcome.attempts as usize, outcome.result.is_ok()));
            }
            async {}
        })
        .await?;

    // The plan, in other words than the server has it: three attempts at most, and one if it is hopeless.
    let planned = |item: usize| match item {
        item if item % 10 == 9 => (1, false),
        item => ((item % 4 + 1).min(3), item % 4 < 3),
    };
    let (mut exactly_one, mut as_planned, mut as_at_the_server) = (0, 0, 0);
    for (of_item, item) in outcomes.iter().zip(0..) {
        let attempts = server.saw(|seen| seen.attempts(item));
        exactly_one += usize::from(of_item.len() == 1);
        as_planned += usize::from(of_item.first() == Some(&planned(item)));
        as_at_the_server +=
            usize::from(of_item.first().is_some_and(|(of_outcome, _)| *of_outcome == attempts));
    }
    let plan = (0..ITEMS).filter(|item| planned(*item).1).count();
    Ok(Facts::default()
        .equal("items with one outcome", exactly_one, ITEMS)
        .equal("outcomes with the attempts that the server counted", as_at_the_server, ITEMS)
        .equal("outcomes as planned", as_planned, ITEMS)
        .equal("items + retries", ITEMS + summary.retries, server.saw(|seen| seen.arrivals.len()))
        .equal("successes, failures", (summary.successes, summary.failures), (plan, ITEMS - plan)))
}
