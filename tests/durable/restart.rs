//! A server that is restarted in the middle of a run, without an effect on the run.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_map_task::AsyncMapTask;
use async_map_task::store::{PostgresStore, RunStatus, Store};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::Cluster;

const ITEMS: usize = 3_000;
const CONCURRENCY: usize = 32;

/// The number of outcomes that have been given when the server is restarted.
const RESTARTS: [usize; 2] = [800, 1_600];

/// The items from here on wait until the server has been restarted for the last time.
const LAST: usize = 2_900;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_two_restarts_of_the_server() {
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let store = PostgresStore::connect(&cluster.database().await).await.unwrap();
    let (given, mut seen) = watch::channel(0);
    let (restarts, is_restarted) = watch::channel(0);
    let executions: Vec<AtomicU32> = (0..ITEMS).map(|_| AtomicU32::new(0)).collect();

    let run = AsyncMapTask::builder()
        .name("restarted")
        .concurrency(CONCURRENCY)
        .build()
        .unwrap()
        .over(0..ITEMS)
        .map(|item| {
            executions[item].fetch_add(1, Ordering::Relaxed);
            let mut is_restarted = is_restarted.clone();
            async move {
                if item >= LAST {
                    is_restarted.wait_for(|restarts| *restarts == RESTARTS.len()).await.unwrap();
                }
                sleep(Duration::from_millis(item as u64 % 3)).await;
                Ok::<_, Infallible>(item)
            }
        })
        .recover(&store, "restarted")
        .for_each(|outcome| {
            assert_eq!(outcome.result, Ok(outcome.index));
            given.send_modify(|given| *given += 1);
            async {}
        });
    let restarting = async {
        for outcomes in RESTARTS {
            seen.wait_for(|given| *given >= outcomes).await.unwrap();
            let cluster = Arc::clone(&cluster);
            let restarted = tokio::task::spawn_blocking(move || cluster.restart_immediate());
            restarted.await.unwrap();
            restarts.send_modify(|restarts| *restarts += 1);
        }
    };
    let (summary, ()) = tokio::join!(run, restarting);

    let summary = summary.unwrap();
    assert_eq!((summary.successes, summary.failures, summary.recovered), (ITEMS, 0, 0));
    assert_eq!(*given.borrow(), ITEMS);
    assert!(executions.iter().all(|executions| executions.load(Ordering::Relaxed) == 1), "an item ran twice");
    let run = store.run("restarted").await.unwrap().unwrap();
    assert_eq!((run.status, run.succeeded, run.lease), (RunStatus::Succeeded, ITEMS as u64, None));
    eprintln!("{ITEMS} items, the server restarted at {RESTARTS:?} of them: {summary}");
}
