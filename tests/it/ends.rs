//! Smoke tests of the ends of a run beside `.await`.

use std::time::Duration;

use async_map_task::{AsyncMapTask, FailureReason, Limiter};
use futures::StreamExt;

use crate::support::{after, at_once, check_account, millis, secs};

#[tokio::test(start_paused = true)]
async fn each_end_gives_every_item_once() {
    for spawned in [false, true] {
        for ordered in [false, true] {
            let task = at_once(3).min_success_ratio(0.0).build().unwrap();
            let call = |n: u64| async move {
                after(millis(17 * n % 10), ()).await;
                if n % 5 == 4 { Err(n) } else { Ok(n) }
            };
            let mut seen = Vec::new();
            macro_rules! ends {
                ($run:expr) => {{
                    let run = if ordered { $run.ordered() } else { $run };
                    let summary = run
                        .for_each(|outcome| {
                            seen.push((outcome.index, outcome.result.is_ok()));
                            after(millis(1), ())
                        })
                        .await
                        .unwrap();
                    assert_eq!((summary.successes, summary.failures), (16, 4));
                    let run = $run;
                    let run = if ordered { run.ordered() } else { run };
                    let stream = run.stream();
                    let streamed: Vec<_> = stream
                        .map(|outcome| outcome.unwrap())
                        .map(|o| (o.index, o.result.is_ok()))
                        .collect()
                        .await;
                    let mut sorted = streamed.clone();
                    sorted.sort();
                    let mut also = seen.clone();
                    also.sort();
                    assert_eq!(sorted, also);
                    if ordered {
                        assert_eq!((&sorted, &sorted), (&seen, &streamed));
                    } else {
                        assert_ne!(sorted, seen);
                    }
                    assert_eq!(sorted.len(), 20);
                    let result = $run.spawn().await.unwrap();
                    check_account(&result);
                    let again = $run.await.unwrap();
                    assert_eq!((again.results, again.errors), (result.results, result.errors));
                }};
            }
            if spawned {
                ends!(task.over(0..20).map(call).spawned());
            } else {
                ends!(task.over(0..20).map(call));
            }
        }
    }
}

#[tokio::test]
async fn blocking_and_limits() {
    let limiter = Limiter::new(2);
    let task = AsyncMapTask::builder().concurrency(8).limiter(&limiter).build().unwrap();
    let result = task
        .over(0..50)
        .map_blocking(|n| {
            std::thread::yield_now();
            Ok::<_, String>(n)
        })
        .await
        .unwrap();
    assert_eq!(result.successes(), 50);
    assert_eq!(limiter.in_use(), 0);
    let error =
        task.over([1, 5]).map(|n| async move { Ok::<_, String>(n) }).weight(|n| *n).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Config(_)), "{error}");
    eprintln!("{error}");
}

#[tokio::test(start_paused = true)]
async fn steering() {
    let task = at_once(2).build().unwrap();
    let handle = task.over(0..100).map(|n| after(secs(1), Ok::<_, String>(n))).spawn();
    tokio::time::sleep(millis(500)).await;
    assert_eq!(handle.progress().running, 2);
    handle.set_concurrency(5);
    tokio::time::sleep(millis(1)).await;
    assert_eq!(handle.progress().running, 5);
    handle.set_concurrency(1);
    tokio::time::sleep(millis(600)).await;
    eprintln!("{:?}", handle.progress());
    handle.pause();
    tokio::time::sleep(secs(10)).await;
    let p = handle.progress();
    assert_eq!(p.running, 0);
    handle.resume();
    tokio::time::sleep(Duration::ZERO).await;
    tokio::time::sleep(millis(1)).await;
    assert_eq!(handle.progress().running, 1);
    handle.drain();
    let error = handle.await.unwrap_err();
    eprintln!("{error}");
    assert!(matches!(error.reason(), FailureReason::Cancelled));
}
