//! Rules 25 and 26: the causes that stop a run, and how it stops.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::sync::Arc;

use async_map_task::{AsyncMapTask, FailureReason};
use futures::{StreamExt, poll, stream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Gauge, HOUR, Log, after, cancelled_after, check_account, lenient, millis, secs};

/// A reason as a word.
fn word(reason: &FailureReason) -> &'static str {
    match reason {
        FailureReason::FailFast { .. } => "fail fast",
        FailureReason::TooManyFailures { .. } => "too many failures",
        FailureReason::Cancelled => "cancelled",
        FailureReason::TimedOut { .. } => "timed out",
        FailureReason::Source(_) => "source",
        _ => "another",
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_each_cause_is_the_reason() {
    let item = |n: u64| async move {
        sleep(secs(n)).await;
        if n == 3 { Err("no") } else { Ok(n) }
    };
    let task = lenient().fail_fast(true).build().unwrap();
    assert!(matches!(task.run(1..9, item).await.unwrap_err().reason(), FailureReason::FailFast { index: 2 }));
    let task = AsyncMapTask::default();
    let error = task.run(1..9, item).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 1, allowed: 0 }));
    let run = task.run(1..9, item).cancellation_token(cancelled_after(secs(2)));
    assert!(matches!(run.await.unwrap_err().reason(), FailureReason::Cancelled));
    let task = lenient().run_timeout(millis(2_500)).build().unwrap();
    let error = task.run(1..9, item).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { limit } if *limit == millis(2_500)));
    let source = stream::iter([Ok(1), Ok(2), Err("a broken source"), Ok(4)]);
    let error = lenient().build().unwrap().over_try_stream(source).map(item).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Source(error) if error.to_string() == "a broken source"));
    let task = lenient().min_successes(2).early_success(true).build().unwrap();
    let result = task.run(1..9, item).await.unwrap();
    assert_eq!((result.successes(), result.summary.elapsed), (2, secs(2)));
}

#[tokio::test(start_paused = true)]
async fn rule_25_the_first_cause_wins() {
    // Five causes, each at its own time, within the grace of the first one. Item 0 fails at the given time; the token and
    // the limit of the run have their own times.
    let reason = async |failure: u64, token: u64, limit: u64, fail_fast: bool| {
        let task = AsyncMapTask::builder()
            .concurrency(3)
            .fail_fast(fail_fast)
            .run_timeout(secs(limit))
            .cancel_grace(secs(20))
            .build()
            .unwrap();
        let run = task.run(0..5, |n| async move {
            match n {
                0 => after(secs(failure), Err(())).await,
                1 => after(secs(failure + 1), Err(())).await,
                _ => pending::<Result<(), ()>>().await,
            }
        });
        let error = run.cancellation_token(cancelled_after(secs(token))).await.unwrap_err();
        check_account(error.partial());
        // The grace is that of the first cause, too.
        let first = failure.min(token).min(limit);
        assert_eq!(error.summary().elapsed, secs(first + 20));
        assert_eq!((error.partial().failures(), error.partial().cancelled()), (2, 1));
        match error.reason() {
            FailureReason::FailFast { index } => assert_eq!(*index, 0),
            FailureReason::TooManyFailures { failures, allowed } => assert_eq!((*failures, *allowed), (1, 0)),
            _ => {}
        }
        word(error.reason())
    };
    assert_eq!(reason(1, 5, 20, true).await, "fail fast");
    assert_eq!(reason(1, 5, 20, false).await, "too many failures");
    assert_eq!(reason(19, 20, 21, true).await, "fail fast");
    assert_eq!(reason(5, 1, 20, true).await, "cancelled");
    assert_eq!(reason(5, 1, 20, false).await, "cancelled");
    assert_eq!(reason(25, 30, 20, true).await, "timed out");
    assert_eq!(reason(30, 25, 20, false).await, "timed out");
}

#[tokio::test(start_paused = true)]
async fn rule_25_an_early_success_that_came_first_wins() {
    let task = AsyncMapTask::builder()
        .min_successes(1)
        .max_failures(7)
        .fail_fast(true)
        .early_success(true)
        .run_timeout(secs(20))
        .cancel_grace(secs(20))
        .build()
        .unwrap();
    let run = task.run(0..8, |n| async move {
        match n {
            0 => after(secs(1), Ok(())).await,
            1 => after(secs(2), Err(())).await,
            _ => pending().await,
        }
    });
    let result = run.cancellation_token(cancelled_after(secs(3))).await.expect("it had succeeded");
    assert_eq!((result.successes(), result.failures(), result.cancelled()), (1, 1, 2));
    assert_eq!(result.summary.elapsed, secs(21));
}

#[tokio::test(start_paused = true)]
async fn rule_25_an_error_of_the_source_is_a_cause() {
    let task = lenient().fail_fast(true).cancel_grace(secs(5)).build().unwrap();
    let late = |wait, item| {
        stream::once(async move {
            sleep(secs(wait)).await;
            item
        })
    };
    let source =
        stream::iter([Ok(2), Ok(9)]).chain(late(1, Err("first"))).chain(late(0, Err("never asked for")));
    let run = task.over_try_stream(source).map(|n| async move { after(secs(n), Err::<(), _>(())).await });
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Source(error) if error.to_string() == "first"));
    assert_eq!((error.partial().failures(), error.partial().cancelled(), error.partial().total()), (1, 1, 2));
    assert_eq!(error.summary().elapsed, secs(6));
    let source = stream::iter([Ok(1), Ok(9)]).chain(late(2, Err("too late")));
    let run = task.over_try_stream(source).map(|n| async move { after(secs(n), Err::<(), _>(())).await });
    assert_eq!(word(run.await.unwrap_err().reason()), "fail fast");
}

#[tokio::test(start_paused = true)]
async fn rule_25_a_cancelled_token_starts_nothing() {
    let token = CancellationToken::new();
    token.cancel();
    let pulled = Cell::new(0);
    let source = (0..9).inspect(|_| pulled.set(pulled.get() + 1));
    let task = AsyncMapTask::default();
    let run = task.run(source, |_| async { panic!("started") as Result<(), &str> });
    let error = run.cancellation_token(token).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled));
    assert_eq!((pulled.get(), error.partial().not_started(), error.partial().total()), (0, 9, 9));
}

#[tokio::test(start_paused = true)]
async fn rule_25_a_token_is_checked_between_items() {
    // Ready items, so that there is no pause in which the run could detect it.
    for stop_at in [0, 1, 2, 3, 50, 127, 128, 129, 1_000] {
        let token = CancellationToken::new();
        let started = Cell::new(0);
        let task = AsyncMapTask::builder().concurrency(3).build().unwrap();
        let run = task.run(0..5_000, |n| {
            started.set(started.get() + 1);
            if n == stop_at {
                token.cancel();
            }
            async move { Ok::<_, String>(n) }
        });
        let error = run.cancellation_token(token.clone()).await.unwrap_err();
        assert_eq!(started.get(), stop_at + 1);
        assert_eq!(error.partial().successes() + error.partial().cancelled(), stop_at + 1);
        check_account(error.partial());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_an_item_that_cancels_the_token_is_the_last() {
    let (token, pulled) = (CancellationToken::new(), Cell::new(0));
    let task = lenient().concurrency(3).build().unwrap();
    let run = task.run((0..9).inspect(|_| pulled.set(pulled.get() + 1)), |_| async {
        token.cancel();
        pending::<Result<(), &str>>().await
    });
    let error = run.cancellation_token(token.clone()).await.unwrap_err();
    assert_eq!((pulled.get(), error.partial().cancelled(), error.partial().not_started()), (1, 1, 8));
}

#[tokio::test(start_paused = true)]
async fn rule_26_stopping_starts_nothing_new() {
    // Permits become free in the grace, a retry becomes due in it, and the source has more items.
    let (log, pulled) = (Log::open(), Cell::new(0));
    let task = lenient().concurrency(4).retries(3).cancel_grace(secs(10)).build().unwrap();
    let source = (0..20_u64).inspect(|_| pulled.set(pulled.get() + 1));
    let run = task.over(source).map_with_context(|cx, n| {
        log.note((n, cx.attempt()));
        async move {
            match n {
                0 => Err("to be retried at 1 s"),
                4 => pending().await,
                _ => after(millis(500 * n), Ok(())).await,
            }
        }
    });
    let error = run.cancellation_token(cancelled_after(millis(400))).await.unwrap_err();
    assert_eq!(log.timed(), [(0, (0, 1)), (0, (1, 1)), (0, (2, 1)), (0, (3, 1)), (0, (4, 1))]);
    assert_eq!(pulled.get(), 5);
    let result = error.into_partial();
    assert_eq!(
        (result.successes(), result.failures(), result.cancelled(), result.not_started()),
        (3, 0, 2, 15)
    );
    assert_eq!(result.summary.elapsed, millis(10_400));
    check_account(&result);
}

#[tokio::test(start_paused = true)]
async fn rule_26_stopping_ends_retry_delays() {
    for grace in [secs(0), secs(5)] {
        let builder = || lenient().look_ahead(4).retries(3).retry_delay(secs(60)).cancel_grace(grace);
        let fails = |_| async { Err::<(), _>("again") };
        let run = builder().build().unwrap();
        let run = run.run(0..9, fails).cancellation_token(cancelled_after(secs(7)));
        let error = run.await.unwrap_err();
        assert_eq!(error.summary().elapsed, secs(7), "there is nothing to give a grace to");
        assert_eq!((error.partial().cancelled(), error.partial().not_started()), (4, 5));
        assert!(error.partial().errors.is_empty());

        // With the limit of the run, an item can only be waiting for its permit.
        let task = builder().concurrency(2).run_timeout(secs(100)).build().unwrap();
        let run =
            task.run(0..9, |n| async move { if n == 0 { Err::<(), _>("again") } else { pending().await } });
        let error = run.await.unwrap_err();
        let (elapsed, of_the_running) = (secs(100) + grace, 2);
        assert_eq!((error.summary().elapsed, error.partial().cancelled()), (elapsed, 1 + of_the_running));

        // By the verdict and by fail_fast.
        for fail_fast in [true, false] {
            let task = builder().max_failures(0).fail_fast(fail_fast).build().unwrap();
            let run = task.run(0..9, |n| async move {
                if n < 3 {
                    return Err("again");
                }
                sleep(secs(3)).await;
                panic!("never retried") as Result<(), _>
            });
            assert_eq!(run.await.unwrap_err().summary().elapsed, secs(3));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_26_stopping_ends_waits_for_permits_and_the_source() {
    let task = lenient().concurrency(1).build().unwrap();
    let run = task
        .over_stream(stream::iter([1]).chain(stream::pending()))
        .map(|n| async move { Ok::<_, String>(n) });
    let error = run.cancellation_token(cancelled_after(secs(3))).await.unwrap_err();
    assert_eq!((error.partial().successes(), error.summary().elapsed), (1, secs(3)));

    // Item 0 is due for its retry from 1 s on and has no permit.
    let attempts = Cell::new(0);
    let task = lenient().concurrency(2).retries(1).build().unwrap();
    let run = task.run(0..9, |n| {
        attempts.set(attempts.get() + 1);
        async move { if n == 0 { Err("again") } else { pending().await } }
    });
    let error = run.cancellation_token(cancelled_after(secs(9))).await.unwrap_err()
        as async_map_task::MapTaskError<(), _>;
    assert_eq!((attempts.get(), error.partial().cancelled(), error.summary().elapsed), (3, 3, secs(9)));
}

#[tokio::test(start_paused = true)]
async fn rule_26_every_running_item_has_the_grace() {
    let log = Log::open();
    let alive = Gauge::default();
    let task = lenient().concurrency(6).cancel_grace(secs(5)).build().unwrap();
    let run = task.over(0..20_u64).map_with_context(|cx, n| {
        let (log, alive) = (log.clone(), alive.enter());
        async move {
            let _alive = alive;
            cx.cancellation_token().cancelled().await;
            log.note(n);
            match n {
                // The last moment of the grace still counts; the next one does not.
                0..5 => sleep(secs(n + 1)).await,
                _ => sleep(millis(5_001)).await,
            }
            if n == 1 { Err("told to end") } else { Ok(n) }
        }
    });
    let error = run.cancellation_token(cancelled_after(secs(60))).await.unwrap_err();
    assert_eq!(alive.now(), 0);
    let mut told = log.timed();
    told.sort_unstable();
    assert_eq!(told, (0..6).map(|n| (60_000, n)).collect::<Vec<_>>());
    let result = error.into_partial();
    check_account(&result);
    assert_eq!(result.summary.elapsed, secs(65));
    assert_eq!(result.results[..6], [Some(0), None, Some(2), Some(3), Some(4), None]);
    assert_eq!((result.failures(), result.cancelled(), result.not_started()), (1, 1, 14));
}

#[tokio::test(start_paused = true)]
async fn rule_26_the_grace_ends_when_all_items_have_ended() {
    let task = lenient().concurrency(3).cancel_grace(secs(500)).build().unwrap();
    let run = task.over(0..9_u64).map_with_context(|cx, n| async move {
        cx.cancellation_token().cancelled().await;
        sleep(secs(n)).await;
        Ok::<_, String>(n)
    });
    let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
    assert_eq!((error.summary().elapsed, error.partial().successes()), (secs(3), 3));
}

#[tokio::test(start_paused = true)]
async fn rule_26_without_a_grace_running_items_are_dropped() {
    let (alive, tokens) = (Gauge::default(), RefCell::new(Vec::new()));
    let task = lenient().concurrency(3).build().unwrap();
    let run = task.over(0..9).map_with_context(|cx, _| {
        tokens.borrow_mut().push(cx.cancellation_token().clone());
        let alive = alive.enter();
        async move {
            let _alive = alive;
            cx.cancellation_token().cancelled().await;
            sleep(secs(1)).await;
            Ok::<_, String>(())
        }
    });
    let error = run.cancellation_token(cancelled_after(secs(2))).await.unwrap_err();
    assert_eq!((error.partial().cancelled(), error.summary().elapsed, alive.now()), (3, secs(2), 0));
    assert!(tokens.borrow().iter().all(CancellationToken::is_cancelled));
}

#[tokio::test(start_paused = true)]
async fn rule_26_an_item_that_finishes_at_the_stop_succeeds() {
    // Both have happened when the run is polled again.
    let token = CancellationToken::new();
    let task = lenient().concurrency(3).build().unwrap();
    let run = task.run([2, 2, 3, 4], |n| async move {
        sleep(secs(n)).await;
        Ok::<_, String>(n)
    });
    let mut run = run.cancellation_token(token.clone());
    assert!(poll!(&mut run).is_pending());
    sleep(secs(2)).await;
    token.cancel();
    let result = run.await.unwrap_err().into_partial();
    assert_eq!(result.results, [Some(2), Some(2), None, None]);
    assert_eq!((result.cancelled(), result.not_started()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_26_an_item_that_waits_for_its_retry_is_dropped_when_the_run_is_stopped() {
    let task = lenient().retries(1).retry_delay(HOUR).max_retry_delay(HOUR).build().unwrap();
    for parallel in [false, true] {
        // Item 0 fails and keeps the lock that item 1 waits for.
        let lock = Arc::new(Semaphore::new(1));
        let held = Arc::new(Arc::clone(&lock).try_acquire_owned().unwrap());
        let run = task.over([Some(held), None]).map(move |held| {
            let lock = Arc::clone(&lock);
            async move {
                if held.is_some() {
                    return Err("no");
                }
                let _permit = lock.acquire().await.unwrap();
                Ok(())
            }
        });
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        sleep(secs(1)).await;
        assert_eq!(handle.progress().waiting_for_retry, 1);
        handle.drain();
        let error = timeout(secs(1), handle).await.expect("the lock is free").unwrap_err();
        assert_eq!((error.summary().successes, error.summary().cancelled), (1, 1), "parallel: {parallel}");
    }
}
