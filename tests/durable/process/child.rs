//! The process that executes the job.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::fmt::Debug;
use std::future::pending;
use std::time::Duration;

use async_map_task::store::{PostgresStore, RunStatus, SqliteStore, Store, StoreError};
use async_map_task::{AsyncMapTask, Cache, ItemContext, ItemOutcome, Recovery, RunError};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::{Event, IfHeld, JOB, Job, Keeping, LONGEST, Log, Output, Place, Row, Rows, STEPS, output};

/// The name of the test that is the entry point.
pub(super) const TEST: &str = "process::child::runs_the_job";

/// The entry point of a process that a test has started. Without a job it tests nothing.
#[test]
fn runs_the_job() {
    let Ok(job) = env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    let done = async {
        match &job.place {
            Place::Sqlite(path) => work(&job, &SqliteStore::open(path).await.unwrap()).await,
            Place::Postgres(url) => work(&job, &PostgresStore::connect(url).await.unwrap()).await,
        }
    };
    // So that it does not wait for ever if its test has died.
    Runtime::new().unwrap().block_on(async { timeout(LONGEST, done).await }).unwrap();
}

async fn work(job: &Job, store: &impl Store) {
    let log = Log::open(&job.log);
    let task = AsyncMapTask::builder().name("job").concurrency(job.concurrency).build().unwrap();
    let run = task.over((0..job.items as usize).map(|index| job.item(index))).map(|item| job.run(item, &log));
    let ended = match &job.keeping {
        Keeping::Recover { run_id, if_held } => {
            let wait = if *if_held == IfHeld::Refuse { Duration::ZERO } else { LONGEST };
            let recovery = Recovery::run(run_id).lease(job.lease).wait_for_holder(wait);
            let run = run.recover(store, recovery).for_each(|outcome| report(job, &log, outcome));
            match if_held {
                IfHeld::GiveBack => given_back(store, run_id, run).await,
                IfHeld::Refuse | IfHeld::Wait => run.await,
            }
        }
        Keeping::Cache => {
            let run = run.cache(store, Cache::version("1").serialized().lease(job.lease));
            run.for_each(|outcome| report(job, &log, outcome)).await
        }
        Keeping::Together { run_id } => {
            let items = task.over((0..job.items as usize).map(|index| job.item(index)));
            let run = items.map_with_context(|context, item| job.run_in_steps(context, item, &log));
            let recovery = Recovery::run(run_id).lease(job.lease).wait_for_holder(LONGEST);
            let run = run.cache(store, Cache::version(run_id)).recover(store, recovery);
            given_back(store, run_id, run.for_each(|outcome| report(job, &log, outcome))).await
        }
        Keeping::Batches { run_id, size } => {
            let rows = Rows::open(&job.place).await;
            let items = task.over((0..job.items as usize).map(|index| job.item(index)));
            let run = items.map_batches(*size, |items| job.insert(items, run_id, &rows, &log));
            let recovery = Recovery::run(run_id).lease(job.lease).wait_for_holder(LONGEST);
            let run = run.recover(store, recovery).for_each(|outcome| report(job, &log, outcome));
            given_back(store, run_id, run).await
        }
    };
    log.write(&Event::Ended(ended.err().map(|error| error.source().unwrap().to_string())));
}

async fn report<E: Debug>(job: &Job, log: &Log, outcome: ItemOutcome<Output, E>) {
    log.write(&Event::Settled(job.item(outcome.index), outcome.origin, outcome.result.unwrap()));
}

/// Awaits a run. Its holder is known to be dead, so the run is given back meanwhile.
async fn given_back<T>(
    store: &impl Store,
    run_id: &str,
    run: impl IntoFuture<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    tokio::select! {
        biased;
        () = give_back(store, run_id) => unreachable!(),
        ended = run.into_future() => ended,
    }
}

/// Gives the run back for a dead holder, until this process holds it. A server may still execute a request of a process
/// that was killed meanwhile, so one attempt is not enough.
async fn give_back(store: &impl Store, run_id: &str) {
    let here = format!("/{}/", std::process::id());
    loop {
        match store.run(run_id).await.unwrap().and_then(|run| run.lease) {
            Some(lease) if lease.holder.contains(&here) => pending().await,
            Some(lease) => store.close_run(run_id, &lease.holder, &RunStatus::Running).await.unwrap(),
            None => {}
        }
        sleep(Duration::from_millis(5)).await;
    }
}

impl Job {
    fn item(&self, index: usize) -> u64 {
        (self.first + index as u64) % self.items
    }

    async fn run(&self, item: u64, log: &Log) -> Result<Output, Infallible> {
        log.write(&Event::Began(item));
        match &self.gate {
            Some((first, gate)) if item >= *first => {
                while !gate.exists() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            _ => sleep(Duration::from_millis(item % self.delays)).await,
        }
        Ok(output(item))
    }

    /// Makes one call for several items. It is repeatable: rows that the table has do not change.
    async fn insert(
        &self,
        items: Vec<u64>,
        run_id: &str,
        rows: &Rows,
        log: &Log,
    ) -> Result<Vec<sqlx::Result<Output>>, sqlx::Error> {
        items.iter().for_each(|item| log.write(&Event::Began(*item)));
        sleep(Duration::from_millis(items[0] % self.delays)).await;
        let inserted: Vec<Row> = items.into_iter().map(|item| (item, output(item))).collect();
        rows.insert(run_id, &inserted).await?;
        Ok(inserted.into_iter().map(|(_, output)| Ok(output)).collect())
    }

    /// Continues from the checkpoint.
    async fn run_in_steps(&self, context: ItemContext, item: u64, log: &Log) -> Result<Output, StoreError> {
        log.write(&Event::Began(item));
        let checkpoint = context.checkpoint();
        let done: u64 = checkpoint.load().await?.unwrap_or_default();
        log.write(&Event::Loaded(item, done));
        for step in done + 1..=STEPS {
            sleep(Duration::from_millis(item % self.delays)).await;
            checkpoint.save(&step).await?;
            log.write(&Event::Saved(item, step));
        }
        Ok(output(item))
    }
}
