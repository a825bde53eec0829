//! Rule 39: a hold lets nothing begin for a time, and spreads what has waited.

use std::time::Duration;

use async_map_task::{ItemContext, ItemError, KeyedLimiter, Limiter};
use futures::stream;
use tokio::time::{Instant, sleep};
use tracing::level_filters::LevelFilter;

use crate::every_end::{End, Plan};
use crate::recorded_trace::listen;
use crate::support::{HOUR, Log, at_once, lenient, millis, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_39_nothing_begins_in_a_hold_and_what_runs_continues() {
    for end in End::all() {
        let limiter = Limiter::new(4);
        let task = at_once(2).limiter(&limiter).build().unwrap();
        let ((one, one_log), (two, two_log)) =
            (Plan::of_weights(&task, &[1; 4], secs(2)), Plan::of_weights(&task, &[1; 2], secs(2)));
        let one = tokio::spawn(one.run(end));
        sleep(secs(1)).await;
        limiter.hold_back(secs(40));
        let two = tokio::spawn(two.run(end));
        for run in [one, two] {
            let report = run.await.unwrap();
            assert_eq!((report.reason, report.summary.cancelled), (None, 0), "{end:?}");
        }
        assert_eq!(one_log.times()[..2], [0, 0], "{end:?}");
        // The hold ends at 41 s. In the 4 s after it, four permits make one start a second.
        let mut starts = one_log.times()[2..].to_vec();
        starts.extend(two_log.times());
        starts.sort_unstable();
        assert_eq!(starts, [41_000, 42_000, 43_000, 44_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_39_a_hold_extends_another_and_does_not_shorten_it() {
    let limiter = Limiter::builder().permits(10).max_hold(secs(60)).build().unwrap();
    let begun = Instant::now();
    limiter.hold_back(secs(20));
    limiter.hold_back(secs(10));
    let permit = limiter.acquire().await.unwrap();
    assert_eq!(begun.elapsed(), secs(20));
    limiter.hold_back(secs(5));
    sleep(secs(1)).await;
    // It is counted from now, and is at most `max_hold`.
    limiter.hold_back(HOUR);
    assert!(limiter.try_acquire().is_none());
    drop(limiter.acquire().await.unwrap());
    assert_eq!(begun.elapsed(), secs(81));
    drop(permit);
    let begun = Instant::now();
    let default = Limiter::new(1);
    default.hold_back(HOUR);
    drop(default.acquire().await.unwrap());
    assert_eq!(begun.elapsed(), secs(300));
}

/// A request that waits already learns that its time has moved.
#[tokio::test(start_paused = true)]
async fn rule_39_a_hold_delays_requests_that_wait() {
    let limiter = Limiter::builder().permits(1).rate(1, secs(10)).build().unwrap();
    let begun = Instant::now();
    let permit = limiter.acquire().await.unwrap();
    let (by_rate, log) = (limiter.clone(), Log::open());
    let notes = log.clone();
    let waiting = tokio::spawn(async move {
        let permit = by_rate.acquire().await.unwrap();
        notes.note(());
        drop(permit);
    });
    sleep(secs(5)).await;
    limiter.hold_back(secs(20));
    // The permit comes back in the hold, and the rate has allowed the start since 10 s.
    sleep(secs(10)).await;
    drop(permit);
    waiting.await.unwrap();
    assert_eq!((begun.elapsed(), log.times()), (secs(25), vec![25_000]));
}

#[tokio::test(start_paused = true)]
async fn rule_39_a_rate_has_no_burst_after_a_hold() {
    let limiter = Limiter::builder().rate(10, secs(1)).burst(5).build().unwrap();
    limiter.hold_back(secs(60));
    let task = at_once(9).limiter(&limiter).build().unwrap();
    let (plan, log) = Plan::of_weights(&task, &[1; 7], millis(1));
    plan.run(End::all().next().unwrap()).await;
    assert_eq!(log.times(), [60_000, 60_100, 60_200, 60_300, 60_400, 60_500, 60_600]);
    sleep(HOUR).await;
    let (plan, log) = Plan::of_weights(&task, &[1; 7], millis(1));
    plan.run(End::all().next().unwrap()).await;
    assert_eq!(log.times(), [0, 0, 0, 0, 0, 100, 200], "a pause without a hold gives the burst");
}

/// One item is refused at its first attempt.
fn refused_once(cx: &ItemContext, n: u32) -> Result<u32, &'static str> {
    if n == 2 && cx.attempt() == 1 { Err("429") } else { Ok(n) }
}

/// Without a limiter, the error holds back the run itself, and `concurrency` is the number of its permits.
#[tokio::test(start_paused = true)]
async fn rule_39_an_error_holds_back_its_run() {
    for parallel in [false, true] {
        let (log, (memory, guard)) = (Log::open(), listen(LevelFilter::INFO));
        let notes = log.clone();
        let task = retrying(4).retry_delay(secs(1)).name("fetch").build().unwrap();
        let run = task
            .over(0..8_u32)
            .map_with_context(move |cx, n| {
                notes.note((n, cx.attempt()));
                async move {
                    sleep(secs(1)).await;
                    refused_once(&cx, n)
                }
            })
            .hold_back(|error| (*error == "429").then_some(secs(40)))
            .label(|n| format!("no. {n}"));
        let result = if parallel { run.parallel().await } else { run.await }.unwrap();
        drop(guard);
        assert_eq!((result.successes(), result.summary.retries), (8, 1));
        // Item 2 ends at 1 s. Items 0 and 1 have ended before it in the same instant, so their successors may have started.
        let late: Vec<_> = log.times().into_iter().filter(|at| *at > 1_000).collect();
        let first = late[0];
        assert_eq!(first, 41_000, "{:?}", log.timed());
        let gaps: Vec<_> = late.iter().map(|at| at - first).collect();
        assert_eq!(gaps, (0..late.len() as u64).map(|k| k * 1_000).collect::<Vec<_>>(), "{:?}", log.timed());
        let holds = memory.events("an error holds back all items");
        assert_eq!(holds.len(), 1);
        assert_eq!((holds[0].fields.get("label"), holds[0].fields.get("hold")), (Some("no. 2"), Some("40s")));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_39_an_error_holds_back_the_limiter_also_if_it_is_not_retried() {
    let limiter = Limiter::new(8);
    let task = lenient().concurrency(1).limiter(&limiter).build().unwrap();
    let run = task.over([1]).map(|_| async { Err::<(), _>("quota") }).hold_back(|_| Some(secs(30)));
    let begun = Instant::now();
    let result = run.await.unwrap();
    assert_eq!((result.failures(), begun.elapsed()), (1, Duration::ZERO));
    assert!(limiter.try_acquire().is_none());
    drop(limiter.acquire().await.unwrap());
    assert_eq!(begun.elapsed(), secs(30));
}

#[tokio::test(start_paused = true)]
async fn rule_39_timeouts_and_panics_hold_nothing_back() {
    let task = lenient().concurrency(1).timeout_per_attempt(secs(1)).build().unwrap();
    let begun = Instant::now();
    let run = task.over(0..3_u32).map(|n| async move {
        match n {
            0 => std::future::pending().await,
            1 => panic!("no"),
            _ => Ok::<_, String>(()),
        }
    });
    let result = run.hold_back(|_| -> Option<Duration> { panic!("it is not called") }).await.unwrap();
    assert_eq!((result.failures(), begun.elapsed()), (2, secs(1)));
}

/// Rule 12: a hold is a known time, so a run does not wait for a retry that would come too late.
#[tokio::test(start_paused = true)]
async fn rule_39_no_wait_for_a_retry_after_a_hold_that_ends_too_late() {
    for (hold, attempts) in [(20, 2), (60, 1)] {
        let task = lenient()
            .concurrency(1)
            .retries(1)
            .retry_delay(secs(1))
            .timeout_per_item(secs(30))
            .build()
            .unwrap();
        let run = task.over([1]).map(|_| async { Err::<(), _>("429") }).hold_back(|_| Some(secs(hold)));
        let result = run.await.unwrap();
        assert!(matches!(result.errors[&0], ItemError::Failed { attempts: found, .. } if found == attempts));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_39_a_hold_does_not_delay_the_end_of_a_run() {
    for end in End::all() {
        let limiter = Limiter::new(2);
        let task = at_once(2).limiter(&limiter).run_timeout(secs(10)).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..5), |_, n| async move { Ok(n) });
        limiter.hold_back(secs(200));
        let begun = Instant::now();
        let report = plan.run(end).await;
        assert_eq!((begun.elapsed(), report.summary.not_started >= 1), (secs(10), true), "{end:?}");
        assert_eq!((limiter.waiting(), limiter.in_use()), (0, 0), "{end:?}");
    }
}

/// An attempt can have the permit of its key while it waits for one of a limiter. Then a hold of its key still delays it.
#[tokio::test(start_paused = true)]
async fn rule_39_a_hold_of_a_key_delays_an_attempt_that_waits_for_a_limiter() {
    let rate = Limiter::builder().rate(1, secs(1)).build().unwrap();
    for (all, other) in [(rate, None), (Limiter::new(1), None), (Limiter::new(1), Some(millis(100)))] {
        let keys = KeyedLimiter::new(2);
        let task = lenient().concurrency(8).limiter(&all).retries(1).build().unwrap();
        let log = &Log::open();
        // Without `other`, the run itself holds the key.
        let is_refused = |n, attempt| n == 0 && attempt == 1 && other.is_none();
        let run = task
            .over(0..3)
            .map_with_context(|cx, n| async move {
                log.note(n);
                sleep(millis(500)).await;
                if is_refused(n, cx.attempt()) { Err("429") } else { Ok(()) }
            })
            .limit_per(|_| "key", &keys)
            .hold_back(|_| Some(secs(10)));
        let hold = async {
            if let Some(time) = other {
                sleep(time).await;
                keys.hold_back(&"key", secs(10));
            }
        };
        let (result, ()) = tokio::join!(run, hold);
        assert_eq!(result.unwrap().successes(), 3);
        let begun = log.times();
        assert!(begun[0] == 0 && begun[1] >= 10_100, "{begun:?}");
    }
}
