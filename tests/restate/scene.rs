//! The parts that belong to one test: a run, a log of the events of its items, and a gate that holds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_map_task::restate::{Handler, Restate, RestateError};
use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, MapTaskResult};
use tokio::time::sleep;

use crate::server::{LONGEST, Server};
use crate::work::{Event, Item, Log, Output, output};

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) run_id: &'static str,
    pub(crate) log: Log,
    folder: PathBuf,
}

impl Scene {
    /// The run id is unique to the test. It does not contain `_` and `%`, which have a meaning for the introspection.
    pub(crate) fn new(run_id: &'static str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("scene-{run_id}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self { run_id, log: Log::new(&folder.join("log")), folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns an item that ends immediately.
    pub(crate) fn item(&self, index: u64) -> Item {
        Item { index, log: self.log.path(), ..Item::default() }
    }

    pub(crate) fn items(&self, count: u64) -> Vec<Item> {
        (0..count).map(|index| self.item(index)).collect()
    }

    /// Returns an item that ends when the gate is open.
    pub(crate) fn held(&self, index: u64) -> Item {
        Item { gate: Some(self.folder.join("gate")), ..self.item(index) }
    }

    pub(crate) fn open(&self) {
        fs::write(self.folder.join("gate"), "").unwrap();
    }

    /// Returns how often each of the first items began.
    pub(crate) fn began(&self, count: u64) -> Vec<u64> {
        self.log.counts(Event::Began, count)
    }

    pub(crate) async fn until(&self, event: Event, count: usize) {
        let seen = || self.log.events().iter().filter(|(found, _)| *found == event).count();
        until(&format!("{count} times {event:?} in {}", self.run_id), async || seen() >= count).await;
    }

    /// Returns the idempotency keys under which the engine has this run, in order and without the run id.
    pub(crate) async fn keys(&self, server: &Server) -> Vec<String> {
        let sql = format!(
            "SELECT idempotency_key FROM sys_invocation WHERE idempotency_key LIKE '{}.%' ORDER BY 1",
            self.run_id
        );
        let rows = server.query(&sql).await;
        let key = |row: &serde_json::Value| {
            let key = row["idempotency_key"].as_str().unwrap();
            key[self.run_id.len() + 1..].to_owned()
        };
        rows.iter().map(key).collect()
    }

    /// Returns the engine's id of the invocation with a key, which is given without the run id.
    pub(crate) async fn invocation_id(&self, server: &Server, key: &str) -> String {
        let key = format!("{}.{key}", self.run_id);
        let rows =
            server.query(&format!("SELECT id FROM sys_invocation WHERE idempotency_key = '{key}'")).await;
        assert_eq!(rows.len(), 1, "{key}: {rows:?}");
        rows[0]["id"].as_str().unwrap().to_owned()
    }
}

/// Returns an engine that cancels nothing.
pub(crate) fn engine(server: &Server) -> Restate {
    Restate::builder(server.ingress()).build().unwrap()
}

/// Returns a task with this concurrency and short retry delays.
pub(crate) fn at_once(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(concurrency).retry_delay(Duration::from_millis(1))
}

/// Executes a run that accepts every result.
pub(crate) async fn run(
    task: AsyncMapTaskBuilder,
    items: Vec<Item>,
    work: Handler<Output>,
) -> MapTaskResult<Output, RestateError> {
    let task = task.min_success_ratio(0.0).build().unwrap();
    let run = task.over(items).map_with_context(|cx, item| work.call(cx, item));
    run.retry_if(RestateError::is_retryable).await.unwrap()
}

/// Returns the result of a run over this many items if all of them succeed.
pub(crate) fn outputs(count: u64) -> Vec<Option<Output>> {
    (0..count).map(|index| Some(output(index))).collect()
}

/// Waits for a change by other threads or other processes.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LONGEST, "waited in vain for: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
