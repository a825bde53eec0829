//! The rules that apply to every end of a run, regardless of how its items are polled.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_map_task::{ItemContext, Limiter};
use futures::stream::{self, StreamExt};
use tokio::sync::{Barrier, Mutex, Semaphore};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::every_end::{End, Plan, Terminal};
use crate::support::{
    Gauge, HOUR, Log, Woken, after, at_once, in_time, lenient, let_others_run, millis, poll_times, retrying,
    secs,
};

/// Lets every task proceed as far as it can.
async fn settle() {
    sleep(millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn rule_02_every_end_keeps_the_bound() {
    for end in End::all() {
        for (concurrency, items) in [(1, 5), (3, 10), (4, 4), (8, 5), (usize::MAX, 200)] {
            let task = at_once(concurrency).build().unwrap();
            let (plan, running, latch) = Plan::behind_a_latch(&task, items as u64);
            let run = tokio::spawn(plan.run(end));
            for done in 0..=items {
                settle().await;
                let bound = concurrency.min(items - done);
                let what = format!("{end:?}: {done} of {items} are done, {concurrency} may run");
                assert_eq!((running.now(), running.ever()), (bound, done + bound), "{what}");
                latch.add_permits(1);
            }
            let report = run.await.unwrap();
            assert_eq!((report.summary.successes, report.indices().len()), (items, items), "{end:?}");
            assert_eq!(running.peak(), concurrency.min(items), "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_no_item_overtakes_a_heavy_one() {
    // The private limit, the shared one and both are exhausted in turn.
    for (concurrency, permits) in [(6, None), (100, Some(6)), (6, Some(6)), (6, Some(7)), (7, Some(6))] {
        for end in End::all() {
            let limiter = Limiter::new(permits.unwrap_or(1_000));
            let task = at_once(concurrency);
            let task = if permits.is_some() { task.limiter(&limiter) } else { task };
            let task = task.build().unwrap();
            let log = Log::open();
            let latches: Arc<[_]> = (0..7).map(|_| Semaphore::new(0)).collect();
            let (started, opened) = (log.clone(), Arc::clone(&latches));
            let call = move |cx: ItemContext, n| {
                started.note(cx.index());
                let opened = Arc::clone(&opened);
                async move {
                    opened[cx.index()].acquire().await.unwrap().forget();
                    Ok(n)
                }
            };
            // The items are their weights. 0 counts as 1.
            let plan = Plan::new(&task, stream::iter([3, 2, 1, 4, 0, 6, 1]), call);
            let run = tokio::spawn(plan.weight(|n| n as u32).run(end));
            let mut seen = Vec::new();
            for latch in &*latches {
                settle().await;
                let of_limiter = permits.map(|_| limiter.in_use());
                seen.push((log.lines().len(), of_limiter));
                latch.add_permits(1);
            }
            let what = format!("{end:?}, {concurrency} and {permits:?}");
            // The item of weight 4 starts when 3 and 2 have ended, and a light one with it. The item of weight 6 waits for
            // all others to end, and the last one waits behind it.
            let expected = [(3, 6), (3, 3), (5, 6), (5, 5), (5, 1), (6, 6), (7, 1)];
            assert_eq!(seen, expected.map(|(started, used)| (started, permits.map(|_| used))), "{what}");
            assert_eq!(run.await.unwrap().summary.successes, 7, "{what}");
            // With `parallel()`, tasks may call the function in another order, at the same moment.
            let mut starts = log.timed();
            starts.sort_unstable();
            assert!(starts.iter().map(|(_, index)| *index).eq(0..7), "{what}: {starts:?}");
            assert_eq!(limiter.in_use(), 0, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_due_retry_starts_before_a_new_item() {
    for end in End::all() {
        let limiter = Limiter::new(2);
        let log = Log::open();
        let (started, seen) = (log.clone(), limiter.clone());
        let call = move |cx: ItemContext, n| {
            started.note((n, cx.attempt()));
            async move {
                sleep(millis(1)).await;
                if cx.attempt() == 1 { Err("again") } else { Ok(n) }
            }
        };
        let task = retrying(2).look_ahead(2).limiter(&limiter).build().unwrap();
        let run = tokio::spawn(Plan::new(&task, stream::iter(0..9), call).run(end));
        sleep(millis(500)).await;
        // Two may wait. A third one may have been on its way when the second joined the first.
        let mut first = log.lines();
        first.sort_unstable();
        assert!(first == [(0, 1), (1, 1), (2, 1)] || (end.parallel && first == [(0, 1), (1, 1)]), "{end:?}");
        assert_eq!(seen.in_use(), 0, "{end:?}: what waits holds nothing");
        sleep(millis(600)).await;
        let mut again = log.lines()[first.len()..2 * first.len()].to_vec();
        again.sort_unstable();
        let retries: Vec<_> = first.iter().map(|(n, _)| (*n, 2)).collect();
        assert_eq!(again, retries, "{end:?}: retries go first");
        let report = run.await.unwrap();
        assert_eq!((report.summary.successes, report.summary.retries), (9, 9), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_items_that_wait_for_one_another_are_all_polled() {
    for end in End::all() {
        // Four items meet at a time. Then they share a lock over an await, while the source stalls and the limit of each
        // attempt runs.
        let (barrier, lock) = (Arc::new(Barrier::new(4)), Arc::new(Mutex::new(())));
        let call = move |_: ItemContext, n| {
            let (barrier, lock) = (Arc::clone(&barrier), Arc::clone(&lock));
            async move {
                barrier.wait().await;
                let _held = lock.lock().await;
                yield_now().await;
                sleep(millis(100)).await;
                Ok(n)
            }
        };
        let source = stream::iter(0..40).then(|n| after(if n % 4 == 0 { HOUR } else { secs(0) }, n));
        let task = at_once(4).timeout_per_attempt(secs(1)).build().unwrap();
        let run = Plan::new(&task, source, call).run(end);
        let report = in_time(run).await;
        assert_eq!((report.summary.successes, report.summary.timeouts), (40, 0), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_24_a_failure_behind_a_slow_head_stops_the_run() {
    for end in End::all() {
        for (fail_fast, reason) in
            [(true, "FailFast { index: 2 }"), (false, "TooManyFailures { failures: 1, allowed: 0 }")]
        {
            let begun = Instant::now();
            let task = at_once(3).fail_fast(fail_fast).build().unwrap();
            let call = |_: ItemContext, n| async move {
                match n {
                    0 => pending().await,
                    1 => after(millis(500), Ok(n)).await,
                    2 => after(secs(1), Err("no")).await,
                    _ => after(secs(2), Ok(n)).await,
                }
            };
            let report = Plan::new(&task, stream::iter(0..9), call).run(end).await;
            assert_eq!(begun.elapsed(), secs(1), "{end:?}");
            assert_eq!(report.reason.as_deref(), Some(reason), "{end:?}");
            // Settled outcomes are given although the head never ended.
            assert_eq!(report.indices(), [1, 2], "{end:?}");
            let summary = &report.summary;
            assert_eq!([summary.cancelled, summary.not_started], [2, 5], "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_dropped_at_any_poll_leaves_nothing() {
    for end in End::all() {
        // The run of a dropped handle continues. `rules_handle.rs` tests it when it is cancelled.
        if end.terminal == Terminal::Spawn {
            continue;
        }
        let (mut ended, mut dropped_in_sink) = (false, 0);
        for polls in 0.. {
            if ended {
                assert!(polls > 10, "{end:?}: only {polls} polls");
                break;
            }
            let [functions, sources, attempts, sinks] = [(); 4].map(|()| Gauge::default());
            let limiter = Limiter::new(2);
            let task = lenient()
                .concurrency(3)
                .limiter(&limiter)
                .retries(1)
                .retry_delay(millis(5))
                .timeout_per_attempt(millis(20))
                .run_timeout(secs(9))
                .cancel_grace(millis(3))
                .build()
                .unwrap();
            let (in_source, in_function, in_attempt) = (sources.enter(), functions.enter(), attempts.clone());
            let source = stream::iter(0..12).then(move |n| {
                let _held = &in_source;
                after(millis(n % 3), n)
            });
            let call = move |cx: ItemContext, n| {
                let (_held, alive) = (&in_function, in_attempt.enter());
                async move {
                    let _alive = alive;
                    match n % 4 {
                        0 if cx.attempt() == 1 => Err("again"),
                        1 => pending().await,
                        2 => after(millis(n), Ok(n)).await,
                        _ => Ok(n),
                    }
                }
            };
            let in_sink = sinks.clone();
            let plan = Plan::new(&task, source, call).sink(move |index| {
                let alive = in_sink.enter();
                async move {
                    let _alive = alive;
                    sleep(millis(index as u64 % 3 * 4)).await;
                    Ok(())
                }
            });
            let (items, results) = (plan.items.clone(), plan.results.clone());
            let woken = Arc::new(Woken::default());
            {
                let mut run = pin!(plan.run(end));
                if let Some(report) = poll_times(run.as_mut(), polls, &woken).await {
                    assert_eq!(report.summary.successes, 9, "{end:?}");
                    ended = true;
                }
                dropped_in_sink += sinks.now();
            }
            let what = format!("{end:?}, dropped after {polls} polls");
            if end.parallel || end.terminal == Terminal::Stream {
                // Items that ran in other tasks have been aborted, and are dropped when these tasks are polled.
                let_others_run().await;
            }
            let left = [&functions, &sources, &attempts, &sinks, &items, &results].map(Gauge::now);
            assert_eq!(left, [0; 6], "{what}");
            assert_eq!(limiter.in_use(), 0, "{what}");
            assert!(format!("{limiter:?}").contains("waiting: 0"), "{what}: {limiter:?}");
            assert_eq!(Arc::strong_count(&woken), 1, "{what}: something still waits");
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{what}");
        }
        assert_eq!(dropped_in_sink > 0, end.gives_outcomes(), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_an_ended_run_leaves_nothing() {
    // Every end: success, stopped by a failure, cancelled, timed out.
    for end in End::all() {
        for cause in ["", "FailFast { index: 5 }", "Cancelled", "TimedOut { limit: 1s }"] {
            let (alive, limiter, token) = (Gauge::default(), Limiter::new(3), CancellationToken::new());
            let mut task = lenient().concurrency(4).limiter(&limiter);
            if cause.starts_with("FailFast") {
                task = task.fail_fast(true);
            }
            if cause.starts_with("TimedOut") {
                task = task.run_timeout(secs(1));
            }
            let (running, stop) = (alive.clone(), token.clone());
            let call = move |_: ItemContext, n| {
                let (alive, stop) = (running.enter(), stop.clone());
                async move {
                    let _alive = alive;
                    sleep(millis(10 * n)).await;
                    match (n, cause) {
                        (5, "FailFast { index: 5 }") => Err("no"),
                        (5, "Cancelled") => {
                            stop.cancel();
                            Ok(n)
                        }
                        (7, "TimedOut { limit: 1s }") => pending().await,
                        _ => Ok(n),
                    }
                }
            };
            let plan = Plan::new(&task.build().unwrap(), stream::iter(0..20), call).token(&token);
            let (items, results) = (plan.items.clone(), plan.results.clone());
            let mut run = Box::pin(plan.run(end));
            let report = (&mut run).await;
            // The run itself still exists, as a future that has ended.
            assert_eq!(report.reason.unwrap_or_default(), cause, "{end:?}");
            let left = [alive.now(), items.now(), results.now(), limiter.in_use()];
            assert_eq!(left, [0; 4], "{end:?}, {cause}");
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{end:?}, {cause}");
            drop(run);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_30_each_settled_item_is_given_once() {
    for end in End::all() {
        for stops in [false, true] {
            let calls = Arc::new(AtomicUsize::new(0));
            let sunk = Arc::clone(&calls);
            let call = |cx: ItemContext, n| async move {
                sleep(millis(n * 7 % 10)).await;
                match n % 6 {
                    2 if cx.attempt() == 1 => Err("again"),
                    3 => Err("no"),
                    4 => panic!("bad"),
                    _ => Ok(n * 10),
                }
            };
            let task = retrying(4).look_ahead(12);
            let task = if stops { task.max_failures(9) } else { task };
            let plan = Plan::new(&task.build().unwrap(), stream::iter(0..60), call).sink(move |_| {
                sunk.fetch_add(1, SeqCst);
                async {
                    yield_now().await;
                    Ok(())
                }
            });
            let report = plan.run(end).await;
            let summary = &report.summary;
            let settled = summary.successes + summary.failures;
            assert_eq!(report.outcomes.len(), settled, "{end:?}: {summary}");
            let indices = report.sorted_indices();
            assert!(indices.windows(2).all(|pair| pair[0] < pair[1]), "{end:?}: given twice: {indices:?}");
            for (index, result) in &report.outcomes {
                let attempts = result.as_ref().err().map(|error| error.attempts());
                let expected = match index % 6 {
                    3 => Some(2),
                    4 => Some(1),
                    _ => None,
                };
                assert_eq!(attempts, expected, "{end:?}: item {index}");
                if let Ok(n) = result {
                    assert_eq!(*n, *index as u64 * 10, "{end:?}: item {index}");
                }
            }
            let failures = report.outcomes.iter().filter(|(_, result)| result.is_err()).count();
            assert_eq!(failures, summary.failures, "{end:?}");
            if stops {
                let reason = "TooManyFailures { failures: 10, allowed: 9 }";
                assert_eq!(report.reason.as_deref(), Some(reason), "{end:?}");
                assert!(summary.cancelled > 0 && summary.not_started > 0, "{end:?}: {summary}");
            } else {
                assert_eq!((report.reason, settled), (None, 60), "{end:?}");
            }
            if end.gives_outcomes() {
                assert_eq!(calls.load(SeqCst), settled, "{end:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_31_ordered_gives_outcomes_in_input_order() {
    for end in End::giving() {
        let settled = Log::open();
        let log = settled.clone();
        let call = move |_: ItemContext, n: u64| {
            let log = log.clone();
            async move {
                sleep(millis(1 + n * 37 % 50)).await;
                log.note(n as usize);
                if n % 9 == 8 { Err("no") } else { Ok(n) }
            }
        };
        let task = lenient().concurrency(5).build().unwrap();
        let report = Plan::new(&task, stream::iter(0..100), call).run(end).await;
        let indices = report.indices();
        assert_eq!(report.sorted_indices(), (0..100).collect::<Vec<_>>());
        if end.ordered {
            assert!(indices.is_sorted(), "{end:?}: {indices:?}");
        } else {
            assert_eq!(indices, settled.lines(), "{end:?}");
            assert!(!indices.is_sorted(), "{end:?}");
        }
    }
}
