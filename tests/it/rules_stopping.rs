//! Rules 25 to 29: how a run is stopped, what becomes of its items, and where their results are.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, FailureReason, MapTaskResult, Summary};
use futures::{StreamExt, poll, stream};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Dice, Gauge, Hinted, Log, after, millis, secs};

fn lenient() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().retry_jitter(0.0).min_success_ratio(0.0)
}

/// A token that is cancelled after some time.
fn cancelled_after(wait: Duration) -> CancellationToken {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        sleep(wait).await;
        stop.cancel();
    });
    token
}

/// A reason in a word.
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

/// Checks what every result promises, however its run ended.
fn check_account<T, E>(result: &MapTaskResult<T, E>) {
    let Summary { total, successes, failures, cancelled, not_started, .. } = result.summary;
    assert_eq!(total, successes + failures + cancelled + not_started, "{}", result.summary);
    assert_eq!(result.results.len(), total);
    assert_eq!(result.results.iter().flatten().count(), successes);
    assert_eq!(result.errors.len(), failures);
    assert!(result.errors.keys().all(|index| result.results[*index].is_none()));
}

#[tokio::test(start_paused = true)]
async fn rule_25_each_cause_is_told_as_the_reason() {
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
    // Five causes, each at a time of its own, within the grace of whichever is the first. Item 0 fails at
    // the time that is given; the token and the limit of the run come when they come.
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
async fn rule_25_an_early_success_that_came_first_stays_a_success() {
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
async fn rule_25_an_error_of_the_source_is_a_cause_like_the_others() {
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
async fn rule_25_a_token_that_is_cancelled_already_starts_nothing() {
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
async fn rule_25_a_token_is_heeded_between_any_two_items() {
    // Ready items, so that there is no pause in which the run could notice it.
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
async fn rule_25_nothing_is_pulled_after_a_running_item_has_cancelled_the_token() {
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
    // Places fall free in the grace, a retry becomes ready in it, and the source has more.
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
async fn rule_26_stopping_interrupts_a_wait_for_a_retry_at_once() {
    for grace in [secs(0), secs(5)] {
        let builder = || lenient().retries(3).retry_delay(secs(60)).cancel_grace(grace);
        let fails = |_| async { Err::<(), _>("again") };
        let run = builder().build().unwrap();
        let run = run.run(0..9, fails).cancellation_token(cancelled_after(secs(7)));
        let error = run.await.unwrap_err();
        assert_eq!(error.summary().elapsed, secs(7), "there is nothing to give a grace to");
        assert_eq!((error.partial().cancelled(), error.partial().not_started()), (4, 5));
        assert!(error.partial().errors.is_empty());

        // With the limit of the run an item can only be waiting for its place.
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
async fn rule_26_stopping_interrupts_a_wait_for_a_place_and_for_the_source_at_once() {
    let task = lenient().concurrency(1).build().unwrap();
    let run = task
        .over_stream(stream::iter([1]).chain(stream::pending()))
        .map(|n| async move { Ok::<_, String>(n) });
    let error = run.cancellation_token(cancelled_after(secs(3))).await.unwrap_err();
    assert_eq!((error.partial().successes(), error.summary().elapsed), (1, secs(3)));

    // Item 0 is ready for its retry from 1 s on and has no place.
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
async fn rule_26_every_running_item_is_told_and_has_the_grace_to_end() {
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
async fn rule_26_the_run_ends_before_its_grace_when_everything_has_ended() {
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
async fn rule_26_without_a_grace_what_runs_is_dropped_at_once() {
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
async fn rule_26_an_item_that_finishes_as_the_run_is_stopped_keeps_its_result() {
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
async fn rule_27_every_item_is_accounted_for_however_the_run_ends() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let concurrency = 1 + dice.below(6) as usize;
        let builder = AsyncMapTask::builder()
            .concurrency(concurrency)
            .retries(dice.below(3) as u32)
            .retry_delay(millis(20))
            .timeout_per_attempt(millis(30))
            .run_timeout(millis(50 + dice.below(300)))
            .cancel_grace(millis(dice.below(30)))
            .min_success_ratio([0.0, 0.5, 0.9][dice.below(3) as usize])
            .early_success(dice.below(2) == 0)
            .fail_fast(dice.below(4) == 0);
        let count = dice.below(60);
        let items: Vec<_> = (0..count).map(|_| (dice.below(12), dice.below(45))).collect();
        let (pulled, started, settled) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let seen = Rc::new(pulled);
        let counted = Rc::clone(&seen);
        let source = items.into_iter().inspect(move |_| counted.set(counted.get() + 1));
        let known = dice.below(2) == 0;
        let hint = if known { source.size_hint() } else { (0, None) };
        let task = builder.build().unwrap();
        let run = task
            .over(Hinted { items: source, hint })
            .map_with_context(|cx, (kind, duration)| {
                started.set(started.get() + usize::from(cx.attempt() == 1));
                async move {
                    sleep(millis(duration)).await;
                    match kind {
                        0 => panic!("as it happens"),
                        1..4 => Err("no"),
                        4 if cx.attempt() == 1 => Err("once"),
                        _ => Ok(duration),
                    }
                }
            })
            .observe(|event: &async_map_task::Event<'_>| {
                if let async_map_task::Event::ItemSettled { .. } = event {
                    settled.set(settled.get() + 1);
                }
            })
            .cancellation_token(cancelled_after(millis(dice.below(500))));
        let result = match run.await {
            Ok(result) => result,
            Err(error) => error.into_partial(),
        };
        check_account(&result);
        assert_eq!(result.total(), if known { count as usize } else { seen.get() }, "seed {seed}");
        assert_eq!(result.successes() + result.failures(), settled.get(), "seed {seed}");
        assert_eq!(result.cancelled(), started.get() - settled.get(), "seed {seed}");
        assert_eq!(result.not_started(), result.total() - started.get(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_27_not_started_is_what_was_pulled_or_promised() {
    let of = async |hint: Option<usize>| {
        let task = lenient().concurrency(2).build().unwrap();
        let items = Hinted { items: 0..50, hint: (hint.unwrap_or(0), hint) };
        let run = task.run(items, |_| pending::<Result<(), &str>>());
        let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
        check_account(error.partial());
        error.into_partial().summary
    };
    let known = of(Some(50)).await;
    assert_eq!((known.total, known.cancelled, known.not_started), (50, 2, 48));
    let unknown = of(None).await;
    assert_eq!((unknown.total, unknown.cancelled, unknown.not_started), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_size_hint_that_lies_loses_no_item() {
    let hints = [
        (10, Some(10)),
        (0, Some(0)),
        (1, Some(1)),
        (999, Some(999)),
        (1_001, Some(1_001)),
        (usize::MAX, None),
        (usize::MAX, Some(usize::MAX)),
        (usize::MAX - 1, Some(usize::MAX)),
        // An upper bound below the lower one.
        (7, Some(3)),
    ];
    for hint in hints {
        for count in [0, 3, 1_000] {
            let task = AsyncMapTask::builder().concurrency(3).build().unwrap();
            let items = Hinted { items: 0..count, hint };
            let result = task.run(items, |n| async move { Ok::<_, String>(n) }).await.unwrap();
            check_account(&result);
            assert_eq!(result.total(), count, "{hint:?}");
            assert_eq!(result.into_successful_results(), (0..count).collect::<Vec<_>>(), "{hint:?}");

            let task = lenient().concurrency(3).retries(1).build().unwrap();
            let items = stream::iter(Hinted { items: 0..count, hint });
            let run = task.over_stream(items).map(|n| async move { if n % 2 == 0 { Ok(n) } else { Err(n) } });
            let result = run.await.unwrap();
            check_account(&result);
            assert_eq!((result.total(), result.failures()), (count, count / 2), "{hint:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_run_that_is_stopped_believes_the_size_hint_and_reserves_nothing_for_it() {
    for (hint, total) in
        [((usize::MAX, None), 2), ((usize::MAX, Some(usize::MAX)), usize::MAX), ((10, Some(10)), 10)]
    {
        let task = lenient().concurrency(2).build().unwrap();
        let run = task.run(Hinted { items: 0..1_000, hint }, |_| pending::<Result<(), &str>>());
        let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
        let result = error.into_partial();
        assert_eq!((result.total(), result.cancelled(), result.not_started()), (total, 2, total - 2));
        assert!(result.results.len() <= 2 + (1 << 20) && result.results.iter().all(Option::is_none));
    }
    // More items than promised: what came counts.
    let task = lenient().concurrency(20).build().unwrap();
    let items = Hinted { items: 0..1_000, hint: (10, Some(10)) };
    let run = task.run(items, |_| pending::<Result<(), &str>>());
    let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
    assert_eq!((error.partial().total(), error.partial().cancelled()), (20, 20));
    check_account(error.partial());
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_verdict_over_a_source_that_gives_less_than_it_promised_is_over_what_it_gave() {
    let task = AsyncMapTask::builder().min_success_ratio(0.5).build().unwrap();
    let of = |hint| Hinted { items: 0..4, hint: (hint, Some(hint)) };
    let two_of_four = task.run(of(100), |n| async move { if n < 2 { Ok(n) } else { Err("no") } });
    assert_eq!(two_of_four.await.unwrap().total(), 4);
    let one_of_four = task.run(of(100), |n| async move { if n < 1 { Ok(n) } else { Err("no") } });
    let error = one_of_four.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 3, allowed: 2 }));
}

/// All there is of a run, each with a gauge in it.
#[derive(Default)]
struct Everything {
    sources: Gauge,
    functions: Gauge,
    items: Gauge,
    attempts: Gauge,
    results: Gauge,
}

impl Everything {
    fn now(&self) -> [usize; 5] {
        [&self.sources, &self.functions, &self.items, &self.attempts, &self.results].map(Gauge::now)
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_that_is_dropped_at_any_poll_leaves_nothing() {
    let all = Everything::default();
    let mut finished = false;
    for polls in 0.. {
        if finished {
            break;
        }
        let tokens = RefCell::new(Vec::new());
        let in_source = all.sources.enter();
        let in_function = all.functions.enter();
        let item = |n: u64| Arc::new((n, all.items.enter()));
        let source = stream::iter(0..12).then(move |n| {
            let (_held, item) = (&in_source, item(n));
            async move {
                sleep(millis(n % 3)).await;
                item
            }
        });
        let task = lenient()
            .concurrency(3)
            .retries(2)
            .retry_delay(millis(5))
            .timeout_per_attempt(millis(20))
            .timeout_per_item(millis(50))
            .run_timeout(secs(9))
            .cancel_grace(millis(3))
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let run = task.over_stream(source).map_with_context(|cx, item| {
            let (_held, alive) = (&in_function, all.attempts.enter());
            tokens.borrow_mut().push((cx.clone(), cx.cancellation_token().clone()));
            let results = all.results.clone();
            async move {
                let _alive = alive;
                match item.0 % 4 {
                    0 if cx.attempt() == 1 => Err("again"),
                    1 => pending().await,
                    2 => {
                        yield_now().await;
                        Ok(results.enter())
                    }
                    _ => {
                        sleep(millis(item.0)).await;
                        Ok(results.enter())
                    }
                }
            }
        });
        let mut run = Box::pin(run.cancellation_token(stop.clone()));
        for _ in 0..polls {
            if poll!(&mut run).is_ready() {
                finished = true;
                break;
            }
            sleep(millis(1)).await;
        }
        let running = all.attempts.now();
        drop(run);
        drop(in_function);
        assert_eq!(all.now(), [0; 5], "after {polls} polls");
        assert!(
            finished
                || running == 0
                || tokens.borrow().iter().filter(|(_, token)| token.is_cancelled()).count() >= running
        );
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a run spawns nothing");
        assert!(!stop.is_cancelled(), "the token is the caller's");
    }
    assert!(finished && all.attempts.ever() > 500);
}

#[tokio::test(start_paused = true)]
async fn rule_28_dropping_a_run_cancels_the_tokens_of_what_runs_and_no_others() {
    let tokens = RefCell::new(Vec::new());
    let task = lenient().concurrency(2).retries(1).build().unwrap();
    let mut run = Box::pin(task.over(0..9).map_with_context(|cx, n| {
        tokens.borrow_mut().push(cx.cancellation_token().clone());
        async move {
            match n {
                0 => Ok(()),
                1 => Err("waits for its retry"),
                _ => pending().await,
            }
        }
    }));
    assert!(poll!(&mut run).is_pending());
    drop(run);
    let cancelled: Vec<_> = tokens.borrow().iter().map(CancellationToken::is_cancelled).collect();
    assert_eq!(cancelled, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn rule_28_nothing_of_a_run_goes_on_after_it() {
    // Neither after it was dropped by a timeout, nor after it has ended.
    let (alive, steps) = (Gauge::default(), Cell::new(0));
    let (alive, steps) = (&alive, &steps);
    let task = lenient().concurrency(5).min_successes(1).early_success(true).build().unwrap();
    let new_run = |quick| {
        task.run(0..20, move |n| async move {
            let _alive = alive.enter();
            if n == quick {
                return Ok::<_, String>(());
            }
            loop {
                sleep(millis(100)).await;
                steps.set(steps.get() + 1);
            }
        })
    };
    assert!(timeout(secs(1), new_run(99)).await.is_err());
    let after = steps.get();
    assert!(after >= 45 && alive.now() == 0);
    sleep(secs(10)).await;
    assert_eq!((steps.get(), alive.now()), (after, 0));

    let mut run = Box::pin(new_run(3));
    (&mut run).await.unwrap();
    // The run is still there, as a future that has ended; what it ran is not.
    assert_eq!(alive.now(), 0);
    let after = steps.get();
    sleep(secs(10)).await;
    assert_eq!(steps.get(), after);
    drop(run);
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_that_was_never_polled_has_started_nothing() {
    let calls = Cell::new(0);
    let task = AsyncMapTask::builder().run_timeout(secs(1)).build().unwrap();
    let source = std::iter::from_fn(|| {
        calls.set(calls.get() + 1);
        Some(())
    });
    let run = task.run(source, |()| async {
        calls.set(calls.get() + 1);
        Ok::<_, String>(())
    });
    sleep(secs(10)).await;
    drop(run);
    assert_eq!(calls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_29_each_result_has_the_index_of_its_input() {
    for concurrency in [1, 2, 7, 100] {
        let mut dice = Dice(29);
        let items: Vec<_> = (0..100).map(|n| (n, dice.below(40), dice.below(5))).collect();
        let expected: Vec<_> = items.iter().map(|(n, _, kind)| (*kind > 1).then_some(*n)).collect();
        let task = lenient().concurrency(concurrency).retries(1).retry_delay(millis(15)).build().unwrap();
        let run = task.over(items).map_with_context(|cx, (n, duration, kind)| async move {
            assert_eq!(cx.index(), n);
            sleep(millis(duration)).await;
            match kind {
                0 => Err(n),
                1 => panic!("{n}"),
                2 if cx.attempt() == 1 => Err(n),
                _ => Ok(n),
            }
        });
        let result = run.await.unwrap();
        assert_eq!(result.results, expected, "concurrency {concurrency}");
        for (index, error) in &result.errors {
            assert!(error.to_string().ends_with(&format!(": {index}")), "{index}: {error}");
        }
        check_account(&result);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_29_results_are_in_input_order_where_the_items_complete_in_reverse() {
    let completed = RefCell::new(Vec::new());
    let task = AsyncMapTask::builder().concurrency(50).build().unwrap();
    let run = task.run(0..50, |n| {
        let completed = &completed;
        async move {
            sleep(millis(100 - n)).await;
            completed.borrow_mut().push(n);
            Ok::<_, String>(n)
        }
    });
    assert_eq!(run.await.unwrap().into_successful_results(), (0..50).collect::<Vec<_>>());
    assert_eq!(completed.into_inner(), (0..50).rev().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rule_29_a_result_that_is_itself_none_is_a_success() {
    let task = lenient().build().unwrap();
    let run = task.run(0..4, |n| async move {
        match n {
            0 => Ok(None),
            1 => Err("no"),
            _ => Ok(Some(n)),
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.results, [Some(None), None, Some(Some(2)), Some(Some(3))]);
    assert_eq!(result.successful_results().collect::<Vec<_>>(), [&None, &Some(2), &Some(3)]);
    assert_eq!((result.successes(), result.failures()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_29_a_cancelled_item_has_no_result_and_no_error() {
    let gate = Notify::new();
    let task = lenient().concurrency(3).build().unwrap();
    let run = task.run(0..6, |n| {
        let gate = &gate;
        async move {
            match n {
                0 => Ok(n),
                1 => Err("no"),
                _ => {
                    gate.notified().await;
                    Ok(n)
                }
            }
        }
    });
    let started = Instant::now();
    let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
    assert_eq!(started.elapsed(), secs(1));
    let result = error.into_partial();
    assert_eq!(result.results, [Some(0), None, None, None, None, None]);
    assert_eq!(result.errors.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!((result.cancelled(), result.not_started()), (3, 1));
}
