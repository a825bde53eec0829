//! Two hundred clients at once, a third of which leave in the middle. Afterwards, nothing of the load is left.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::lines::Results;
use crate::server::{Health, Server, client, json, until};

const CLIENTS: usize = 200;

/// The time for which the clients repeat their visits until everything is warm, and then again.
const WARM_UP: Duration = Duration::from_secs(5);
const LOAD: Duration = Duration::from_secs(12);

/// The time limit of the whole test.
const LIMIT: Duration = Duration::from_secs(60);

/// The growth of the resident memory that is allowed from the warm-up to the end of the load. The warm-up creates
/// everything permanent: the arenas of the allocator, the threads, and as many ended jobs as the service keeps. The rest is
/// the variation of the allocator.
const ALLOWED_KIB: u64 = 8 * 1024;

/// The shares of a generated list that fail in each way.
const MOODS: &str = "busy=0.03&hang=0.002&drop=0.05&gone=0.05";

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    disconnects: u64,
    items: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.disconnects += other.disconnects;
        self.items += other.items;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_leave_nothing_behind() {
    timeout(LIMIT, load()).await.expect("the load test ends in time");
}

async fn load() {
    let server = Arc::new(Server::start(&["--permits", "100"]).await);
    let start = Instant::now();
    // The first request creates the permanent parts of a service. The first health is that of an idle service.
    server.get("/map?generate=1").await;
    let first =
        until("the first connections end", async || server.health().await, |health| health.tasks <= 3).await;
    let fresh_kib = server.resident_kib();

    let mut tally = clients(&server, WARM_UP).await;
    let before = quiet(&server, first).await;
    let before_kib = server.resident_kib();

    tally += clients(&server, LOAD).await;
    let after = quiet(&server, first).await;
    let after_kib = server.resident_kib();

    let Tally { requests, disconnects, items } = tally;
    eprintln!(
        "load: {CLIENTS} clients, {requests} requests, {disconnects} disconnects, {items} items read, {:.1?}",
        start.elapsed()
    );
    eprintln!(
        "load: permits in use {} of {}, jobs alive {}, tasks {} before and {} after",
        after.in_use, after.permits, after.alive, before.tasks, after.tasks
    );
    eprintln!(
        "load: resident memory {fresh_kib} KiB fresh, {before_kib} KiB before, {after_kib} KiB after, \
         allowed are {ALLOWED_KIB} KiB more"
    );
    assert!(disconnects >= 2 * CLIENTS.div_ceil(3) as u64, "a third of the clients leave, each time");
    assert_eq!((after.in_use, after.permits, after.alive), (0, 100, 0));
    assert!(after_kib <= before_kib + ALLOWED_KIB, "memory grew from {before_kib} to {after_kib} KiB");
}

/// Waits until nothing runs and no more tasks are alive than at the start.
async fn quiet(server: &Server, first: Health) -> Health {
    let is_quiet = |health: &Health| health.in_use == 0 && health.alive == 0 && health.tasks <= first.tasks;
    until("nothing is left of the load", async || server.health().await, is_quiet).await
}

/// Lets all clients visit the service repeatedly, and begin no other visit after `time`.
async fn clients(server: &Arc<Server>, time: Duration) -> Tally {
    let end = Instant::now() + time;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let server = Arc::clone(server);
        clients.spawn(async move {
            let mut tally = Tally::default();
            for round in 0.. {
                let mut visit = Visit { server: &server, client: client(), tally: Tally::default() };
                visit.go(number, round).await;
                tally += visit.tally;
                if Instant::now() >= end {
                    break;
                }
            }
            tally
        });
    }
    let mut sum = Tally::default();
    while let Some(tally) = clients.join_next().await {
        sum += tally.unwrap();
    }
    sum
}

/// A visit of one client, from its first connection to its last.
struct Visit<'a> {
    server: &'a Server,
    client: Client,
    tally: Tally,
}

impl Visit<'_> {
    /// Every third client leaves, each in a different way or at a different time.
    async fn go(&mut self, number: usize, round: usize) {
        let turn = number / 3 + round;
        match (number % 3, turn % 4) {
            (0, 0 | 2) => self.leave_a_map(Duration::from_millis(5 + turn as u64 * 37 % 200)).await,
            (0, _) => self.leave_the_results().await,
            (_, 0) => self.map().await,
            (_, 1) => self.follow_the_results().await,
            (_, 2) => self.follow_the_events().await,
            _ => self.pause_and_cancel().await,
        }
    }

    async fn map(&mut self) {
        let map = self.get(&format!("/map?generate=20&delay_ms=20&{MOODS}")).await;
        let map = json(map, StatusCode::OK).await;
        let [results, errors] = ["results", "errors"].map(|part| map[part].as_array().unwrap());
        let successes = results.iter().filter(|result| !result.is_null()).count();
        assert_eq!((results.len(), successes + errors.len()), (20, 20));
        self.tally.items += 20;
    }

    /// The run would take at least two seconds.
    async fn leave_a_map(&mut self, after: Duration) {
        let path = "/map?generate=320&delay_ms=100";
        assert!(timeout(after, self.get(path)).await.is_err(), "the map was there before the client left");
        self.tally.disconnects += 1;
    }

    async fn follow_the_results(&mut self) {
        let id = self.start(20, 20).await;
        let account = self.results(&id).await.all().await;
        assert_eq!((account.items, account.end.as_str()), (20, "succeeded"));
        self.tally.items += 20;
    }

    /// The job continues without its client, which has read half of it.
    async fn leave_the_results(&mut self) {
        let id = self.start(20, 40).await;
        let mut results = self.results(&id).await;
        while results.lines.len() < 10 {
            assert!(results.more().await);
        }
        self.tally.items += results.lines.len() as u64;
        self.tally.disconnects += 1;
    }

    async fn follow_the_events(&mut self) {
        let id = self.start(20, 20).await;
        let events = self.get(&format!("/jobs/{id}/events")).await.text().await.unwrap();
        let (_, last) = events.rsplit_once("event: end\ndata: ").expect("an event for the end");
        let last: Value = serde_json::from_str(last.trim()).unwrap();
        assert_eq!((&last["state"], sum(&last)), (&json!("succeeded"), 20));
        // A client that comes late has missed nothing.
        assert_eq!(self.results(&id).await.all().await.items, 20);
        self.tally.items += 20;
    }

    async fn pause_and_cancel(&mut self) {
        let id = self.start(320, 100).await;
        let mut results = self.results(&id).await;
        assert!(results.more().await);
        for path in ["pause", "resume"] {
            self.tally.requests += 1;
            self.server.post(&format!("/jobs/{id}/{path}")).await;
        }
        self.tally.requests += 1;
        let url = self.server.url(&format!("/jobs/{id}"));
        json(self.client.delete(url).send().await.unwrap(), StatusCode::OK).await;
        let account = results.all().await;
        assert_eq!(account.end, "cancelled");
        let job = json(self.get(&format!("/jobs/{id}")).await, StatusCode::OK).await;
        assert_eq!((&job["state"], sum(&job)), (&json!("cancelled"), 320));
        self.tally.items += account.items as u64;
    }

    async fn start(&mut self, generate: u64, delay_ms: u64) -> String {
        let order = json!({
            "generate": generate, "delay_ms": delay_ms,
            "busy": 0.03, "hang": 0.002, "drop": 0.05, "gone": 0.05,
        });
        loop {
            self.tally.requests += 1;
            let job = self.client.post(self.server.url("/jobs")).json(&order).send().await.unwrap();
            if job.status() != StatusCode::SERVICE_UNAVAILABLE {
                return json(job, StatusCode::CREATED).await["id"].as_str().unwrap().to_owned();
            }
            // The maximum number of jobs runs, so the service accepts no other.
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn results(&mut self, id: &str) -> Results {
        Results::new(self.get(&format!("/jobs/{id}/results")).await)
    }

    async fn get(&mut self, path: &str) -> Response {
        self.tally.requests += 1;
        self.client.get(self.server.url(path)).send().await.unwrap()
    }
}

/// The four counts that make up the total.
fn sum(job: &Value) -> u64 {
    ["successes", "failures", "cancelled", "not_started"].iter().map(|name| job[name].as_u64().unwrap()).sum()
}
