//! Rules 7 and 9: everything that has started makes progress, in the run and beside it.

use std::cell::Cell;
use std::rc::Rc;

use futures::{StreamExt, stream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Log, at_once, millis, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_07_a_slow_source_does_not_stop_running_items() {
    // In steps: an item that is not polled while the source stalls would miss its limit.
    let log = Log::open();
    let task = at_once(4).timeout_per_attempt(secs(2)).build().unwrap();
    let source = stream::iter(0..3).then(|n| async move {
        sleep(secs(10)).await;
        n
    });
    let run = task.over_stream(source).map(|n| {
        let log = log.clone();
        async move {
            for _ in 0..10 {
                sleep(millis(100)).await;
            }
            log.note(n);
            Ok::<_, String>(())
        }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(11_000, 0), (21_000, 1), (31_000, 2)]);
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_source_may_wait_for_an_item() {
    let (done, finished) = mpsc::unbounded_channel();
    let source = stream::unfold((0, finished), |(n, mut finished)| async move {
        if n == 20 {
            return None;
        }
        if n > 0 {
            assert_eq!(finished.recv().await, Some(n - 1));
        }
        Some((n, (n + 1, finished)))
    });
    let task = at_once(3).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        let done = done.clone();
        async move {
            yield_now().await;
            sleep(millis(1)).await;
            let _ = done.send(n);
            Ok::<_, String>(n)
        }
    });
    assert_eq!(timeout(secs(60), run).await.expect("the run hangs").unwrap().successes(), 20);
}

#[tokio::test(start_paused = true)]
async fn rule_07_items_may_share_a_lock() {
    for concurrency in [1, 2, 10] {
        let shared = Mutex::new(0);
        let task = at_once(concurrency).build().unwrap();
        let run = task.run(0..10, |_| async {
            let mut count = shared.lock().await;
            sleep(millis(10)).await;
            yield_now().await;
            *count += 1;
            Ok::<_, String>(())
        });
        timeout(secs(60), run).await.expect("the run hangs").unwrap();
        assert_eq!(*shared.lock().await, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_waiting_retry_does_not_stop_running_items() {
    let shared = Mutex::new(());
    let task = retrying(2).timeout_per_attempt(secs(60)).build().unwrap();
    let run = task.over(0..6_u64).map_with_context(|cx, n| {
        let shared = &shared;
        async move {
            let _held = shared.lock().await;
            sleep(secs(2)).await;
            if n % 2 == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    let result = timeout(secs(600), run).await.expect("the run hangs").unwrap();
    assert_eq!((result.successes(), result.summary.retries, result.summary.timeouts), (6, 3, 0));
    assert_eq!(result.summary.elapsed, secs(18));
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_freed_permit_wakes_the_source() {
    // The source was last polled with every permit free, and was pending. Its own waker must still be the run's.
    let (feed, items) = mpsc::unbounded_channel::<u64>();
    let source = stream::unfold(items, |mut items| async move { Some((items.recv().await?, items)) });
    let log = Log::open();
    let task = at_once(2).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        log.note(n);
        async move {
            sleep(secs(n)).await;
            Ok::<_, String>(n)
        }
    });
    let feeding = async {
        for n in [5, 1, 1, 1] {
            feed.send(n).unwrap();
        }
        sleep(secs(20)).await;
        feed.send(2).unwrap();
        drop(feed);
    };
    let (result, ()) = tokio::join!(run, feeding);
    assert_eq!(result.unwrap().summary.elapsed, secs(22));
    assert_eq!(log.timed(), [(0, 5), (0, 1), (1_000, 1), (2_000, 1), (20_000, 2)]);
}

/// Runs beside a run in one thread and counts its own polls, and the maximum number of items that started between two
/// polls. After `turns` polls it cancels the run.
async fn take_turns(turns: usize, items: Rc<Cell<usize>>, stop: CancellationToken) -> usize {
    let (mut widest, mut before) = (0, items.get());
    for _ in 0..turns {
        yield_now().await;
        widest = widest.max(items.get() - before);
        before = items.get();
    }
    stop.cancel();
    widest
}

const MANY: usize = 10_000_000;
/// The maximum number of items that may start before another task is polled: a few times Tokio's own budget of 128.
const STRETCH: usize = 1_000;
const TURNS: usize = 300;

#[tokio::test]
async fn rule_09_ready_items_let_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for concurrency in [1, 4, 1_000, 1_000_000] {
                let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
                let other = tokio::task::spawn_local(take_turns(TURNS, Rc::clone(&count), stop.clone()));
                let task = at_once(concurrency).build().unwrap();
                let run = task.run(0..MANY, |n| {
                    count.set(count.get() + 1);
                    async move { Ok::<_, String>(n) }
                });
                let error = run.cancellation_token(stop).await.unwrap_err();
                assert!(error.partial().successes() >= TURNS, "it hardly ran at all");
                let widest = other.await.unwrap();
                assert!(widest <= STRETCH, "{widest} items between two turns of another task");
            }
        })
        .await;
}

#[tokio::test]
async fn rule_09_a_ready_stream_lets_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
            let other = tokio::task::spawn_local(take_turns(TURNS, Rc::clone(&count), stop.clone()));
            let task = at_once(16).build().unwrap();
            let run = task.over_stream(stream::iter(0..MANY)).map(|n| {
                count.set(count.get() + 1);
                async move { Ok::<_, String>(n) }
            });
            let error = run.cancellation_token(stop).await.unwrap_err();
            assert!(error.partial().successes() >= TURNS, "it hardly ran at all");
            let widest = other.await.unwrap();
            assert!(widest <= STRETCH, "{widest} items between two turns of another task");
        })
        .await;
}

#[tokio::test]
async fn rule_09_immediate_retries_let_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for fault in 0..3 {
                let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
                let other = tokio::task::spawn_local(take_turns(20, Rc::clone(&count), stop.clone()));
                let retries = if fault == 0 { u32::MAX } else { 0 };
                let task =
                    at_once(2).retries(retries).retry_delay(secs(0)).min_success_ratio(0.0).build().unwrap();
                let run = task.run(0..MANY, |_| {
                    count.set(count.get() + 1);
                    // Unwinding without the panic hook, which would print a million lines.
                    if fault == 2 {
                        std::panic::resume_unwind(Box::new("no"));
                    }
                    async { Err::<(), _>("no") }
                });
                run.cancellation_token(stop).await.unwrap_err();
                let widest = other.await.unwrap();
                assert!(
                    (1..=STRETCH).contains(&widest),
                    "{widest} attempts between two turns of another task"
                );
            }
        })
        .await;
}

#[test]
fn rule_09_ten_million_ready_items_take_many_polls() {
    // Without a runtime: each poll returns and has requested another one.
    let count = Cell::new(0);
    let task = at_once(8).build().unwrap();
    let mut run = task.run(0..MANY, |n| {
        count.set(count.get() + 1);
        async move { Ok::<_, String>(n) }
    });
    let (mut cx, mut before) = (std::task::Context::from_waker(std::task::Waker::noop()), 0);
    for _ in 0..100 {
        assert!(std::pin::Pin::new(&mut run).poll(&mut cx).is_pending());
        assert!((1..=STRETCH).contains(&(count.get() - before)));
        before = count.get();
    }
}
