//! Rule 32: the spans and events of a run for a subscriber of `tracing`.

use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Mutex;

use async_map_task::AsyncMapTask;
use futures::{StreamExt, poll};
use futures_executor::block_on;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::recorded_trace::{Memory, Told, listen};
use crate::support::{lenient, millis, secs, workers};

#[tokio::test(start_paused = true)]
async fn rule_32_a_run_has_a_span_with_its_settings() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task = lenient().name("resize").concurrency(3).build().unwrap();
    task.run(0..10, |n| async move {
        sleep(millis(n)).await;
        Ok::<_, String>(())
    })
    .await
    .unwrap();
    let spans = memory.spans("map_task");
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!((span.level, span.target.as_str(), span.parent), (Level::INFO, "async_map_task", None));
    let fields = ["name", "total", "concurrency"].map(|field| span.fields.get(field).unwrap());
    assert_eq!(fields, ["resize", "10", "3"]);
    assert!(span.enters > 1);
    assert!(memory.all_closed());
}

#[tokio::test(start_paused = true)]
async fn rule_32_the_span_omits_an_unknown_total() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    lenient().build().unwrap().run((0..10).filter(|_| true), async |n| Ok::<_, String>(n)).await.unwrap();
    let span = &memory.spans("map_task")[0];
    assert_eq!(span.fields.get("total"), None);
    assert!(span.fields.get("name").unwrap().contains("rules_tracing"), "{:?}", span.fields);
    assert_eq!(span.fields.get("concurrency"), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn rule_32_the_span_of_a_run_is_within_that_of_the_caller() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task = lenient().build().unwrap();
    let run = task.run(0..3, |_| async { Ok::<_, String>(()) });
    tracing::Instrument::instrument(run, tracing::info_span!("request")).await.unwrap();
    let recorded = memory.lock();
    let run = recorded.spans.iter().find(|span| span.name == "map_task").unwrap();
    assert_eq!(recorded.spans[run.parent.unwrap()].name, "request");
}

/// Checks the span in which it is dropped.
struct DropsWithin<'a>(&'a Memory, usize);

impl Drop for DropsWithin<'_> {
    fn drop(&mut self) {
        assert_within(self.0, self.1);
    }
}

fn assert_within(memory: &Memory, index: usize) {
    let span = memory.current();
    assert_eq!((span.name, span.fields.get("index")), ("item", Some(index.to_string().as_str())));
}

#[tokio::test(start_paused = true)]
async fn rule_32_every_poll_of_an_item_enters_its_span() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    // Some return, some are retried, time out in a grace, panic, or are dropped with the run.
    let task = lenient()
        .concurrency(3)
        .retries(2)
        .retry_delay(millis(7))
        .timeout_per_attempt(millis(90))
        .cancel_grace(millis(20))
        .run_timeout(millis(400))
        .build()
        .unwrap();
    let (polls, calls) = (Mutex::new([0_usize; 20]), Mutex::new([0_usize; 20]));
    let memory = &memory;
    let run = task.over(0..20).map_with_context(|cx, n| {
        assert_within(memory, n);
        calls.lock().unwrap()[n] += 1;
        let within = DropsWithin(memory, n);
        let polls = &polls;
        let mut attempt = Box::pin(async move {
            let _within = within;
            for _ in 0..n % 4 {
                yield_now().await;
                sleep(millis(3)).await;
            }
            match (n % 7, cx.attempt()) {
                (1, 1 | 2) => return Err("again"),
                (2, 1) => pending().await,
                (3, 1) => cx.cancellation_token().cancelled().await,
                (4, _) => resume_unwind(Box::new("as it happens")),
                _ => {}
            }
            sleep(millis(2)).await;
            if n >= 17 { pending().await } else { Ok(n) }
        });
        poll_fn(move |cx| {
            assert_within(memory, n);
            polls.lock().unwrap()[n] += 1;
            attempt.as_mut().poll(cx)
        })
    });
    let mut run = pin!(run);
    // Between two polls of the run nothing is entered.
    let result = poll_fn(|cx| {
        assert!(memory.entered().is_empty());
        let polled = run.as_mut().poll(cx);
        assert!(memory.entered().is_empty());
        polled
    })
    .await
    .unwrap_err()
    .into_partial();
    assert_eq!((result.total(), result.cancelled(), result.not_started()), (20, 2, 0));
    for (index, error) in &result.errors {
        // No assertion of a span has failed within an item.
        assert!(index % 7 == 4 && error.to_string().ends_with("panicked: as it happens"), "{index}: {error}");
    }
    assert!(result.summary.retries >= 8 && result.summary.timeouts >= 2, "{}", result.summary);

    let run_at = memory.lock().spans.iter().position(|span| span.name == "map_task").unwrap();
    let items = memory.spans("item");
    assert_eq!(items.len(), 20, "one span an item, not an attempt");
    for (n, item) in items.iter().enumerate() {
        assert_eq!((item.level, item.target.as_str()), (Level::DEBUG, "async_map_task"));
        assert_eq!((item.fields.get("index"), item.parent), (Some(n.to_string().as_str()), Some(run_at)));
        let (polls, calls) = (polls.lock().unwrap()[n], calls.lock().unwrap()[n]);
        assert!(polls > 0 && item.enters >= polls + calls, "{n}: {} enters, {polls} polls", item.enters);
        // Besides the polls and the calls: at most the end, the retry and the drop of each attempt.
        assert!(item.enters <= polls + 4 * calls, "{n}: {} enters, {polls} polls", item.enters);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_32_two_runs_in_one_task_have_two_spans() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let new_run = |name: &'static str| {
        let memory = &memory;
        let task = lenient().name(name).concurrency(2).build().unwrap();
        async move {
            task.run(0..20, |n| async move {
                for _ in 0..3 {
                    sleep(millis(1)).await;
                    let item = memory.current();
                    let run = memory.lock().spans[item.parent.unwrap()].clone();
                    assert_eq!((item.name, run.fields.get("name")), ("item", Some(name)));
                }
                Ok::<_, String>(n)
            })
            .await
            .unwrap()
        }
    };
    let (one, other) = tokio::join!(new_run("one"), new_run("other"));
    assert_eq!((one.successes(), other.successes()), (20, 20));
    assert_eq!((memory.spans("map_task").len(), memory.spans("item").len()), (2, 40));
    assert!(memory.all_closed());
}

#[tokio::test(start_paused = true)]
async fn rule_32_a_dropped_run_closes_its_spans() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task = lenient().concurrency(2).retries(1).build().unwrap();
    {
        let mut run = pin!(task.run(0..5, |n| async move {
            if n == 0 { Err::<(), _>("waits for its retry") } else { pending().await }
        }));
        assert!(poll!(&mut run).is_pending());
        assert_eq!((memory.spans("item").len(), memory.lock().open.len()), (3, 4));
    }
    assert!(memory.all_closed());
}

#[tokio::test(start_paused = true)]
async fn rule_32_a_retry_is_logged_with_its_delay() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task =
        lenient().concurrency(1).look_ahead(1).retries(2).timeout_per_attempt(secs(9)).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, n| async move {
        match (n, cx.attempt()) {
            (0, _) => Err("no"),
            (2, 1) => pending().await,
            _ => Ok(n),
        }
    });
    run.await.unwrap();
    let retries = memory.events("attempt failed, will retry");
    let told: Vec<_> = retries
        .iter()
        .map(|told| ["index", "attempt", "kind", "delay"].map(|field| told.fields.get(field).unwrap()))
        .collect();
    assert_eq!(told, [["0", "1", "error", "1s"], ["0", "2", "error", "2s"], ["2", "1", "timeout", "1s"]]);
    for (told, index) in retries.iter().zip(["0", "0", "2"]) {
        assert_eq!((told.level, told.target.as_str()), (Level::DEBUG, "async_map_task"));
        assert_eq!(memory.place_of(told), ("item", Some(index.to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_32_a_failure_has_the_reason_for_no_retry() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let task = lenient()
        .name("sums")
        .concurrency(1)
        .look_ahead(1)
        .retries(1)
        .timeout_per_attempt(secs(9))
        .timeout_per_item(secs(20))
        .build()
        .unwrap();
    let run = task
        .over(0..6)
        .map_with_context(|cx, n| async move {
            match n {
                0 => Err("no"),
                1 => pending().await,
                2 => resume_unwind(Box::new("as it happens")),
                3 => Err("for good"),
                4 => Err("much later"),
                // The second attempt would begin at 13 s and end at 22 s, beyond the limit of the item.
                5 if cx.attempt() == 2 => pending().await,
                5 => {
                    sleep(secs(8)).await;
                    Err("later")
                }
                _ => Ok(n),
            }
        })
        .retry_if(|error| *error != "for good")
        .retry_after(|error| match *error {
            "much later" => Some(secs(3_600)),
            "later" => Some(secs(5)),
            _ => None,
        });
    run.await.unwrap();
    let failures = memory.events("item failed");
    let told: Vec<_> = failures
        .iter()
        .map(|told| {
            ["task", "index", "attempts", "kind", "limit", "panic", "why"].map(|field| told.fields.get(field))
        })
        .collect();
    let told_of = |index, attempts, kind, limit, panic, why| {
        [Some("sums"), Some(index), Some(attempts), Some(kind), limit, panic, Some(why)]
    };
    let expected = [
        told_of("0", "2", "error", None, None, "no retries left"),
        told_of("1", "2", "timeout", Some("9s"), None, "no retries left"),
        told_of("2", "1", "panic", None, Some("as it happens"), "a panic is not retried"),
        told_of("3", "1", "error", None, None, "retry_if returned false"),
        told_of("4", "1", "error", None, None, "a retry could not start before a time limit"),
        told_of("5", "2", "timeout", Some("20s"), None, "no retries left"),
    ];
    assert_eq!(told, expected);
    for (told, index) in failures.iter().zip(["0", "1", "2", "3", "4", "5"]) {
        assert_eq!((told.level, told.target.as_str()), (Level::WARN, "async_map_task"));
        assert_eq!(memory.place_of(told), ("item", Some(index.to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_32_ten_failures_are_warnings() {
    let (memory, _guard) = listen(LevelFilter::TRACE);
    let check = |n: u32| async move { if n % 5 == 0 { Err("dead") } else { Ok(n) } };
    lenient().retries(1).build().unwrap().run(0..2_000, check).await.unwrap();
    let failures = memory.events("item failed");
    let warnings = failures.iter().filter(|told| told.level == Level::WARN).count();
    assert_eq!((failures.len(), warnings), (400, 10));
    assert!(failures[..10].iter().all(|told| told.level == Level::WARN), "the first ones");
    let for_people = memory.events("").iter().filter(|told| told.level <= Level::INFO).count();
    assert_eq!(for_people, 11, "and the account");
}

#[tokio::test(start_paused = true)]
async fn rule_32_the_verdict_is_one_event_in_the_span_of_the_run() {
    let verdicts = |memory: &Memory| -> Vec<(Level, String, Option<String>)> {
        let all = memory.events("sums");
        assert!(all.iter().all(|told| memory.place_of(told) == ("map_task", None)));
        let told = |told: &Told| {
            let reason = told.fields.get("reason").map(str::to_owned);
            (told.level, told.fields.get("message").unwrap().to_owned(), reason)
        };
        all.iter().map(told).collect()
    };
    let account = "3 items in 2.000s: 2 succeeded, 1 failed, 0 cancelled, 0 not started; \
                   0 retries, 0 timeouts, 0 panics";
    let item = |n| async move {
        sleep(secs(n)).await;
        if n == 2 { Err("no") } else { Ok(n) }
    };
    let (memory, guard) = listen(LevelFilter::TRACE);
    lenient().name("sums").build().unwrap().run(0..3, item).await.unwrap();
    assert_eq!(verdicts(&memory), [(Level::INFO, format!("sums succeeded: {account}"), None)]);
    drop(guard);

    let (memory, _guard) = listen(LevelFilter::TRACE);
    AsyncMapTask::builder().name("sums").build().unwrap().run(0..3, item).await.unwrap_err();
    let reason = Some("1 item failed, 0 allowed".to_owned());
    assert_eq!(verdicts(&memory), [(Level::WARN, format!("sums failed: {account}"), reason)]);
}

#[tokio::test(start_paused = true)]
async fn rule_32_only_a_failed_verdict_is_a_warning() {
    let verdict = |memory: &Memory| {
        let told = memory.events("sums").remove(0);
        let counts = ["successes", "failures", "cancelled", "not_started"];
        let counts = counts.map(|field| told.fields.get(field).unwrap().to_owned());
        let message = told.fields.get("message").unwrap().split(':').next().unwrap().to_owned();
        (told.level, message, told.fields.get("reason").map(str::to_owned), counts)
    };
    let (memory, guard) = listen(LevelFilter::TRACE);
    let task = AsyncMapTask::builder().name("sums").min_successes(5).build().unwrap();
    task.run(0..3, |n| async move { Ok::<_, &str>(n) }).await.unwrap_err();
    let reason = Some("3 items succeeded, 5 required".to_owned());
    let counts = ["3", "0", "0", "0"].map(str::to_owned);
    assert_eq!(verdict(&memory), (Level::WARN, "sums failed".to_owned(), reason, counts));
    drop(guard);

    let (memory, _guard) = listen(LevelFilter::TRACE);
    let token = tokio_util::sync::CancellationToken::new();
    let stop = &token;
    let run = lenient().name("sums").concurrency(2).build().unwrap();
    let run = run.run(0..9, |n| async move {
        sleep(secs(n)).await;
        if n == 2 {
            stop.cancel();
        }
        if n == 1 { Err("no") } else { Ok(n) }
    });
    run.cancellation_token(token.clone()).await.unwrap_err();
    let counts = ["2", "1", "1", "5"].map(str::to_owned);
    assert_eq!(verdict(&memory), (Level::INFO, "sums was cancelled".to_owned(), None, counts));
}

#[tokio::test(start_paused = true)]
async fn rule_32_items_have_no_span_at_level_info() {
    let fails_once = |cx: async_map_task::ItemContext, n: u64| async move {
        sleep(millis(n)).await;
        if cx.attempt() == 1 { Err("again") } else { Ok(n) }
    };
    let task = lenient().retries(1).name("quiet").build().unwrap();
    for (level, runs, items) in [
        (LevelFilter::TRACE, 1, 5),
        (LevelFilter::DEBUG, 1, 5),
        (LevelFilter::INFO, 1, 0),
        (LevelFilter::WARN, 0, 0),
        (LevelFilter::OFF, 0, 0),
    ] {
        let (memory, _guard) = listen(level);
        task.over(0..5).map_with_context(fails_once).await.unwrap();
        assert_eq!((memory.spans("map_task").len(), memory.spans("item").len()), (runs, items), "{level}");
        // The events have their own levels.
        let retries = if level >= LevelFilter::DEBUG { 5 } else { 0 };
        assert_eq!(memory.events("attempt failed").len(), retries, "{level}");
        assert_eq!(memory.events("quiet succeeded").len(), runs, "{level}");
    }
}

/// The account of a run that a shutdown has ended is emitted once, to the subscriber and in the span of the run, from
/// the thread that drops it. A run that its owner has dropped emits none.
#[test]
fn rule_32_only_a_shutdown_emits_a_verdict() {
    for parallel in [false, true] {
        let call = |_: u32| pending::<Result<u32, String>>();
        let task = lenient().name("job").build().unwrap();
        let (memory, _guard) = listen(LevelFilter::INFO);

        let ended = workers(1);
        let entered = ended.enter();
        let run = || task.over(0..9).map(call);
        let handle = if parallel { run().parallel().spawn() } else { run().spawn() };
        while handle.progress().running < 4 {
            std::thread::yield_now();
        }
        drop(entered);
        drop(ended);
        block_on(handle).unwrap_err();
        let told = memory.events("job was cancelled: 9 items");
        assert_eq!(told.len(), 1, "parallel: {parallel}");
        assert_eq!((told[0].level, memory.place_of(&told[0]).0), (Level::INFO, "map_task"));

        // Never begun: there is no span of the run.
        let never = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let entered = never.enter();
        let handle = if parallel { run().parallel().spawn() } else { run().spawn() };
        drop(entered);
        drop(never);
        block_on(handle).unwrap_err();
        assert_eq!(memory.events("job was cancelled: 9 items").len(), 2, "parallel: {parallel}");

        let dropped = workers(1);
        let mut stream = Box::pin(run().stream());
        dropped.block_on(async {
            assert!(poll!(stream.next()).is_pending());
            while stream.progress().running < 4 {
                yield_now().await;
            }
            drop(stream);
        });
        drop(dropped);
        assert_eq!(memory.events("job").len(), 2, "parallel: {parallel}");
    }
}
