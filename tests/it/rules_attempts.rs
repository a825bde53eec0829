//! Rules 10 to 14, 16 and 33: attempts, their retries, their limits, their panics, and the clock.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, panic_any};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, Event, FailureKind, FailureReason, ItemError, TimeoutScope,
};
use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Gauge, Log, after, millis, secs};

const HOUR: Duration = Duration::from_secs(3_600);

/// Any number of failures is fine, and nothing is left to chance.
fn lenient() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().retry_jitter(0.0).min_success_ratio(0.0)
}

fn timed_out(limit: Duration, scope: TimeoutScope, attempts: u32) -> ItemError<&'static str> {
    ItemError::TimedOut { limit, scope, attempts }
}

fn failed(error: &'static str, attempts: u32) -> ItemError<&'static str> {
    ItemError::Failed { error, attempts }
}

fn panicked(message: &str, attempts: u32) -> ItemError<&'static str> {
    ItemError::Panicked { message: message.to_owned(), attempts }
}

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
async fn rule_10_only_an_error_that_retry_if_accepts_is_retried() {
    let (asked, attempts) = (RefCell::new(Vec::new()), Cell::new(0));
    let task = lenient().concurrency(1).retries(3).build().unwrap();
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
    // It is not asked where no retry is left.
    assert_eq!(*asked.borrow(), ["transient", "transient", "transient", "fatal", "late", "fatal"]);
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_timed_out_attempt_is_retried_whatever_retry_if_says() {
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
async fn rule_10_nothing_is_retried_once_the_run_is_stopping() {
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
        .retry_if(|_| panic!("it makes no difference now"))
        .cancellation_token(token.clone());
    let (error, ()) = tokio::join!(run, async { sleep(secs(1)).map(|()| token.cancel()).await });
    let error = error.unwrap_err();
    assert_eq!(calls.get(), 3);
    assert_eq!(error.summary().elapsed, secs(3));
    let result = error.into_partial();
    assert_eq!((result.failures(), result.cancelled(), result.summary.retries), (3, 0, 0));
    assert_eq!(result.errors[&2], failed("stopped", 1));
}

/// When the attempts of one item that always fails begin, in milliseconds.
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
async fn rule_11_each_wait_is_multiplied_and_at_most_the_longest() {
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
async fn rule_11_the_wait_cannot_overflow() {
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
    // A delay of nothing, however often it is multiplied, is nothing: not infinity times zero.
    let starts =
        attempts_of(builder().retries(2_000).retry_delay(Duration::ZERO).retry_multiplier(1e300)).await;
    assert_eq!(starts.last(), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn rule_11_a_wait_longer_than_any_clock_is_waited_for_until_the_run_is_stopped() {
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

/// The waits before the first retry of many items, in nanoseconds.
async fn first_waits(builder: AsyncMapTaskBuilder) -> Vec<u128> {
    let waits = RefCell::new(Vec::new());
    let task = builder.concurrency(4_000).retries(1).min_success_ratio(0.0).build().unwrap();
    let (log, failed_at) = (Log::<()>::open(), RefCell::new(vec![0; 4_000]));
    let run = task
        .over(0..4_000)
        .map_with_context(|cx, n: usize| {
            if cx.attempt() == 2 {
                // The wait that was announced is the wait that was made, up to the clock's millisecond.
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
async fn rule_11_jitter_is_uniform_around_the_wait() {
    for (jitter, least, most) in
        [(0.5, 5_000_000_000, 15_000_000_000), (0.1, 9_000_000_000, 11_000_000_000), (1.0, 0, 20_000_000_000)]
    {
        let waits = first_waits(AsyncMapTask::builder().retry_delay(secs(10)).retry_jitter(jitter)).await;
        assert_eq!(waits.len(), 4_000);
        assert!(waits.iter().all(|wait| (least..=most).contains(wait)), "jitter {jitter}");
        // Each tenth of the range holds a tenth of 4,000 waits, give or take ten standard deviations.
        for tenth in 0..10 {
            let width = (most - least) / 10;
            let (from, to) = (least + tenth * width, least + (tenth + 1) * width);
            let found = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((210..=590).contains(&found), "jitter {jitter}: {found} of 4000 from {from} to {to}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_jitter_never_takes_the_wait_above_the_longest() {
    let builder = AsyncMapTask::builder().retry_delay(secs(10)).max_retry_delay(secs(10));
    let waits = first_waits(builder.retry_jitter(0.5)).await;
    assert!(waits.iter().all(|wait| (5_000_000_000..=10_000_000_000).contains(wait)));
    let at_the_cap = waits.iter().filter(|wait| **wait == 10_000_000_000).count();
    assert!((1_500..=2_500).contains(&at_the_cap), "{at_the_cap} of 4000 are at the cap");
    // Capped before the jitter: a wait far above the longest still spreads below it.
    let builder = AsyncMapTask::builder().retry_delay(secs(1_000)).max_retry_delay(secs(10));
    let waits = first_waits(builder.retry_jitter(0.5)).await;
    assert!(waits.iter().all(|wait| (5_000_000_000..=10_000_000_000).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < 6_000_000_000));
}

#[tokio::test(start_paused = true)]
async fn rule_11_retry_after_replaces_the_wait_unjittered() {
    let log = Log::open();
    let task = lenient().retries(4).retry_jitter(1.0).max_retry_delay(secs(60)).build().unwrap();
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
async fn rule_11_without_a_word_of_the_error_the_backoff_goes_on_by_the_number_of_the_retry() {
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

#[tokio::test(start_paused = true)]
async fn rule_12_the_limit_of_an_attempt_does_not_run_while_it_waits_for_a_place() {
    let task = lenient().concurrency(1).timeout_per_attempt(millis(1_500)).build().unwrap();
    let run = task.run(0..10, |_| sleep(secs(1)).map(Ok::<_, String>));
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.elapsed), (10, secs(10)));
    let task = lenient().concurrency(1).timeout_per_item(millis(1_500)).build().unwrap();
    let run = task.run(0..10, |_| sleep(secs(1)).map(Ok::<_, String>));
    assert_eq!(run.await.unwrap().successes(), 10);
}

#[tokio::test(start_paused = true)]
async fn rule_12_each_attempt_has_the_whole_limit_of_an_attempt() {
    let log = Log::open();
    let task = lenient().concurrency(2).retries(2).timeout_per_attempt(secs(10)).build().unwrap();
    // The second item takes the place, so that the retry of the first waits for one, too.
    let run = task.over(0..3).map_with_context(|cx, n| {
        log.note((n, cx.attempt(), cx.deadline().unwrap() - Instant::now()));
        async move {
            match (n, cx.attempt()) {
                (0, 1) => Err("soon again"),
                (0, 2) => pending().await,
                _ => after(secs(9), Ok(())).await,
            }
        }
    });
    let result = run.await.unwrap();
    let limit = secs(10);
    let expected = [
        (0, (0, 1, limit)),
        (0, (1, 1, limit)),
        (0, (2, 1, limit)),
        (9_000, (0, 2, limit)),
        (21_000, (0, 3, limit)),
    ];
    assert_eq!(log.timed(), expected);
    assert_eq!(result.successes(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_limit_of_an_item_spans_attempts_and_waits() {
    // Attempts of 1 s at 0, 2 and 5 s; the fourth would begin at 10 s.
    let at = async |limit: Duration| {
        let log = Log::open();
        let task = lenient().retries(9).timeout_per_item(limit).build().unwrap();
        let run = task.over([()]).map_with_context(|cx, ()| {
            log.note(cx.attempt());
            async move { Err::<(), _>(sleep(secs(1)).map(|()| "no").await) }
        });
        let result = run.await.unwrap();
        (result.errors[&0].clone(), result.summary.elapsed, log.lines().len())
    };
    // In the midst of the third attempt, and just before its end.
    assert_eq!(at(millis(5_500)).await, (timed_out(millis(5_500), TimeoutScope::Item, 3), millis(5_500), 3));
    assert_eq!(at(millis(5_999)).await, (timed_out(millis(5_999), TimeoutScope::Item, 3), millis(5_999), 3));
    // Together with its end, and in the wait after it: not waited for.
    assert_eq!(at(secs(6)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(secs(7)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(millis(9_999)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(secs(10)).await, (failed("no", 3), secs(6), 3));
    // Just after the wait: the fourth attempt is made.
    assert_eq!(
        at(millis(10_001)).await,
        (timed_out(millis(10_001), TimeoutScope::Item, 4), millis(10_001), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_limit_of_an_item_runs_while_its_retry_waits_for_a_place() {
    // Items 2 and 3 hold both places from 3 s on, the retry of item 0 is ready at 4 s, its limit is at 5 s.
    let (log, settled) = (Log::open(), Log::open());
    let task = lenient().concurrency(2).retries(1).timeout_per_item(secs(5)).build().unwrap();
    let run = task
        .over(0..5)
        .map_with_context(|cx, n| {
            log.note((n, cx.attempt()));
            async move {
                match n {
                    0 => after(secs(3), Err("first")).await,
                    1 => after(secs(2), Ok(())).await,
                    _ => after(millis(4_500), Ok(())).await,
                }
            }
        })
        .observe(|event: &Event<'_>| {
            if let Event::ItemSettled { index, attempts, elapsed, failure, .. } = event {
                settled.note((*index, *attempts, *elapsed, *failure));
            }
        });
    let result = run.await.unwrap();
    assert_eq!(log.timed(), [(0, (0, 1)), (0, (1, 1)), (2_000, (2, 1)), (3_000, (3, 1)), (6_500, (4, 1))]);
    assert_eq!(settled.timed()[1], (5_000, (0, 1, secs(5), Some(FailureKind::Failed))));
    assert_eq!(result.errors[&0], failed("first", 1));
    assert_eq!((result.successes(), result.summary.retries, result.summary.timeouts), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_12_of_two_that_wait_for_a_place_each_gives_up_at_its_own_limit() {
    // Items 0 and 1 wait for a place behind 2, 3 and 4, and give up at 10 s and 11 s, though item 1 is
    // ready first.
    let settled = Log::open();
    let task = lenient().concurrency(3).retries(1).timeout_per_item(secs(10)).build().unwrap();
    let run = task
        .over_stream(stream::iter(0..6).then(|n| async move {
            if n == 1 {
                sleep(secs(1)).await;
            }
            n
        }))
        .map(|n| async move {
            match n {
                0 => after(secs(8), Err(secs(1))).await,
                1 => after(secs(6), Err(millis(1_500))).await,
                2 => after(secs(5), Ok(())).await,
                _ => after(millis(9_900), Ok(())).await,
            }
        })
        .retry_after(|wait| Some(*wait))
        .observe(|event: &Event<'_>| {
            if let Event::ItemSettled { index, failure: Some(_), .. } = event {
                settled.note(*index);
            }
        });
    let result = run.await.unwrap();
    assert_eq!(settled.timed(), [(10_000, 0), (11_000, 1)]);
    assert_eq!((result.successes(), result.summary.retries), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_12_an_item_that_waits_for_a_place_keeps_its_timeout_as_its_error() {
    let task = lenient()
        .concurrency(2)
        .retries(1)
        .timeout_per_attempt(secs(3))
        .timeout_per_item(secs(5))
        .build()
        .unwrap();
    let run = task.run(0..6, |n| async move {
        match n {
            0 => pending().await,
            1 => after(secs(2), Ok::<_, &str>(())).await,
            _ => after(millis(2_900), Ok(())).await,
        }
    });
    let result = run.await.unwrap();
    // Items 2 and 3 hold the places until 4.9 s and 5.9 s, so the retry gets one, for 0.1 s.
    assert_eq!(result.errors[&0], timed_out(secs(5), TimeoutScope::Item, 2));

    let run = task.run(0..6, |n| async move {
        match n {
            0 => pending().await,
            1 => after(millis(2_500), Ok::<_, &str>(())).await,
            _ => after(millis(2_900), Ok(())).await,
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.errors[&0], timed_out(secs(3), TimeoutScope::Attempt, 1));
    assert_eq!((result.summary.timeouts, result.summary.retries), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_nearer_limit_counts_and_is_named() {
    let at = async |attempt: Duration, item: Duration| {
        let task = lenient().timeout_per_attempt(attempt).timeout_per_item(item).build().unwrap();
        let result = task.run([()], |()| pending::<Result<(), &str>>()).await.unwrap();
        (result.errors[&0].clone(), result.summary.elapsed)
    };
    assert_eq!(at(secs(2), secs(3)).await, (timed_out(secs(2), TimeoutScope::Attempt, 1), secs(2)));
    assert_eq!(at(secs(4), secs(3)).await, (timed_out(secs(3), TimeoutScope::Item, 1), secs(3)));
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_limit_of_the_run_runs_from_its_first_poll() {
    let task = AsyncMapTask::builder().run_timeout(secs(5)).build().unwrap();
    let run = task.run(0..3, |_| pending::<Result<(), &str>>());
    sleep(secs(10)).await;
    let begun = Instant::now();
    let error = run.await.unwrap_err();
    assert_eq!(begun.elapsed(), secs(5));
    assert!(matches!(error.reason(), FailureReason::TimedOut { limit } if *limit == secs(5)));
    assert_eq!(error.summary().elapsed, secs(5));
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_retry_that_could_not_start_before_the_end_of_the_run_is_not_waited_for() {
    for (limit, attempts, elapsed) in
        [(secs(1), 1, 0), (millis(1_001), 2, 1_000), (millis(999), 1, 0), (secs(3), 2, 1_000)]
    {
        let task = lenient().retries(9).run_timeout(limit).build().unwrap();
        let result = task.run([()], |()| async { Err::<(), _>("no") }).await.unwrap();
        assert_eq!(result.errors[&0], failed("no", attempts), "limit {limit:?}");
        assert_eq!(result.summary.elapsed, millis(elapsed), "limit {limit:?}");
    }
    // The same with the wait that the error asks for.
    let task = lenient().retries(9).run_timeout(HOUR).build().unwrap();
    for wait in [HOUR, Duration::MAX] {
        let run = task.run([()], |()| async { Err::<(), _>("no") }).retry_after(|_| Some(wait));
        assert_eq!(run.await.unwrap().summary.elapsed, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_deadline_of_an_attempt_is_the_nearest_of_the_three_limits() {
    let log = Log::open();
    let task = lenient()
        .retries(2)
        .timeout_per_attempt(secs(4))
        .timeout_per_item(secs(7))
        .run_timeout(secs(9))
        .concurrency(1)
        .build()
        .unwrap();
    let run = task.over(0..2).map_with_context(|cx, n| {
        log.note((n, cx.deadline().unwrap() - Instant::now()));
        async move {
            if n == 0 && cx.attempt() == 1 {
                sleep(millis(3_500)).await;
                return Err("again");
            }
            sleep(secs(2)).await;
            Ok(())
        }
    });
    run.await.unwrap();
    // The retry at 4.5 s is limited by its item, the second item at 6.5 s by the run.
    assert_eq!(log.timed(), [(0, (0, secs(4))), (4_500, (0, millis(2_500))), (6_500, (1, millis(2_500)))]);
    let run = AsyncMapTask::default();
    let run = run.over([()]).map_with_context(|cx, ()| async move { Ok::<_, String>(cx.deadline()) });
    assert_eq!(run.await.unwrap().results, [Some(None)]);
}

/// Notes when it is dropped.
struct NotesItsDrop(Log<&'static str>);

impl Drop for NotesItsDrop {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

/// One item with a limit of 10 s and a retry, which goes on for some time after its token is cancelled.
async fn overdue(
    grace: u64,
    goes_on: Option<u64>,
    ends_with: Result<u32, &'static str>,
) -> (Vec<(u64, &'static str)>, Result<u32, ItemError<&'static str>>) {
    let log = Log::open();
    let task = lenient().retries(1).timeout_per_attempt(secs(10)).cancel_grace(secs(grace)).build().unwrap();
    let run = task.over([()]).map_with_context(|cx, ()| {
        let log = log.clone();
        async move {
            if cx.attempt() == 2 {
                log.note("retried");
                return Err("second");
            }
            let _noted = NotesItsDrop(log.clone());
            cx.cancellation_token().cancelled().await;
            log.note("told");
            match goes_on {
                Some(seconds) => sleep(secs(seconds)).await,
                None => pending().await,
            }
            ends_with
        }
    });
    let mut result = run.await.unwrap();
    let outcome = result.results[0].take().ok_or_else(|| result.errors.remove(&0).unwrap());
    (log.timed(), outcome)
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_timed_out_attempt_is_dropped_at_once() {
    let (log, outcome) = overdue(0, Some(0), Ok(1)).await;
    assert_eq!(log, [(10_000, "dropped"), (11_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));
}

#[tokio::test(start_paused = true)]
async fn rule_13_with_a_grace_it_is_told_first_and_dropped_after_it() {
    let (log, outcome) = overdue(3, None, Ok(1)).await;
    assert_eq!(log, [(10_000, "told"), (13_000, "dropped"), (14_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));
    let (log, _) = overdue(3, Some(4), Ok(1)).await;
    assert_eq!(log, [(10_000, "told"), (13_000, "dropped"), (14_000, "retried")]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_ok_inside_the_grace_is_a_success() {
    for goes_on in 0..3 {
        let (log, outcome) = overdue(3, Some(goes_on), Ok(7)).await;
        assert_eq!(log, [(10_000, "told"), (10_000 + goes_on * 1_000, "dropped")]);
        assert_eq!(outcome, Ok(7));
    }
    // And with the last moment of the grace, too: a finished result beats a timeout.
    assert_eq!(overdue(3, Some(3), Ok(7)).await.1, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_error_inside_the_grace_leaves_it_timed_out() {
    // It ends at 11 s, and its retry follows a second later.
    let (log, outcome) = overdue(3, Some(1), Err("told to end")).await;
    assert_eq!(log, [(10_000, "told"), (11_000, "dropped"), (12_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));

    for scope in [TimeoutScope::Attempt, TimeoutScope::Item] {
        let builder = lenient().cancel_grace(secs(3));
        let builder = match scope {
            TimeoutScope::Attempt => builder.timeout_per_attempt(secs(10)),
            TimeoutScope::Item => builder.timeout_per_item(secs(10)).retries(3),
        };
        let run = builder.build().unwrap();
        let run = run.over([()]).map_with_context(|cx, ()| async move {
            cx.cancellation_token().cancelled().await;
            Err::<(), _>("told to end")
        });
        let result = run.await.unwrap();
        assert_eq!(result.errors[&0], timed_out(secs(10), scope, 1));
        assert_eq!((result.summary.timeouts, result.summary.elapsed), (1, secs(10)));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_attempt_keeps_its_place_in_its_grace() {
    let log = Log::open();
    let task = lenient().concurrency(1).timeout_per_attempt(secs(10)).cancel_grace(secs(3)).build().unwrap();
    let run = task.over(0..2).map_with_context(|cx, n| {
        log.note(n);
        async move { if cx.index() == 0 { pending().await } else { Ok::<_, String>(()) } }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, 0), (13_000, 1)]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_the_token_is_cancelled_without_a_grace_too_and_not_where_an_attempt_ends_by_itself() {
    let tokens = RefCell::new(Vec::new());
    let task = lenient().concurrency(1).retries(1).timeout_per_attempt(secs(10)).build().unwrap();
    let run = task.over(0..4).map_with_context(|cx, n| {
        tokens.borrow_mut().push(cx.cancellation_token().clone());
        async move {
            match (n, cx.attempt()) {
                (0, _) => Ok(()),
                (1, 1) => Err("again"),
                (2, 1) => pending().await,
                (3, _) => panic!("as it happens"),
                _ => after(secs(9), Ok(())).await,
            }
        }
    });
    run.await.unwrap();
    let cancelled: Vec<_> = tokens.borrow().iter().map(CancellationToken::is_cancelled).collect();
    assert_eq!(cancelled, [false, false, false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_retry_has_a_token_of_its_own() {
    let task = lenient().retries(1).timeout_per_attempt(secs(10)).cancel_grace(secs(1)).build().unwrap();
    let kept = RefCell::new(Vec::new());
    let run = task.over([()]).map_with_context(|cx, ()| {
        // The context of the first attempt lives on.
        kept.borrow_mut().push(cx.clone());
        async move {
            if cx.attempt() == 1 {
                pending::<()>().await;
            }
            assert!(!cx.cancellation_token().is_cancelled());
            Ok::<_, &str>(())
        }
    });
    assert_eq!(run.await.unwrap().successes(), 1);
    assert!(kept.borrow()[0].cancellation_token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_finished_result_beats_a_timeout_of_the_same_poll() {
    for result in [Ok(1), Err("its own")] {
        for builder in [lenient().timeout_per_attempt(secs(2)), lenient().timeout_per_item(secs(2))] {
            let task = builder.build().unwrap();
            let run =
                task.run([()], |()| async move { sleep(secs(2)).map(|()| result).await }).await.unwrap();
            assert_eq!(run.summary.timeouts, 0);
            assert_eq!(
                run.results[0].ok_or_else(|| run.errors[&0].clone()),
                result.map_err(|error| failed(error, 1))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_result_that_is_found_long_after_the_limit_counts_too() {
    // The run was not polled between the end of the items and their limit.
    let task = lenient().timeout_per_attempt(secs(2)).build().unwrap();
    let mut run = task.run(0..4, |n| sleep(secs(n)).map(Ok::<_, &str>));
    assert!(futures::poll!(&mut run).is_pending());
    sleep(secs(60)).await;
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.timeouts), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_14_what_finishes_with_the_limit_of_the_run_is_kept() {
    let task = lenient().run_timeout(secs(2)).build().unwrap();
    let run = task.run([1, 2, 2, 3], |n| sleep(secs(n)).map(Ok::<_, &str>));
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }));
    assert_eq!((error.partial().successes(), error.partial().cancelled()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_run_that_finishes_with_its_limit_has_finished() {
    let task = AsyncMapTask::builder().run_timeout(secs(2)).build().unwrap();
    let result = task.run([1, 2, 2], |n| sleep(secs(n)).map(Ok::<_, &str>)).await;
    let result = result.expect("every item had succeeded by then");
    assert_eq!((result.successes(), result.summary.elapsed), (3, secs(2)));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_settles_its_item_with_its_message() {
    let calls = Cell::new(0);
    let task = lenient().retries(3).concurrency(3).build().unwrap();
    let run = task.over(0..8).map_with_context(|cx, n| {
        calls.set(calls.get() + 1);
        assert_ne!(n, 1, "built {n}");
        if n == 2 {
            panic!("built");
        }
        async move {
            match n {
                3 => panic!("polled"),
                4 => {
                    sleep(secs(1)).await;
                    panic!("polled {n}")
                }
                5 => panic_any(5_u8),
                6 if cx.attempt() == 1 => Err("again"),
                6 => panic!("at the second attempt"),
                _ => Ok(n),
            }
        }
    });
    let result = run.await.unwrap();
    let expected = [
        (1, "assertion `left != right` failed: built 1\n  left: 1\n right: 1", 1),
        (2, "built", 1),
        (3, "polled", 1),
        (4, "polled 4", 1),
        (5, "a panic without a text", 1),
        (6, "at the second attempt", 2),
    ];
    for (index, message, attempts) in expected {
        assert_eq!(result.errors[&index], panicked(message, attempts));
    }
    assert_eq!(result.results, [Some(0), None, None, None, None, None, None, Some(7)]);
    assert_eq!((result.failures(), result.summary.panics, calls.get()), (6, 6, 9));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_counts_as_a_failure() {
    let task = AsyncMapTask::builder().concurrency(1).max_failures(1).build().unwrap();
    let error = task
        .run(0..9, |n| async move { if n % 2 == 0 { panic!("no") } else { Ok::<_, &str>(n) } })
        .await
        .unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 2, allowed: 1 }));
    assert_eq!(error.first_failure(), Some((0, &panicked("no", 1))));
    assert_eq!((error.partial().successes(), error.partial().not_started()), (1, 6));
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_a_destructor_does_no_harm_to_anybody_else() {
    let alive = Gauge::default();
    let task = lenient().concurrency(3).timeout_per_attempt(secs(1)).build().unwrap();
    let run = task.run(0..9, |n| {
        let alive = alive.enter();
        async move {
            // Dropped after the bomb.
            let _alive = alive;
            let _bomb = (n % 3 == 0).then(|| PanicsOnDrop);
            if n == 6 {
                return Ok::<_, &str>(n);
            }
            sleep(millis(500 + 700 * (n % 2))).await;
            if n == 3 || n == 0 { pending().await } else { Ok(n) }
        }
    });
    let result = run.await.unwrap();
    assert_eq!(alive.now(), 0);
    // What it was dropped for is what became of it; where it was its own end, the panic is its end.
    assert_eq!(result.errors[&0], timed_out(secs(1), TimeoutScope::Attempt, 1));
    assert_eq!(result.errors[&3], timed_out(secs(1), TimeoutScope::Attempt, 1));
    assert_eq!(result.errors[&6], panicked("dropped", 1));
    assert_eq!((result.results[2], result.results[4], result.results[8]), (Some(2), Some(4), Some(8)));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_a_destructor_does_not_come_out_of_a_run_that_is_stopped_or_dropped() {
    let task = lenient().run_timeout(secs(1)).build().unwrap();
    let alive = Gauge::default();
    let new_run = || {
        task.run(0..4, |_| {
            let alive = alive.enter();
            async move {
                let _alive = alive;
                let _bomb = PanicsOnDrop;
                pending::<Result<(), &str>>().await
            }
        })
    };
    let error = new_run().await.unwrap_err();
    assert_eq!((error.partial().cancelled(), alive.now()), (4, 0));
    assert!(timeout(millis(500), new_run()).await.is_err());
    assert_eq!((alive.ever(), alive.now()), (8, 0));
}

/// Whose panic it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Culprit {
    List,
    Stream,
    RetryIf,
    RetryAfter,
    Observer(&'static str),
}

/// What an event is, in a word.
fn word(event: &Event<'_>) -> &'static str {
    match event {
        Event::RunStarted => "run started",
        Event::ItemStarted { .. } => "item started",
        Event::AttemptFailed { .. } => "attempt failed",
        Event::ItemSettled { .. } => "item settled",
        Event::RunFinished { .. } => "run finished",
        _ => "unknown",
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_propagates_after_every_running_item_is_dropped() {
    let all = [
        Culprit::List,
        Culprit::Stream,
        Culprit::RetryIf,
        Culprit::RetryAfter,
        Culprit::Observer("item started"),
        Culprit::Observer("attempt failed"),
        Culprit::Observer("item settled"),
    ];
    for culprit in all {
        // Items 0 to 2 never end, item 3 fails or succeeds; then the culprit panics. With a grace, because
        // there is none for anybody now.
        let (alive, tokens) = (Gauge::default(), RefCell::new(Vec::new()));
        let bang = |who: Culprit| assert_ne!(culprit, who, "bang");
        let task = lenient().concurrency(4).retries(1).cancel_grace(secs(9)).build().unwrap();
        let pulling = |n: u32, who| {
            if n == 4 {
                bang(who)
            }
        };
        let list = (0..9_u32).inspect(|n| pulling(*n, Culprit::List));
        let source = stream::iter(list).inspect(|n| pulling(*n, Culprit::Stream));
        let run = task
            .over_stream(source)
            .map_with_context(|cx, n| {
                tokens.borrow_mut().push(cx.cancellation_token().clone());
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    match n {
                        0..3 => pending().await,
                        3 => after(secs(1), Err("no")).await,
                        _ => after(secs(1), Ok(())).await,
                    }
                }
            })
            .retry_if(|_| {
                bang(Culprit::RetryIf);
                true
            })
            .retry_after(|_| {
                bang(Culprit::RetryAfter);
                None
            })
            .observe(|event: &Event<'_>| {
                if alive.now() >= 3 && !matches!(event, Event::ItemStarted { index: 3 }) {
                    bang(Culprit::Observer(word(event)));
                }
            });
        let mut run = Box::pin(run);
        let payload = AssertUnwindSafe(&mut run).catch_unwind().await.expect_err("a panic of the caller's");
        assert!(payload.downcast_ref::<String>().unwrap().contains("bang"), "{culprit:?}");
        // The run itself is still there; its items are not.
        assert_eq!(alive.now(), 0, "{culprit:?}");
        assert!(alive.ever() >= 4, "{culprit:?}: the panic came too early to tell");
        let tokens = tokens.borrow();
        assert!(tokens[..3].iter().all(CancellationToken::is_cancelled), "{culprit:?}");
        drop(run);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_cancels_no_token_of_an_attempt_that_has_ended() {
    for culprit in ["item started", "item settled"] {
        let tokens = RefCell::new(Vec::new());
        let task = lenient().concurrency(1).build().unwrap();
        let run = task
            .over(0..2)
            .map_with_context(|cx, _| {
                tokens.borrow_mut().push(cx.cancellation_token().clone());
                async { Ok::<_, &str>(()) }
            })
            .observe(|event: &Event<'_>| {
                assert!(tokens.borrow().is_empty() || word(event) != culprit, "bang")
            });
        assert!(AssertUnwindSafe(run).catch_unwind().await.is_err());
        assert_eq!(tokens.borrow().len(), 1);
        assert!(!tokens.borrow()[0].is_cancelled(), "{culprit}: the attempt had ended by itself");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_an_observer_at_the_ends_of_the_run_propagates_too() {
    for culprit in ["run started", "run finished"] {
        let alive = Gauge::default();
        let task = lenient().min_successes(1).early_success(true).build().unwrap();
        let run = task
            .run(0..9_u64, |n| {
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    sleep(secs(n)).await;
                    Ok::<_, &str>(())
                }
            })
            .observe(|event: &Event<'_>| assert_ne!(word(event), culprit, "bang"));
        let mut run = Box::pin(run);
        assert!(AssertUnwindSafe(&mut run).catch_unwind().await.is_err(), "{culprit}");
        assert_eq!(alive.now(), 0, "{culprit}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_ends_a_spawned_run_as_its_join_error() {
    let alive = Gauge::default();
    let seen = alive.clone();
    let joined = tokio::spawn(async move {
        let source = (0..9).inspect(|n| assert!(*n < 5, "a bad source"));
        lenient()
            .concurrency(6)
            .build()
            .unwrap()
            .run(source, |_| {
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    pending::<Result<(), String>>().await
                }
            })
            .await
            .is_ok()
    });
    let error = joined.await.unwrap_err();
    assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"a bad source"));
    assert_eq!((seen.ever(), seen.now()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_33_a_paused_clock_runs_everything_in_no_real_time() {
    let real = std::time::Instant::now();
    let (log, settled) = (Log::open(), RefCell::new(Vec::new()));
    let task = lenient()
        .concurrency(2)
        .retries(3)
        .retry_delay(HOUR)
        .max_retry_delay(HOUR * 10)
        .timeout_per_attempt(HOUR * 5)
        .timeout_per_item(HOUR * 24)
        .run_timeout(HOUR * 100)
        .cancel_grace(HOUR)
        .build()
        .unwrap();
    let run = task
        .over(0..3)
        .map_with_context(|cx, n| {
            log.note((n, cx.attempt()));
            async move {
                match n {
                    // Three attempts of six hours with their grace, and waits of one and two hours.
                    0 if cx.attempt() < 3 => pending::<Result<(), &str>>().await,
                    0 => Ok(()),
                    1 => after(HOUR * 4, Ok(())).await,
                    _ => pending().await,
                }
            }
        })
        .observe(|event: &Event<'_>| {
            if let Event::ItemSettled { index, elapsed, .. } = event {
                settled.borrow_mut().push((*index, *elapsed));
            }
        });
    let result = run.await.unwrap();
    let hour = 3_600_000;
    let expected = [
        (0, (0, 1)),
        (0, (1, 1)),
        (4 * hour, (2, 1)),
        (7 * hour, (0, 2)),
        (11 * hour, (2, 2)),
        (15 * hour, (0, 3)),
        (19 * hour, (2, 3)),
    ];
    assert_eq!(log.timed(), expected);
    // Item 2 fails for the third time at 25 hours; its retry at 29 could not start before its limit at 28.
    assert_eq!(*settled.borrow(), [(1, HOUR * 4), (0, HOUR * 15), (2, HOUR * 21)]);
    assert_eq!(result.summary.elapsed, HOUR * 25);
    assert!(real.elapsed() < secs(60), "the clock that was used is not Tokio's");
}

#[tokio::test(start_paused = true)]
async fn rule_33_limits_are_points_of_the_paused_clock() {
    // An attempt that knows its deadline can use up all of it.
    let task = AsyncMapTask::builder().timeout_per_attempt(HOUR).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, _| async move {
        sleep_until(cx.deadline().unwrap()).await;
        Ok::<_, String>(())
    });
    assert_eq!(run.await.unwrap().summary.elapsed, HOUR);
}
