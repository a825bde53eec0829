//! Nothing that was started is ever left unpolled. Each of these cases hangs if a driver awaits a permit, an item of
//! the source or a retry while it holds work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_map_task::{AsyncMapTask, ItemContext};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt, stream};
use tokio::sync::{Barrier, Mutex, Notify, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::support::in_time;

#[tokio::test(start_paused = true)]
async fn items_share_a_lock_over_an_await() {
    let shared = Mutex::new(0);
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.over(0..100).map(|_| async {
        let mut count = shared.lock().await;
        // Another item waits for the lock by now; this one must be polled again.
        yield_now().await;
        sleep(Duration::from_millis(10)).await;
        *count += 1;
        Ok::<_, String>(())
    });
    assert_eq!(in_time(run).await.unwrap().successes(), 100);
    assert_eq!(*shared.lock().await, 100);
}

#[tokio::test(start_paused = true)]
async fn the_function_and_the_source_share_a_lock() {
    let shared = Arc::new(Mutex::new(Vec::new()));
    let of_source = Arc::clone(&shared);
    let source = stream::unfold(0, move |n| {
        let shared = Arc::clone(&of_source);
        async move {
            let mut seen = shared.lock().await;
            sleep(Duration::from_millis(3)).await;
            seen.push(n);
            (n < 50).then_some((n, n + 1))
        }
    });
    let task = AsyncMapTask::builder().concurrency(4).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        let shared = Arc::clone(&shared);
        async move {
            let mut seen = shared.lock_owned().await;
            sleep(Duration::from_millis(5)).await;
            seen.push(n);
            Ok::<_, String>(n)
        }
    });
    assert_eq!(in_time(run).await.unwrap().successes(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_waits_for_an_item() {
    // Each item makes the next one: the source is pending until an item has ended.
    let (mut more, items) = mpsc::channel(1);
    more.send(0).await.unwrap();
    let more = Mutex::new(Some(more));
    let task = AsyncMapTask::builder().concurrency(3).build().unwrap();
    let run = task.over_stream(items).map(|n| {
        let more = &more;
        async move {
            sleep(Duration::from_millis(1)).await;
            let mut more = more.lock().await;
            if n == 30 {
                *more = None;
            } else if let Some(more) = &mut *more {
                more.send(n + 1).await.unwrap();
            }
            Ok::<_, String>(n)
        }
    });
    assert_eq!(in_time(run).await.unwrap().into_successful_results(), (0..=30).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_while_others_hold_every_permit() {
    // Item 0 fails. While it waits, the others take every permit and hold a lock that it needs. Its retry starts when a
    // permit is free, and they must be polled until then.
    let lock = Mutex::new(());
    let task = AsyncMapTask::builder().concurrency(2).retries(1).retry_jitter(0.0).build().unwrap();
    let start = Instant::now();
    let run = task.over(0..7).map_with_context(|cx: ItemContext, n| {
        let lock = &lock;
        async move {
            if n == 0 && cx.attempt() == 1 {
                return Err("busy");
            }
            let _held = lock.lock().await;
            sleep(Duration::from_secs(2)).await;
            Ok(n)
        }
    });
    assert_eq!(in_time(run).await.unwrap().successes(), 7);
    assert_eq!(start.elapsed(), Duration::from_secs(14), "one lock, seven items of two seconds");
}

#[tokio::test(start_paused = true)]
async fn items_that_wait_for_one_another() {
    // As many items as there are permits must all be polled until all have arrived.
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let barrier = Barrier::new(16);
    let run = task.over(0..160).map(|_| async {
        barrier.wait().await;
        Ok::<_, String>(())
    });
    assert_eq!(in_time(run).await.unwrap().successes(), 160);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_semaphore_of_another_item() {
    let permits = Semaphore::new(1);
    let task = AsyncMapTask::builder().concurrency(4).retries(3).retry_jitter(0.0).build().unwrap();
    let run = task.over(0..40).map_with_context(|cx: ItemContext, n| {
        let permits = &permits;
        async move {
            let _permit = permits.acquire().await.unwrap();
            sleep(Duration::from_millis(100)).await;
            if cx.attempt() <= 2 { Err("once more") } else { Ok(n) }
        }
    });
    assert_eq!(in_time(run).await.unwrap().summary.retries, 80);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_source_causes_no_timeout() {
    // The source stalls for an hour while an item of two seconds runs under a limit of three.
    let source = stream::iter(0..2).then(|n| async move {
        if n == 1 {
            sleep(Duration::from_secs(3_600)).await;
        }
        n
    });
    let task =
        AsyncMapTask::builder().concurrency(2).timeout_per_attempt(Duration::from_secs(3)).build().unwrap();
    let run = task.over_stream(source).map(|n| async move {
        sleep(Duration::from_secs(2)).await;
        Ok::<_, String>(n)
    });
    let result = in_time(run).await.unwrap();
    assert_eq!((result.successes(), result.summary.timeouts), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wake_from_another_task_reaches_an_idle_run() {
    // All workers but one are idle while the source is pending; each wake must find one of them.
    let (mut feed, items) = mpsc::unbounded();
    let gate = Arc::new(Notify::new());
    let feeder = tokio::spawn(async move {
        for n in 0..50 {
            sleep(Duration::from_secs(1)).await;
            for k in 0..3 {
                feed.send(n * 3 + k).await.unwrap();
            }
        }
    });
    let running = AtomicUsize::new(0);
    let task = AsyncMapTask::builder().concurrency(3).build().unwrap();
    let run = task.over_stream(items).map(|n| {
        let (gate, running) = (Arc::clone(&gate), &running);
        async move {
            // The three of one second wait for one another.
            if running.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                gate.notify_waiters();
            } else {
                gate.notified().await;
            }
            Ok::<_, String>(n)
        }
    });
    assert_eq!(in_time(run).await.unwrap().successes(), 150);
    feeder.await.unwrap();
}
