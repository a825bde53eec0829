//! `spawn` and its handle: a run that is observed and controlled from outside.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_map_task::{FailureReason, ItemContext, Progress};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use crate::every_end::{End, Plan, Terminal};
use crate::support::{Gauge, HOUR, Log, after, at_once, check_account, lenient, millis, retrying, secs};

/// The counts of a progress.
fn counts(progress: &Progress) -> [usize; 5] {
    let Progress { successes, failures, running, waiting_for_retry, retries, .. } = *progress;
    [successes, failures, running, waiting_for_retry, retries]
}

#[tokio::test(start_paused = true)]
async fn rule_27_the_progress_is_exact() {
    for end in End::of(Terminal::Spawn) {
        // Each takes a second; item 1 fails, waits nearly a second and succeeds; item 2 fails twice.
        let call = |cx: ItemContext, n| {
            let result = match (n, cx.attempt()) {
                (1, 1) | (2, _) => Err("no"),
                _ => Ok(n),
            };
            after(secs(1), result)
        };
        let task = retrying(3).retry_delay(millis(900)).build().unwrap();
        let handle = Plan::new(&task, stream::iter(0..10), call).spawn(end);
        // Not polled yet: the total is the promised one.
        let first = handle.progress();
        assert_eq!((first.total, first.elapsed, first.eta), (Some(10), secs(0), None));
        assert_eq!(counts(&first), [0; 5]);
        let expected = [
            ([0, 0, 3, 0, 0], None),
            // 0 is done, 1 and 2 wait; 3, 4 and 5 run: 1 of 10 in 1.5 s.
            ([1, 0, 3, 2, 0], Some(millis(13_500))),
            // The retries of 1 and 2 start before 6.
            ([4, 0, 3, 0, 2], Some(millis(3_750))),
            ([6, 1, 3, 0, 2], Some(millis(1_500))),
        ];
        for (expected, eta) in expected {
            sleep(millis(500)).await;
            let progress = handle.progress();
            assert_eq!((counts(&progress), progress.eta), (expected, eta), "{end:?}");
            sleep(millis(500)).await;
        }
        sleep(HOUR).await;
        let progress = handle.progress();
        assert_eq!((progress.total, progress.eta), (Some(10), Some(secs(0))));
        assert_eq!((counts(&progress), progress.elapsed), ([9, 1, 0, 0, 2], secs(4)), "{end:?}");
        let result = handle.await.unwrap();
        check_account(&result);
        assert_eq!((result.summary.elapsed, result.failures()), (secs(4), 1), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_watcher_receives_every_change_and_the_end() {
    for end in End::of(Terminal::Spawn) {
        let call = |_: ItemContext, n| after(secs(n), Ok(n));
        let source = stream::iter(0..6).filter(|_| std::future::ready(true));
        let handle = Plan::new(&at_once(1).build().unwrap(), source, call).spawn(end);
        let mut watch = handle.watch();
        let mut seen = Vec::new();
        while watch.changed().await.is_ok() {
            let progress = watch.borrow_and_update().clone();
            seen.push((progress.successes, progress.elapsed.as_secs()));
        }
        seen.dedup();
        for (done, at) in [(2, 1), (3, 3), (4, 6), (5, 10), (6, 15)] {
            assert!(seen.contains(&(done, at)), "{end:?}: {seen:?}");
        }
        let last = watch.borrow().clone();
        assert_eq!((last.total, last.successes, last.running, last.eta), (Some(6), 6, 0, Some(secs(0))));
        assert_eq!(handle.await.unwrap().successes(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_pause_only_prevents_starts() {
    for end in End::of(Terminal::Spawn) {
        let log = Log::open();
        let starts = log.clone();
        let call = move |cx: ItemContext, n| {
            starts.note((n, cx.attempt()));
            after(secs(2), if n == 0 && cx.attempt() == 1 { Err("again") } else { Ok(n) })
        };
        let handle = Plan::new(&retrying(2).build().unwrap(), stream::iter(0..5), call).spawn(end);
        sleep(secs(1)).await;
        handle.pause();
        sleep(secs(99)).await;
        assert_eq!(log.lines(), [(0, 1), (1, 1)], "{end:?}: neither a retry nor a new item starts");
        assert_eq!(counts(&handle.progress()), [1, 0, 0, 1, 0], "{end:?}");
        handle.resume();
        sleep(millis(1)).await;
        let mut resumed = log.timed()[2..].to_vec();
        resumed.sort_unstable();
        assert_eq!(resumed, [(100_000, (0, 2)), (100_000, (2, 1))], "{end:?}");
        assert_eq!(handle.await.unwrap().successes(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_a_pause_does_not_stop_the_run_timeout() {
    for end in End::of(Terminal::Spawn) {
        let task = lenient().run_timeout(secs(10)).build().unwrap();
        let handle = Plan::new(&task, stream::iter(0..9), |_, n| after(secs(1), Ok(n))).spawn(end);
        handle.pause();
        let begun = Instant::now();
        let error = handle.await.unwrap_err();
        assert!(matches!(error.reason(), FailureReason::TimedOut { .. }), "{error}");
        assert_eq!((begun.elapsed(), error.partial().not_started()), (secs(10), 9), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_02_a_new_concurrency_applies_as_items_end() {
    for end in End::of(Terminal::Spawn) {
        let (plan, running, latch) = Plan::behind_a_latch(&at_once(2).build().unwrap(), 100);
        let handle = plan.spawn(end);
        let mut done = 0;
        // The new concurrency, the number of items that end then, and the number that run after that.
        for (concurrency, ends, expected) in [
            (2, 0, 2),
            (7, 0, 7),
            (3, 0, 7),
            (3, 3, 4),
            (3, 1, 3),
            (3, 1, 3),
            // Raised again before all surplus attempts have ended.
            (1, 1, 2),
            (5, 0, 5),
            (4, 0, 5),
            (6, 0, 6),
            // 0 counts as 1.
            (0, 5, 1),
            (0, 3, 1),
            (64, 0, 64),
        ] {
            handle.set_concurrency(concurrency);
            sleep(millis(1)).await;
            latch.add_permits(ends);
            done += ends;
            sleep(millis(1)).await;
            let what = format!("{end:?}: {concurrency} may run after {done} have ended");
            assert_eq!((running.now(), handle.progress().running), (expected, expected), "{what}");
            assert_eq!(running.ever(), done + expected, "{what}");
        }
        latch.add_permits(100);
        assert_eq!(handle.await.unwrap().successes(), 100, "{end:?}: nothing that ran was killed");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_drain_lets_running_items_end() {
    for end in End::of(Terminal::Spawn) {
        let call = |_: ItemContext, n| async move {
            match n {
                0 => after(secs(1), Err("waits for its retry")).await,
                1 => after(secs(5), Ok(n)).await,
                2 => after(secs(3), Err("no")).await,
                _ => after(secs(9), Ok(n)).await,
            }
        };
        let task = retrying(3).retry_delay(secs(60)).timeout_per_attempt(secs(6)).build().unwrap();
        let handle = Plan::new(&task, stream::iter(0..9), call).spawn(end);
        sleep(secs(2)).await;
        assert_eq!(counts(&handle.progress()), [0, 0, 3, 1, 0]);
        handle.drain();
        let begun = Instant::now();
        let error = handle.await.unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        let result = error.into_partial();
        check_account(&result);
        // Item 1 returns, item 2 fails and is not retried, item 3 times out at the 7th second.
        assert!(result.results[1].is_some() && begun.elapsed() == secs(5), "{end:?}");
        let account = [result.successes(), result.failures(), result.cancelled(), result.not_started()];
        assert_eq!((account, result.summary.timeouts), ([1, 2, 1, 5], 1), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_cancel_during_a_drain_begins_the_grace() {
    for end in End::of(Terminal::Spawn) {
        for drains in [false, true] {
            let call = |cx: ItemContext, n| async move {
                if n == 0 {
                    cx.cancellation_token().cancelled().await;
                    return after(secs(1), Ok(n)).await;
                }
                pending().await
            };
            let task = lenient().concurrency(2).cancel_grace(secs(2)).build().unwrap();
            let mut handle = Plan::new(&task, stream::iter(0..9), call).spawn(end);
            sleep(secs(1)).await;
            if drains {
                handle.drain();
                sleep(HOUR).await;
                assert!((&mut handle).now_or_never().is_none(), "{end:?}: it is patient");
            }
            handle.cancel();
            let begun = Instant::now();
            let error = (&mut handle).await.unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!(begun.elapsed(), secs(2), "{end:?}");
            let partial = error.partial();
            let account = [partial.successes(), partial.cancelled(), partial.not_started()];
            assert_eq!(account, [1, 1, 7], "{end:?}");
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
            // A signal to a run that has ended does nothing.
            handle.resume();
            handle.drain();
            handle.set_concurrency(9);
            handle.cancel();
            assert_eq!(counts(&handle.progress())[..3], [1, 0, 0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_goes_on_without_its_handle() {
    for end in End::of(Terminal::Spawn) {
        let (done, function) = (Arc::new(AtomicUsize::new(0)), Gauge::default());
        let (count, in_function) = (Arc::clone(&done), function.enter());
        let call = move |_: ItemContext, n| {
            let (count, _held) = (Arc::clone(&count), &in_function);
            async move {
                sleep(secs(1)).await;
                count.fetch_add(1, SeqCst);
                Ok(n)
            }
        };
        let plan = Plan::new(&at_once(2).build().unwrap(), stream::iter(0..10), call);
        let (items, results) = (plan.items.clone(), plan.results.clone());
        drop(plan.spawn(end));
        sleep(millis(4_500)).await;
        assert_eq!(done.load(SeqCst), 8, "{end:?}");
        sleep(secs(1)).await;
        assert_eq!(done.load(SeqCst), 10, "{end:?}");
        assert_eq!([items.now(), results.now(), function.now()], [0; 3], "{end:?}");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_source_reaches_handle_and_stream() {
    for end in End::of(Terminal::Spawn) {
        let source = || stream::iter(0..9).inspect(|n| assert!(*n < 3, "a bad source"));
        let task = at_once(4).build().unwrap();
        let (gauge, alive) = (Gauge::default(), Gauge::default());
        let call = |gauge: &Gauge| {
            let gauge = gauge.clone();
            move |_: ItemContext, _| {
                let alive = gauge.enter();
                async move {
                    let _alive = alive;
                    pending().await
                }
            }
        };
        let handle = Plan::new(&task, source(), call(&gauge)).spawn(end);
        let payload = std::panic::AssertUnwindSafe(handle).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"a bad source"), "{end:?}");
        let mut stream = Plan::new(&task, source(), call(&alive)).stream(end);
        let payload = std::panic::AssertUnwindSafe(stream.next()).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"a bad source"), "{end:?}");
        assert_eq!((gauge.now(), alive.now()), (0, 0), "{end:?}");
    }
}
