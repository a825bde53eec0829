//! `GET /metrics`: a scraper reads what was sent, and the memory does not grow with it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::{self, Debug, Formatter};
use std::process::Command;
use std::time::Duration;

use async_map_task::AsyncMapTask;
use reqwest::StatusCode;
use serde_json::json;

use crate::server::{Server, client, json, until};
use crate::service_metrics::{BUCKETS, Metrics, TEXT_FORMAT};

type Labels = BTreeMap<String, String>;

/// One answer, in parts.
struct Scrape {
    samples: BTreeMap<(String, Labels), f64>,
}

/// Has a line for each sample that is not zero.
impl Debug for Scrape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut samples = self.samples.iter().filter(|(_, value)| value.abs() > 0.0);
        samples.try_for_each(|((name, labels), value)| write!(f, "\n  {name} {labels:?} {value}"))
    }
}

impl Scrape {
    async fn of(server: &Server) -> Self {
        let answer = client().get(server.url("/metrics")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], TEXT_FORMAT);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self::parse(&answer.text().await.unwrap())
    }

    /// Parses the text format of Prometheus. Each sample has a type, and none is there twice.
    fn parse(text: &str) -> Self {
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# HELP ")) {
            if let Some(of_type) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of_type.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "two types: {line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
            let is_typed = types.contains_key(name)
                || ["_bucket", "_sum", "_count"].iter().any(|part| {
                    let base = name.strip_suffix(part);
                    base.and_then(|base| types.get(base)).is_some_and(|kind| kind == "histogram")
                });
            assert!(is_typed, "no type: {line}");
            // No value here has a comma or a quote in it.
            let label = |label: &str| {
                let (name, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                (name.to_owned(), value.to_owned())
            };
            let series = (name.to_owned(), labels.split(',').map(label).collect());
            assert!(samples.insert(series, value.parse().unwrap()).is_none(), "twice: {line}");
        }
        Self { samples }
    }

    /// Returns the value of the sample with exactly these labels.
    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let series = (format!("async_map_task_{name}"), labels);
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}"))
    }

    /// Returns a value that is a whole number.
    #[track_caller]
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let value = self.value(name, labels);
        assert!(value.fract().abs() < f64::EPSILON, "{name}: {value}");
        value as i64
    }

    /// Returns the counts of a histogram: of each bucket, and of all.
    #[track_caller]
    fn buckets(&self, name: &str, task: &str, outcome: &str) -> Vec<i64> {
        let labels = [("task", task), ("outcome", outcome)];
        let bucket =
            |bound: &str| self.count(&format!("{name}_bucket"), &[&labels[..], &[("le", bound)]].concat());
        let counts: Vec<_> = BUCKETS
            .iter()
            .map(f64::to_string)
            .chain(["+Inf".to_owned()])
            .map(|bound| bucket(&bound))
            .collect();
        assert!(counts.is_sorted(), "{name}: {counts:?}");
        assert_eq!(counts.last(), Some(&self.count(&format!("{name}_count"), &labels)));
        counts
    }

    fn gauges(&self, task: &str) -> [i64; 3] {
        ["attempts_in_flight", "items_waiting_for_retry", "runs_active"]
            .map(|name| self.count(name, &[("task", task)]))
    }

    /// Compares the counters of a task.
    #[track_caller]
    fn assert_counters(&self, task: &str, expected: &Counters) {
        let value = |name, labels: &[_]| self.count(name, &[&[("task", task)], labels].concat());
        let failures = |kind| value("attempt_failures_total", &[("kind", kind)]);
        let items = |outcome| value("items_total", &[("outcome", outcome), ("origin", "ran")]);
        let found = Counters {
            attempts: value("attempts_total", &[]),
            retries: value("retries_total", &[]),
            errors: failures("error"),
            timeouts: failures("timeout"),
            panics_and_faults: failures("panic") + failures("fault"),
            succeeded: items("success"),
            failed: items("failure"),
            completed: value("runs_total", &[("outcome", "all")]),
            dropped: value("runs_total", &[("outcome", "dropped")]),
        };
        assert_eq!(found, *expected, "of the task {task}");
    }
}

#[derive(Debug, Default, PartialEq)]
struct Counters {
    attempts: i64,
    retries: i64,
    errors: i64,
    timeouts: i64,
    panics_and_faults: i64,
    succeeded: i64,
    failed: i64,
    completed: i64,
    dropped: i64,
}

#[tokio::test]
async fn metrics_agree_with_what_was_sent() {
    let server = Server::start(&[]).await;
    let fresh = Scrape::of(&server).await;
    for task in ["map", "job"] {
        fresh.assert_counters(task, &Counters::default());
    }

    server.get("/map?generate=20").await;
    // A 410 is not retried. A 503 is, after the second of its `Retry-After`.
    server.get("/map?generate=10&gone=1").await;
    server.get("/map?generate=5&busy=1&retries=1").await;
    // An attempt has two seconds.
    server.get("/map?generate=2&hang=1&retries=0").await;
    let job = server.start_job(&json!({ "generate": 7 })).await;
    let job = async || server.get(&format!("/jobs/{job}")).await;
    until("the job ends", job, |job| job["state"] == "succeeded").await;

    let all = until(
        "nothing runs",
        async || Scrape::of(&server).await,
        |scrape| scrape.gauges("map") == [0; 3] && scrape.gauges("job") == [0; 3],
    )
    .await;
    let maps = Counters {
        attempts: 20 + 10 + 2 * 5 + 2,
        retries: 5,
        errors: 10 + 2 * 5,
        timeouts: 2,
        succeeded: 20,
        failed: 10 + 5 + 2,
        completed: 4,
        ..Counters::default()
    };
    all.assert_counters("map", &maps);
    let jobs = Counters { attempts: 7, succeeded: 7, completed: 1, ..Counters::default() };
    all.assert_counters("job", &jobs);

    let (attempts, items) = ("attempt_duration_seconds", "item_duration_seconds");
    let count = |name, task, outcome| all.buckets(name, task, outcome).last().copied();
    assert_eq!(count(attempts, "map", "success"), Some(20));
    assert_eq!(count(items, "map", "success"), Some(20));
    assert_eq!((count(attempts, "job", "success"), count(items, "job", "success")), (Some(7), Some(7)));
    assert_eq!((count(attempts, "job", "failure"), count(items, "job", "failure")), (Some(0), Some(0)));
    // The timeouts took two seconds, the items that were retried at least one.
    let up_to = |bound: f64| BUCKETS.iter().position(|le| *le >= bound).unwrap();
    let (of_attempts, of_items) =
        (all.buckets(attempts, "map", "failure"), all.buckets(items, "map", "failure"));
    assert_eq!((of_attempts[BUCKETS.len()], of_items[BUCKETS.len()]), (22, 17));
    assert!(of_attempts[up_to(1.0)] <= 20 && of_items[up_to(0.5)] <= 10, "{of_attempts:?}, {of_items:?}");
    let labels = [("task", "map"), ("outcome", "failure")];
    let waits = [("map", 42), ("job", 7)].map(|(task, attempts)| {
        let labels = [("task", task), ("le", "+Inf")];
        (all.count("permit_wait_seconds_bucket", &labels), attempts)
    });
    assert!(waits.iter().all(|(counted, attempts)| counted == attempts), "{waits:?}");
    let sum = all.value("attempt_duration_seconds_sum", &labels);
    assert!(sum >= 2.0 * 2.0, "in seconds: {sum}");
}

/// A client that leaves ends its map, which is then not counted as running for ever.
#[tokio::test]
async fn gauges_follow_a_map_and_return_to_zero_without_its_client() {
    let server = Server::start(&[]).await;
    let path = "/map?generate=3&delay_ms=60000&retries=10";
    let map = tokio::spawn(client().get(server.url(path)).send());
    let scrape = async || Scrape::of(&server).await;
    // Each attempt has two seconds, and then the item waits for its retry.
    let is_running = |scrape: &Scrape| {
        let [in_flight, waiting, runs] = scrape.gauges("map");
        (in_flight + waiting, runs) == (3, 1)
    };
    until("three items run", scrape, is_running).await;
    map.abort();
    let after = until("nothing runs", scrape, |scrape| scrape.gauges("map") == [0; 3]).await;
    let runs = |outcome| after.count("runs_total", &[("task", "map"), ("outcome", outcome)]);
    assert_eq!((runs("all"), runs("cancelled"), runs("dropped")), (0, 0, 1));
    assert_eq!(after.gauges("job"), [0; 3]);
}

#[tokio::test]
async fn no_job_adds_a_series() {
    let server = Server::start(&[]).await;
    let series = async || Scrape::of(&server).await.samples.into_keys().collect::<BTreeSet<_>>();
    let first = series().await;
    for _ in 0..30 {
        server.start_job(&json!({ "generate": 2, "gone": 0.5 })).await;
    }
    until("all end", async || server.health().await, |health| health.alive == 0).await;
    let more: Vec<_> = series().await.difference(&first).cloned().collect();
    assert_eq!(more, []);
    let tasks: BTreeSet<_> = first.iter().map(|(_, labels)| labels["task"].as_str()).collect();
    assert_eq!(tasks, BTreeSet::from(["job", "map"]));
}

#[tokio::test]
async fn metrics_are_only_read() {
    let server = Server::start(&[]).await;
    let post = client().post(server.url("/metrics")).send().await.unwrap();
    json(post, StatusCode::METHOD_NOT_ALLOWED).await;
}

/// The variable that tells the test that no other test runs in its process.
const ALONE: &str = "METRICS_TEST_ALONE";

/// Starts itself in a process of its own: the memory of other tests would count.
#[test]
fn durations_do_not_pile_up_if_nobody_asks() {
    if env::var_os(ALONE).is_none() {
        let name = "metrics::durations_do_not_pile_up_if_nobody_asks";
        let mut alone = Command::new(env::current_exe().unwrap());
        let ended = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let out = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && out.contains("1 passed"), "{out}{:?}", ended.stderr);
        eprint!("{}", String::from_utf8_lossy(&ended.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        const ITEMS: u32 = 1_000_000;
        let metrics = Metrics::install().unwrap();
        let task = AsyncMapTask::builder().observer(metrics.maps.clone()).build().unwrap();
        let run = async |items: u32| {
            let run = task.over(0..items).map(|n| async move { Ok::<_, String>(n) });
            tokio::select! {
                biased;
                () = metrics.upkeep(Duration::from_millis(10)) => unreachable!("it has no end"),
                ended = run.for_each(|_| async {}) => ended.unwrap(),
            }
        };
        run(ITEMS / 10).await;
        let before = resident_kib();
        run(ITEMS).await;
        let growth = resident_kib().saturating_sub(before);
        // Each item has two durations. They would be 31,250 KiB.
        eprintln!("metrics: {ITEMS} items, the memory grew by {growth} KiB");
        assert!(growth < 8_192, "the memory grew by {growth} KiB");
        let counted = Scrape::parse(&metrics.text()).buckets("item_duration_seconds", "map", "success");
        assert_eq!(counted.last(), Some(&1_100_000));
    });
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
