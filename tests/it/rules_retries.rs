//! Rules 10 and 11: the errors that are retried, the number of retries, and their delays.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, FailureReason, NotRetried, TimeoutScope};
use futures::FutureExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR, Log, failed, lenient, millis, panicked, secs, timed_out};

#[tokio::test(start_paused = true)]
async fn rule_10_n_retries_are_at_most_n_plus_1_attempts() {
    for retries in [0, 1, 2, 7] {
        let log = Log::open();
        let task = lenient().retries(retries).build().unwrap();
        let run = task.over([()]).map_with_context(|cx, ()| {
            log.note((cx.attempt(), cx.is_last_attempt()));
            async { Err::<(), _>("no") }
        });
        let result = run.await.unwrap();
        let expected: Vec<_> = (1..=retries + 1).map(|attempt| (attempt, attempt == retries + 1)).collect();
        assert_eq!(log.lines(), expected);
        assert_eq!(result.errors[&0], failed("no", retries + 1));
        assert_eq!(result.summary.retries, retries as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_10_no_attempt_follows_a_success() {
    let calls = Cell::new(0);
    let task = lenient().retries(5).build().unwrap();
    let run = task.over([()]).map_with_context(|cx, ()| {
        calls.set(calls.get() + 1);
        async move { if cx.attempt() < 3 { Err("no") } else { Ok(cx.attempt()) } }
    });
    let result = run.await.unwrap();
    assert_eq!(
        (result.results.as_slice(), calls.get(), result.summary.retries),
        ([Some(3)].as_slice(), 3, 2)
    );
    assert!(result.errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_10_retry_if_selects_the_retried_errors() {
    let (asked, attempts) = (RefCell::new(Vec::new()), Cell::new(0));
    let task = lenient().concurrency(1).look_ahead(1).retries(3).build().unwrap();
    let run = task
        .over(["transient", "fatal", "late"])
        .map_with_context(|cx, item| {
            attempts.set(attempts.get() + 1);
            async move { Err::<(), _>(if item == "late" && cx.attempt() == 2 { "fatal" } else { item }) }
        })
        .retry_if(|error| {
            asked.borrow_mut().push(*error);
            *error != "fatal"
        });
    let result = run.await.unwrap();
    assert_eq!(result.errors[&0], failed("transient", 4));
    assert_eq!(result.errors[&1], failed("fatal", 1));
    assert_eq!(result.errors[&2], failed("fatal", 2));
    assert_eq!(attempts.get(), 7);
    // It is not called if no retry is left.
    assert_eq!(*asked.borrow(), ["transient", "transient", "transient", "fatal", "late", "fatal"]);
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_timed_out_attempt_is_always_retried() {
    let log = Log::open();
    let task = lenient().retries(2).timeout_per_attempt(secs(5)).build().unwrap();
    let run = task
        .over([()])
        .map_with_context(|cx, ()| {
            log.note(cx.attempt());
            pending::<Result<(), &str>>()
        })
        .retry_if(|_| panic!("there is no error to ask about"));
    let result = run.await.unwrap();
    assert_eq!(log.timed(), [(0, 1), (6_000, 2), (13_000, 3)]);
    assert_eq!(result.errors[&0], timed_out(secs(5), TimeoutScope::Attempt, 3));
    assert_eq!((result.summary.timeouts, result.summary.elapsed), (3, secs(18)));
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_panic_is_never_retried() {
    let calls = Cell::new(0);
    let task = lenient().retries(5).build().unwrap();
    let run = task
        .run(0..2, |n| {
            calls.set(calls.get() + 1);
            assert!(n > 0, "built");
            async { if true { panic!("polled") } else { Err::<(), &str>("") } }
        })
        .retry_if(|_| true);
    let result = run.await.unwrap();
    assert_eq!(calls.get(), 2);
    assert_eq!((&result.errors[&0], &result.errors[&1]), (&panicked("built", 1), &panicked("polled", 1)));
    assert_eq!((result.summary.panics, result.summary.retries), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_timed_out_item_is_never_retried() {
    let calls = Cell::new(0);
    let task = lenient().retries(5).timeout_per_item(secs(3)).build().unwrap();
    let run = task.run([()], |()| {
        calls.set(calls.get() + 1);
        pending::<Result<(), &str>>()
    });
    let result = run.await.unwrap();
    assert_eq!(calls.get(), 1);
    assert_eq!(result.errors[&0], timed_out(secs(3), TimeoutScope::Item, 1));
    assert_eq!(result.summary.elapsed, secs(3));
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_stopping_run_retries_nothing() {
    let calls = Cell::new(0);
    let task = AsyncMapTask::builder().retries(5).cancel_grace(secs(10)).build().unwrap();
    let token = CancellationToken::new();
    let run = task
        .over(0..3)
        .map_with_context(|cx, n| {
            calls.set(calls.get() + 1);
            async move {
                cx.cancellation_token().cancelled().await;
                sleep(secs(n)).await;
                Err::<(), _>("stopped")
            }
        })
        .retry_if(|_| true)
        .cancellation_token(token.clone());
    let (error, ()) = tokio::join!(run, async { sleep(secs(1)).map(|()| token.cancel()).await });
    let error = error.unwrap_err();
    assert_eq!(calls.get(), 3);
    assert_eq!(error.summary().elapsed, secs(3));
    let result = error.into_partial();
    assert_eq!((result.failures(), result.cancelled(), result.summary.retries), (3, 0, 0));
    assert_eq!(result.errors[&2], failed("stopped", 1));
    assert_eq!([0, 1, 2].map(|index| result.not_retried(index)), [Some(NotRetried::Stopping); 3]);
}

/// Returns the times at which the attempts of an item that always fails begin, in milliseconds.
async fn attempts_of(builder: AsyncMapTaskBuilder) -> Vec<u64> {
    let log = Log::open();
    let run = builder.min_success_ratio(0.0).build().unwrap();
    let run = run.run([()], |()| {
        log.note(());
        async { Err::<(), _>("no") }
    });
    run.await.unwrap();
    log.timed().into_iter().map(|(at, ())| at).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_11_without_jitter_the_defaults_wait_1_2_and_4_seconds() {
    let starts = attempts_of(AsyncMapTask::builder().retries(3).retry_jitter(0.0)).await;
    assert_eq!(starts, [0, 1_000, 3_000, 7_000]);
}

#[tokio::test(start_paused = true)]
async fn rule_11_delays_are_multiplied_up_to_the_maximum() {
    let builder = || AsyncMapTask::builder().retry_jitter(0.0);
    let starts = attempts_of(builder().retries(8)).await;
    assert_eq!(starts, [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 123_000, 183_000]);
    let starts = attempts_of(
        builder().retries(5).retry_delay(millis(200)).retry_multiplier(1.5).max_retry_delay(millis(500)),
    )
    .await;
    assert_eq!(starts, [0, 200, 500, 950, 1_450, 1_950]);
    let starts = attempts_of(builder().retries(3).retry_multiplier(1.0)).await;
    assert_eq!(starts, [0, 1_000, 2_000, 3_000]);
    let starts = attempts_of(builder().retries(2).retry_delay(secs(9)).max_retry_delay(secs(4))).await;
    assert_eq!(starts, [0, 4_000, 8_000]);
    let starts = attempts_of(builder().retries(3).retry_delay(Duration::ZERO)).await;
    assert_eq!(starts, [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn rule_11_the_delay_cannot_overflow() {
    let builder = || AsyncMapTask::builder().retry_jitter(0.0).max_retry_delay(secs(1));
    // 2^1999 seconds, and 1e300 to the power of 1999, are both above any number.
    let starts = attempts_of(builder().retries(2_000)).await;
    assert_eq!(starts.last(), Some(&2_000_000));
    let starts = attempts_of(builder().retries(2_000).retry_multiplier(1e300)).await;
    assert_eq!(starts.last(), Some(&2_000_000));
    let starts =
        attempts_of(builder().retries(2_000).retry_multiplier(f64::MAX).retry_delay(millis(1))).await;
    assert_eq!(starts.last(), Some(&1_999_001));
    let starts = attempts_of(builder().retries(3).retry_delay(Duration::MAX)).await;
    assert_eq!(starts, [0, 1_000, 2_000, 3_000]);
    // A delay of zero stays zero after any number of multiplications: it is not infinity times zero.
    let starts =
        attempts_of(builder().retries(2_000).retry_delay(Duration::ZERO).retry_multiplier(1e300)).await;
    assert_eq!(starts.last(), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn rule_11_an_endless_delay_ends_with_the_run() {
    for jitter in [0.0, 0.5, 1.0] {
        let task = AsyncMapTask::builder()
            .retries(1)
            .retry_delay(Duration::MAX)
            .max_retry_delay(Duration::MAX)
            .retry_jitter(jitter)
            .build()
            .unwrap();
        let token = CancellationToken::new();
        let run = task.run([()], |()| async { Err::<(), _>("no") }).cancellation_token(token.clone());
        let (error, ()) = tokio::join!(run, async {
            sleep(HOUR * 24 * 365).await;
            token.cancel();
        });
        let error = error.unwrap_err();
        assert!(matches!(error.reason(), FailureReason::Cancelled));
        assert_eq!((error.partial().cancelled(), error.summary().retries), (1, 0), "jitter {jitter}");
    }
}

/// Returns the delays before the first retry of many items, in nanoseconds.
async fn first_waits(builder: AsyncMapTaskBuilder) -> Vec<u128> {
    let waits = RefCell::new(Vec::new());
    let task = builder.concurrency(4_000).retries(1).min_success_ratio(0.0).build().unwrap();
    let (log, failed_at) = (Log::<()>::open(), RefCell::new(vec![0; 4_000]));
    let run = task
        .over(0..4_000)
        .map_with_context(|cx, n: usize| {
            if cx.attempt() == 2 {
                // The announced delay is the actual delay, up to the clock's millisecond.
                let announced: u64 = failed_at.borrow()[n];
                assert!((announced..=announced + 1).contains(&log.millis()), "{announced} {}", log.millis());
            }
            async { Err::<(), _>("no") }
        })
        .observe(|event: &Event<'_>| {
            if let Event::AttemptFailed { index, retry_in: Some(wait), .. } = event {
                waits.borrow_mut().push(wait.as_nanos());
                failed_at.borrow_mut()[*index] = u64::try_from(wait.as_millis()).unwrap();
            }
        });
    let result = run.await.unwrap();
    assert_eq!(result.summary.panics, 0, "{:?}", result.errors.first_key_value());
    waits.into_inner()
}

#[tokio::test(start_paused = true)]
async fn rule_11_jitter_is_uniform_around_the_delay() {
    for (jitter, least, most) in
        [(0.5, 5_000_000_000, 15_000_000_000), (0.1, 9_000_000_000, 11_000_000_000), (1.0, 0, 20_000_000_000)]
    {
        let waits = first_waits(AsyncMapTask::builder().retry_delay(secs(10)).retry_jitter(jitter)).await;
        assert_eq!(waits.len(), 4_000);
        assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "jitter {jitter}");
        // Each tenth of the range has a tenth of 4,000 delays, within ten standard deviations.
        for tenth in 0..10 {
            let width = (most - least) / 10;
            let (from, to) = (least + tenth * width, least + (tenth + 1) * width);
            let found = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((210..=590).contains(&found), "jitter {jitter}: {found} of 4000 from {from} to {to}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_jitter_never_exceeds_the_maximum() {
    let builder = AsyncMapTask::builder().retry_delay(secs(10)).max_retry_delay(secs(10));
    let waits = first_waits(builder.retry_jitter(0.5)).await;
    assert!(waits.iter().all(|wait| (5_000_000_000..=10_000_000_000).contains(wait)));
    let at_the_cap = waits.iter().filter(|wait| **wait == 10_000_000_000).count();
    assert!((1_500..=2_500).contains(&at_the_cap), "{at_the_cap} of 4000 are at the cap");
    // Capped before the jitter: a delay far above the maximum still spreads below it.
    let builder = AsyncMapTask::builder().retry_delay(secs(1_000)).max_retry_delay(secs(10));
    let waits = first_waits(builder.retry_jitter(0.5)).await;
    assert!(waits.iter().all(|wait| (5_000_000_000..=10_000_000_000).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < 6_000_000_000));
}

#[tokio::test(start_paused = true)]
async fn rule_11_retry_after_has_no_jitter() {
    let log = Log::open();
    let task = lenient().retries(4).retry_jitter(1.0).max_retry_delay(secs(100)).build().unwrap();
    let run = task
        .over([()])
        .map_with_context(|cx, ()| {
            log.note(cx.attempt());
            let waits = [secs(3), secs(100), Duration::ZERO, millis(1), secs(0)];
            async move { Err::<(), _>(waits[cx.attempt() as usize - 1]) }
        })
        .retry_after(|wait| Some(*wait));
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, 1), (3_000, 2), (103_000, 3), (103_000, 4), (103_001, 5)]);
}

#[tokio::test(start_paused = true)]
async fn rule_11_backoff_counts_retries_with_retry_after() {
    let log = Log::open();
    let task = lenient().retries(3).build().unwrap();
    let run = task
        .over([()])
        .map_with_context(|cx, ()| {
            log.note(cx.attempt());
            async move { Err::<(), _>((cx.attempt() == 2).then_some(secs(10))) }
        })
        .retry_after(|wait| *wait);
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, 1), (1_000, 2), (11_000, 3), (15_000, 4)]);
}
