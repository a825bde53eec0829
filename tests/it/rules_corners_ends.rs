//! Corner cases of the limits, the ends and the modes. Each was a bug of the engine.

use std::future::pending;
use std::sync::{Arc, mpsc};
use std::thread;

use async_map_task::{AsyncMapTask, FailureReason, Limiter, MapHandle};
use futures::{StreamExt, poll};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::support::{HOUR, at_once, millis, retrying, secs, task, workers};

/// Permits of a shared limit were returned before the attempt that they were granted to began.
#[tokio::test(start_paused = true)]
async fn rule_04_sharing_runs_return_no_permit_unused() {
    for (concurrency, permits) in [(2, 1), (4, 1), (4, 2)] {
        let limiter = Limiter::new(permits);
        let task = at_once(concurrency).limiter(&limiter).build().unwrap();
        let f = |n: u32| async move {
            yield_now().await;
            Ok::<_, String>(n)
        };
        let all = async {
            tokio::join!(task.run(0..50, f), task.run(0..50, f), task.over(0..50).map(f).parallel())
        };
        let (one, other, parallel) = timeout(HOUR, all).await.expect("nothing starts any more");
        let successes = [one, other, parallel].map(|result| result.unwrap().successes());
        assert_eq!((successes, limiter.in_use()), ([50; 3], 0));
    }
}

/// A run that could start nothing more stayed in the queue, and kept the permits that it was granted there.
#[tokio::test(start_paused = true)]
async fn rule_04_an_idle_run_leaves_the_queue() {
    let limiter = Limiter::new(2);
    let task = at_once(2).limiter(&limiter).build().unwrap();
    let (let_go, gate) = oneshot::channel::<()>();
    let other = task.over([gate]).map_once(async |gate| gate.await).spawn();
    yield_now().await;

    let mut unread = task.over(0..100).map(async |n| Ok::<_, String>((sleep(millis(5)).await, n))).stream();
    unread.next().await.unwrap().unwrap();
    sleep(millis(100)).await;
    assert_eq!(limiter.in_use(), 1, "the other run's");
    let_go.send(()).unwrap();
    other.await.unwrap();
    sleep(millis(100)).await;
    assert_eq!(limiter.in_use(), 0, "nobody's");

    let heavy = task.over([()]).map(async |()| Ok::<_, String>(())).weight(|()| 2);
    timeout(HOUR, heavy).await.expect("a place that nobody uses is kept from it").unwrap();
}

/// The same when the maximum number of items waits for a retry.
#[tokio::test(start_paused = true)]
async fn rule_06_delayed_retries_hold_no_shared_permit() {
    let limiter = Limiter::new(1);
    let task = retrying(2).look_ahead(2).retry_delay(secs(60)).limiter(&limiter).build().unwrap();
    let failing = task.over(0..4).map(async |_: u32| Err::<(), _>("no")).spawn();
    sleep(secs(1)).await;
    assert_eq!((failing.progress().waiting_for_retry, limiter.in_use()), (2, 0));
    failing.cancel();
    failing.await.unwrap_err();
}

/// A raised limit took effect only at the driver's next poll, and the next item was compared with the old one.
#[tokio::test]
async fn rule_04_a_raised_limit_applies_to_the_next_item() {
    for parallel in [false, true] {
        let (give, taken) = oneshot::channel::<MapHandle<u32, String>>();
        let taken = Arc::new(tokio::sync::Mutex::new(Some(taken)));
        let run = at_once(1).build().unwrap().over([1, 8]).map(move |weight: u32| {
            let taken = Arc::clone(&taken);
            async move {
                if let Some(handle) = taken.lock().await.take() {
                    let handle = handle.await.unwrap();
                    handle.set_concurrency(8);
                    // An item must not wait for its own run.
                    tokio::spawn(handle);
                }
                Ok(weight)
            }
        });
        let run = run.weight(|weight| *weight);
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        let mut progress = handle.watch();
        give.send(handle).unwrap();
        while progress.changed().await.is_ok() {}
        assert_eq!(progress.borrow().successes, 2);
    }
}

/// The driver was woken by a worker that continued with a long item, on the only thread that could poll the driver.
#[test]
fn rule_07_a_blocking_item_does_not_delay_the_sink() {
    let runtime = workers(2);
    for limited in [false, true] {
        let (end, until) = mpsc::channel::<()>();
        let until = Arc::new(std::sync::Mutex::new(until));
        let limiter = Limiter::new(if limited { 2 } else { 100 });
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let run = task.over(0..40).map(move |n| {
            let until = Arc::clone(&until);
            async move {
                if n == 0 {
                    // It ends when the sink has taken all others.
                    until.lock().unwrap().recv_timeout(secs(20)).map_err(|error| error.to_string())?;
                } else {
                    sleep(millis(1)).await;
                }
                Ok::<_, String>(n)
            }
        });
        let mut taken = 0;
        let summary = run.parallel().for_each(move |outcome| {
            taken += 1;
            if taken == 39 {
                end.send(()).unwrap();
            }
            assert_eq!(outcome.result.map_err(|error| error.to_string()), Ok(outcome.index));
            async {}
        });
        let summary = runtime.block_on(async { tokio::spawn(summary).await.unwrap().unwrap() });
        assert_eq!((summary.successes, limiter.in_use()), (40, 0));
    }
}

/// Workers that the runtime had dropped were treated as workers that had ended, and the whole source was pulled into
/// memory.
#[test]
fn rule_44_a_shutdown_cancels_a_spawned_run() {
    let runtime = workers(2);
    let handle = runtime.handle().clone();
    let (begun, has_begun) = mpsc::channel();
    let run = thread::spawn(move || {
        handle.block_on(
            task()
                .over(0..u32::MAX)
                .map(move |_| {
                    begun.send(()).unwrap();
                    pending::<Result<(), String>>()
                })
                .parallel(),
        )
    });
    has_begun.recv().unwrap();
    runtime.shutdown_background();
    let error = run.join().unwrap().unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled), "{error}");
    assert!((1..=4).contains(&error.summary().cancelled) && error.summary().failures == 0, "{error:?}");
}

/// The pool kept the permits of functions that it had not called and never would.
#[test]
fn rule_28_a_queued_blocking_function_returns_its_permits() {
    // A pool of one thread, which is busy.
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (let_go, gate) = mpsc::channel::<()>();
        let hog = tokio::task::spawn_blocking(move || gate.recv());
        let limiter = Limiter::new(8);
        let task = AsyncMapTask::builder().limiter(&limiter).build().unwrap();
        let mut run = Box::pin(task.over(0..3).map_blocking(|_| Ok::<(), String>(())));
        while limiter.in_use() < 3 {
            // A poll ends early once it has taken a tenth of a millisecond.
            assert!(poll!(&mut run).is_pending());
        }
        drop(run);
        assert_eq!(limiter.in_use(), 0);

        // Its permit is returned, too: each of three items starts in turn and times out in the queue.
        let limits = at_once(1).timeout_per_attempt(millis(20)).min_success_ratio(0.0).limiter(&limiter);
        let queued = limits.build().unwrap().over(0..3).map_blocking(|_| Ok::<(), String>(()));
        let result = queued.await.unwrap();
        assert_eq!((result.failures(), result.summary.timeouts, limiter.in_use()), (3, 3, 0));
        let_go.send(()).unwrap();
        hog.await.unwrap().unwrap();
    });
}
