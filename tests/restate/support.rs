//! The parts that the tests of stopped runs share.

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use async_map_task::restate::{Handler, Restate, RestateBuilder, RestateError};
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, ItemError};
use futures::future::{Either, select};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::server::{self, LONGEST, Server};
use crate::work::{Event, Item, Log, Output};

/// An item that takes this long never ends.
pub(crate) const FOR_EVER: u64 = 3_600_000;

/// A run id, the engine that has its items, and the log of their workers.
#[derive(Debug)]
pub(crate) struct Place<'s> {
    pub(crate) server: &'s Server,
    pub(crate) engine: Restate,
    pub(crate) work: Handler<Output>,
    pub(crate) log: Log,
    pub(crate) run_id: String,
    gate: PathBuf,
}

impl Place<'static> {
    /// Returns a place on the server of all tests. Deaf handlers are soon killed.
    pub(crate) async fn new(name: &str) -> Self {
        let engine = |server: &Server| builder(server).admin(server.admin()).build().unwrap();
        Self::with(name, engine).await
    }

    pub(crate) async fn with(name: &str, engine: impl FnOnce(&Server) -> Restate) -> Self {
        Self::on(server::shared().await, name, engine)
    }
}

impl<'s> Place<'s> {
    /// Returns a place on this server, under a name that no other test has.
    pub(crate) fn on(server: &'s Server, name: &str, engine: impl FnOnce(&Server) -> Restate) -> Self {
        let engine = engine(server);
        let run_id = format!("stopping-{name}");
        let file = |kind| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{run_id}.{kind}"));
        let (log, gate) = (Log::new(&file("log")), file("gate"));
        let _ = fs::remove_file(&gate);
        let work = engine.handler("Work", "work").run_id(&run_id);
        Self { server, engine, work, log, run_id, gate }
    }

    /// Returns items that never end, in handlers that ignore a cancellation.
    pub(crate) fn deaf(&self, count: u64) -> Vec<Item> {
        let item = |index| Item { index, log: self.log.path(), millis: FOR_EVER, ..Item::default() };
        (0..count).map(item).collect()
    }

    /// Returns items that never end, in handlers that end when they are cancelled.
    pub(crate) fn heeding(&self, count: u64) -> Vec<Item> {
        self.deaf(count).into_iter().map(|item| Item { heeds: true, ..item }).collect()
    }

    /// Returns items of which these wait for the gate, and end when it is open. The others never end.
    pub(crate) fn some_at_the_gate(&self, count: u64, at_the_gate: &[u64]) -> Vec<Item> {
        let mut items = self.deaf(count);
        for index in at_the_gate {
            items[*index as usize].millis = 0;
            items[*index as usize].gate = Some(self.gate.clone());
        }
        items
    }

    pub(crate) fn open_the_gate(&self) {
        fs::write(&self.gate, "").unwrap();
    }

    pub(crate) fn count(&self, event: Event) -> usize {
        self.log.events().iter().filter(|(found, _)| *found == event).count()
    }

    /// Waits until this many handlers have been called.
    pub(crate) async fn begun(&self, count: usize) {
        until("as many handlers begin as there are items", || self.count(Event::Began) == count).await;
    }

    /// Polls a run until this many handlers have been called, and drops it.
    pub(crate) async fn drop_when_begun<R: Future>(&self, count: usize, run: R) {
        let begun = pin!(self.begun(count));
        if let Either::Left(_) = select(Box::pin(run), begun).await {
            panic!("the run ended before it was dropped");
        }
    }

    /// Checks that no invocation of the run continues or will begin: the engine has none, the log does not grow, and every
    /// handler that began has ended. Returns the number of handlers that were dropped before their end.
    pub(crate) async fn nothing_goes_on(&self) -> usize {
        let settled = timeout(LONGEST, self.engine.settled()).await;
        assert_eq!(settled.expect("what was stopped is cancelled in time"), 0);
        assert_eq!(self.server.in_flight(&self.run_id).await, Vec::<Value>::new());
        let began = self.count(Event::Began);
        // The engine has ended them, and their worker is about to notice.
        let is_over = || self.count(Event::Ended) + self.count(Event::Dropped) == began;
        until("every handler that began is ended or dropped", is_over).await;
        assert_eq!(self.count(Event::Began), began, "a handler began after its cancelling");
        self.count(Event::Dropped)
    }

    /// Returns the keys with outcomes that the engine keeps for the run, without the run id. A record of a stopped call
    /// does not count.
    pub(crate) async fn kept(&self) -> Vec<String> {
        self.completed(
            "completion_failure IS NULL OR completion_failure NOT IN ('[409] cancelled', '[409] killed')",
        )
        .await
    }

    /// Returns the keys of the run under which a call was stopped.
    pub(crate) async fn stopped(&self) -> Vec<String> {
        self.completed("completion_failure IN ('[409] cancelled', '[409] killed')").await
    }

    async fn completed(&self, condition: &str) -> Vec<String> {
        let sql = format!(
            "SELECT idempotency_key FROM sys_invocation
             WHERE status = 'completed' AND idempotency_key LIKE '{}.%' AND ({condition})",
            self.run_id
        );
        let key = |row: &Value| row["idempotency_key"].as_str().unwrap()[self.run_id.len() + 1..].to_owned();
        let mut keys: Vec<_> = self.server.query(&sql).await.iter().map(key).collect();
        keys.sort();
        keys
    }
}

/// Returns an engine on this server, which soon kills deaf handlers, and has no admin API yet.
pub(crate) fn builder(server: &Server) -> RestateBuilder {
    Restate::builder(server.ingress()).kill_after(Duration::from_millis(100))
}

/// Returns a task that begins this many items at once, and waits for all of them even if many fail.
pub(crate) fn lenient(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(concurrency).min_success_ratio(0.0)
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONGEST, "it has not come to this: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Polls a run at least once until this time has passed, and drops it. Tokio's own timers are too coarse for that.
pub(crate) async fn drop_after<R: Future>(time: Duration, run: R) {
    let mut run = Box::pin(run);
    let began = Instant::now();
    loop {
        assert!(futures::poll!(run.as_mut()).is_pending());
        if began.elapsed() >= time {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Returns `true` if an item has failed because its invocation was cancelled or killed.
pub(crate) fn is_stopped(error: &ItemError<RestateError>) -> bool {
    matches!(error, ItemError::Failed { error: RestateError::Cancelled { .. }, .. })
}
