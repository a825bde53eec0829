//! The jobs of the processes.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use async_map_task::restate::{Restate, RestateError};
use async_map_task::{AsyncMapTask, ItemContext};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tracing::Level;

use super::JOB;
use crate::server::Server;
use crate::work::{Item, Output, output};
use crate::worker;

/// The name of the test that runs the job.
pub(super) const TEST: &str = "process::job::is_done";

/// In the folder of a worker, so that each has its own log.
pub(super) const LOG: &str = "work.log";
pub(super) const GATE: &str = "gate";

/// The number of items of a run that run at the same time.
pub(crate) const CONCURRENCY: u64 = 50;

/// The time that an item takes.
const MILLIS: u64 = 50;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Serves until it is killed.
    Work { port: u16, folder: PathBuf },
    /// Runs the map, and writes a report of its end.
    Map { map: Map, report: PathBuf },
}

/// This tests nothing. A process that a test has started begins here; without a job, there is nothing to do.
#[test]
fn is_done() {
    let Ok(job) = env::var(JOB) else { return };
    let runtime = Runtime::new().unwrap();
    match serde_json::from_str(&job).unwrap() {
        Job::Work { port, folder } => {
            env::set_current_dir(folder).unwrap();
            runtime.block_on(async {
                worker::serve(TcpListener::bind(("127.0.0.1", port)).await.unwrap()).await
            });
        }
        Job::Map { map, report } => {
            // Opened before the run, which may use up all descriptors.
            let part = report.with_extension("part");
            let file = File::create(&part).unwrap();
            let log = Mutex::new(File::create(report.with_extension("log")).unwrap());
            tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::WARN).with_writer(log).init();
            let ended = runtime.block_on(map.over_the_engine());
            serde_json::to_writer(file, &ended).unwrap();
            // The report is complete before the file has its final name.
            fs::rename(part, report).unwrap();
        }
    }
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Map {
    pub(crate) ingress: String,
    pub(crate) admin: String,
    pub(crate) run_id: String,
    pub(crate) items: u64,
    /// The log of the workers.
    pub(crate) log: PathBuf,
    /// The number of items of which one fails in each attempt.
    pub(crate) one_bad_of: Option<u64>,
    /// These items do not end before the gate is open.
    pub(crate) held: Range<u64>,
}

/// The end of a run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) results: Vec<Option<Output>>,
    /// The errors of the items that failed.
    pub(crate) errors: BTreeMap<usize, String>,
    pub(crate) retries: usize,
}

impl Map {
    pub(crate) fn new(server: &Server, run_id: &str, items: u64) -> Self {
        let (ingress, admin, run_id) = (server.ingress(), server.admin(), run_id.to_owned());
        Self { ingress, admin, run_id, items, log: PathBuf::from(LOG), one_bad_of: None, held: 0..0 }
    }

    pub(crate) fn is_bad(&self, index: u64) -> bool {
        self.one_bad_of.is_some_and(|of| index % of == of / 2)
    }

    /// Runs the items over the engine, in the workers.
    async fn over_the_engine(self) -> Result<Report, String> {
        let engine = Restate::builder(&self.ingress).admin(&self.admin).build().unwrap();
        let work = engine.handler("Work", "work").run_id(&self.run_id);
        self.run(|cx, item| work.call(cx, item)).await
    }

    /// Runs the items in this process, where no kill disturbs them.
    pub(crate) async fn undisturbed(&self) -> Report {
        let work = async |item: Item| {
            if item.fails == 0 {
                return Ok(output(item.index));
            }
            let (message, invocation_id) = (format!("item {} is bad", item.index), String::new());
            Err(RestateError::Handler { code: 418, message, invocation_id })
        };
        self.run(|_, item| work(item)).await.unwrap()
    }

    /// The run that all jobs execute, each with its own function.
    async fn run<F>(&self, function: impl Fn(ItemContext, Item) -> F) -> Result<Report, String>
    where
        F: Future<Output = Result<Output, RestateError>>,
    {
        let item = |index| {
            let fails = if self.is_bad(index) { u64::MAX } else { 0 };
            let gate = self.held.contains(&index).then(|| PathBuf::from(GATE));
            Item { index, log: self.log.clone(), millis: MILLIS, gate, fails, ..Item::default() }
        };
        let task = AsyncMapTask::builder().concurrency(CONCURRENCY as usize).retries(1);
        let task = task.max_failures(self.items as usize).build().unwrap();
        let run = task.over((0..self.items).map(item)).map_with_context(function);
        let ended = run.retry_if(RestateError::is_retryable).await.map_err(|error| error.to_string())?;
        let errors = ended.errors.iter().map(|(index, error)| (*index, error.to_string())).collect();
        Ok(Report { results: ended.results, errors, retries: ended.summary.retries })
    }
}
