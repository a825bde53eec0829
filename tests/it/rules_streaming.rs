//! Rules 1, 7, 8 and 31 for outcomes that are given out one by one: the consumer may be slow, and the memory is
//! bounded.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_map_task::{AsyncMapTask, FailureReason, ItemContext, Limiter};
use futures::stream::{self, StreamExt};
use futures::{future, poll};
use tokio::sync::{Mutex, Notify};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::every_end::{End, Plan, Terminal};
use crate::support::{Gauge, HOUR, Log, after, at_once, lenient, millis, secs};

/// With `parallel()`, the number of items that begin before the buffer is full depends on the order in which their
/// tasks are polled. The maximum is the same.
fn as_many(end: End, found: usize, most: usize, least: usize) -> bool {
    if end.parallel { (least..=most).contains(&found) } else { found == most }
}

/// Each item takes this long, and records its index when it is done.
fn each_takes(
    wait: std::time::Duration,
    log: &Log<u64>,
) -> impl Fn(ItemContext, u64) -> future::BoxFuture<'static, Result<u64, &'static str>> + Send + Sync + 'static
{
    let log = log.clone();
    move |_, n| {
        let log = log.clone();
        Box::pin(async move {
            sleep(wait).await;
            log.note(n);
            Ok(n)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn rule_08_a_slow_consumer_delays_no_item() {
    for end in End::of(Terminal::Stream) {
        let done = Log::open();
        let task =
            at_once(4).look_ahead(4).timeout_per_attempt(secs(3)).timeout_per_item(secs(3)).build().unwrap();
        let mut stream = Plan::new(&task, stream::iter(0..12), each_takes(secs(2), &done)).stream(end);
        assert_eq!(stream.next().await.unwrap().unwrap().index, 0);
        sleep(HOUR).await;
        // Four items ran. Three others began when these ended, and the fourth because one outcome had been taken by then.
        // The rest waits for capacity among the outcomes that are not taken.
        let times = done.times();
        assert!(as_many(end, times.len(), 8, 5), "{end:?}: {times:?}");
        assert_eq!(times, [[2_000; 4], [4_000; 4]].concat()[..times.len()], "{end:?}");
        assert_eq!(stream.progress().running, 0, "{end:?}");
        let rest: Vec<_> = (&mut stream).map(|outcome| outcome.unwrap().result.unwrap().n).collect().await;
        assert_eq!(rest.len(), 11, "{end:?}");
        let summary = stream.summary().unwrap();
        assert_eq!((summary.successes, summary.timeouts, summary.total), (12, 0, 12), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_slow_sink_delays_no_running_item() {
    for end in End::giving().filter(|end| end.terminal != Terminal::Stream) {
        let done = Log::open();
        let task =
            at_once(4).look_ahead(4).timeout_per_attempt(secs(3)).timeout_per_item(secs(3)).build().unwrap();
        let plan =
            Plan::new(&task, stream::iter(0..30), each_takes(secs(2), &done)).sink(|_| after(HOUR, Ok(())));
        let results = plan.results.clone();
        let mut run = tokio::spawn(plan.run(end));
        assert!(timeout(HOUR, &mut run).await.is_err());
        // From the 2nd second on, the sink has one outcome. Of the outcomes that came with it and after it, four were too
        // many, and the other three items that ran by then could still add theirs.
        let times = done.times();
        assert!(as_many(end, times.len(), 8, 5), "{end:?}: {times:?}");
        assert_eq!(times, [[2_000; 4], [4_000; 4]].concat()[..times.len()], "{end:?}");
        assert_eq!(results.now(), times.len() - 1, "{end:?}");
        let report = run.await.unwrap();
        assert_eq!((report.summary.successes, report.summary.timeouts), (30, 0), "{end:?}");
        assert!(results.peak() <= 7, "{end:?}: {} held", results.peak());
        assert_eq!(report.sorted_indices(), (0..30).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_08_a_consumer_that_never_reads_stops_admission() {
    for end in End::of(Terminal::Stream) {
        // The duration of each item, and the maximum number of held outcomes if none is taken. Items that are ready
        // immediately fill the buffer exactly. Of items that wait, all that ran when it was full still add theirs.
        for (concurrency, wait, held) in [(1, 0, 1), (4, 0, 4), (1, 5, 1), (4, 5, 7), (64, 5, 127)] {
            let done = Log::open();
            let wait = millis(wait);
            let call = each_takes(wait, &done);
            let call = move |cx, n| {
                let call = call(cx, n);
                async move { if wait.is_zero() { Ok(n) } else { call.await } }
            };
            let task = at_once(concurrency).look_ahead(concurrency).build().unwrap();
            let plan = Plan::new(&task, stream::iter(0..), call);
            let (items, results) = (plan.items.clone(), plan.results.clone());
            let mut stream = plan.stream(end);
            sleep(secs(1)).await;
            assert_eq!(items.ever(), 0, "{end:?}: nothing starts before the first poll");
            assert!(poll!(stream.next()).is_pending());
            sleep(HOUR).await;
            let what = format!("{end:?}, {concurrency} at once, {wait:?} each");
            // With `parallel()`, attempts that have begun may not have been polled.
            let most = if end.parallel { 2 * concurrency - 1 } else { held };
            assert!(as_many(end, results.now(), most, concurrency), "{what}: {} held", results.now());
            assert_eq!(stream.progress().successes, results.now(), "{what}");
            assert_eq!((stream.progress().running, stream.summary()), (0, None), "{what}");
            // Other items that were pulled had their permits when the buffer became full.
            assert!(items.now() < concurrency, "{what}: {} items", items.now());
            // Every outcome that is taken makes room, and later ones are still given out once.
            for _ in 0..200 {
                stream.next().await.unwrap().unwrap();
            }
            sleep(HOUR).await;
            assert_eq!(results.ever(), 200 + results.now(), "{what}");
            assert!(results.now() >= concurrency && results.peak() < 2 * concurrency, "{what}");
            drop(stream);
            sleep(secs(1)).await;
            assert_eq!((items.now(), results.now()), (0, 0), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_08_a_dropped_stream_stops_its_run() {
    for end in End::of(Terminal::Stream) {
        let (running, source, function) = (Gauge::default(), Gauge::default(), Gauge::default());
        let limiter = Limiter::new(5);
        let task = at_once(5).limiter(&limiter).cancel_grace(secs(9)).build().unwrap();
        let (in_source, in_function, alive) = (source.enter(), function.enter(), running.clone());
        let endless = stream::iter(0..).inspect(move |_| {
            let _held = &in_source;
        });
        let call = move |_: ItemContext, n: u64| {
            let (_held, alive) = (&in_function, alive.enter());
            async move {
                let _alive = alive;
                after(secs(n), Ok(n)).await
            }
        };
        let plan = Plan::new(&task, endless, call);
        let (items, results) = (plan.items.clone(), plan.results.clone());
        let mut stream = plan.stream(end);
        assert_eq!(stream.next().await.unwrap().unwrap().index, 0);
        sleep(millis(2_500)).await;
        assert_eq!((running.now(), limiter.in_use(), results.now()), (5, 5, 2), "{end:?}");
        drop(stream);
        // A grace applies only if something waits for the run.
        sleep(millis(1)).await;
        let left = [&running, &source, &function, &items, &results].map(Gauge::now);
        assert_eq!((left, limiter.in_use()), ([0; 5], 0), "{end:?}");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{end:?}");
        let started = running.ever();
        sleep(HOUR).await;
        assert_eq!(running.ever(), started, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_01_an_endless_source_takes_bounded_memory() {
    for end in End::giving() {
        for (concurrency, sink_takes) in [(1, 0), (8, 0), (8, 3)] {
            let count = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&count);
            let call = |_: ItemContext, n: u64| async move {
                match n % 7 {
                    0 => Ok(n),
                    1 => Err("no"),
                    _ => after(millis(n % 5), Ok(n)).await,
                }
            };
            let stop = tokio_util::sync::CancellationToken::new();
            let task = lenient().concurrency(concurrency).look_ahead(concurrency);
            let (task, token) = (task.build().unwrap(), stop.clone());
            let plan = Plan::new(&task, stream::iter(0..), call).token(&stop).sink(move |_| {
                if seen.fetch_add(1, SeqCst) == 5_000 {
                    token.cancel();
                }
                after(millis(sink_takes), Ok(()))
            });
            let (items, results) = (plan.items.clone(), plan.results.clone());
            let report = plan.run(end).await;
            assert_eq!(report.reason.as_deref(), Some("Cancelled"));
            let what = format!("{end:?}, {concurrency} at once");
            assert!(items.ever() >= 5_000, "{what}");
            // The running items, and those that were pulled and have their permits.
            assert!(items.peak() <= concurrency + 1, "{what}: {} items at once", items.peak());
            assert!(results.peak() < 2 * concurrency, "{what}: {} results at once", results.peak());
            assert_eq!(report.outcomes.len(), count.load(SeqCst), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_31_a_slow_head_stops_admission_at_the_window() {
    for end in End::giving().filter(|end| end.ordered) {
        let started = Log::open();
        let given = Log::open();
        let (starts, gives) = (started.clone(), given.clone());
        let call = move |_: ItemContext, n| {
            starts.note(n);
            after(if n == 3 { HOUR } else { secs(1) }, Ok(n))
        };
        let task = at_once(4).look_ahead(4).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..40), call).sink(move |index| {
            gives.note(index);
            async { Ok(()) }
        });
        let results = plan.results.clone();
        let run = tokio::spawn(plan.run(end));
        sleep(millis(HOUR.as_millis() as u64 - 1)).await;
        // 0 to 2 are given out immediately. Behind 3, of 4 to 9 three ended in the 2nd second. The 4th held outcome was the
        // last one that was waited for, and the two items that ran beside it added theirs.
        let what = format!("{end:?}");
        assert_eq!(given.lines(), [0, 1, 2], "{what}");
        assert!(as_many(end, results.now(), 6, 4), "{what}: {} held", results.now());
        assert_eq!(started.lines().len(), 4 + results.now(), "{what}");
        assert!(started.timed().iter().all(|(at, _)| *at <= 2_000), "{what}");
        let report = run.await.unwrap();
        assert_eq!(report.indices(), (0..40).collect::<Vec<_>>(), "{what}");
        assert_eq!(
            given.timed()[3..8].iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [3_600_000; 5],
            "{what}"
        );
        assert!(results.peak() <= 7, "{what}: {}", results.peak());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_08_back_pressure_passes_through_two_runs() {
    for end in End::of(Terminal::Stream) {
        let task = at_once(3).look_ahead(3).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..), |_, n| after(millis(1), Ok(n)));
        let first = plan.items.clone();
        let outcomes = plan.stream(end);
        let second = at_once(2).max_failures(0).build().unwrap();
        let run = second
            .over_try_stream(outcomes.map(|outcome| outcome.map(|outcome| outcome.result.unwrap().n)))
            .map(|n| async move { Ok::<_, &str>(n) })
            .for_each(|_| after(secs(10), ()));
        // The sink takes three in this time. The waiting outcomes are bounded in both runs.
        assert!(timeout(secs(25), run).await.is_err());
        let pulled = first.ever();
        assert!((6..=3 + 3 + 5 + 3).contains(&pulled), "{end:?}: {pulled} were pulled");
        sleep(secs(1)).await;
        assert_eq!(first.now(), 0, "{end:?}: the second run was dropped, and the first with it");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_sink_and_items_may_wait_for_one_another() {
    for end in End::giving() {
        let (from_item, from_sink) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notify, notified) = (Arc::clone(&from_item), Arc::clone(&from_sink));
        let call = move |_: ItemContext, n| {
            let (notify, notified) = (Arc::clone(&notify), Arc::clone(&notified));
            async move {
                match n {
                    // The sink's first call waits for item 1, and item 2 for the sink's second.
                    1 => {
                        sleep(secs(5)).await;
                        notify.notify_one();
                    }
                    2 => notified.notified().await,
                    _ => {}
                }
                Ok(n)
            }
        };
        let task = at_once(3).timeout_per_attempt(HOUR).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..9), call).sink(move |index| {
            let (notify, notified) = (Arc::clone(&from_sink), Arc::clone(&from_item));
            async move {
                match index {
                    0 => notified.notified().await,
                    1 => notify.notify_one(),
                    _ => {}
                }
                Ok(())
            }
        });
        let report = timeout(2 * HOUR, plan.run(end)).await.expect("the run hangs");
        assert_eq!((report.summary.successes, report.summary.timeouts), (9, 0), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_items_may_share_a_lock_with_the_sink() {
    for end in End::giving() {
        let lock = Arc::new(Mutex::new(0));
        let (of_items, of_sink) = (Arc::clone(&lock), Arc::clone(&lock));
        let hold = |lock: Arc<Mutex<u32>>| async move {
            let mut held = lock.lock_owned().await;
            yield_now().await;
            sleep(millis(10)).await;
            *held += 1;
        };
        let call = move |_: ItemContext, n| {
            let held = hold(Arc::clone(&of_items));
            async move {
                held.await;
                Ok(n)
            }
        };
        let task = at_once(2).timeout_per_attempt(secs(5)).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..50), call).sink(move |_| {
            let held = hold(Arc::clone(&of_sink));
            async move {
                held.await;
                Ok(())
            }
        });
        let report = timeout(HOUR, plan.run(end)).await.expect("the run hangs");
        assert_eq!((report.summary.successes, report.summary.timeouts), (50, 0), "{end:?}");
        assert_eq!(*lock.lock().await, 100, "{end:?}");
    }
}

/// A free sink receives each outcome before the next item begins, not only when the maximum number of outcomes waits.
#[tokio::test(start_paused = true)]
async fn rule_30_a_free_sink_receives_each_outcome_immediately() {
    let log = Log::open();
    let (items, sink) = (log.clone(), log.clone());
    let task = lenient().concurrency(8).build().unwrap();
    let run = task.over(0..100_usize).map(move |n| {
        items.note(("item", n));
        async move { if n % 7 == 3 { Err("no") } else { Ok(n) } }
    });
    let given = run.for_each(move |outcome| {
        sink.note(("sink", outcome.index));
        async {}
    });
    given.await.unwrap();
    assert_eq!(log.lines(), (0..100).flat_map(|n| [("item", n), ("sink", n)]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rule_30_an_error_of_the_sink_stops_the_run() {
    for end in End::of(Terminal::TryForEach) {
        for fails_before in [false, true] {
            let calls = Log::open();
            let log = calls.clone();
            let call = move |_: ItemContext, n| async move {
                match n {
                    0..4 if fails_before && n == 2 => Err("no"),
                    0..4 => Ok(n),
                    _ => pending().await,
                }
            };
            let task = at_once(6).fail_fast(fails_before).min_success_ratio(0.0).build().unwrap();
            let plan = Plan::new(&task, stream::iter(0..20), call).sink(move |index| {
                log.note(index);
                after(secs(1), if index == 1 { Err("the disk is full") } else { Ok(()) })
            });
            let (items, results) = (plan.items.clone(), plan.results.clone());
            let report = plan.run(end).await;
            assert_eq!(calls.timed(), [(0, 0), (1_000, 1)], "{end:?}");
            // A failure that came first stays the reason.
            let reason = if fails_before { "FailFast { index: 2 }" } else { "Sink(\"the disk is full\")" };
            assert_eq!(report.reason.as_deref(), Some(reason), "{end:?}");
            assert_eq!((items.now(), results.now()), (0, 0), "{end:?}");
            let summary = &report.summary;
            assert_eq!(summary.successes + summary.failures + summary.cancelled + summary.not_started, 20);
            assert_eq!(summary.failures, usize::from(fails_before), "{end:?}: {summary}");
            // Items that were ready immediately made room for as many others, until the first that failed.
            let not_started = if fails_before { 20 - summary.cancelled - 3 } else { 10 };
            assert_eq!(summary.not_started, not_started, "{end:?}: {summary}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_30_a_stream_has_a_progress_and_a_final_summary() {
    for end in End::of(Terminal::Stream) {
        let task = AsyncMapTask::builder().concurrency(2).max_failures(0).build().unwrap();
        let call = |_: ItemContext, n| after(secs(1), if n == 3 { Err("no") } else { Ok(n) });
        let mut stream = Plan::new(&task, stream::iter(0..10), call).stream(end);
        assert_eq!((stream.progress().total, stream.progress().successes), (Some(10), 0));
        let mut outcomes = Vec::new();
        let error = loop {
            assert!(stream.summary().is_none());
            match stream.next().await {
                Some(Ok(outcome)) => {
                    assert_eq!(outcome.elapsed, secs(1));
                    outcomes.push(outcome.index);
                    assert_eq!(stream.progress().total, Some(10));
                }
                Some(Err(error)) => break error,
                None => panic!("the run fails"),
            }
        };
        assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 1, allowed: 0 }));
        assert_eq!(outcomes, [0, 1, 2, 3], "{end:?}");
        assert_eq!(stream.summary(), Some(error.summary()), "{end:?}");
        // Item 4 began when item 2 ended, before item 3 failed.
        let summary = error.summary();
        assert_eq!([summary.successes, summary.failures], [3, 1], "{end:?}");
        assert!(summary.cancelled == 1 || (end.parallel && summary.cancelled == 0), "{end:?}: {summary}");
        for _ in 0..3 {
            assert!(stream.next().await.is_none(), "{end:?}");
        }
        assert_eq!(stream.progress().successes, 3);
    }
}
