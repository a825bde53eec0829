//! Rules 38 and 39 on a real server with a quota of its own: eight runs in two runtimes, and real sockets.
//!
//! These tests run in real time, and the machine may be busy. An upper bound on the arrivals holds however late threads run,
//! because [`PERMITS`] bounds the requests that are on their way. A lower bound, and the distance of arrivals, allow for the
//! stalls of the machine, which are measured.

mod server;
mod stalls;

use std::thread;
use std::time::{Duration, Instant};

use async_map_task::{Limiter, retry_after_header};
use axum::http::StatusCode;
use futures::future::join_all;
use tokio::runtime::Builder;

use self::server::{Arrival, Quota, Server};
use self::stalls::Stalls;
use crate::support::{Client, lenient, millis, secs};

/// The permits of the limiters. A request has its permit from its grant until its answer was read. So a stall of a thread or of
/// the network holds up at most this many requests that were granted and have not arrived.
const PERMITS: u32 = 32;

/// The quota of the server, per second.
const QUOTA: u32 = 400;

/// The rate of the limiter: 95% of the quota.
const RATE: u32 = 380;

/// The items of each of the eight runs.
const ITEMS: u32 = 190;

/// The server has answered 429, and asks for this time.
#[derive(Debug)]
struct Refused(Option<Duration>);

async fn fetch(client: Client, url: String) -> Result<(), Refused> {
    let (status, headers, _) = client.get(&url).await;
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Refused(retry_after_header(&headers)));
    }
    assert!(status.is_success());
    Ok(())
}

/// Starts eight runs, four in each of two runtimes of one thread, and waits for their ends.
fn eight_runs(stalls: &Stalls, run: impl AsyncFn(Client, u32) + Sync) {
    let run = &run;
    let four_runs = || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(stalls.clone().watch());
            let client = Client::new();
            join_all((0..4).map(|number| run(client.clone(), number))).await;
        });
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(four_runs);
        }
    });
}

/// The most that rule 38 allows at once. In any interval t, at most `1 + (t + 10 ms) x rate` attempts are granted. An arrival in t
/// was granted in t, or was on its way when t began.
fn most_at_once() -> f64 {
    1.0 + 0.01 * f64::from(RATE) + f64::from(PERMITS)
}

#[test]
fn rule_38_a_server_with_a_quota_refuses_nothing_and_the_rate_is_used() {
    let stalls = Stalls::default();
    let mut quota = Quota::new(QUOTA, most_at_once());
    let server = Server::start(Duration::ZERO, &stalls, move |at| quota.admits(at));
    let limiter = Limiter::builder().permits(PERMITS as usize).rate(RATE, secs(1)).build().unwrap();
    let task = lenient().concurrency(8).limiter(&limiter).run_timeout(secs(60)).build().unwrap();
    eight_runs(&stalls, async |client, number| {
        let url = server.url();
        let run = task.over(0..ITEMS).map(move |_| fetch(client.clone(), url.clone()));
        let result = if number % 2 == 0 { run.parallel().await } else { run.await };
        let errors = result.unwrap().errors;
        assert!(errors.is_empty(), "{} refused, the first: {:?}", errors.len(), errors.first_key_value());
    });

    let arrivals = server.arrivals();
    assert_eq!((arrivals.len(), limiter.in_use(), limiter.waiting()), (8 * ITEMS as usize, 0, 0));
    assert!(!arrivals.iter().any(|arrival| arrival.is_refused));
    // A quota without room above the rate would not have refused anything either.
    let mut quota = Quota::new(RATE, most_at_once());
    assert!(arrivals.iter().all(|arrival| quota.admits(arrival.at)));

    // At least 99% of the rate. A stalled thread does not begin an attempt in its turn, and the rate makes up for 10 ms only.
    let (first, last) = (arrivals[0].at, arrivals[arrivals.len() - 1].at);
    let needed = secs(1) * (8 * ITEMS - 1) / RATE;
    let (took, stalled) = (last - first, stalls.within(first, last));
    eprintln!("rate: {took:?}, needed {needed:?}, stalled {stalled:?}");
    assert!(took <= needed * 100 / 99 + stalled, "{took:?}, needed {needed:?}, stalled {stalled:?}");
}

/// The server refuses everything for a second, from its 101st arrival on.
#[test]
fn rule_39_no_request_arrives_in_a_hold_and_no_burst_after_it() {
    let stalls = Stalls::default();
    let (mut count, mut refused_from) = (0, None);
    let server = Server::start(millis(100), &stalls, move |at| {
        count += 1;
        if count > 100 {
            refused_from.get_or_insert(at);
        }
        refused_from.is_none_or(|from: Instant| at >= from + secs(1))
    });
    let limiter = Limiter::new(PERMITS as usize);
    let task = lenient().concurrency(8).retries(3).retry_delay(millis(1)).limiter(&limiter);
    let task = task.run_timeout(secs(60)).build().unwrap();
    eight_runs(&stalls, async |client, number| {
        let url = server.url();
        let run =
            task.over(0..25).map(move |_| fetch(client.clone(), url.clone())).hold_back(|error| error.0);
        let result = if number % 2 == 0 { run.parallel().await } else { run.await };
        let errors = result.unwrap().errors;
        assert!(errors.is_empty(), "{} failed, the first: {:?}", errors.len(), errors.first_key_value());
    });

    let arrivals = server.arrivals();
    let refused: Vec<Arrival> = arrivals.iter().copied().filter(|arrival| arrival.is_refused).collect();
    assert_eq!((arrivals.len() - refused.len(), limiter.in_use(), limiter.waiting()), (200, 0, 0));
    // Before the first refusal was read, none of the refused requests had ended, so they were on their way at once.
    let count = u32::try_from(refused.len()).unwrap();
    assert!(count <= PERMITS, "{count} refused: {refused:?}");
    // The answer to the last refusal was read after it was sent, so the hold ends a second after it, or later.
    let end = refused[refused.len() - 1].at + secs(1);
    let after: Vec<Instant> = arrivals.iter().skip(100 + refused.len()).map(|arrival| arrival.at).collect();
    let tenth = &after[..PERMITS as usize];
    let step = millis(100) / PERMITS;
    for (k, at) in (0..).zip(tenth) {
        let early = (end + step * k).saturating_duration_since(*at);
        assert!(early.is_zero(), "arrival {} after the hold is {early:?} too early", k + 1);
    }

    // The distance of two arrivals differs from that of their grants by the delays of two threads: of the run and of the server.
    // Each may be late by 10 ms without a stall.
    let (first, last) = (tenth[0], tenth[tenth.len() - 1]);
    let delay = millis(20) + stalls.within(end, last);
    eprintln!(
        "hold: {count} refused, the first {:?} after its end, the tenth in {:?}, stalled {:?}",
        first - end,
        last - first,
        stalls.within(end, last)
    );
    for (from, begin) in tenth.iter().enumerate() {
        for (more, at) in (0..).zip(&tenth[from..]) {
            let share = step * more;
            assert!(share <= *at - *begin + delay, "{} arrivals in {:?}: {tenth:?}", more + 1, *at - *begin);
        }
    }
    assert!(last - first <= step * (PERMITS - 1) + delay, "{:?}", last - first);
}
