//! Rules 17 and 19 to 24: the conditions for success and failure of a run, and how early it can decide.

use std::cell::Cell;

use async_map_task::{AsyncMapTask, FailureReason};
use futures::stream;
use tokio::time::sleep;

use crate::support::{Gauge, Total, millis, one_by_one, run, script, secs, too_many};

#[tokio::test(start_paused = true)]
async fn rule_17_without_a_criterion_every_item_must_succeed() {
    for total in [Total::Known, Total::Unknown] {
        assert!(run(one_by_one(), total, &script(1_000, 0)).await.is_ok());
        assert_eq!(too_many(run(one_by_one(), total, &script(999, 1)).await), (1, 0, 1_000));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_any_criterion_replaces_the_ratio_of_1() {
    for total in [Total::Known, Total::Unknown] {
        let of = |successes, failures| script(successes, failures);
        assert!(run(one_by_one().min_successes(3), total, &of(3, 97)).await.is_ok());
        assert!(run(one_by_one().min_successes(0), total, &of(0, 100)).await.is_ok());
        assert!(run(one_by_one().max_failures(97), total, &of(3, 97)).await.is_ok());
        assert!(run(one_by_one().max_failures(usize::MAX), total, &of(0, 9)).await.is_ok());
        // Options that are not a criterion leave it in force.
        assert!(run(one_by_one().fail_fast(true), total, &of(2, 1)).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_every_criterion_that_is_set_must_hold() {
    for total in [Total::Known, Total::Unknown] {
        let all = || one_by_one().min_success_ratio(0.5).min_successes(4).max_failures(3);
        assert!(run(all(), total, &script(4, 3)).await.is_ok());
        // Each of them alone fails the run, and the narrowest is the one that is reported.
        let (_, allowed, _) = too_many(run(all(), total, &script(10, 4)).await);
        assert_eq!(allowed, 3, "max_failures");
        let (_, allowed, _) = too_many(run(all(), total, &script(3, 2)).await);
        assert_eq!(allowed, 1, "min_successes");
        let (_, allowed, _) = too_many(run(all().min_successes(0), total, &script(2, 3)).await);
        assert_eq!(allowed, 2, "min_success_ratio");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_19_a_known_total_stops_at_the_decisive_failure() {
    // 100 items, 95 required: the sixth failure decides, in any position.
    let mixed: Vec<_> = (0..100).map(|index| index % 3 != 1).collect();
    let error = run(one_by_one().min_success_ratio(0.95), Total::Known, &mixed).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 6, allowed: 5 }));
    // The failures are 1, 4, 7, 10, 13 and 16.
    let result = error.into_partial();
    assert_eq!((result.successes(), result.failures(), result.not_started()), (11, 6, 83));
    assert_eq!(*result.errors.last_key_value().unwrap().0, 16);
    assert_eq!(result.total(), 100);

    let decided = run(one_by_one().min_successes(90), Total::Known, &script(50, 50)).await;
    assert_eq!(too_many(decided), (11, 10, 61));
    let decided = run(one_by_one().max_failures(3), Total::Known, &script(50, 50)).await;
    assert_eq!(too_many(decided), (4, 3, 54));
    // More successes than there are items: this can never be met, but nothing has failed yet.
    let decided = run(one_by_one().min_successes(101), Total::Known, &script(50, 50)).await;
    assert_eq!(too_many(decided), (1, 0, 51));
}

#[tokio::test(start_paused = true)]
async fn rule_19_ranges_and_lists_have_known_totals() {
    let task = one_by_one().min_success_ratio(0.9).build().unwrap();
    let fails = |_: usize| async { Err::<usize, _>("no") };
    let vec: Vec<usize> = (0..20).collect();
    assert_eq!(too_many(task.run(0..20, fails).await), (3, 2, 3));
    assert_eq!(too_many(task.run(vec.clone(), fails).await), (3, 2, 3));
    assert_eq!(too_many(task.over_stream(stream::iter(vec.clone())).map(fails).await), (3, 2, 3));
    let results = stream::iter(vec.into_iter().map(Ok::<_, String>));
    assert_eq!(too_many(task.over_try_stream(results).map(fails).await), (3, 2, 3));
}

#[tokio::test(start_paused = true)]
async fn rule_19_an_unknown_total_is_judged_at_the_end() {
    let decided = run(one_by_one().min_success_ratio(0.95), Total::Unknown, &script(50, 50)).await;
    assert_eq!(too_many(decided), (50, 5, 100));
    let decided = run(one_by_one().min_successes(90), Total::Unknown, &script(50, 50)).await;
    assert_eq!(too_many(decided), (50, 10, 100));
    // The first ten fail, and the run still succeeds.
    let turns: Vec<_> = (0..100).map(|index| index >= 10).collect();
    assert!(run(one_by_one().min_success_ratio(0.9), Total::Unknown, &turns).await.is_ok());
    assert!(run(one_by_one().min_successes(90), Total::Unknown, &turns).await.is_ok());

    let task = one_by_one().min_success_ratio(0.5).build().unwrap();
    let source = stream::unfold(0, |n| async move { (n < 30).then_some((n, n + 1)) });
    let outcome =
        task.over_stream(source).map(|n: usize| async move { if n > 20 { Ok(n) } else { Err("no") } });
    assert_eq!(too_many(outcome.await), (21, 15, 30));
}

#[tokio::test(start_paused = true)]
async fn rule_19_max_failures_needs_no_total() {
    let decided = run(one_by_one().max_failures(3), Total::Unknown, &script(50, 50)).await;
    assert_eq!(too_many(decided), (4, 3, 54));
    let builder = one_by_one().max_failures(30).min_success_ratio(0.1).min_successes(2);
    assert_eq!(too_many(run(builder, Total::Unknown, &script(50, 50)).await), (31, 30, 81));
    let task = one_by_one().max_failures(0).build().unwrap();
    let source = stream::unfold(0, |n| async move { Some((n, n + 1)) });
    let outcome =
        task.over_stream(source).map(|n: usize| async move { if n < 9 { Ok(n) } else { Err("no") } });
    assert_eq!(too_many(outcome.await), (1, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn rule_20_an_early_stop_has_one_failure_too_many() {
    // Twenty fail at one time, and again a moment later, within the grace.
    for (concurrency, total) in [(1, 100), (20, 100), (100, 100)] {
        for at_one_time in [true, false] {
            let task = AsyncMapTask::builder()
                .concurrency(concurrency)
                .min_success_ratio(0.95)
                .cancel_grace(secs(5))
                .build()
                .unwrap();
            let run = task.run(0..total, |n| async move {
                sleep(millis(if at_one_time { 10 } else { 10 + n })).await;
                Err::<usize, _>("no")
            });
            let error = run.await.unwrap_err();
            assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 6, allowed: 5 }));
            // Items that failed in the grace are in the account, but not in the reason.
            let result = error.into_partial();
            assert_eq!(result.failures(), result.errors.len());
            assert!(result.failures() >= 6);
            assert_eq!(result.failures() + result.cancelled() + result.not_started(), 100);
            if concurrency == 20 && !at_one_time {
                assert_eq!((result.failures(), result.cancelled()), (25, 0));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_20_without_an_early_stop_all_failures_count() {
    let decided = run(one_by_one(), Total::Unknown, &script(3, 7)).await;
    assert_eq!(too_many(decided), (7, 0, 10));
    let error = run(one_by_one(), Total::Unknown, &script(3, 7)).await.unwrap_err();
    assert_eq!(error.first_failure().map(|(index, _)| index), Some(3));
    assert_eq!(error.partial().successes(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_21_a_run_waits_for_every_item() {
    let task =
        AsyncMapTask::builder().concurrency(10).min_successes(1).min_success_ratio(0.1).build().unwrap();
    let run = task.run(1..=10, |n| async move {
        sleep(secs(n)).await;
        if n == 10 { Err("no") } else { Ok(n) }
    });
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.failures(), result.summary.elapsed), (9, 1, secs(10)));
}

#[tokio::test(start_paused = true)]
async fn rule_21_early_success_ends_at_the_last_needed_success() {
    let alive = Gauge::default();
    let builders = [
        AsyncMapTask::builder().min_successes(3),
        AsyncMapTask::builder().min_success_ratio(0.15),
        AsyncMapTask::builder().max_failures(17),
        AsyncMapTask::builder().min_successes(3).min_success_ratio(0.1).max_failures(18),
        AsyncMapTask::builder().min_successes(1).min_success_ratio(0.15).max_failures(19),
        AsyncMapTask::builder().min_successes(2).min_success_ratio(0.1).max_failures(17),
    ];
    for builder in builders {
        let task = builder.concurrency(6).early_success(true).build().unwrap();
        let run = task.run(0..20_u64, |n| {
            let alive = alive.enter();
            async move {
                let _alive = alive;
                sleep(secs(10 - n % 6)).await;
                if n == 5 { Err("no") } else { Ok(n) }
            }
        });
        let result = run.await.unwrap();
        // Of the first six: 5 fails at 5 s, 4, 3 and 2 succeed at 6, 7 and 8 s.
        assert_eq!(result.summary.elapsed, secs(8));
        assert_eq!((result.successes(), result.failures()), (3, 1));
        // 0, 1, and 6, 7 and 8 with the three permits that were free before the end.
        assert_eq!((result.cancelled(), result.not_started(), result.total()), (5, 11, 20));
        assert_eq!(alive.now(), 0);
        assert_eq!(result.results[..6], [None, None, Some(2), Some(3), Some(4), None]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_21_early_success_needs_a_certain_success() {
    // If the total is not known, neither a ratio nor a number of failures is certain before the end.
    let early = || one_by_one().early_success(true);
    let turns = |successes, failures| script(successes, failures);
    assert!(run(early().min_success_ratio(0.5), Total::Unknown, &turns(5, 6)).await.is_err());
    assert_eq!(run(early().min_success_ratio(0.5), Total::Unknown, &turns(5, 5)).await.unwrap().total(), 10);
    let both = || early().min_successes(2).max_failures(4);
    assert_eq!(too_many(run(both(), Total::Unknown, &turns(5, 6)).await), (5, 4, 10));
    assert_eq!(run(both(), Total::Known, &turns(7, 4)).await.unwrap().not_started(), 4);
    // The least number of successes alone is.
    let result = run(early().min_successes(2), Total::Unknown, &turns(5, 6)).await.unwrap();
    assert_eq!((result.successes(), result.total()), (2, 2));
    // And with a ratio of 1, success is certain with the last item only.
    let all = || early().min_success_ratio(1.0);
    assert_eq!(run(all(), Total::Known, &turns(9, 0)).await.unwrap().successes(), 9);
    assert!(run(all(), Total::Known, &turns(9, 1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn rule_21_early_success_cancels_the_rest_with_the_grace() {
    let task =
        AsyncMapTask::builder().min_successes(1).early_success(true).cancel_grace(secs(5)).build().unwrap();
    let run = task.over(0..9).map_with_context(|cx, n| async move {
        match n {
            0 => sleep(secs(1)).await,
            1 => cx.cancellation_token().cancelled().await,
            2 => {
                cx.cancellation_token().cancelled().await;
                return Err("told to end");
            }
            _ => std::future::pending().await,
        }
        Ok(n)
    });
    let result = run.await.unwrap();
    assert_eq!(
        (result.successes(), result.failures(), result.cancelled(), result.not_started()),
        (2, 1, 1, 5)
    );
    assert_eq!(result.summary.elapsed, secs(6));
}

#[tokio::test(start_paused = true)]
async fn rule_22_fail_fast_stops_at_the_first_failure() {
    for total in [Total::Known, Total::Unknown] {
        let builder =
            one_by_one().fail_fast(true).min_success_ratio(0.0).max_failures(1_000).min_successes(0);
        let error = run(builder, total, &[true, true, false, true, false]).await.unwrap_err();
        assert!(matches!(error.reason(), FailureReason::FailFast { index: 2 }));
        assert_eq!(error.summary().total - error.summary().not_started, 3, "no item may start after it");
        assert_eq!((error.partial().successes(), error.partial().failures()), (2, 1));
        assert_eq!(error.partial().total(), if total == Total::Known { 5 } else { 3 });
    }
}

#[tokio::test(start_paused = true)]
async fn rule_22_fail_fast_starts_nothing_more() {
    // Two fail at one time, and a third would be started with the permit of each.
    let (started, pulled) = (Cell::new(0), Cell::new(0));
    let task = AsyncMapTask::builder().concurrency(3).fail_fast(true).cancel_grace(secs(1)).build().unwrap();
    let source = (0..9).inspect(|_| pulled.set(pulled.get() + 1));
    let run = task.run(source, |n| {
        started.set(started.get() + 1);
        async move {
            sleep(millis(if n == 2 { 1_500 } else { 1_000 })).await;
            if n < 2 { Err("no") } else { Ok(n) }
        }
    });
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::FailFast { index: 0 }));
    assert_eq!((started.get(), pulled.get()), (3, 3));
    assert_eq!((error.partial().successes(), error.partial().failures()), (1, 2));
    assert_eq!(error.first_failure().map(|(index, _)| index), Some(0));
}

#[tokio::test(start_paused = true)]
async fn rule_22_only_a_settled_failure_stops_the_run() {
    let task = AsyncMapTask::builder().fail_fast(true).retries(2).build().unwrap();
    let run = task.over(0..9).map_with_context(|cx, n| async move {
        if cx.attempt() == 3 || n % 2 == 0 { Ok(()) } else { Err("again") }
    });
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.retries), (9, 8));
    // A timeout and a panic settle an item as failed, too.
    let task = one_by_one().fail_fast(true).timeout_per_item(secs(1)).build().unwrap();
    let error = task.run(0..3, |_| std::future::pending::<Result<(), &str>>()).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::FailFast { index: 0 }));
    let error = task.run(0..3, |n| async move { if n == 1 { panic!() } else { Ok::<_, &str>(()) } });
    assert!(matches!(error.await.unwrap_err().reason(), FailureReason::FailFast { index: 1 }));
}

#[tokio::test(start_paused = true)]
async fn rule_23_an_empty_input_succeeds_without_min_successes() {
    for total in [Total::Known, Total::Unknown] {
        let full = || AsyncMapTask::builder().min_success_ratio(1.0).max_failures(0).min_successes(0);
        for builder in [AsyncMapTask::builder(), full(), full().fail_fast(true), full().early_success(true)] {
            let result = run(builder, total, &[]).await.unwrap();
            assert_eq!((result.total(), result.results.len(), result.errors.len()), (0, 0, 0));
            assert!(result.success_ratio() >= 1.0 && result.summary.success_ratio() >= 1.0);
        }
        let error = run(AsyncMapTask::builder().min_successes(1), total, &[]).await.unwrap_err();
        assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 0, allowed: 0 }));
        assert!(error.first_failure().is_none());
    }
    let task = AsyncMapTask::default();
    let run = task.over_stream(stream::empty::<usize>()).map(|n| async move { Ok::<_, String>(n) });
    assert_eq!(run.await.unwrap().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_23_a_ratio_of_0_accepts_any_number_of_failures() {
    for total in [Total::Known, Total::Unknown] {
        for zero in [0.0, -0.0] {
            let result = run(one_by_one().min_success_ratio(zero), total, &[false; 50]).await.unwrap();
            assert_eq!((result.failures(), result.successes()), (50, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_24_failures_count_in_completion_order() {
    // Item 0 is the slowest, items 7 and 5 fail first; results stay in input order all the same.
    let task = AsyncMapTask::builder().concurrency(10).max_failures(1).build().unwrap();
    let run = task.run(0..10_usize, |n| async move {
        sleep(secs([90, 9, 4, 80, 5, 2, 3, 1, 70, 60][n])).await;
        if n == 5 || n == 7 || n == 0 { Err("no") } else { Ok(n) }
    });
    let error = run.await.unwrap_err();
    assert_eq!(error.summary().elapsed, secs(2));
    assert_eq!(error.first_failure().map(|(index, _)| index), Some(7));
    let result = error.into_partial();
    assert_eq!(result.errors.keys().collect::<Vec<_>>(), [&5, &7]);
    assert_eq!((result.successes(), result.cancelled()), (0, 8));

    let task = AsyncMapTask::builder().concurrency(10).fail_fast(true).build().unwrap();
    let run = task.run(0..10_u64, |n| async move {
        sleep(secs(20 - n)).await;
        if n < 9 { Err("no") } else { Ok(n) }
    });
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::FailFast { index: 8 }));
    assert_eq!(error.summary().elapsed, secs(12));
}
