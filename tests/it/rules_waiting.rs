//! Rule 6: the resources of an item that waits for its retry, and the order when its delay is over.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use async_map_task::Event;
use futures::stream::{self, StreamExt};
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};

use crate::support::{Gauge, Log, after, at_once, millis, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_06_a_delayed_retry_holds_no_permit() {
    let (log, running) = (Log::open(), Gauge::default());
    let task = retrying(2).build().unwrap();
    let run = task.over([0_u64, 5_000, 400, 400, 400, 400]).map_with_context(|cx, duration| {
        let (log, running) = (log.clone(), &running);
        async move {
            log.note((cx.index(), cx.attempt()));
            let _alive = running.enter();
            sleep(millis(duration)).await;
            if cx.index() == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.successes(), 6);
    let expected = [
        (0, (0, 1)),
        (0, (1, 1)),
        (0, (2, 1)),
        (400, (3, 1)),
        (800, (4, 1)),
        (1_200, (0, 2)),
        (1_200, (5, 1)),
    ];
    assert_eq!(log.timed(), expected);
    assert_eq!(running.peak(), 2);
}

/// The start of each attempt if every item fails immediately and only once: the time, the item, its attempt, and the number
/// of items that had been pulled by then.
async fn starts_where_each_fails_once(concurrency: usize, items: usize) -> Vec<(u64, (usize, u32, usize))> {
    let (log, pulled) = (Log::open(), Cell::new(0));
    let task = retrying(concurrency).look_ahead(concurrency).build().unwrap();
    let source = (0..items).inspect(|_| pulled.set(pulled.get() + 1));
    let run = task.over(source).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt(), pulled.get()));
        async move { if cx.attempt() == 1 { Err("again") } else { Ok(()) } }
    });
    run.await.unwrap();
    log.timed()
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_window_of_one_admits_nothing_before_the_retry() {
    let expected = [
        (0, (0, 1, 1)),
        (1_000, (0, 2, 1)),
        (1_000, (1, 1, 2)),
        (2_000, (1, 2, 2)),
        (2_000, (2, 1, 3)),
        (3_000, (2, 2, 3)),
    ];
    assert_eq!(starts_where_each_fails_once(1, 3).await, expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_third_item_starts_during_a_delay() {
    let log = Log::open();
    let task = retrying(2).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, n| {
        log.note((cx.index(), cx.attempt()));
        async move {
            sleep(millis([100, 10_000, 10_000][n])).await;
            if n == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, (0, 1)), (0, (1, 1)), (100, (2, 1)), (10_000, (0, 2))]);
}

#[tokio::test(start_paused = true)]
async fn rule_06_the_window_bounds_delayed_retries() {
    let expected = [
        (0, (0, 1, 1)),
        (0, (1, 1, 2)),
        (1_000, (0, 2, 2)),
        (1_000, (1, 2, 2)),
        (1_000, (2, 1, 3)),
        (1_000, (3, 1, 4)),
        (2_000, (2, 2, 4)),
        (2_000, (3, 2, 4)),
        (2_000, (4, 1, 5)),
        (3_000, (4, 2, 5)),
    ];
    assert_eq!(starts_where_each_fails_once(2, 5).await, expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_each_due_retry_admits_one_new_item() {
    let log = Log::open();
    let task = retrying(2).look_ahead(2).build().unwrap();
    let run = task
        .over(0..4_u64)
        .map_with_context(|cx, n| {
            log.note((cx.index(), cx.attempt()));
            async move {
                if n < 2 && cx.attempt() == 1 {
                    return Err(secs(1 + 4 * n));
                }
                sleep(secs(2)).await;
                Ok(())
            }
        })
        .retry_after(|wait| Some(*wait));
    run.await.unwrap();
    let expected =
        [(0, (0, 1)), (0, (1, 1)), (1_000, (0, 2)), (1_000, (2, 1)), (3_000, (3, 1)), (5_000, (1, 2))];
    assert_eq!(log.timed(), expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_full_window_admits_nothing() {
    for (concurrency, look_ahead) in [(1, 1), (2, 2), (3, 1), (2, 9), (8, 8)] {
        let (waiting, full) = (Cell::new(0_usize), Cell::new(0));
        let task = at_once(concurrency)
            .look_ahead(look_ahead)
            .retries(4)
            .retry_delay(millis(30))
            .retry_jitter(1.0)
            .min_success_ratio(0.0)
            .build()
            .unwrap();
        let run = task
            .over(0..300_u64)
            .map_with_context(|cx, n| {
                if cx.attempt() > 1 {
                    waiting.set(waiting.get() - 1);
                }
                async move {
                    sleep(millis(n * u64::from(cx.attempt()) % 17)).await;
                    if (n + u64::from(cx.attempt())) % 7 < 5 { Err("again") } else { Ok(()) }
                }
            })
            .observe(|event: &Event<'_>| match event {
                Event::AttemptFailed { retry_in: Some(_), .. } => {
                    waiting.set(waiting.get() + 1);
                    full.set(full.get() + usize::from(waiting.get() >= look_ahead));
                    // Admission stops at the window; only attempts that then ran can still join.
                    assert!(waiting.get() < look_ahead + concurrency);
                }
                Event::ItemStarted { .. } => assert!(waiting.get() < look_ahead),
                _ => {}
            });
        let result = run.await.unwrap();
        assert_eq!(result.successes() + result.failures(), 300);
        assert!(full.get() > 10, "the window was hardly ever full: {}", full.get());
        assert_eq!(waiting.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_due_retry_precedes_a_new_item() {
    // Both retries become due while every permit is in use. The one that was due first starts first.
    let (log, running) = (Log::open(), Gauge::default());
    let task = retrying(3).build().unwrap();
    let run = task
        .over(0..8_u64)
        .map_with_context(|cx, n| {
            let (log, running) = (log.clone(), &running);
            async move {
                log.note((cx.index(), cx.attempt()));
                let _alive = running.enter();
                match (n, cx.attempt()) {
                    (0, 1) => Err(secs(2)),
                    (1, 1) => Err(secs(1)),
                    (2, 1) => after(secs(3), Ok(())).await,
                    (3, 1) => after(secs(4), Ok(())).await,
                    (4, 1) => after(secs(5), Ok(())).await,
                    _ => after(secs(9), Ok(())).await,
                }
            }
        })
        .retry_after(|wait| Some(*wait));
    run.await.unwrap();
    let expected = [
        (0, (0, 1)),
        (0, (1, 1)),
        (0, (2, 1)),
        (0, (3, 1)),
        (0, (4, 1)),
        (3_000, (1, 2)),
        (4_000, (0, 2)),
        (5_000, (5, 1)),
        (12_000, (6, 1)),
        (13_000, (7, 1)),
    ];
    assert_eq!(log.timed(), expected);
    assert_eq!(running.peak(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_retry_due_when_a_permit_is_freed_is_first() {
    let log = Log::open();
    let task = retrying(2).build().unwrap();
    let run = task.over(0..6).map_with_context(|cx, n| {
        log.note((cx.index(), cx.attempt()));
        async move {
            if n == 0 && cx.attempt() == 1 {
                return Err("again");
            }
            sleep(secs(1)).await;
            Ok(())
        }
    });
    run.await.unwrap();
    let order: Vec<_> = log.lines();
    assert_eq!(order, [(0, 1), (1, 1), (2, 1), (0, 2), (3, 1), (4, 1), (5, 1)]);
}

/// The starts of items that all fail, with retries that have no delay.
async fn starts_without_delays(concurrency: usize, items: usize) -> Vec<(usize, u32)> {
    let log = Log::open();
    let task = at_once(concurrency).retries(2).retry_delay(secs(0)).min_success_ratio(0.0).build().unwrap();
    let run = task.over(0..items).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt()));
        async { Err::<(), _>("again") }
    });
    run.await.unwrap();
    assert_eq!(log.millis(), 0);
    log.lines()
}

#[tokio::test(start_paused = true)]
async fn rule_06_an_immediate_retry_starts_after_one_new_item() {
    let expected =
        [(0, 1), (1, 1), (0, 2), (2, 1), (1, 2), (3, 1), (0, 3), (2, 2), (1, 3), (3, 2), (2, 3), (3, 3)];
    assert_eq!(starts_without_delays(1, 4).await, expected);
    assert_eq!(starts_without_delays(1, 1).await, [(0, 1), (0, 2), (0, 3)], "nothing else can start");
}

/// A retry starts immediately as long as the source is pending.
#[tokio::test(start_paused = true)]
async fn rule_06_an_immediate_retry_needs_no_stalled_source() {
    let log = Log::open();
    let task = at_once(1).retries(2).retry_delay(secs(0)).min_success_ratio(0.0).build().unwrap();
    let items = stream::iter(0..2).then(|n| after(secs(5 * n), n));
    let run = task.over_stream(items).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt()));
        async { Err::<(), _>("again") }
    });
    run.await.unwrap();
    let at = |seconds: u64, index, attempt| (1_000 * seconds, (index, attempt));
    assert_eq!(log.timed(), [at(0, 0, 1), at(0, 0, 2), at(0, 0, 3), at(5, 1, 1), at(5, 1, 2), at(5, 1, 3)]);
}

/// Items 0 to 2 fail until item 3 has run. When one worker ran all of them, item 3 never started.
#[tokio::test]
async fn rule_06_immediate_retries_starve_no_item() {
    for parallel in [false, true] {
        let (up, others) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(3)));
        let task = at_once(4).retries(u32::MAX).retry_delay(secs(0)).build().unwrap();
        let run = task.over(0..8).map(move |i| {
            let (is_up, others) = (Arc::clone(&up), Arc::clone(&others));
            async move {
                match i {
                    0..3 if !is_up.load(SeqCst) => return Err("not yet"),
                    0..3 => {}
                    // These need all permits but one at the same time.
                    3..6 => {
                        others.wait().await;
                    }
                    _ => is_up.store(true, SeqCst),
                }
                Ok(i)
            }
        });
        let result = async move { if parallel { run.parallel().await } else { run.await } };
        let result = timeout(secs(60), result).await.expect("a permit is idle");
        assert_eq!(result.unwrap().successes(), 8);
    }
}
