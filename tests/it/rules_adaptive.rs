//! An adaptive limiter through the whole crate, with rule 47: lowering a limit never ends a run.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, LimitChange, Limiter};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::level_filters::LevelFilter;

use crate::recorded_trace::listen;

const MILLIS: Duration = Duration::from_millis(1);

/// A server with workers behind a queue. Service times vary between 40 and 60 ms.
#[derive(Clone)]
struct Server {
    workers: Arc<Semaphore>,
    number: Arc<Mutex<u32>>,
}

impl Server {
    fn new(workers: usize) -> Self {
        Self { workers: Arc::new(Semaphore::new(workers)), number: Arc::default() }
    }

    async fn serve(&self) -> Result<(), &'static str> {
        let number = {
            let mut number = self.number.lock().unwrap();
            *number += 1;
            *number
        };
        let _worker = self.workers.acquire().await.unwrap();
        sleep((40 + number * 7 % 21) * MILLIS).await;
        Ok(())
    }
}

fn seeking(most: usize, start: usize) -> Limiter {
    Limiter::builder().adaptive(1..=most).start_at(start).build().unwrap()
}

fn sharing(limiter: &Limiter) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(500).limiter(limiter).allow_failures()
}

#[tokio::test(start_paused = true)]
async fn a_run_finds_the_limit_of_its_server() {
    for parallel in [false, true] {
        let (server, limiter) = (Server::new(16), seeking(500, 2));
        let task = sharing(&limiter).build().unwrap();
        let begun = Instant::now();
        let run = task.over(0..10_000).map(move |_| {
            let server = server.clone();
            async move { server.serve().await }
        });
        let summary =
            if parallel { run.parallel().await.unwrap().summary } else { run.await.unwrap().summary };
        assert_eq!((summary.successes, limiter.in_use()), (10_000, 0));
        // 16 workers need 31.25 s.
        assert!(begun.elapsed() < 34 * 1_000 * MILLIS, "{:?}", begun.elapsed());
        assert!((8..=25).contains(&limiter.permits()), "{}", limiter.permits());
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_that_end_at_the_same_instant_let_it_grow() {
    for parallel in [false, true] {
        let limiter = seeking(500, 4);
        let run = sharing(&limiter).build().unwrap();
        let run = run.over(0..20_000).map(|_| async {
            sleep(50 * MILLIS).await;
            Ok::<_, String>(())
        });
        let result = if parallel { run.parallel().await } else { run.await };
        assert_eq!(result.unwrap().successes(), 20_000);
        assert!(limiter.permits() > 100, "{parallel}: {}", limiter.permits());
    }
}

#[tokio::test(start_paused = true)]
async fn several_runs_share_what_they_find() {
    let (server, limiter) = (Server::new(16), seeking(500, 4));
    let task = sharing(&limiter).build().unwrap();
    let call = |_| server.serve();
    let (one, two) = tokio::join!(task.run(0..3_000, call), task.run(0..3_000, call));
    let (one, two) = (one.unwrap().summary, two.unwrap().summary);
    assert_eq!((one.successes, two.successes, limiter.in_use()), (3_000, 3_000, 0));
    assert!((8..=25).contains(&limiter.permits()), "{}", limiter.permits());
    let ratio = one.elapsed.as_secs_f64() / two.elapsed.as_secs_f64();
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[tokio::test(start_paused = true)]
async fn permits_taken_by_hand_count() {
    let (server, limiter) = (Server::new(16), seeking(500, 2));
    let ends = (0..4_000).map(|_| async {
        let permit = limiter.acquire().await.unwrap();
        server.serve().await.unwrap();
        drop(permit);
    });
    futures::future::join_all(ends).await;
    assert!((10..=25).contains(&limiter.permits()), "{}", limiter.permits());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_used_does_not_grow() {
    let limiter = seeking(500, 8);
    let server = Server::new(100);
    let task = AsyncMapTask::builder().concurrency(4).limiter(&limiter).build().unwrap();
    task.run(0..1_000, |_| server.serve()).await.unwrap();
    assert_eq!(limiter.permits(), 8);
    // Neither does one whose rate is the bound.
    let limiter = Limiter::builder().adaptive(1..=500).start_at(8).rate(20, 1_000 * MILLIS).build().unwrap();
    let task = sharing(&limiter).build().unwrap();
    task.run(0..500, |_| server.serve()).await.unwrap();
    assert_eq!(limiter.permits(), 8);
}

#[tokio::test(start_paused = true)]
async fn overloads_are_what_the_run_says() {
    let refuse = async |n: u32| {
        sleep(MILLIS).await;
        if n % 2 == 0 { Ok(()) } else { Err("busy") }
    };
    let limit_after = async |choose: u32| {
        let limiter = seeking(100, 50);
        let run = sharing(&limiter).build().unwrap();
        let run = run.over(0..40).map(refuse);
        match choose {
            0 => drop(run.await),
            1 => drop(run.overload(|error| *error == "busy").await),
            2 => drop(run.hold_back(|_| Some(MILLIS)).await),
            _ => drop(run.hold_back(|_| Some(MILLIS)).overload(|_| false).await),
        }
        limiter.permits() < 50
    };
    for (choose, falls) in [(0, false), (1, true), (2, true), (3, false)] {
        assert_eq!(limit_after(choose).await, falls, "{choose}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_limits_of_attempts_are_overloads_and_those_of_items_are_not() {
    for (of_attempt, falls) in [(true, true), (false, false)] {
        for parallel in [false, true] {
            let limiter = seeking(100, 50);
            let task = sharing(&limiter);
            let task = if of_attempt {
                task.timeout_per_attempt(10 * MILLIS)
            } else {
                task.timeout_per_item(10 * MILLIS)
            };
            let run = task.build().unwrap().over(0..40).map(|_| async {
                sleep(50 * MILLIS).await;
                Ok::<_, String>(())
            });
            let result = if parallel { run.parallel().await } else { run.await };
            assert_eq!(result.unwrap().summary.timeouts, 40);
            assert_eq!(limiter.permits() < 50, falls, "{of_attempt} {parallel}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_heavy_item_starts_alone_and_one_above_the_range_is_refused() {
    let limiter = seeking(8, 2);
    let task = AsyncMapTask::builder().concurrency(100).limiter(&limiter).build().unwrap();
    let run = |weight: u32| {
        let run = task.over(0..3).map(|_| async {
            sleep(10 * MILLIS).await;
            Ok::<_, String>(())
        });
        run.weight(move |_| weight)
    };
    let result = run(8).await.unwrap();
    assert_eq!(result.summary.elapsed, 30 * MILLIS);
    let error = run(9).await.unwrap_err();
    let text = error.reason().to_string();
    assert!(text.contains("weight") && text.contains('8'), "{text}");
}

#[tokio::test(start_paused = true)]
async fn weights_count_in_the_limit() {
    let (server, limiter) = (Server::new(8), seeking(500, 12));
    let task = sharing(&limiter).build().unwrap();
    let run = task.over(0..4_000).map(|_| server.serve()).weight(|_| 3);
    let summary = run.await.unwrap().summary;
    assert_eq!((summary.successes, limiter.in_use()), (4_000, 0));
    assert!((20..=42).contains(&limiter.permits()), "{}", limiter.permits());
}

#[tokio::test(start_paused = true)]
async fn set_permits_is_where_the_rule_goes_on() {
    let (server, limiter) = (Server::new(16), seeking(100, 4));
    let task = sharing(&limiter).build().unwrap();
    let call = {
        let server = server.clone();
        move |_| {
            let server = server.clone();
            async move { server.serve().await }
        }
    };
    let run = task.over(0..100_000).map(call).spawn();
    sleep(10_000 * MILLIS).await;
    limiter.set_permits(0);
    sleep(5_000 * MILLIS).await;
    assert_eq!((limiter.permits(), limiter.in_use()), (0, 0));
    limiter.set_permits(1_000);
    assert_eq!(limiter.permits(), 100);
    sleep(60_000 * MILLIS).await;
    assert!((8..=30).contains(&limiter.permits()), "{}", limiter.permits());
    run.cancel();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(limiter.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_attempts_do_not_count_and_everything_is_given_back() {
    let limiter = seeking(100, 4);
    let task = sharing(&limiter).build().unwrap();
    for _ in 0..100 {
        let mut run = pin!(task.run(0..1_000, |_| std::future::pending::<Result<(), String>>()));
        assert!((&mut run).now_or_never().is_none());
        assert_eq!((limiter.in_use(), limiter.waiting()), (4, 1));
        sleep(50 * MILLIS).await;
    }
    assert_eq!((limiter.permits(), limiter.in_use(), limiter.waiting()), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn attempts_without_an_end_do_not_wedge_it() {
    let (server, limiter) = (Server::new(16), seeking(100, 4));
    let task = sharing(&limiter).build().unwrap();
    let stuck = task.over(0..2).map(|_| std::future::pending::<Result<(), String>>()).spawn();
    sleep(24 * 3_600_000 * MILLIS).await;
    assert_eq!((limiter.permits(), limiter.in_use()), (4, 2));
    let result = task.run(0..2_000, |_| server.serve()).await.unwrap();
    assert_eq!(result.successes(), 2_000);
    assert!(limiter.permits() > 10, "{}", limiter.permits());
    stuck.cancel();
    assert!(stuck.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hold_holds_and_its_end_is_no_burst() {
    let (server, limiter) = (Server::new(16), seeking(100, 4));
    let task = sharing(&limiter).build().unwrap();
    limiter.hold_back(1_000 * MILLIS);
    let result = task.run(0..100, |_| server.serve()).await.unwrap();
    assert!(result.summary.elapsed > 1_000 * MILLIS, "{:?}", result.summary.elapsed);
    assert_eq!(limiter.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_run_reports_the_changes() {
    let (server, limiter) = (Server::new(16), seeking(100, 4));
    let task = sharing(&limiter).build().unwrap();
    let (one, two) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let note = |log: &Mutex<Vec<_>>, event: &Event<'_>| {
        if let Event::LimitChanged { from, to, why, .. } = *event {
            log.lock().unwrap().push((from, to, why));
        }
    };
    let run =
        |log| task.over(0..3_000).map(|_| server.serve()).observe(move |event: &Event<'_>| note(log, event));
    let (first, second) = tokio::join!(run(&one), run(&two));
    assert_eq!((first.unwrap().successes(), second.unwrap().successes()), (3_000, 3_000));
    for log in [one, two] {
        let log = log.into_inner().unwrap();
        assert_eq!(log[0], (4, 6, LimitChange::Growth));
        assert!(log.windows(2).all(|pair| pair[0].1 == pair[1].0), "{log:?}");
        assert!(log.iter().any(|(_, _, why)| *why == LimitChange::Measurement), "{log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_logged_in_the_span_of_the_run() {
    for parallel in [false, true] {
        let (server, limiter) = (Server::new(16), seeking(100, 4));
        let task = sharing(&limiter).name("fetch").build().unwrap();
        let (memory, guard) = listen(LevelFilter::DEBUG);
        let run = task.over(0..500).map(move |_| {
            let server = server.clone();
            async move { server.serve().await }
        });
        let result = if parallel { run.parallel().await } else { run.await };
        drop(guard);
        assert_eq!(result.unwrap().successes(), 500);
        let events = memory.events("the limit has changed");
        let first = &events[0];
        let fields = ["task", "from", "to", "why"].map(|name| first.fields.get(name).unwrap());
        assert_eq!(fields, ["fetch", "4", "6", "growth"], "{parallel}");
        assert_eq!(memory.place_of(first), ("map_task", None), "{parallel}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocking_function_counts_when_it_returns() {
    let limiter = seeking(100, 2);
    let task = sharing(&limiter).build().unwrap();
    let (waits_for, started) = (limiter.clone(), AtomicUsize::new(0));
    let run = task.over(0..200).map_blocking(move |_| {
        started.fetch_add(1, SeqCst);
        // Each returns while the run waits for another permit, so that more could begin under a higher limit.
        while waits_for.waiting() == 0 && started.load(SeqCst) < 200 {
            std::thread::yield_now();
        }
        Ok::<_, String>(())
    });
    let result = run.await.unwrap();
    assert_eq!((result.successes(), limiter.in_use()), (200, 0));
    assert!(limiter.permits() > 2, "{}", limiter.permits());
}

#[tokio::test(start_paused = true)]
async fn a_bad_range_is_an_error_of_build() {
    let seek = |range| Limiter::builder().adaptive(range);
    #[allow(clippy::reversed_empty_ranges, reason = "it is refused")]
    let empty = seek(5..=4);
    for (builder, text) in [
        (seek(0..=4), "adaptive must be a range that begins at 1 or more and is not empty, got 0..=4"),
        (empty, "adaptive must be a range that begins at 1 or more and is not empty, got 5..=4"),
        (seek(1..=4).start_at(5), "start_at must be within 1..=4, got 5"),
        (seek(1..=4).permits(3), "permits must be left out, because adaptive finds their number, got 3"),
        (Limiter::builder().start_at(3), "start_at must be set together with adaptive, got 3"),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), text);
    }
    assert_eq!(seek(1..=2).build().unwrap().permits(), 2);
    assert_eq!(seek(9..=20).build().unwrap().permits(), 9);
}
