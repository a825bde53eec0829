//! The metrics of runs: each number is that of the run's account, and the gauges return to zero after every end.

mod recorder;

use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, Event, ItemContext, Limiter, MetricsObserver, Observer, Summary};
use futures::{FutureExt, StreamExt, stream};
use metrics::Unit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::recorder::Values;
use crate::every_batch::{Batched, fails_with};
use crate::every_end::{End, Plan};
use crate::support::{
    Set, Terminal, Woken, after, at_once, in_time, lenient, let_others_run, millis, one_by_one, paused,
    poll_times, retrying, secs, workers,
};

const NONE: [i64; 3] = [0; 3];

/// Takes 100 ms. Of six items in a row, the second fails once and the third always, the fourth panics, and the fifth does not
/// end.
async fn mixed(cx: ItemContext, n: u64) -> Result<u64, &'static str> {
    sleep(millis(100)).await;
    match n % 6 {
        1 if cx.attempt() == 1 => Err("once"),
        2 => Err("always"),
        3 => panic!("the item panics"),
        4 => pending().await,
        _ => Ok(n),
    }
}

/// Checks the counters of one run against its account.
fn assert_counted(values: &Values, summary: &Summary) {
    let started = summary.total - summary.not_started - summary.carried - summary.cached - summary.recovered;
    assert_eq!(values.count("attempts_total"), started + summary.retries, "{summary}");
    assert_eq!(values.count("retries_total"), summary.retries, "{summary}");
    let items = |labels| values.count(&format!("items_total{{outcome={labels}}}"));
    assert_eq!(items("success,origin=carried"), summary.carried, "{summary}");
    assert_eq!(items("success,origin=cached"), summary.cached, "{summary}");
    assert_eq!(items("success,origin=recovered"), summary.recovered, "{summary}");
    assert_eq!(items("failure,origin=ran"), summary.failures, "{summary}");
    assert_eq!(values.sum("items_total"), summary.successes + summary.failures, "{summary}");
    assert_eq!(values.count("attempt_failures_total{kind=timeout}"), summary.timeouts, "{summary}");
    assert_eq!(values.count("attempt_failures_total{kind=panic}"), summary.panics, "{summary}");
    // Each attempt is a success, a failure, or was cut off with its item.
    let samples = |name: &str, outcome: &str| values.samples(&format!("{name}{{outcome={outcome}}}"));
    let succeeded = samples("attempt_duration_seconds", "success").len();
    let failed = values.sum("attempt_failures_total");
    assert_eq!(succeeded, items("success,origin=ran"), "{summary}");
    assert_eq!(samples("attempt_duration_seconds", "failure").len(), failed, "{summary}");
    let cut_off = values.count("attempts_total") - succeeded - failed;
    assert!(cut_off <= summary.cancelled, "{cut_off} attempts were cut off: {summary}");
    assert_eq!(samples("item_duration_seconds", "success").len(), succeeded, "{summary}");
    assert_eq!(samples("item_duration_seconds", "failure").len(), summary.failures, "{summary}");
    assert_eq!(values.samples("permit_wait_seconds").len(), values.count("attempts_total"), "{summary}");
    assert_eq!((values.sum("runs_total"), values.gauges()), (1, NONE), "{summary}");
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_run_is_counted_as_in_its_account() {
    for end in End::all() {
        let (values, observer) = Values::observed();
        let task = lenient().concurrency(4).retries(2).retry_jitter(0.5).timeout_per_attempt(secs(1));
        let task = task.observer(observer).build().unwrap();
        let plan = Plan::new(&task, stream::iter(0..30), mixed);
        let summary = in_time(plan.run(end)).await.summary;
        assert_counted(&values, &summary);
        assert_eq!((summary.successes, summary.failures, summary.timeouts), (15, 15, 15), "{end:?}");
        assert_eq!(values.count("attempt_failures_total{kind=error}"), 5 + 3 * 5, "{end:?}");
        assert_eq!(values.count("runs_total{outcome=all}"), 1, "{end:?}");
    }
}

#[test]
fn threads_lose_no_count() {
    let (values, observer) = Values::observed();
    let task = lenient().concurrency(8).retries(1).retry_delay(Duration::ZERO).observer(observer);
    let task = task.build().unwrap();
    let summary = workers(4).block_on(async {
        let work = |cx: ItemContext, n: u32| async move {
            tokio::task::yield_now().await;
            if n % 3 == 0 && cx.attempt() == 1 { Err("once") } else { Ok(n) }
        };
        task.over(0..3_000).map_with_context(work).parallel().await.unwrap().summary
    });
    assert_counted(&values, &summary);
    assert_eq!((summary.successes, summary.retries), (3_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn the_observer_of_one_run_counts_that_run() {
    let (values, observer) = Values::observed();
    let task = lenient().retries(1).build().unwrap();
    let fails = |n: u32| ready(if n < 3 { Err("down") } else { Ok(n) });
    task.run(0..10, fails).await.unwrap();
    let result = task.over(0..10).map(fails).observe(observer.clone()).await.unwrap();
    assert_counted(&values, &result.summary);
    let spawned = task.over(0..10).map(fails).observe(observer).spawn().await.unwrap();
    assert_eq!(values.sum("runs_total"), 2);
    assert_eq!(values.count("retries_total"), 2 * spawned.summary.retries);
}

#[tokio::test(start_paused = true)]
async fn a_batch_counts_its_items() {
    for end in End::all() {
        let (values, observer) = Values::observed();
        let task = lenient().concurrency(2).retries(1).observer(observer).build().unwrap();
        // The call with item 2 is split, and item 7 gets the wrong number of results.
        let call = async |items: Vec<u64>| {
            let wrong = items.contains(&7);
            let mut answer = fails_with(&[2], items)?;
            answer.extend(wrong.then_some(Ok(0)));
            Ok(answer)
        };
        let summary = in_time(Batched::new(&task, 12, 4, call).run(end)).await.summary;
        assert_counted(&values, &summary);
        // All items of the second call fail, and of the first one item 2.
        let faults = values.count("attempt_failures_total{kind=fault}");
        assert_eq!((faults, summary.failures), (4, 5), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_from_elsewhere_have_their_origin() {
    let (values, observer) = Values::observed();
    let fails = |n: &u32| matches!(n, 3 | 4 | 9);
    let task = lenient().build().unwrap();
    let work = |n| ready(if fails(&n) { Err("down") } else { Ok(n) });
    let earlier = task.run(0..10, work).await.unwrap();
    let task = task.to_builder().observer(observer).build().unwrap();
    let result = task.over(0..10).map(|n| ready(Ok::<_, &str>(n))).redo(earlier).await.unwrap();
    assert_counted(&values, &result.summary);
    assert_eq!(values.count("items_total{outcome=success,origin=carried}"), 7);
    assert_eq!(values.samples("item_duration_seconds{outcome=success}").len(), 3);
}

#[cfg(feature = "store")]
#[tokio::test(start_paused = true)]
async fn results_of_a_store_have_their_origin() {
    let store = async_map_task::store::MemoryStore::new();
    let work = |n: u32| async move { if n == 3 { Err("down".to_owned()) } else { Ok(n) } };
    let named = lenient().name("stored").build().unwrap();
    named.over(0..10).map(work).recover(&store, "one").await.unwrap();
    named.over(0..5).map(work).cache(&store, async_map_task::Cache::version("1")).await.unwrap();
    let observed = |observer| named.to_builder().observer(observer).build().unwrap();

    let (values, observer) = Values::observed();
    let result = observed(observer).over(0..10).map(work).recover(&store, "one").await.unwrap();
    assert_counted(&values, &result.summary);
    assert_eq!(result.summary.recovered, 9);

    let (values, observer) = Values::observed();
    let cache = async_map_task::Cache::version("1");
    let result = observed(observer).over(0..10).map(work).cache(&store, cache).await.unwrap();
    assert_counted(&values, &result.summary);
    assert_eq!(result.summary.cached, 4);
}

#[tokio::test(start_paused = true)]
async fn gauges_follow_a_run() {
    let (values, observer) = Values::observed();
    let task = retrying(4).observer(observer).build().unwrap();
    // Items 0 and 1 fail at once, wait for a second, and take another. Item 5 fails for good.
    let work = |cx: ItemContext, n: u32| async move {
        match n {
            0 | 1 if cx.attempt() == 1 => Err("once"),
            5 => Err("refused"),
            _ => Ok(after(secs(1), n).await),
        }
    };
    let run = task.over(0..6).map_with_context(work).retry_if(|error| *error == "once");
    let handle = run.spawn();
    assert_eq!(values.gauges(), NONE, "nothing has polled it");
    sleep(millis(500)).await;
    assert_eq!(values.gauges(), [1, 3, 2]);
    sleep(secs(1)).await;
    assert_eq!(values.gauges(), [1, 2, 0]);
    handle.await.unwrap();
    assert_eq!(values.gauges(), NONE);
    let durations = values.samples("item_duration_seconds{outcome=success}");
    assert_eq!(durations.iter().filter(|seconds| (**seconds - 2.0).abs() < 0.01).count(), 2, "{durations:?}");
    let durations = values.samples("attempt_duration_seconds{outcome=success}");
    assert!(durations.iter().all(|seconds| (seconds - 1.0).abs() < 0.01), "{durations:?}");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_fails_while_it_waits_is_not_waiting_any_more() {
    let (values, observer) = Values::observed();
    let limiter = Limiter::new(1);
    let task = retrying(1).timeout_per_item(secs(5)).limiter(&limiter).observer(observer).build().unwrap();
    let work = |n: u32| async move { if n == 0 { Err("down") } else { Ok(after(secs(1), n).await) } };
    let handle = task.over(0..3).map(work).spawn();
    // Item 1 has the permit until 1 s. Then the test has it, and neither the retry of item 0 nor item 2 gets it.
    sleep(millis(500)).await;
    let permit = limiter.acquire().await.unwrap();
    sleep(secs(2)).await;
    assert_eq!(values.gauges(), [1, 0, 1]);
    sleep(secs(3)).await;
    assert_eq!(values.gauges(), [1, 0, 0]);
    drop(permit);
    let result = handle.await.unwrap();
    assert_eq!((result.failures(), result.summary.retries), (1, 0));
    assert_counted(&values, &result.summary);
}

#[tokio::test(start_paused = true)]
async fn runs_are_counted_by_their_end() {
    let (values, observer) = Values::observed();
    let count = |outcome: &str| values.count(&format!("runs_total{{outcome={outcome}}}"));
    let counts = || ["all", "early_success", "cancelled", "timed_out", "failed"].map(count);
    let build = |set: Set| set(at_once(2)).observer(observer.clone()).build().unwrap();
    let slow = |n: u32| after(secs(u64::from(n)), Ok::<_, &str>(n));

    build(|task| task).run(0..3, slow).await.unwrap();
    assert_eq!(counts(), [1, 0, 0, 0, 0]);
    build(|task| task.min_successes(1).early_success(true)).run(0..3, slow).await.unwrap();
    assert_eq!(counts(), [1, 1, 0, 0, 0]);
    let token = CancellationToken::new();
    let run = build(|task| task).over(0..9).map(slow).cancellation_token(token.clone());
    let (result, ()) = tokio::join!(run, async {
        sleep(millis(500)).await;
        token.cancel();
    });
    assert!(result.unwrap_err().is_cancelled());
    assert_eq!(counts(), [1, 1, 1, 0, 0]);
    build(|task| task.run_timeout(secs(2))).run(0..9, slow).await.unwrap_err();
    build(|task| task.run_timeout(secs(2)).accept_partial(true)).run(0..9, slow).await.unwrap();
    assert_eq!(counts(), [1, 1, 1, 2, 0]);
    build(|task| task).run([1], |_| ready(Err::<(), _>("down"))).await.unwrap_err();
    // The criteria fail at the end: the source has no length.
    let odd = (0..9).filter(|n| n % 2 == 1);
    build(|task| task.min_successes(5)).run(odd, |n| ready(Ok::<_, &str>(n))).await.unwrap_err();
    assert_eq!(counts(), [1, 1, 1, 2, 2]);
    assert_eq!((values.sum("runs_total"), values.gauges()), (7, NONE));
}

/// Polls a run of a task this many times and drops it. Returns `true` if it had ended before.
async fn drop_at_poll(task: &AsyncMapTask, end: End, polls: usize) -> bool {
    let run = pin!(Plan::new(task, stream::iter(0..12), mixed).run(end));
    poll_times(run, polls, &Arc::new(Woken::default())).await.is_some()
}

#[test]
fn gauges_are_zero_after_a_run_is_dropped_at_any_poll() {
    let (mut dropped, mut polled) = (0, 0);
    for end in End::all() {
        for polls in 0.. {
            let (values, observer) = Values::observed();
            let task = lenient().concurrency(4).retries(1).timeout_per_attempt(secs(1)).observer(observer);
            let task = task.build().unwrap();
            let ended = paused().block_on(async {
                let ended = drop_at_poll(&task, end, polls).await;
                // The runtime drops tasks that were aborted when it would poll them. A spawned run is dropped with its runtime.
                let_others_run().await;
                if end.terminal != Terminal::Spawn {
                    assert_eq!(values.gauges(), NONE, "{end:?}, dropped after {polls} polls");
                }
                ended
            });
            assert_eq!(values.gauges(), NONE, "{end:?}, dropped after {polls} polls");
            let counted = values.count("runs_total{outcome=dropped}");
            assert_eq!(values.sum("runs_total"), counted + usize::from(ended), "{end:?}, {polls} polls");
            if ended {
                break;
            }
            (dropped, polled) = (dropped + counted, polled.max(polls));
        }
    }
    eprintln!("{dropped} runs were dropped, the deepest after {polled} polls");
    assert!(dropped > 150 && polled > 15, "{dropped} runs dropped, at most after {polled} polls");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_takes_nothing_from_others_of_its_task() {
    let (values, observer) = Values::observed();
    let task = retrying(2).observer(observer).build().unwrap();
    let work = |n: u32| async move { if n == 0 { Err("down") } else { Ok(after(secs(3), n).await) } };
    let spawn = || task.over(0..3).map(work).spawn();
    let (kept, cancelled, mut stream) = (spawn(), spawn(), task.over(0..3).map(work).stream());
    // A stream starts when it is polled.
    assert!(stream.next().now_or_never().is_none());
    sleep(millis(500)).await;
    assert_eq!(values.gauges(), [3, 6, 3]);
    cancelled.cancel();
    cancelled.await.unwrap_err();
    assert_eq!(values.gauges(), [2, 4, 2]);
    drop(stream);
    let_others_run().await;
    assert_eq!(values.gauges(), [1, 2, 1]);
    kept.await.unwrap();
    assert_eq!(values.gauges(), NONE);
    let ends =
        ["all", "cancelled", "dropped"].map(|end| values.count(&format!("runs_total{{outcome={end}}}")));
    assert_eq!(ends, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn runs_that_share_an_observer_close_its_gauges_with_the_last() {
    let (values, observer) = Values::observed();
    let observer = Arc::new(observer);
    let task = at_once(2).build().unwrap();
    let slow = |n: u32| after(secs(5), Ok::<_, &str>(n));
    let spawn = || task.over(0..2).map(slow).observe(Arc::clone(&observer)).spawn();
    let (first, second) = (spawn(), spawn());
    sleep(secs(1)).await;
    first.cancel();
    first.await.unwrap_err();
    assert_eq!(values.gauges(), [1, 4, 0], "its attempts are not known");
    second.cancel();
    second.await.unwrap_err();
    assert_eq!(values.gauges(), NONE);

    // A dropped run leaves its part until the observer is dropped.
    {
        let mut run = pin!(task.over(0..2).map(slow).observe(Arc::clone(&observer)));
        assert!((&mut run).now_or_never().is_none());
    }
    assert_eq!(values.gauges(), [1, 2, 0]);
    drop(observer);
    assert_eq!((values.gauges(), values.count("runs_total{outcome=dropped}")), (NONE, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_panics_counts_as_dropped() {
    let (values, observer) = Values::observed();
    let task = one_by_one().observer(observer).build().unwrap();
    let source = (0..5).inspect(|n| assert!(*n < 3, "the source panics"));
    let handle = task.over(source).map(|n| after(secs(1), Ok::<_, &str>(n))).spawn();
    let payload = tokio::spawn(handle).await.unwrap_err().into_panic();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "the source panics");
    assert_eq!((values.gauges(), values.count("runs_total{outcome=dropped}")), (NONE, 1));
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_that_of_an_adaptive_limiter() {
    let (values, observer) = Values::observed();
    let server = Limiter::builder().adaptive(1..=100).start_at(40).build().unwrap();
    let task = at_once(100).limiter(&server).observer(observer).allow_failures().build().unwrap();
    assert_eq!(values.gauge("limit"), 0, "it has not changed");
    let busy = |_| after(millis(10), Err::<(), _>(503));
    task.over(0..200).map(busy).overload(|status| *status == 503).await.unwrap();
    assert!((1..40).contains(&values.gauge("limit")));
    assert_eq!(values.gauge("limit"), i64::try_from(server.permits()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn waits_for_permits_are_measured() {
    let (values, observer) = Values::observed();
    let every_second = Limiter::builder().rate(1, secs(1)).build().unwrap();
    let task = retrying(8).limiter(&every_second).observer(observer).build().unwrap();
    let once = |cx: ItemContext, n| ready(if n == 0 && cx.attempt() == 1 { Err("once") } else { Ok(n) });
    task.over(0..3).map_with_context(once).await.unwrap();
    // The retry of item 0 is due at 1 s, and takes the start for which item 1 waits. Item 2 is the next one from 2 s on.
    let waits: Vec<_> = values.samples("permit_wait_seconds").iter().map(|seconds| seconds.round()).collect();
    assert_eq!(waits, [0.0, 0.0, 2.0, 1.0]);
}

#[test]
fn metrics_have_bounded_labels_and_units() {
    let values = Values::default();
    let plain = values.register(MetricsObserver::default);
    let names = values.names();
    assert_eq!(names.len(), 26, "{names:?}");
    assert!(names.iter().all(|name| !name.contains("task=")), "{names:?}");
    let resize = values.register(|| MetricsObserver::for_task("resize"));
    let with_task: Vec<_> = values.names().difference(&names).cloned().collect();
    assert_eq!(with_task.len(), 26, "{with_task:?}");
    assert!(with_task.iter().all(|name| name.contains("{task=resize")), "{with_task:?}");
    assert!(with_task.contains(&"attempts_total{task=resize}".to_owned()));
    assert!(with_task.contains(&"items_total{task=resize,outcome=success,origin=ran}".to_owned()));

    let units = values.units();
    assert_eq!(units.len(), 12);
    for (name, unit) in units {
        let expected = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        assert_eq!(unit, Some(expected), "{name}");
        let short = name.strip_prefix("async_map_task_").unwrap();
        assert!(names.iter().any(|known| known.split('{').next() == Some(short)), "{name}");
    }
    assert!(format!("{resize:?}").contains("resize") && !format!("{plain:?}").contains("resize"));
}

#[tokio::test(start_paused = true)]
async fn tasks_are_told_apart_by_their_label() {
    let values = Values::default();
    for (name, items) in [("resize", 3), ("upload", 5)] {
        let observer = values.register(|| MetricsObserver::for_task(name));
        let task = AsyncMapTask::builder().observer(observer).build().unwrap();
        task.run(0..items, |n| ready(Ok::<_, &str>(n))).await.unwrap();
    }
    assert_eq!(values.count("attempts_total{task=resize}"), 3);
    assert_eq!(values.count("attempts_total{task=upload}"), 5);
    assert_eq!(values.gauge("runs_active{task=upload}"), 0);
}

/// Passes all calls on.
struct Outer(MetricsObserver);

impl Observer for Outer {
    fn on_event(&self, event: &Event<'_>) {
        self.0.on_event(event);
    }

    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        self.0.for_run()
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_can_contain_it() {
    let (values, observer) = Values::observed();
    let task = at_once(2).observer(Arc::new(Outer(observer))).build().unwrap();
    let slow = |n: u32| after(secs(5), Ok::<_, &str>(n));
    {
        let mut run = pin!(task.run(0..2, slow));
        assert!((&mut run).now_or_never().is_none());
        assert_eq!(values.gauges(), [1, 2, 0]);
    }
    assert_eq!((values.gauges(), values.count("runs_total{outcome=dropped}")), (NONE, 1));
}
