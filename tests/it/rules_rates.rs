//! Rule 38: a rate bounds the attempts that begin, and is used. Also `acquire`, whose requests wait in the same queue.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{ItemError, Limiter};
use futures::future::join_all;
use futures::{FutureExt, poll, stream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::every_end::{End, Plan};
use crate::support::{HOUR, Log, Random, after, at_once, lenient, let_others_run, millis, paused, secs};

/// Returns how many of these times, in milliseconds, are in the fullest window of this length, both ends included.
fn most_within(times: &[u64], window: u64) -> usize {
    (0..times.len())
        .map(|from| times[from..].iter().take_while(|at| **at <= times[from] + window).count())
        .max()
        .unwrap_or(0)
}

/// Checks that each window of the times has at most `burst + (window + 10 ms) x count / period` of them.
fn check_rate(times: &[u64], burst: u64, count: u64, period: u64) {
    for window in [0, 1, 5, 20, 50, 100, 500, 1_000, 5_000, 60_000] {
        // A time is cut to its millisecond, so a window can be up to a millisecond longer.
        let allowed = burst + (window + 1 + 10) * count / period;
        let most = most_within(times, window);
        assert!(most as u64 <= allowed, "{most} in {window} ms, {allowed} allowed: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_attempts_begin_one_interval_apart() {
    for end in End::all() {
        let limiter = Limiter::per_second(50);
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1; 9], millis(1));
        let report = plan.run(end).await;
        assert_eq!((report.reason, report.summary.successes), (None, 9), "{end:?}");
        assert_eq!(log.times(), [0, 20, 40, 60, 80, 100, 120, 140, 160], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_retries_count_and_a_burst_comes_at_once() {
    for end in End::all() {
        let limiter = Limiter::builder().rate(10, secs(1)).burst(3).build().unwrap();
        let task =
            lenient().concurrency(9).retries(1).retry_delay(millis(10)).limiter(&limiter).build().unwrap();
        let log = Log::open();
        let notes = log.clone();
        let plan = Plan::new(&task, stream::iter(0..3), move |cx, n| {
            notes.note((n, cx.attempt()));
            async move { if cx.attempt() == 1 { Err("again") } else { Ok(n) } }
        });
        let report = plan.run(end).await;
        assert_eq!((report.summary.successes, report.summary.retries), (3, 3), "{end:?}");
        let expected = [(0, (0, 1)), (0, (1, 1)), (0, (2, 1)), (100, (0, 2)), (200, (1, 2)), (300, (2, 2))];
        assert_eq!(log.timed(), expected, "{end:?}");
        // After a pause, the burst is there again, and no more than that.
        sleep(HOUR).await;
        let (plan, log) = Plan::of_weights(&task, &[1; 5], millis(1));
        plan.run(end).await;
        assert_eq!(log.times(), [0, 0, 0, 100, 200], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_a_weight_takes_as_many_starts() {
    for end in End::all() {
        let limiter = Limiter::builder().rate(10, secs(1)).burst(3).build().unwrap();
        let task = at_once(9).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[2, 2, 5, 1, 1], millis(1));
        plan.run(end).await;
        // 2 of 3; 2 after one more; 5 when all 3 are there; 1 after the debt of 2 and one more.
        assert_eq!(log.timed(), [(0, 2), (100, 2), (400, 5), (700, 1), (800, 1)], "{end:?}");
    }
}

/// A rate that is awaited inside the function would count toward the time limit: 672 of these 704 items would time out.
#[tokio::test(start_paused = true)]
async fn rule_38_the_wait_counts_toward_no_limit_of_the_attempt_and_holds_no_permit() {
    for end in End::all() {
        let limiter = Limiter::per_second(50);
        let task = lenient()
            .concurrency(64)
            .limiter(&limiter)
            .timeout_per_attempt(secs(1))
            .timeout_per_item(secs(1));
        let task = task.build().unwrap();
        let watched = limiter.clone();
        let most_in_use = Arc::new(Mutex::new(0));
        let most = Arc::clone(&most_in_use);
        let plan = Plan::new(&task, stream::iter(0..704), move |_, n| {
            let mut most = most.lock().unwrap();
            *most = (*most).max(watched.in_use());
            after(millis(10), Ok(n))
        });
        let report = plan.run(end).await;
        assert_eq!((report.summary.successes, report.summary.timeouts), (704, 0), "{end:?}");
        assert_eq!(
            *most_in_use.lock().unwrap(),
            1,
            "{end:?}: an item takes 10 ms, the next comes after 20 ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_a_run_that_waits_for_the_rate_can_be_stopped_and_leaves_the_queue() {
    for end in End::all() {
        let limiter = Limiter::builder().rate(1, HOUR).build().unwrap();
        let task = at_once(4).limiter(&limiter).run_timeout(secs(5)).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1; 3], millis(1));
        let begun = Instant::now();
        let report = plan.run(end).await;
        assert!(report.reason.unwrap().starts_with("TimedOut"), "{end:?}");
        assert_eq!(
            (begun.elapsed(), report.summary.not_started, log.lines().len()),
            (secs(5), 2, 1),
            "{end:?}"
        );
        assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0), "{end:?}");
        // The waiting item has consumed nothing: the next start is due an hour after the first.
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1], millis(1));
        plan.run(end).await;
        assert_eq!(log.times(), [3_600_000 - 5_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_a_paused_run_does_not_hold_up_another() {
    for end in End::of(crate::every_end::Terminal::Spawn) {
        let limiter = Limiter::per_second(1);
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1; 3], millis(1));
        let handle = plan.spawn(end);
        sleep(millis(500)).await;
        handle.pause();
        let (other, other_log) = Plan::of_weights(&task, &[1; 2], millis(1));
        other.run(end).await;
        assert_eq!(other_log.times(), [500, 1_500], "{end:?}");
        handle.resume();
        assert_eq!(handle.await.unwrap().successes(), 3);
        assert_eq!(log.times(), [0, 3_000, 4_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_38_a_new_rate_takes_effect_at_once() {
    for end in End::all() {
        let limiter = Limiter::builder().rate(1, HOUR).build().unwrap();
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1; 4], millis(1));
        let run = tokio::spawn(plan.run(end));
        sleep(secs(1)).await;
        limiter.set_rate(10, secs(1)).unwrap();
        run.await.unwrap();
        // The start an hour ahead is one interval of 100 ms, of which a second's part has passed.
        let starts = log.times();
        assert_eq!(starts[0], 0);
        assert!((1_099..=1_101).contains(&starts[1]), "{end:?}: {starts:?}");
        assert_eq!([starts[2] - starts[1], starts[3] - starts[2]], [100, 100], "{end:?}");
    }
    let error = Limiter::new(1).set_rate(0, secs(1)).unwrap_err();
    assert_eq!(error.to_string(), "rate must be at least 1 per period, got 0");
}

/// Rule 12: the time of the next grant is known, so a run does not wait for a retry that would come too late.
#[tokio::test(start_paused = true)]
async fn rule_38_no_wait_for_a_retry_after_the_deadline() {
    for end in End::all() {
        let limiter = Limiter::builder().rate(1, HOUR).build().unwrap();
        let task = lenient()
            .retries(3)
            .retry_delay(secs(1))
            .limiter(&limiter)
            .run_timeout(secs(60))
            .build()
            .unwrap();
        let plan = Plan::new(&task, stream::iter([1]), |_, _| async { Err("busy") });
        let begun = Instant::now();
        let report = plan.run(end).await;
        assert_eq!((begun.elapsed(), report.reason), (Duration::ZERO, None), "{end:?}");
        assert!(matches!(report.outcomes[0].1, Err(ItemError::Failed { attempts: 1, .. })), "{end:?}");
    }
}

/// Runs of every end and single callers share a rate, and some callers leave. No window has more starts than the rate allows,
/// and at least 99% of it is used while there is work.
#[tokio::test(start_paused = true)]
async fn rule_38_any_window_is_within_the_rate_and_the_rate_is_used() {
    let mut random = Random(38);
    let ends: Vec<_> = End::all().collect();
    for round in 0..120 {
        let (count, period) =
            [(50, 1_000), (3_000, 60_000), (999, 1_000), (5_000, 1_000), (20_000, 1_000), (7, 100)]
                [random.below(6) as usize];
        let burst = [1, 1, 5, 40][random.below(4) as usize];
        let limiter =
            Limiter::builder().rate(count as u32, millis(period)).burst(burst as u32).build().unwrap();
        let log = Log::open();
        let mut is_used = true;
        let runs: Vec<_> = (0..1 + random.below(4))
            .map(|_| {
                let end = ends[random.below(ends.len() as u64) as usize];
                let (concurrency, length) = (1 + random.below(30), random.below(3));
                // Otherwise the items of this run are too slow for the rate.
                is_used &= concurrency * period > 2 * count * length;
                let task = at_once(concurrency as usize).limiter(&limiter).build().unwrap();
                let notes = log.clone();
                let plan = Plan::new(&task, stream::iter(0..1 + random.below(400)), move |_, n| {
                    notes.note(());
                    async move {
                        if length > 0 {
                            sleep(millis(length)).await;
                        }
                        Ok(n)
                    }
                });
                tokio::spawn(async move { drop(plan.run(end).await) })
            })
            .collect();
        let callers: Vec<_> = (0..random.below(50))
            .map(|n| {
                let (limiter, log, start) = (limiter.clone(), log.clone(), random.below(300));
                tokio::spawn(async move {
                    sleep(millis(start)).await;
                    // Every third leaves before its time.
                    let patience = if n % 3 == 0 { millis(start / 10) } else { HOUR };
                    if let Ok(permit) = timeout(patience, limiter.acquire()).await {
                        log.note(());
                        drop(permit.unwrap());
                    }
                })
            })
            .collect();
        let last_caller = 300;
        join_all(runs.into_iter().chain(callers)).await.into_iter().for_each(Result::unwrap);
        let starts = log.times();
        check_rate(&starts, burst, count, period);
        let needed = (starts.len() as u64).saturating_sub(burst) * period / count;
        let took = starts.last().unwrap() - starts[0];
        assert!(
            !is_used || took <= needed * 101 / 100 + last_caller + 5,
            "round {round}: {} starts in {took} ms, {needed} needed, {count} per {period} ms",
            starts.len()
        );
        assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0), "round {round}");
    }
}

/// A rate above the resolution of Tokio's timer is used as well, also by a run of one item at a time.
#[tokio::test(start_paused = true)]
async fn rule_38_rates_above_a_thousand_a_second_are_used() {
    for end in End::all() {
        for (concurrency, wait) in [(1, 0), (100, 3)] {
            let limiter = Limiter::per_second(10_000);
            let task = at_once(concurrency).limiter(&limiter).build().unwrap();
            let plan = Plan::new(&task, stream::iter(0..5_000), move |_, n| async move {
                if wait > 0 {
                    sleep(millis(wait)).await;
                }
                Ok(n)
            });
            let begun = Instant::now();
            plan.run(end).await;
            let took = begun.elapsed();
            assert!(
                took >= millis(489) && took <= millis(506),
                "{end:?}: {took:?} for 5,000 at 10,000 a second"
            );
        }
    }
}

/// In real time and in two runtimes: the bound holds for the times that the clock shows.
#[test]
fn rule_38_several_runtimes_share_one_rate() {
    let limiter = Limiter::per_second(2_000);
    let starts = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (limiter, starts) = (limiter.clone(), Arc::clone(&starts));
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
                runtime.unwrap().block_on(async {
                    let task = at_once(8).limiter(&limiter).build().unwrap();
                    let runs = (0..4).map(|run| {
                        let starts = Arc::clone(&starts);
                        let run_of_items = task.over(0..100_u32).map(move |_| {
                            starts.lock().unwrap().push(std::time::Instant::now());
                            async { Ok::<_, String>(()) }
                        });
                        async move {
                            if run % 2 == 0 { run_of_items.parallel().await } else { run_of_items.await }
                                .unwrap();
                        }
                    });
                    join_all(runs).await;
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let starts = starts.lock().unwrap();
    assert_eq!((starts.len(), limiter.in_use(), limiter.waiting()), (800, 0, 0));
    // A thread can be stopped between its grant and its note, so only the whole is checked: 799 intervals of 0.5 ms, less the
    // 10 ms that a late start may make up for.
    let took = *starts.iter().max().unwrap() - *starts.iter().min().unwrap();
    assert!(took >= millis(385), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_permit_by_hand_counts_and_is_returned() {
    let limiter = Limiter::new(3);
    let (one, two) = (limiter.acquire().await.unwrap(), limiter.acquire_many(2).await.unwrap());
    assert_eq!((limiter.in_use(), limiter.try_acquire().is_none()), (3, true));
    let mut waiting = pin!(limiter.acquire_many(0));
    assert!(poll!(&mut waiting).is_pending());
    assert_eq!(limiter.waiting(), 1);
    drop(one);
    assert!(limiter.try_acquire().is_none(), "another waits");
    drop(waiting.await.unwrap());
    drop(two);
    assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0));
    let error = limiter.acquire_many(4).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "weight must be at most 3, the largest number of permits that the limiter has had, got 4"
    );
    assert_eq!(Limiter::per_second(0).acquire().await.unwrap_err().found(), "Limiter::per_second(0)");
}

#[tokio::test(start_paused = true)]
async fn rule_40_runs_and_callers_wait_in_one_queue() {
    for end in End::all() {
        let limiter = Limiter::new(1);
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let (plan, log) = Plan::of_weights(&task, &[1; 3], secs(10));
        let run = tokio::spawn(plan.run(end));
        sleep(secs(1)).await;
        let began = Instant::now();
        let permit = limiter.acquire().await.unwrap();
        // The second item was in the queue before, the third was not.
        assert_eq!(began.elapsed(), secs(19), "{end:?}");
        sleep(secs(5)).await;
        drop(permit);
        run.await.unwrap();
        assert_eq!(log.times(), [0, 10_000, 25_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_caller_that_leaves_has_consumed_nothing() {
    let limiter = Limiter::builder().permits(1).rate(1, secs(10)).build().unwrap();
    drop(limiter.acquire().await.unwrap());
    let began = Instant::now();
    let mut second = Box::pin(limiter.acquire());
    assert!(poll!(&mut second).is_pending());
    let mut third = Box::pin(limiter.acquire());
    assert!(poll!(&mut third).is_pending());
    drop(second);
    drop(third.await.unwrap());
    assert_eq!(began.elapsed(), secs(10), "as if the second had never asked");

    // Also one that was granted its permit, and leaves without it.
    let permit = limiter.acquire().now_or_never();
    assert!(permit.is_none());
    limiter.set_rate(1_000_000, secs(1)).unwrap();
    sleep(secs(20)).await;
    let permit = limiter.acquire().await.unwrap();
    let mut granted = Box::pin(limiter.acquire());
    assert!(poll!(&mut granted).is_pending());
    limiter.set_rate(1, secs(10)).unwrap();
    sleep(secs(20)).await;
    drop(permit);
    assert_eq!(limiter.in_use(), 1, "the permit went to the request");
    drop(granted);
    assert_eq!(limiter.in_use(), 0);
    assert!(limiter.try_acquire().is_some(), "its start was not used up");
    assert!(limiter.try_acquire().is_none());
}

/// The request that becomes the first in the queue is told its time.
#[tokio::test(start_paused = true)]
async fn rule_40_the_next_in_the_queue_is_told_its_time() {
    let limiter = Limiter::builder().permits(2).rate(1, secs(1)).build().unwrap();
    let log = Log::open();
    let callers: BTreeMap<_, _> = (0..6)
        .map(|n| {
            let (limiter, log) = (limiter.clone(), log.clone());
            let caller = tokio::spawn(async move {
                let permit = limiter.acquire().await.unwrap();
                log.note(n);
                sleep(millis(100)).await;
                drop(permit);
            });
            (n, caller)
        })
        .collect();
    let_others_run().await;
    sleep(millis(1_500)).await;
    callers[&2].abort();
    callers[&4].abort();
    yield_now().await;
    sleep(secs(9)).await;
    assert_eq!(log.timed(), [(0, 0), (1_000, 1), (2_000, 3), (3_000, 5)]);
}

#[test]
fn rule_40_a_request_without_a_time_needs_no_runtime() {
    let limiter = Limiter::new(1);
    let permit = limiter.acquire().now_or_never().unwrap().unwrap();
    assert!(limiter.acquire().now_or_never().is_none());
    drop(permit);
    assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0));
    // A request that was made in one runtime, and is awaited in another.
    let request = Box::pin(limiter.acquire());
    paused().block_on(async { drop(request.await.unwrap()) });
}

#[test]
fn the_builder_of_a_limiter_names_what_is_wrong() {
    let error = |builder: async_map_task::LimiterBuilder| builder.build().unwrap_err().to_string();
    let new = Limiter::builder;
    assert_eq!(error(new().permits(0)), "permits must be at least 1, got 0");
    assert_eq!(error(new().burst(5)), "burst must be set together with a rate, got 5");
    assert_eq!(error(new().rate(5, secs(1)).burst(0)), "burst must be at least 1, got 0");
    assert_eq!(
        error(new().max_hold(Duration::ZERO)),
        "max_hold must be above 0 and at most 24 hours, got 0ns"
    );
    assert_eq!(new().build().unwrap().permits(), usize::MAX);
}
