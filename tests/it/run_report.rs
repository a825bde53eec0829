//! `RunReport`: its numbers against the account of its run, and its page.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Mutex;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, ItemOutcome, Limiter, RunReport, Summary};
use futures::future::join;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{Random, at_once, lenient, millis, secs};

fn json(report: &RunReport) -> Value {
    serde_json::from_str(&report.to_json()).unwrap()
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn counts(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(count).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_close(found: f64, exact: f64, tolerance: f64, what: &str) {
    assert!((found - exact).abs() <= tolerance * exact.abs() + 1e-9, "{what}: {found} instead of {exact}");
}

/// An attempt of the timeline.
#[derive(Debug, Clone, PartialEq)]
struct Attempt {
    item: usize,
    attempt: usize,
    permit: usize,
    start: f64,
    end: f64,
    outcome: String,
}

fn timeline(report: &Value) -> Vec<Attempt> {
    let attempts = report["timeline"].as_array().unwrap().iter();
    let attempt = |attempt: &Value| Attempt {
        item: count(&attempt["item"]),
        attempt: count(&attempt["attempt"]),
        permit: count(&attempt["permit"]),
        start: attempt["start"].as_f64().unwrap(),
        end: attempt["end"].as_f64().unwrap(),
        outcome: attempt["outcome"].as_str().unwrap().to_owned(),
    };
    attempts.map(attempt).collect()
}

/// Items that succeed, fail, are retried, exceed their limit and panic, at random times.
async fn act(cx: async_map_task::ItemContext, n: usize) -> Result<(), String> {
    let mut random = Random((n * 16 + cx.attempt() as usize) as u64);
    sleep(millis(1 + random.below(200))).await;
    match random.below(20) {
        0 => resume_unwind(Box::new("as it happens")),
        1 => pending().await,
        2..=6 => Err(format!("status {}", 500 + random.below(4))),
        7 => Err("refused".to_owned()),
        _ => Ok(()),
    }
}

fn acting() -> AsyncMapTaskBuilder {
    lenient()
        .name("acting")
        .concurrency(8)
        .retries(2)
        .retry_delay(millis(50))
        .timeout_per_attempt(millis(300))
}

/// Records a run of these items.
async fn record(items: usize) -> (RunReport, Summary, Vec<ItemOutcome<(), String>>) {
    let report = RunReport::new();
    let mut outcomes = Vec::new();
    let summary = acting()
        .build()
        .unwrap()
        .over(0..items)
        .map_with_context(act)
        .label(|n| format!("file {n}"))
        .error_text(|error| error.clone())
        .observe(report.observer())
        .for_each(|outcome| {
            outcomes.push(outcome);
            async {}
        })
        .await
        .unwrap();
    (report, summary, outcomes)
}

#[tokio::test(start_paused = true)]
async fn a_report_has_the_account_of_its_run() {
    let (report, summary, outcomes) = record(500).await;
    let report = json(&report);
    assert_eq!(report["name"], "acting");
    assert_eq!((report["verdict"].as_str(), report["succeeded"].as_bool()), (Some("succeeded"), Some(true)));
    assert_close(report["elapsed"].as_f64().unwrap(), summary.elapsed.as_secs_f64(), 0.001, "elapsed");
    let items = &report["items"];
    let fields = ["succeeded", "failed", "cancelled", "not_started", "recovered", "cached", "carried"];
    let expected = [summary.successes, summary.failures, 0, 0, 0, 0, 0];
    assert_eq!(fields.map(|field| count(&items[field])), expected);
    assert_eq!(count(&report["total"]), 500);

    let attempts = &report["attempts"];
    let made: usize = outcomes.iter().map(|outcome| outcome.attempts as usize).sum();
    let fields = ["started", "succeeded", "failed", "retries", "timeouts", "panics"];
    let failed = made - summary.successes;
    let expected = [made, summary.successes, failed, summary.retries, summary.timeouts, summary.panics];
    assert_eq!(fields.map(|field| count(&attempts[field])), expected);
    assert_eq!(count(&attempts["most_in_flight"]), 8);
    assert!(summary.retries > 100 && summary.timeouts > 10 && summary.panics > 5 && summary.failures > 20);
}

#[tokio::test(start_paused = true)]
async fn the_timeline_has_every_attempt_and_no_permit_has_two_at_once() {
    let (report, summary, outcomes) = record(500).await;
    let report = json(&report);
    assert_eq!(report["timeline_has_one_item_in"], 1);
    let timeline = timeline(&report);
    let mut by_permit: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut by_item: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for attempt in &timeline {
        by_permit.entry(attempt.permit).or_default().push(attempt);
        by_item.entry(attempt.item).or_default().push(attempt);
    }
    assert_eq!(by_permit.keys().copied().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    for attempts in by_permit.values() {
        assert!(attempts.windows(2).all(|pair| pair[0].end <= pair[1].start + 1e-9), "{attempts:?}");
    }
    for outcome in &outcomes {
        let attempts = &by_item[&outcome.index];
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.attempt).collect();
        assert_eq!(numbers, (1..=outcome.attempts as usize).collect::<Vec<_>>());
        let (last, others) = attempts.split_last().unwrap();
        assert_eq!(last.outcome, if outcome.result.is_ok() { "succeeded" } else { "failed" });
        assert!(others.iter().all(|attempt| attempt.outcome == "retried"));
        let elapsed = last.end - attempts[0].start;
        assert_close(elapsed, outcome.elapsed.as_secs_f64(), 0.001, "the time of an item");
    }
    // What is shown over time is the same, added up.
    let over_time = &report["over_time"];
    let sum = |field: &str| counts(&over_time[field]).into_iter().sum::<usize>();
    let sums = ["succeeded", "failed", "retried"].map(sum);
    assert_eq!(sums, [summary.successes, summary.failures, summary.retries]);
    let period = over_time["period"].as_f64().unwrap();
    let elapsed = summary.elapsed.as_secs_f64();
    let mut area = [0.0, 0.0];
    for (area, field) in area.iter_mut().zip(["in_flight", "waiting_for_retry"]) {
        for (n, value) in numbers(&over_time[field]).into_iter().enumerate() {
            *area += value * (elapsed - n as f64 * period).min(period);
        }
    }
    let ran: f64 = timeline.iter().map(|attempt| attempt.end - attempt.start).sum();
    let waited = by_item.values().flat_map(|attempts| attempts.windows(2));
    let waited: f64 = waited.map(|pair| pair[1].start - pair[0].end).sum();
    assert_close(area[0], ran, 0.001, "the time in flight");
    assert_close(area[1], waited, 0.001, "the time of waits");
    assert_close(report["permits_in_use"].as_f64().unwrap(), ran / (8.0 * elapsed), 0.001, "permits in use");
}

#[tokio::test(start_paused = true)]
async fn durations_failures_and_the_slowest_items_are_those_of_the_outcomes() {
    let (report, summary, outcomes) = record(500).await;
    let report = json(&report);
    let mut times: Vec<_> = outcomes.iter().map(|outcome| outcome.elapsed.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    let durations = &report["item_durations"];
    for (field, rank) in [("p50", 250), ("p90", 450), ("p95", 475), ("p99", 495), ("max", 500)] {
        assert_close(durations[field].as_f64().unwrap(), times[rank - 1], 0.016, field);
    }
    assert_close(durations["mean"].as_f64().unwrap(), times.iter().sum::<f64>() / 500.0, 0.001, "mean");
    let slowest: Vec<_> =
        report["slowest"].as_array().unwrap().iter().map(|slow| slow["elapsed"].as_f64().unwrap()).collect();
    assert_eq!(slowest.len(), 20);
    slowest
        .iter()
        .zip(times.iter().rev())
        .for_each(|(found, exact)| assert_close(*found, *exact, 0.001, "slow"));
    for slow in report["slowest"].as_array().unwrap() {
        assert_eq!(slow["label"], format!("file {}", slow["item"]));
    }

    let mut groups: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for group in report["failures"].as_array().unwrap() {
        let text = group["text"].as_str().map(|text| text.replace(char::is_numeric, ""));
        let key = (group["kind"].as_str().unwrap().to_owned(), text);
        assert!(groups.insert(key, (count(&group["attempts"]), count(&group["items"]))).is_none());
        for example in group["examples"].as_array().unwrap() {
            assert_eq!(example["label"], format!("file {}", example["item"]));
        }
    }
    let kinds: Vec<_> = groups.keys().map(|(kind, text)| (kind.as_str(), text.as_deref())).collect();
    let expected = [
        ("error", Some("refused")),
        ("error", Some("status ")),
        ("panic", Some("as it happens")),
        ("timeout", None),
    ];
    assert_eq!(kinds, expected);
    let of = |kind: &str, text: Option<&str>| groups[&(kind.to_owned(), text.map(str::to_owned))];
    assert_eq!(of("panic", Some("as it happens")), (summary.panics, summary.panics));
    assert_eq!(of("timeout", None).0, summary.timeouts);
    assert_eq!(groups.values().map(|(_, items)| items).sum::<usize>(), summary.failures);
    let attempts: usize = groups.values().map(|(attempts, _)| attempts).sum();
    assert_eq!(attempts, count(&report["attempts"]["failed"]));
    let all = &report["duration_buckets"];
    let in_buckets =
        |field: &str| all.as_array().unwrap().iter().map(|bucket| count(&bucket[field])).sum::<usize>();
    assert_eq!((in_buckets("succeeded"), in_buckets("failed")), (summary.successes, attempts));
}

#[tokio::test(start_paused = true)]
async fn waits_for_permits_are_those_of_a_rate() {
    let report = RunReport::new();
    let every_second = Limiter::builder().rate(1, secs(1)).build().unwrap();
    let task = at_once(4).limiter(&every_second).observer(report.observer()).build().unwrap();
    task.run(0..11, |n| async move { Ok::<_, &str>(n) }).await.unwrap();
    let waits = &json(&report)["permit_waits"];
    assert_eq!(count(&waits["count"]), 11);
    for (quantile, exact) in [("p50", 1.0), ("max", 1.0), ("mean", 10.0 / 11.0)] {
        assert_close(waits[quantile].as_f64().unwrap(), exact, 0.02, quantile);
    }
    assert!(report.to_html().contains("waits for permits"));
    let (unlimited, _, _) = record(1).await;
    assert!(!unlimited.to_html().contains("waits for permits"), "a column of zeros says nothing");
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_the_numbers_and_is_complete_without_other_files() {
    let (report, summary, _) = record(500).await;
    let page = report.to_html();
    for (name, value) in [
        ("items", 500),
        ("succeeded", summary.successes),
        ("failed", summary.failures),
        ("retries", summary.retries),
    ] {
        assert!(page.contains(&format!("<dt>{name}</dt><dd>{value}</dd>")), "{name}: {value}");
    }
    for (setting, value) in [("concurrency", "8"), ("retries", "2"), ("timeout_per_attempt", "300ms")] {
        assert!(page.contains(&format!("<dt>{setting}</dt><dd>{value}</dd>")), "{setting}: {value}");
    }
    let attempts = timeline(&json(&report)).len();
    assert_eq!(page.matches("<rect ").count(), attempts, "a bar for each attempt");
    assert!(page.contains("file 0 (item 0), attempt 1: "));
    for foreign in ["<script", "<link", "src=", "href=", "url(", "@import", "http:", "https:"] {
        assert!(!page.contains(foreign), "the page has {foreign}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "every number is a number");
}

#[tokio::test(start_paused = true)]
async fn texts_of_strangers_are_escaped() {
    let evil = "</style></title><script>alert(\"1\")</script>&amp;'";
    let report = RunReport::new();
    let task = AsyncMapTask::builder().name(evil).allow_failures().build().unwrap();
    let run = task.over(0..3).map(|_| async { Err::<(), _>("</p><img src=x onerror=alert(1)>") });
    run.label(|_| evil.to_owned())
        .error_text(|error| error.to_string())
        .observe(report.observer())
        .await
        .unwrap();
    let page = report.to_html();
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)") && page.contains("&lt;img src=x"));
    assert_eq!(json(&report)["name"], evil);
}

#[tokio::test(start_paused = true)]
async fn a_report_follows_its_run_from_before_its_start_to_its_end() {
    let report = RunReport::new();
    assert_eq!(
        (json(&report)["verdict"].as_str(), json(&report)["ended"].as_bool()),
        (Some("no run has started"), Some(false))
    );
    assert!(report.to_html().contains("no run has started"));

    let task = at_once(2).retries(1).retry_delay(secs(10)).retry_jitter(0.0).build().unwrap();
    let run = task.over(0..4).map_with_context(|cx, n| async move {
        sleep(secs(if n == 0 { 1 } else { 5 })).await;
        if n == 0 && cx.attempt() == 1 { Err("again") } else { Ok(n) }
    });
    let looks = RefCell::new(Vec::new());
    let look = async {
        for at in [500, 3_000, 20_000] {
            tokio::time::sleep_until(tokio::time::Instant::now() + millis(at)).await;
            looks.borrow_mut().push(json(&report));
            assert!(!report.to_html().contains("NaN"));
        }
    };
    join(async { run.observe(report.observer()).await.unwrap() }, look).await;
    let looks = looks.into_inner();
    let of = |n: usize, field: &str| count(&looks[n]["items"][field]);
    assert_eq!((of(0, "running"), of(0, "waiting_for_retry"), of(0, "succeeded")), (2, 0, 0));
    assert_eq!((of(1, "running"), of(1, "waiting_for_retry"), of(1, "succeeded")), (2, 1, 0));
    assert_eq!((of(2, "running"), of(2, "waiting_for_retry"), of(2, "succeeded")), (0, 0, 4));
    assert_eq!(looks[1]["verdict"], "running");
    assert_close(looks[1]["elapsed"].as_f64().unwrap(), 3.5, 0.001, "elapsed");
    let running: Vec<_> =
        timeline(&looks[1]).into_iter().filter(|attempt| attempt.outcome == "running").collect();
    assert_eq!(running.iter().map(|attempt| attempt.item).collect::<Vec<_>>(), [1, 2]);
    assert!(running.iter().all(|attempt| (attempt.end - 3.5).abs() < 0.002));
    assert_eq!(looks[2]["verdict"], "succeeded");
    assert_close(looks[2]["elapsed"].as_f64().unwrap(), 12.0, 0.001, "elapsed");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_cut_off_are_shown_and_the_verdict_says_why() {
    // A failure that ends the run.
    let report = RunReport::new();
    let task = at_once(3).fail_fast(true).build().unwrap();
    let run = task.over(0..9).map(|n| async move {
        sleep(secs(n + 1)).await;
        if n == 1 { Err("no") } else { Ok(n) }
    });
    run.observe(report.observer()).await.unwrap_err();
    let found = json(&report);
    assert_eq!(found["verdict"], "failed: item 1 failed and fail_fast is set");
    assert_eq!(["cancelled", "not_started"].map(|field| count(&found["items"][field])), [2, 5]);
    let ends: Vec<_> = timeline(&found).into_iter().map(|attempt| (attempt.item, attempt.outcome)).collect();
    let expected = [(0, "succeeded"), (1, "failed"), (2, "cut_off"), (3, "cut_off")];
    assert_eq!(ends, expected.map(|(item, outcome)| (item, outcome.to_owned())));

    // A run that is dropped, and one that is cancelled.
    let report = RunReport::new();
    let mut run = Box::pin(task.run(0..9, |_| pending::<Result<(), String>>()).observe(report.observer()));
    assert!((&mut run).now_or_never().is_none());
    sleep(secs(7)).await;
    drop(run);
    sleep(secs(7)).await;
    let found = json(&report);
    assert_eq!(
        (found["verdict"].as_str(), found["ended"].as_bool()),
        (Some("dropped before its end"), Some(true))
    );
    assert_close(found["elapsed"].as_f64().unwrap(), 7.0, 0.001, "elapsed");
    assert_eq!(timeline(&found).iter().filter(|attempt| attempt.outcome == "cut_off").count(), 3);

    let report = RunReport::new();
    let token = tokio_util::sync::CancellationToken::new();
    let run = task.run(0..9, |_| pending::<Result<(), String>>());
    token.cancel();
    run.cancellation_token(token).observe(report.observer()).await.unwrap_err();
    assert_eq!(json(&report)["verdict"], "cancelled");
    assert!(report.to_html().contains("No attempt has started."));
}

#[tokio::test(start_paused = true)]
async fn a_report_has_the_first_of_several_runs() {
    let report = RunReport::new();
    let task = at_once(1).observer(report.observer()).build().unwrap();
    let run = |items: usize| {
        task.run(0..items, |n| async move {
            sleep(secs(1)).await;
            Ok::<_, String>(n)
        })
    };
    // Two runs of the task at the same time, and a third one later.
    let (one, other) = join(run(3), run(5)).await;
    for ended in [one, other, run(7).await] {
        ended.unwrap();
    }
    let found = json(&report);
    assert_eq!((count(&found["total"]), count(&found["attempts"]["started"])), (3, 3));
    assert_eq!(count(&found["other_runs"]), 2);
    assert!(report.to_html().contains("2 later runs are not in this report"));
}

#[tokio::test(start_paused = true)]
async fn a_call_for_several_items_has_one_permit() {
    let report = RunReport::new();
    let task = at_once(4).retries(1).retry_delay(secs(3)).retry_jitter(0.0).build().unwrap();
    let calls = Mutex::new(0);
    let call = |items: Vec<usize>| {
        let first = std::mem::replace(&mut *calls.lock().unwrap(), 1) == 0;
        async move {
            sleep(secs(1)).await;
            // The first call fails as a whole and is made again.
            if first { Err("busy") } else { Ok(items.into_iter().map(Ok).collect()) }
        }
    };
    task.over(0..200).map_batches(100, call).observe(report.observer()).await.unwrap();
    let found = json(&report);
    let attempts =
        ["started", "calls", "retries", "most_in_flight"].map(|field| count(&found["attempts"][field]));
    assert_eq!(attempts, [300, 3, 100, 2]);
    // Two calls of a second, a wait of three, and one more call, in 4 x 5 s.
    assert_close(found["permits_in_use"].as_f64().unwrap(), 3.0 / 20.0, 0.01, "permits in use");
    let timeline = timeline(&found);
    assert_eq!(timeline.iter().map(|attempt| attempt.permit).max(), Some(1));
    assert_eq!(
        found["timeline"].as_array().unwrap().iter().filter(|one| one["shares_call"] == false).count(),
        3
    );
    let page = report.to_html();
    assert_eq!(page.matches("<rect ").count(), 3);
    assert!(page.contains("<dt>calls</dt><dd>3</dd>"));
}

#[tokio::test(start_paused = true)]
async fn the_changes_of_an_adaptive_limiter_are_those_of_its_events() {
    let server = Limiter::builder().adaptive(1..=100).start_at(40).build().unwrap();
    let report = RunReport::new();
    let told = Mutex::new(Vec::new());
    let task = at_once(100).limiter(&server).observer(report.observer()).allow_failures().build().unwrap();
    task.over(0..400)
        .map(|n| async move {
            sleep(millis(10)).await;
            if n < 200 { Err(503) } else { Ok(n) }
        })
        .overload(|status| *status == 503)
        .observe(|event: &Event<'_>| {
            if let Event::LimitChanged { from, to, why, .. } = event {
                told.lock().unwrap().push((*from, *to, why.as_str().to_owned()));
            }
        })
        .await
        .unwrap();
    let found = json(&report);
    let changes = found["limit_changes"].as_array().unwrap();
    let fields = |change: &Value| {
        (count(&change["from"]), count(&change["to"]), change["why"].as_str().unwrap().to_owned())
    };
    let told = told.into_inner().unwrap();
    assert_eq!(changes.iter().map(fields).collect::<Vec<_>>(), told);
    assert_eq!((told[0].0, told[0].2.as_str()), (40, "overload"));
    assert!(told.last().unwrap().1 == server.permits() && server.permits() < 40);
    let times: Vec<_> = changes.iter().map(|change| change["at"].as_f64().unwrap()).collect();
    assert!(
        times.is_sorted() && times[0] >= 0.01 && *times.last().unwrap() <= found["elapsed"].as_f64().unwrap()
    );
    assert!(report.to_html().contains("<path class=\"adaptive\" d=\"M0 "));
}

#[tokio::test]
async fn beyond_100_000_attempts_the_timeline_is_a_sample_of_whole_items() {
    let report = RunReport::new();
    let task = lenient().concurrency(64).retries(1).retry_delay(std::time::Duration::ZERO).build().unwrap();
    let work = |cx: async_map_task::ItemContext, n: usize| async move {
        if n % 5 == 0 && cx.attempt() == 1 { Err("again") } else { Ok(n) }
    };
    let summary = task
        .over(0..250_000_usize)
        .map_with_context(work)
        .observe(report.observer())
        .for_each(|_| async {})
        .await
        .unwrap();
    let found = json(&report);
    assert_eq!(count(&found["attempts"]["started"]), 300_000);
    assert_eq!(count(&found["attempts"]["retries"]), summary.retries);
    let one_in = count(&found["timeline_has_one_item_in"]);
    assert!([4, 8].contains(&one_in), "{one_in}");
    let mut by_item: BTreeMap<_, usize> = BTreeMap::new();
    timeline(&found).into_iter().for_each(|attempt| *by_item.entry(attempt.item).or_default() += 1);
    assert_close(by_item.len() as f64, 250_000.0 / one_in as f64, 0.05, "the kept items");
    for (item, attempts) in by_item {
        assert_eq!(attempts, if item % 5 == 0 { 2 } else { 1 }, "all attempts of item {item}");
    }
    let page = report.to_html();
    assert!(page.contains(&format!("has one in {one_in} items")));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

/// A run that waits before anything happens, and items that settle without an attempt.
#[tokio::test(start_paused = true)]
async fn what_happens_late_is_shown_late() {
    let first = at_once(4).build().unwrap().run(0..50, |n| async move { Ok::<_, String>(n) }).await.unwrap();
    let report = RunReport::new();
    let source = futures::stream::once(sleep(secs(10))).flat_map(|()| futures::stream::iter(0..60));
    let task = at_once(4).build().unwrap();
    let run = task.over_stream(source).map(|n| async move {
        sleep(secs(10)).await;
        Ok::<_, String>(n)
    });
    run.redo(first).observe(report.observer()).await.unwrap();
    let found = json(&report);
    let items = &found["items"];
    let without_attempt = ["recovered", "cached", "carried"].map(|origin| count(&items[origin]));
    assert_eq!(without_attempt, [0, 0, 50]);
    // Ten items in 40 s.
    let page = report.to_html();
    assert!(page.contains("<dt>carried over</dt><dd>50</dd>") && !page.contains("<dt>cached</dt>"));
    assert!(page.contains("<dt>items/s</dt><dd>0.25</dd>"));
    assert_close(found["elapsed"].as_f64().unwrap(), 40.0, 0.001, "elapsed");
    let (period, settled) =
        (found["over_time"]["period"].as_f64().unwrap(), counts(&found["over_time"]["succeeded"]));
    let times = settled.iter().enumerate().filter(|(_, settled)| **settled > 0);
    let times: Vec<_> = times.map(|(n, settled)| ((n as f64 + 0.5) * period, *settled)).collect();
    assert_eq!(times.iter().map(|(_, settled)| *settled).collect::<Vec<_>>(), [50, 4, 4, 2], "{times:?}");
    for ((at, _), exact) in times.iter().zip([10.0, 20.0, 30.0, 40.0]) {
        assert!((at - exact).abs() <= period, "{times:?}");
    }
}

#[tokio::test]
async fn the_files_are_written_and_an_error_names_the_path() {
    let report = RunReport::new();
    AsyncMapTask::default()
        .run(0..3, |n| async move { Ok::<_, String>(n) })
        .observe(report.observer())
        .await
        .unwrap();
    let dir = std::env::temp_dir().join(format!("async-map-task-report-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (html, json) = (dir.join("run.html"), dir.join("run.json"));
    report.write_html(&html).unwrap();
    report.write_json(&json).unwrap();
    assert_eq!(std::fs::read_to_string(&html).unwrap(), report.to_html());
    assert_eq!(std::fs::read_to_string(&json).unwrap(), report.to_json());
    let error = report.write_html(dir.join("missing/run.html")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("missing/run.html"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}
