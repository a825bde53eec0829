//! Rules 12, 14 and 33: the time limits, their exceptions, and the clock that measures them.

use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

use async_map_task::{AsyncMapTask, Event, FailureKind, FailureReason, TimeoutScope};
use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::every_end::{End, Plan};
use crate::support::{HOUR, Log, after, failed, lenient, millis, secs, timed_out};

#[tokio::test(start_paused = true)]
async fn rule_12_the_attempt_timeout_excludes_the_wait_for_a_permit() {
    let task = lenient().concurrency(1).timeout_per_attempt(millis(1_500)).build().unwrap();
    let run = task.run(0..10, |_| sleep(secs(1)).map(Ok::<_, String>));
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.elapsed), (10, secs(10)));
    let task = lenient().concurrency(1).timeout_per_item(millis(1_500)).build().unwrap();
    let run = task.run(0..10, |_| sleep(secs(1)).map(Ok::<_, String>));
    assert_eq!(run.await.unwrap().successes(), 10);
}

#[tokio::test(start_paused = true)]
async fn rule_12_each_attempt_has_its_whole_timeout() {
    let log = Log::open();
    let task = lenient().concurrency(2).retries(2).timeout_per_attempt(secs(10)).build().unwrap();
    // The second item takes the permit, so that the retry of the first waits for one, too.
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
async fn rule_12_the_item_timeout_includes_attempts_and_delays() {
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
    // In the middle of the third attempt, and just before its end.
    assert_eq!(at(millis(5_500)).await, (timed_out(millis(5_500), TimeoutScope::Item, 3), millis(5_500), 3));
    assert_eq!(at(millis(5_999)).await, (timed_out(millis(5_999), TimeoutScope::Item, 3), millis(5_999), 3));
    // At its end, and in the delay after it: the run does not wait for the retry.
    assert_eq!(at(secs(6)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(secs(7)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(millis(9_999)).await, (failed("no", 3), secs(6), 3));
    assert_eq!(at(secs(10)).await, (failed("no", 3), secs(6), 3));
    // Just after the delay: the fourth attempt is made.
    assert_eq!(
        at(millis(10_001)).await,
        (timed_out(millis(10_001), TimeoutScope::Item, 4), millis(10_001), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_item_timeout_includes_the_wait_for_a_permit() {
    // Items 2 and 3 hold both permits from 3 s on, the retry of item 0 is due at 4 s, its limit is at 5 s.
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
async fn rule_12_each_waiting_item_has_its_own_timeout() {
    // Items 0 and 1 wait for a permit behind 2, 3 and 4, and give up at 10 s and 11 s, though item 1 is due first.
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
async fn rule_12_a_waiting_item_keeps_the_timeout_as_its_error() {
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
    // Items 2 and 3 hold the permits until 4.9 s and 5.9 s, so the retry gets one, for 0.1 s.
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
async fn rule_12_a_permit_at_the_time_limit_of_an_item_comes_too_late() {
    // The retry of item 0 is due at 25 ms. The permit is free again at 30 ms, which is the time limit of the item.
    for end in End::all() {
        for ends in [Some(Ok(2)), Some(Err("failed")), None] {
            let (log, task) = (Log::open(), lenient().concurrency(1).retries(3).retry_delay(millis(15)));
            let task = task.timeout_per_attempt(millis(10)).timeout_per_item(millis(30)).build().unwrap();
            let notes = log.clone();
            let plan = Plan::new(&task, stream::iter(0..3), move |cx, n| {
                notes.note((n, cx.attempt()));
                async move {
                    match ends.filter(|_| n == 2) {
                        Some(result) => after(millis(10), result).await,
                        None => pending().await,
                    }
                }
            });
            let report = plan.run(end).await;
            let first = report.outcomes.iter().find(|(index, _)| *index == 0);
            let expected = timed_out(millis(10), TimeoutScope::Attempt, 1);
            assert_eq!(first, Some(&(0, Err(expected))), "{end:?}, {ends:?}");
            assert_eq!(log.timed()[..3], [(0, (0, 1)), (10, (1, 1)), (20, (2, 1))], "{end:?}, {ends:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_nearest_limit_is_reported() {
    // An attempt that starts when less than its own limit is left of the item's ends at the item's limit.
    let at = async |retries: u32, attempt: Duration, item: Duration| {
        let builder = lenient().retries(retries).retry_delay(Duration::ZERO);
        let task = builder.timeout_per_attempt(attempt).timeout_per_item(item).build().unwrap();
        let result = task.run([()], |()| pending::<Result<(), &str>>()).await.unwrap();
        (result.errors[&0].clone(), result.summary.elapsed)
    };
    assert_eq!(at(0, secs(2), secs(3)).await, (timed_out(secs(2), TimeoutScope::Attempt, 1), secs(2)));
    assert_eq!(at(1, secs(2), secs(3)).await, (timed_out(secs(3), TimeoutScope::Item, 2), secs(3)));
    assert_eq!(at(1, secs(2), secs(4)).await, (timed_out(secs(2), TimeoutScope::Attempt, 2), secs(4)));
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_run_timeout_begins_at_the_first_poll() {
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
async fn rule_12_no_retry_waits_beyond_the_run_timeout() {
    for (limit, attempts, elapsed) in
        [(secs(1), 1, 0), (millis(1_001), 2, 1_000), (millis(999), 1, 0), (secs(3), 2, 1_000)]
    {
        let task = lenient().retries(9).run_timeout(limit).build().unwrap();
        let result = task.run([()], |()| async { Err::<(), _>("no") }).await.unwrap();
        assert_eq!(result.errors[&0], failed("no", attempts), "limit {limit:?}");
        assert_eq!(result.summary.elapsed, millis(elapsed), "limit {limit:?}");
    }
    // The same with the delay that the error requests.
    let task = lenient().retries(9).max_retry_delay(Duration::MAX).run_timeout(HOUR).build().unwrap();
    for wait in [HOUR, Duration::MAX] {
        let run = task.run([()], |()| async { Err::<(), _>("no") }).retry_after(|_| Some(wait));
        assert_eq!(run.await.unwrap().summary.elapsed, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_deadline_is_the_nearest_of_three_limits() {
    let log = Log::open();
    let task = lenient()
        .retries(2)
        .timeout_per_attempt(secs(4))
        .timeout_per_item(secs(7))
        .run_timeout(secs(9))
        .concurrency(1)
        .look_ahead(1)
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

#[tokio::test(start_paused = true)]
async fn rule_14_a_result_beats_a_timeout_of_the_same_poll() {
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
async fn rule_14_a_result_found_after_the_limit_counts() {
    // The run was not polled between the end of the items and their limit.
    let task = lenient().timeout_per_attempt(secs(2)).build().unwrap();
    let mut run = task.run(0..4, |n| sleep(secs(n)).map(Ok::<_, &str>));
    assert!(futures::poll!(&mut run).is_pending());
    sleep(secs(60)).await;
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.timeouts), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_result_at_the_run_timeout_is_kept() {
    let task = lenient().run_timeout(secs(2)).build().unwrap();
    let run = task.run([1, 2, 2, 3], |n| sleep(secs(n)).map(Ok::<_, &str>));
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }));
    assert_eq!((error.partial().successes(), error.partial().cancelled()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_14_a_run_can_finish_at_its_timeout() {
    let task = AsyncMapTask::builder().run_timeout(secs(2)).build().unwrap();
    let result = task.run([1, 2, 2], |n| sleep(secs(n)).map(Ok::<_, &str>)).await;
    let result = result.expect("every item had succeeded by then");
    assert_eq!((result.successes(), result.summary.elapsed), (3, secs(2)));
}

#[tokio::test(start_paused = true)]
async fn rule_33_a_paused_clock_takes_no_real_time() {
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
async fn rule_33_limits_are_instants_of_the_paused_clock() {
    // An attempt that knows its deadline can use all of its time.
    let task = AsyncMapTask::builder().timeout_per_attempt(HOUR).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, _| async move {
        sleep_until(cx.deadline().unwrap()).await;
        Ok::<_, String>(())
    });
    assert_eq!(run.await.unwrap().summary.elapsed, HOUR);
}
