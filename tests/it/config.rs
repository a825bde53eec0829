//! The settings: values that are refused and their messages, limits that are allowed, and defaults.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, DEFAULT_CONCURRENCY, DEFAULT_MAX_RETRY_DELAY,
    DEFAULT_MIN_SUCCESS_RATIO, DEFAULT_RETRIES, DEFAULT_RETRY_DELAY, DEFAULT_RETRY_JITTER,
    DEFAULT_RETRY_MULTIPLIER, FailureReason, ItemError, MapTaskResult,
};
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, Set};

const NANOSECOND: Duration = Duration::from_nanos(1);

#[test]
fn an_error_names_the_setting_and_its_limits() {
    let ratio = "between 0 and 1";
    let multiplier = "a finite number of at least 1";
    let timeout = "greater than zero, or not set for no limit";
    let criterion = "false unless min_success_ratio, min_successes or max_failures is set";
    let table: [(Set, &str, &str, &str); 28] = [
        (|b| b.concurrency(0), "concurrency", "0", "at least 1 (unbounded_concurrency() removes the limit)"),
        (|b| b.look_ahead(0), "look_ahead", "0", "at least 1"),
        (|b| b.min_success_ratio(-0.1), "min_success_ratio", "-0.1", ratio),
        (|b| b.min_success_ratio(-f64::MIN_POSITIVE), "min_success_ratio", "", ratio),
        (|b| b.min_success_ratio(1.0_f64.next_up()), "min_success_ratio", "1.0000000000000002", ratio),
        (|b| b.min_success_ratio(95.0), "min_success_ratio", "95", ratio),
        (|b| b.min_success_ratio(f64::NAN), "min_success_ratio", "NaN", ratio),
        (|b| b.min_success_ratio(f64::INFINITY), "min_success_ratio", "inf", ratio),
        (|b| b.min_success_ratio(f64::NEG_INFINITY), "min_success_ratio", "-inf", ratio),
        (|b| b.retry_jitter(-0.5), "retry_jitter", "-0.5", ratio),
        (|b| b.retry_jitter(1.5), "retry_jitter", "1.5", ratio),
        (|b| b.retry_jitter(f64::NAN), "retry_jitter", "NaN", ratio),
        (|b| b.retry_jitter(f64::INFINITY), "retry_jitter", "inf", ratio),
        (|b| b.retry_multiplier(0.5), "retry_multiplier", "0.5", multiplier),
        (|b| b.retry_multiplier(1.0_f64.next_down()), "retry_multiplier", "0.9999999999999999", multiplier),
        (|b| b.retry_multiplier(0.0), "retry_multiplier", "0", multiplier),
        (|b| b.retry_multiplier(-2.0), "retry_multiplier", "-2", multiplier),
        (|b| b.retry_multiplier(f64::NAN), "retry_multiplier", "NaN", multiplier),
        (|b| b.retry_multiplier(f64::INFINITY), "retry_multiplier", "inf", multiplier),
        (|b| b.timeout_per_attempt(Duration::ZERO), "timeout_per_attempt", "0s", timeout),
        (|b| b.timeout_per_item(Duration::ZERO), "timeout_per_item", "0s", timeout),
        (|b| b.run_timeout(Duration::ZERO), "run_timeout", "0s", timeout),
        (
            |b| b.run_timeout(SECOND).cancel_grace(SECOND + NANOSECOND),
            "cancel_grace",
            "1.000000001s",
            "at most the run_timeout of 1s",
        ),
        (
            |b| b.cancel_grace(Duration::from_secs(90)).run_timeout(Duration::from_millis(1500)),
            "cancel_grace",
            "90s",
            "at most the run_timeout of 1.5s",
        ),
        (
            |b| b.cancel_grace(Duration::MAX).run_timeout(Duration::from_millis(250)),
            "cancel_grace",
            "18446744073709551615.999999999s",
            "at most the run_timeout of 250ms",
        ),
        (
            |b| b.timeout_per_attempt(SECOND + NANOSECOND).timeout_per_item(SECOND),
            "timeout_per_attempt",
            "1.000000001s",
            "at most the timeout_per_item of 1s",
        ),
        (|b| b.early_success(true), "early_success", "true", criterion),
        (|b| b.early_success(true).fail_fast(true), "early_success", "true", criterion),
    ];
    for (set, field, found, allowed) in table {
        let error = set(AsyncMapTask::builder()).build().unwrap_err();
        assert_eq!((error.field(), error.allowed()), (field, allowed), "{error}");
        // A number below every usual decimal: the message contains it as it was given.
        if !found.is_empty() {
            assert_eq!(error.found(), found);
        }
        assert_eq!(error.to_string(), format!("{field} must be {allowed}, got {}", error.found()));
        assert_eq!(error, error.clone());
        let alone = set(AsyncMapTask::builder().name("named").retries(3)).build();
        assert_eq!(alone.unwrap_err(), error, "other settings do not change what is said");
    }
}

#[test]
fn a_corrected_setting_is_no_error() {
    let mended = AsyncMapTask::builder()
        .concurrency(0)
        .min_success_ratio(f64::NAN)
        .retry_multiplier(0.0)
        .retry_jitter(7.0)
        .concurrency(1)
        .min_success_ratio(1.0)
        .retry_multiplier(1.0)
        .retry_jitter(0.0);
    assert!(mended.build().is_ok());
}

#[test]
fn setters_never_panic() {
    let durations = [Duration::ZERO, NANOSECOND, SECOND, Duration::MAX];
    let floats = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        -0.0,
        0.5,
        1.0,
    ];
    let mut built = 0;
    let mut try_out = |set: &dyn Fn(AsyncMapTaskBuilder) -> AsyncMapTaskBuilder| {
        let result = catch_unwind(AssertUnwindSafe(|| set(AsyncMapTask::builder()).build()));
        assert!(result.is_ok(), "neither a setter nor build() panics");
        built += 1;
    };
    for duration in durations {
        try_out(&|b| b.retry_delay(duration));
        try_out(&|b| b.max_retry_delay(duration));
        try_out(&|b| b.timeout_per_attempt(duration));
        try_out(&|b| b.timeout_per_item(duration));
        try_out(&|b| b.run_timeout(duration));
        try_out(&|b| b.cancel_grace(duration));
    }
    for float in floats {
        try_out(&|b| b.retry_multiplier(float));
        try_out(&|b| b.retry_jitter(float));
        try_out(&|b| b.min_success_ratio(float));
    }
    for count in [0, 1, usize::MAX] {
        try_out(&|b| b.concurrency(count));
        try_out(&|b| b.look_ahead(count));
        try_out(&|b| b.min_successes(count));
        try_out(&|b| b.max_failures(count));
    }
    try_out(&|b| b.retries(u32::MAX));
    try_out(&|b| b.unbounded_concurrency());
    try_out(&|b| b.early_success(true).fail_fast(true));
    try_out(&|b| b.early_success(false).fail_fast(false));
    try_out(&|b| b.name("").name(String::from("owned")));
    assert_eq!(built, 24 + 30 + 12 + 5);
}

/// A run that uses every setting. Its items succeed, succeed at their third attempt if there are retries, fail for good,
/// panic, and take an hour.
async fn exercise(task: &AsyncMapTask) -> MapTaskResult<u32, &'static str> {
    let run = task
        .over(0..12_u32)
        .map_with_context(|cx, n| async move {
            match n % 4 {
                0 => Ok(n),
                1 if cx.attempt() < 3 => Err("busy"),
                1 => Ok(n),
                2 => {
                    sleep(Duration::from_secs(3600)).await;
                    Ok(n)
                }
                _ if n == 3 => panic!("three"),
                _ => Err("gone"),
            }
        })
        .retry_if(|error| *error == "busy");
    match run.await {
        Ok(result) => result,
        Err(error) => error.into_partial(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_setting_at_its_limit_works() {
    let edges: [(&str, Set); 37] = [
        ("ratio 0", |b| b.min_success_ratio(0.0)),
        ("ratio -0.0", |b| b.min_success_ratio(-0.0)),
        ("ratio 1", |b| b.min_success_ratio(1.0)),
        ("the least ratio", |b| b.min_success_ratio(f64::from_bits(1))),
        ("the least normal ratio", |b| b.min_success_ratio(f64::MIN_POSITIVE)),
        ("the ratio below 1", |b| b.min_success_ratio(1.0_f64.next_down())),
        ("jitter 0", |b| b.retry_jitter(0.0)),
        ("jitter -0.0", |b| b.retry_jitter(-0.0)),
        ("jitter 1", |b| b.retry_jitter(1.0)),
        ("the least jitter", |b| b.retry_jitter(f64::from_bits(1))),
        ("multiplier 1", |b| b.retry_multiplier(1.0)),
        ("the greatest multiplier", |b| b.retry_multiplier(f64::MAX)),
        ("grace as long as the run", |b| b.run_timeout(SECOND).cancel_grace(SECOND)),
        ("endless grace", |b| b.cancel_grace(Duration::MAX)),
        ("endless grace, endless run", |b| b.run_timeout(Duration::MAX).cancel_grace(Duration::MAX)),
        ("an endless attempt", |b| b.timeout_per_attempt(Duration::MAX)),
        ("an attempt as long as its item", |b| b.timeout_per_attempt(SECOND).timeout_per_item(SECOND)),
        ("an endless item", |b| b.timeout_per_item(Duration::MAX)),
        ("an endless run", |b| b.run_timeout(Duration::MAX)),
        ("the shortest attempt", |b| b.timeout_per_attempt(NANOSECOND)),
        ("the shortest item", |b| b.timeout_per_item(NANOSECOND)),
        ("the shortest run", |b| b.run_timeout(NANOSECOND)),
        ("no retry delay", |b| b.retry_delay(Duration::ZERO)),
        ("endless retry delay, capped", |b| b.retry_delay(Duration::MAX)),
        ("endless retry delay, jittered", |b| {
            // Without the limit the run would wait for ever.
            let endless = b.retry_delay(Duration::MAX).max_retry_delay(Duration::MAX).retry_jitter(1.0);
            endless.run_timeout(Duration::from_secs(36_000))
        }),
        ("endless retry delay that grows", |b| {
            let endless = b.retry_delay(Duration::MAX).max_retry_delay(Duration::MAX).retry_jitter(0.0);
            endless.retry_multiplier(f64::MAX)
        }),
        ("no longest retry delay", |b| b.max_retry_delay(Duration::ZERO)),
        ("the most retries", |b| b.retries(u32::MAX)),
        ("the most concurrency", |b| b.concurrency(usize::MAX)),
        ("unbounded concurrency", |b| b.unbounded_concurrency()),
        ("the smallest window", |b| b.look_ahead(1)),
        ("the largest window", |b| b.look_ahead(usize::MAX)),
        ("the largest of both", |b| b.unbounded_concurrency().look_ahead(usize::MAX)),
        ("the most successes", |b| b.min_successes(usize::MAX)),
        ("the most failures", |b| b.max_failures(usize::MAX).min_success_ratio(0.0)),
        ("no failures", |b| b.max_failures(0)),
        ("an empty name", |b| b.name("")),
    ];
    for (edge, set) in edges {
        for tolerant in [false, true] {
            let base = AsyncMapTask::builder().retries(4);
            let base = if tolerant { base.min_success_ratio(0.0) } else { base };
            let task = set(base).build().unwrap_or_else(|error| panic!("{edge}: {error}"));
            let result = exercise(&task).await;
            let summary = &result.summary;
            let sum = result.successes() + result.failures() + result.cancelled() + result.not_started();
            assert_eq!((result.total(), sum), (12, 12), "{edge}: {summary}");
            for (index, item) in result.results.iter().enumerate().filter(|(_, item)| item.is_some()) {
                assert_eq!(*item, Some(u32::try_from(index).unwrap()), "{edge}");
            }
            assert_eq!(result.errors.len(), result.failures(), "{edge}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_infinite_timeout_is_no_timeout() {
    let edges: [Set; 5] = [
        |b| b.timeout_per_attempt(Duration::MAX),
        |b| b.timeout_per_item(Duration::MAX),
        |b| b.run_timeout(Duration::MAX),
        |b| b.cancel_grace(Duration::MAX),
        |b| {
            b.timeout_per_attempt(Duration::MAX)
                .timeout_per_item(Duration::MAX)
                .run_timeout(Duration::MAX)
                .cancel_grace(Duration::MAX)
        },
    ];
    for set in edges {
        let task = set(AsyncMapTask::builder().retries(2).retry_jitter(0.0).max_failures(2)).build().unwrap();
        let result = exercise(&task).await;
        // Item 3 panics, items 7 and 11 fail: the third of them ends the run.
        assert_eq!(result.failures(), 3);
        let tolerant =
            set(AsyncMapTask::builder().retries(2).retry_jitter(0.0).min_success_ratio(0.0)).build().unwrap();
        let result = exercise(&tolerant).await;
        assert_eq!((result.successes(), result.failures(), result.summary.timeouts), (9, 3, 0));
        assert_eq!((result.summary.retries, result.summary.panics), (6, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_the_deadline_is_not_waited_for() {
    let task = AsyncMapTask::builder()
        .retries(u32::MAX)
        .retry_delay(Duration::MAX)
        .max_retry_delay(Duration::MAX)
        .retry_jitter(1.0)
        .run_timeout(Duration::from_secs(3600))
        .max_failures(1)
        .build()
        .unwrap();
    // A jittered delay may be zero, so the jitter is off in the run that is judged by its time.
    let exact = AsyncMapTask::builder()
        .retries(u32::MAX)
        .retry_delay(Duration::MAX)
        .max_retry_delay(Duration::MAX)
        .retry_jitter(0.0)
        .run_timeout(Duration::from_secs(3600))
        .max_failures(1)
        .build()
        .unwrap();
    assert!(task.run([1], |_| async { Err::<(), _>("busy") }).await.unwrap().failures() == 1);
    let result = exact.run([1], |_| async { Err::<(), _>("busy") }).await.unwrap();
    assert_eq!(result.errors[&0], ItemError::Failed { error: "busy", attempts: 1 });
    assert_eq!(result.summary.elapsed, Duration::ZERO);
}

#[tokio::test]
async fn the_largest_number_of_retries_works() {
    let task =
        AsyncMapTask::builder().retries(u32::MAX).retry_delay(Duration::ZERO).concurrency(1).build().unwrap();
    let result = task
        .over([()])
        .map_with_context(|cx, ()| async move {
            assert!(!cx.is_last_attempt());
            if cx.attempt() == 10_000 { Ok(cx.attempt()) } else { Err("busy") }
        })
        .await
        .unwrap();
    assert_eq!((result.results, result.summary.retries), (vec![Some(10_000)], 9_999));
}

#[tokio::test]
async fn unbounded_concurrency_starts_everything() {
    for task in [
        AsyncMapTask::builder().unbounded_concurrency().build().unwrap(),
        AsyncMapTask::builder().concurrency(usize::MAX).build().unwrap(),
    ] {
        let barrier = tokio::sync::Barrier::new(5_000);
        let result = task
            .run(0..5_000, |n| {
                let barrier = &barrier;
                async move {
                    barrier.wait().await;
                    Ok::<_, String>(n)
                }
            })
            .await
            .unwrap();
        assert_eq!(result.successes(), 5_000);
    }
}

// The defaults, by their effects.

/// Returns the delays between the attempts of one item that never succeeds.
async fn waits(builder: AsyncMapTaskBuilder) -> Vec<Duration> {
    let task = builder.max_failures(1).build().unwrap();
    let starts = RefCell::new(Vec::new());
    let run = task.run([1], |_| {
        starts.borrow_mut().push(Instant::now());
        async { Err::<(), _>("busy") }
    });
    run.await.unwrap();
    let starts = starts.into_inner();
    starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn default_delays_double_from_one_second_to_sixty() {
    let exact = waits(AsyncMapTask::builder().retries(8).retry_jitter(0.0)).await;
    assert_eq!(exact, [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn default_jitter_is_one_half() {
    let mut least = Duration::MAX;
    let mut most = Duration::ZERO;
    for _ in 0..200 {
        let jittered = waits(AsyncMapTask::builder().retries(3)).await;
        for (wait, base) in jittered.iter().zip([1, 2, 4]) {
            // The timer counts whole milliseconds, and rounds up.
            let (low, high) = (Duration::from_millis(500 * base), Duration::from_millis(1500 * base + 1));
            assert!((low..=high).contains(wait), "{wait:?} for {base} s");
        }
        (least, most) = (least.min(jittered[0]), most.max(jittered[0]));
    }
    // With 200 draws, the chance that none is in the outer fifth of either side is about 1 in 10^19.
    assert!(least < Duration::from_millis(700) && most > Duration::from_millis(1300), "{least:?}..{most:?}");
    let capped = waits(AsyncMapTask::builder().retries(20)).await;
    assert!(capped.iter().all(|wait| *wait <= Duration::from_millis(60_001)), "{capped:?}");
}

#[tokio::test(start_paused = true)]
async fn default_concurrency_is_four_without_retries() {
    let year = Duration::from_secs(60 * 60 * 24 * 365);
    let (running, peak) = (Cell::new(0), Cell::new(0));
    let result = AsyncMapTask::default()
        .run(0..9, |n| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            let running = &running;
            async move {
                sleep(year).await;
                running.set(running.get() - 1);
                Ok::<_, String>(n)
            }
        })
        .await
        .unwrap();
    assert_eq!((result.successes(), peak.get()), (9, 4));
    assert_eq!(result.summary.elapsed, 3 * year);

    let error = AsyncMapTask::default().run([1], |_| async { Err::<(), _>("once") }).await.unwrap_err();
    assert_eq!(error.first_failure().unwrap().1.attempts(), 1, "no retries");
}

#[tokio::test(start_paused = true)]
async fn default_criterion_is_that_every_item_succeeds() {
    let error = AsyncMapTask::default()
        .run(0..100, |n| async move {
            if n == 1 {
                sleep(SECOND).await;
                return Err("no");
            }
            sleep(Duration::from_secs(10)).await;
            Ok(n)
        })
        .await
        .unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 1, allowed: 0 }));
    let summary = error.summary();
    assert_eq!(summary.elapsed, SECOND, "no grace");
    assert_eq!((summary.failures, summary.cancelled, summary.not_started), (1, 3, 96));
}

#[tokio::test(start_paused = true)]
async fn default_is_neither_fail_fast_nor_early_success() {
    let work = |n: u32| async move { if n % 2 == 0 { Ok(n) } else { Err("odd") } };
    let tolerant = AsyncMapTask::builder().max_failures(10).build().unwrap();
    assert_eq!(tolerant.run(0..20, work).await.unwrap().failures(), 10, "fail_fast is off");
    let modest = AsyncMapTask::builder().min_successes(1).build().unwrap();
    assert_eq!(modest.run(0..20, work).await.unwrap().successes(), 10, "early_success is off");
    let only_successes = AsyncMapTask::builder().min_successes(1).build().unwrap();
    assert_eq!(only_successes.run(0..20, work).await.unwrap().failures(), 10, "the ratio is not asked for");
}

#[tokio::test]
async fn default_name_is_that_of_the_function() {
    async fn always_fails(_: u32) -> Result<(), &'static str> {
        Err("no")
    }

    let error = AsyncMapTask::default().run([1], always_fails).await.unwrap_err();
    let name = std::any::type_name_of_val(&always_fails);
    assert!(name.ends_with("always_fails"));
    assert_eq!(
        error.to_string(),
        format!("{name}: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt: no")
    );
    let named = AsyncMapTask::builder().name(format!("task {}", 7)).build().unwrap();
    assert!(named.run([1], always_fails).await.unwrap_err().to_string().starts_with("task 7: 1 of 1"));
}

#[test]
fn rule_06_the_default_window_is_256_or_16_per_permit() {
    let built = |builder: AsyncMapTaskBuilder| format!("{:?}", builder.build().unwrap());
    for (concurrency, default) in [(1, 256), (16, 256), (17, 272), (64, 1_024), (usize::MAX, usize::MAX)] {
        let builder = || AsyncMapTask::builder().concurrency(concurrency);
        assert_eq!(built(builder()), built(builder().look_ahead(default)), "at {concurrency}");
        assert_ne!(built(builder()), built(builder().look_ahead(default - 1)), "at {concurrency}");
    }
    // It follows the concurrency of the built task, regardless of the order in which the two are set.
    let window_first = AsyncMapTask::builder().look_ahead(7).concurrency(64);
    assert_eq!(built(window_first), built(AsyncMapTask::builder().concurrency(64).look_ahead(7)));
}

#[test]
fn the_constants_are_the_defaults() {
    let by_hand = AsyncMapTask::builder()
        .concurrency(DEFAULT_CONCURRENCY)
        .retries(DEFAULT_RETRIES)
        .retry_delay(DEFAULT_RETRY_DELAY)
        .max_retry_delay(DEFAULT_MAX_RETRY_DELAY)
        .retry_multiplier(DEFAULT_RETRY_MULTIPLIER)
        .retry_jitter(DEFAULT_RETRY_JITTER)
        .cancel_grace(Duration::ZERO)
        .early_success(false)
        .fail_fast(false)
        .build()
        .unwrap();
    assert_eq!(format!("{by_hand:?}"), format!("{:?}", AsyncMapTask::default()));
    assert_eq!((DEFAULT_CONCURRENCY, DEFAULT_RETRIES), (4, 0));
    assert_eq!((DEFAULT_RETRY_DELAY, DEFAULT_MAX_RETRY_DELAY), (SECOND, 60 * SECOND));
    let floats = [DEFAULT_RETRY_MULTIPLIER, DEFAULT_RETRY_JITTER, DEFAULT_MIN_SUCCESS_RATIO];
    assert_eq!(floats.map(f64::to_bits), [2.0, 0.5, 1.0].map(f64::to_bits));
}
