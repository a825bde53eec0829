//! `parallel()`: several cores, and otherwise the same behaviour.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_map_task::{Event, ItemContext};
use futures::{FutureExt, StreamExt, poll, stream};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::every_end::{End, Plan, Terminal};
use crate::recorded_trace::keep_company;
use crate::support::{Gauge, after, at_once, lenient, millis, once_more, secs, workers};

/// All ends with `parallel()`.
fn ends() -> impl Iterator<Item = End> {
    End::all().filter(|end| end.parallel)
}

/// Keeps its thread busy until the condition holds, and gives up after far longer than that can take.
fn spin_until(holds: impl Fn() -> bool) -> Result<(), &'static str> {
    let begun = std::time::Instant::now();
    while !holds() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err("waited in vain");
        }
        thread::yield_now();
    }
    Ok(())
}

/// Wakes an idle worker of a runtime every millisecond, until the returned guard is dropped.
///
/// A worker of Tokio that goes to sleep can miss a task that another worker queues at that moment. It checks again when the
/// next task is spawned. Without one, a task waits behind an item that keeps its thread busy.
fn keep_awake(runtime: &Runtime) -> Arc<()> {
    let alive = Arc::new(());
    let (weak, handle) = (Arc::downgrade(&alive), runtime.handle().clone());
    thread::spawn(move || {
        while weak.strong_count() > 0 {
            handle.spawn(async {});
            thread::park_timeout(millis(1));
        }
    });
    alive
}

#[test]
fn rule_07_two_items_run_at_the_same_time() {
    for end in ends() {
        // Each item keeps its thread until another one has started, too.
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&arrived);
        let call = move |_: ItemContext, n| {
            let count = Arc::clone(&count);
            async move {
                once_more().await;
                let place = count.fetch_add(1, SeqCst);
                spin_until(|| count.load(SeqCst) > (place | 1)).map(|()| n)
            }
        };
        let plan = Plan::new(&at_once(2).build().unwrap(), stream::iter(0..40), call);
        // The run is awaited beside the runtime's workers, on a thread that is not one of them.
        let runtime = workers(2);
        let _awake = keep_awake(&runtime);
        let report = runtime.block_on(plan.run(end));
        assert_eq!((report.summary.successes, report.reason), (40, None), "{end:?}");
    }
}

#[test]
fn rule_07_a_blocking_item_delays_no_other_core() {
    for end in ends() {
        // The first item keeps its thread until all others are done: as many as the capacity for outcomes allows.
        for (concurrency, hog) in [(2, 0), (2, 7), (4, 0), (4, 13), (8, 19)] {
            let done = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&done);
            // With an ordered output, no more than this start behind the first item.
            let others = if end.ordered { 19.min(hog + concurrency as u64 - 1) } else { 19 };
            let call = move |_: ItemContext, n| {
                let count = Arc::clone(&count);
                async move {
                    if n == hog {
                        return spin_until(|| count.load(SeqCst) >= others as usize).map(|()| n);
                    }
                    once_more().await;
                    count.fetch_add(1, SeqCst);
                    Ok(n)
                }
            };
            let plan = Plan::new(&at_once(concurrency).build().unwrap(), stream::iter(0..20), call);
            // In a task of the runtime, because the first item may block its thread.
            let runtime = workers(2);
            let _awake = keep_awake(&runtime);
            let report = runtime.block_on(async { tokio::spawn(plan.run(end)).await.unwrap() });
            assert_eq!(
                (report.summary.successes, report.reason),
                (20, None),
                "{end:?}, {concurrency}, {hog}"
            );
        }
    }
}

#[test]
fn rule_28_a_dropped_parallel_run_leaves_nothing() {
    for end in ends() {
        let runtime = workers(2);
        let alive = Gauge::default();
        let gauge = alive.clone();
        let call = move |_: ItemContext, n| {
            let gauge = gauge.clone();
            async move {
                let _alive = gauge.enter();
                for _ in 0..n % 5 {
                    yield_now().await;
                }
                Ok(n)
            }
        };
        let plan = Plan::new(&at_once(8).build().unwrap(), stream::iter(0..), call);
        let (items, results) = (plan.items.clone(), plan.results.clone());
        let run = runtime.spawn(async move { plan.run(end).await.summary.successes });
        spin_until(|| alive.ever() > 1_000).unwrap();
        run.abort();
        // A run in the background continues without its handle, until its runtime ends.
        if end.terminal != Terminal::Spawn {
            let tasks = runtime.metrics();
            spin_until(|| tasks.num_alive_tasks() == 0).unwrap();
        }
        drop(runtime);
        assert_eq!([alive.now(), items.now(), results.now()], [0; 3], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_02_no_more_tasks_than_permits() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let run = at_once(7).build().unwrap().over(0..1_000_u64).map(move |n| {
        seen.fetch_max(tokio::runtime::Handle::current().metrics().num_alive_tasks(), SeqCst);
        after(millis(n % 3), Ok::<_, String>(n))
    });
    assert_eq!(run.parallel().await.unwrap().successes(), 1_000);
    assert_eq!(most.load(SeqCst), 7);
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_propagates_in_parallel() {
    for culprit in ["source", "retry_if", "retry_after", "weight", "observer", "sink"] {
        let alive = Gauge::default();
        let gauge = alive.clone();
        let bang = move |who: &str| assert_ne!(culprit, who, "bang");
        let items = (0..9).inspect(move |n| {
            if *n == 3 {
                bang("source");
            }
        });
        let task = lenient().concurrency(3).retries(1).cancel_grace(secs(9)).build().unwrap();
        let run = task
            .over(items)
            .map(move |n| {
                let alive = gauge.enter();
                async move {
                    let _alive = alive;
                    match n {
                        0 => after(secs(1), Err("no")).await,
                        1 => after(secs(2), Ok(n)).await,
                        _ => std::future::pending().await,
                    }
                }
            })
            .retry_if(move |_| {
                bang("retry_if");
                true
            })
            .retry_after(move |_| {
                bang("retry_after");
                None
            })
            .weight(move |n| {
                if *n == 3 {
                    bang("weight");
                }
                1
            })
            .observe(move |event: &Event<'_>| {
                if let Event::ItemSettled { .. } = event {
                    bang("observer");
                }
            });
        let run = run.parallel().for_each(move |_| {
            bang("sink");
            async {}
        });
        let payload = std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().contains("bang"), "{culprit}");
        assert!(alive.ever() >= 3 && alive.now() == 0, "{culprit}: {} live", alive.now());
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{culprit}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_a_parallel_item_fails_that_item() {
    for end in ends() {
        let call = |_: ItemContext, n| {
            assert_ne!(n, 1, "built");
            async move {
                sleep(millis(n)).await;
                assert_ne!(n, 5, "polled");
                Ok(n)
            }
        };
        let report = Plan::new(&lenient().build().unwrap(), stream::iter(0..9), call).run(end).await;
        let summary = &report.summary;
        assert_eq!((summary.successes, summary.panics, summary.failures), (7, 2, 2), "{end:?}");
    }
}

/// Records the names of the spans that a thread is in, for code within them.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, u64)>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().push((attributes.metadata().name(), id.into_u64()));
    }
}

/// Returns the name of the span that is current on this thread, if this subscriber is active.
fn current_span() -> Option<&'static str> {
    tracing::Span::current().metadata().map(|metadata| metadata.name())
}

#[test]
fn rule_32_every_thread_has_the_subscriber_and_the_span() {
    let spans = Spans::default();
    keep_company();
    let _guard = tracing::subscriber::set_default(Registry::default().with(spans.clone()));
    let runtime = workers(2);
    for blocking in [false, true] {
        let task = at_once(4).build().unwrap();
        let here = thread::current().id();
        let inside = move |n: u64| {
            assert_ne!(thread::current().id(), here, "it runs on a worker");
            let span = tracing::info_span!("inner");
            assert!(!span.is_disabled(), "the subscriber is there");
            (current_span() == Some("item")).then_some(n).ok_or("it is not in its span")
        };
        let successes = runtime.block_on(async {
            let outer = tracing::info_span!("outer");
            let _entered = outer.enter();
            if blocking {
                task.over(0..20).map_blocking(inside).parallel().await.unwrap().successes()
            } else {
                let call = move |n| async move {
                    inside(n)?;
                    yield_now().await;
                    inside(n)
                };
                task.over(0..20).map(call).parallel().await.unwrap().successes()
            }
        });
        assert_eq!(successes, 20);
    }
    let made = spans.0.lock().unwrap();
    let count = |name| made.iter().filter(|(made, _)| *made == name).count();
    assert_eq!([count("map_task"), count("item"), count("inner")], [2, 40, 60]);
}

#[tokio::test(start_paused = true)]
async fn rule_33_a_paused_clock_takes_no_real_time_in_parallel() {
    let real = std::time::Instant::now();
    for end in ends() {
        let begun = Instant::now();
        let task = lenient().concurrency(2).retries(2).retry_delay(secs(20)).timeout_per_attempt(secs(50));
        let call = |cx: ItemContext, n| async move {
            match (n, cx.attempt()) {
                (0, 1) => Err("no"),
                (0, 2) => std::future::pending().await,
                _ => after(secs(20), Ok(n)).await,
            }
        };
        let report = Plan::new(&task.build().unwrap(), stream::iter(0..3), call).run(end).await;
        assert_eq!((report.summary.successes, report.summary.retries), (3, 2), "{end:?}");
        // 20 of delay, 50 to the limit, 40 of delay, and 20 to the end.
        assert_eq!(begun.elapsed(), secs(130), "{end:?}");
    }
    assert!(real.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn rule_08_a_parallel_run_goes_on_after_its_first_poll() {
    // The items have separate tasks, so they continue while the run is not polled, up to the items that were assigned.
    let done = Gauge::default();
    let gauge = done.clone();
    let run = at_once(3).timeout_per_attempt(secs(2)).build().unwrap();
    let run = run.over(0..6).map(move |n| {
        let gauge = gauge.clone();
        async move {
            sleep(secs(1)).await;
            drop(gauge.enter());
            Ok::<_, String>(n)
        }
    });
    let mut run = Box::pin(run.parallel());
    assert!(poll!(&mut run).is_pending());
    sleep(secs(60)).await;
    assert!(done.ever() >= 3);
    assert_eq!(run.await.unwrap().summary.timeouts, 0);
    let stream = lenient().build().unwrap().over(0..6).map(|n| async move { Ok::<_, String>(n) });
    assert_eq!(stream.parallel().stream().count().await, 6);
}
