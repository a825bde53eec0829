//! Servers that stop answering, are read-only for a time, or end connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_map_task::store::{PostgresStore, RunStatus, Store};
use async_map_task::{AsyncMapTask, Cache, FailureReason};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::cluster::Cluster;

const LIMIT: Duration = Duration::from_secs(3);

fn task(concurrency: usize) -> AsyncMapTask {
    AsyncMapTask::builder().name("failover").concurrency(concurrency).run_timeout(LIMIT).build().unwrap()
}

/// Changes the server once item 40 has begun.
async fn at_item_40(item: u64, cluster: &Arc<Cluster>, order: fn(&Cluster)) {
    if item == 40 {
        let cluster = Arc::clone(cluster);
        tokio::task::spawn_blocking(move || order(&cluster)).await.unwrap();
    }
    sleep(Duration::from_millis(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_in_time_if_the_server_is_suspended() {
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let store = PostgresStore::connect(&cluster.database().await).await.unwrap();
    let on = &cluster;
    let work = |item| async move {
        at_item_40(item, on, Cluster::suspend).await;
        Ok::<_, String>(item)
    };
    let begun = Instant::now();
    let ended = task(4).over(0..100_000).map(work).recover(&store, "nightly").await;
    let elapsed = begun.elapsed();
    let error = ended.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }), "{error}");
    assert!(elapsed >= LIMIT && elapsed < LIMIT + Duration::from_secs(2), "{elapsed:?}");
    assert!(error.partial().successes() > 40, "what was finished is in the partial result: {error}");
    resume(&cluster).await;
    assert!(store.run("nightly").await.unwrap().is_some());

    let begun = Instant::now();
    let ended = task(4).over(0..100_000).map(work).cache(&store, Cache::version("1")).await;
    let elapsed = begun.elapsed();
    assert!(matches!(ended.unwrap_err().reason(), FailureReason::TimedOut { .. }));
    assert!(elapsed >= LIMIT && elapsed < LIMIT + Duration::from_secs(2), "{elapsed:?}");
    resume(&cluster).await;
}

async fn resume(cluster: &Arc<Cluster>) {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || cluster.resume()).await.unwrap();
}

/// A connection that can write even if the server is read-only.
async fn operator(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    tell(&mut connection, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE").await;
    connection
}

async fn tell(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

async fn set_read_only(operator: &mut PgConnection, is_read_only: bool) {
    let set = if is_read_only {
        "ALTER SYSTEM SET default_transaction_read_only = on"
    } else {
        "ALTER SYSTEM SET default_transaction_read_only = off"
    };
    tell(operator, set).await;
    tell(operator, "SELECT pg_reload_conf()").await;
}

/// As after a failover, from shortly after the run has begun until its last item has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_read_only_for_a_while_has_no_effect() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let url = cluster.database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let mut operator = operator(&url).await;
    let task = AsyncMapTask::builder().name("failover").concurrency(4).build().unwrap();
    let (begun, mut has_begun) = tokio::sync::watch::channel(false);
    let run = task.over(0..40_u64).map_with_context(|cx, item| {
        begun.send_replace(item >= 20);
        async move {
            sleep(Duration::from_millis(5)).await;
            cx.checkpoint().save(&item).await?;
            Ok::<_, async_map_task::store::StoreError>(item)
        }
    });
    let run = run.cache(&store, Cache::version("1").serialized()).recover(&store, "nightly");
    let failing_over = async {
        has_begun.wait_for(|has_begun| *has_begun).await.unwrap();
        set_read_only(&mut operator, true).await;
        sleep(Duration::from_secs(2)).await;
        set_read_only(&mut operator, false).await;
    };
    let (ended, ()) = tokio::join!(run, failing_over);
    assert_eq!(ended.unwrap().successes(), 40);
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!((run.status, run.succeeded, run.lease), (RunStatus::Succeeded, 40, None));
    let mut cached: Vec<i64> =
        sqlx::query_scalar("SELECT count(*) FROM map_task_cache").fetch_all(&mut operator).await.unwrap();
    assert_eq!(cached.pop(), Some(40));
}

/// The server is read-only when the run fails, and the lease is given back once it is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_released_once_the_server_can_write() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let url = cluster.database().await;
    let store = PostgresStore::connect(&url).await.unwrap().retry_time(Duration::from_millis(500));
    let mut operator = operator(&url).await;
    let task = AsyncMapTask::builder().name("failover").concurrency(1).build().unwrap();
    let (begun, mut has_begun) = tokio::sync::watch::channel(false);
    let run = task.over(0..1_000_u64).map(|item| {
        begun.send_replace(item >= 20);
        async move {
            sleep(Duration::from_millis(5)).await;
            Ok::<_, String>(item)
        }
    });
    let run = run.recover(&store, "nightly");
    let failing_over = async {
        has_begun.wait_for(|has_begun| *has_begun).await.unwrap();
        set_read_only(&mut operator, true).await;
    };
    let (ended, ()) = tokio::join!(run, failing_over);
    let error = ended.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Store(_)), "{error}");
    set_read_only(&mut operator, false).await;
    let freed = async {
        while store.run("nightly").await.unwrap().unwrap().lease.is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("the lease is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_ended_by_an_administrator_are_replaced() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let url = cluster.database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let mut operator = operator(&url).await;
    let task = AsyncMapTask::builder().name("failover").concurrency(16).build().unwrap();
    let run = task.over(0..2_000_u64).map(|item| async move {
        sleep(Duration::from_millis(2)).await;
        Ok::<_, String>(item)
    });
    let run = run.cache(&store, Cache::version("1")).recover(&store, "nightly");
    let ending = async {
        for _ in 0..5 {
            sleep(Duration::from_millis(50)).await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
            tell(&mut operator, end).await;
        }
    };
    let (ended, ()) = tokio::join!(run, ending);
    assert_eq!(ended.unwrap().successes(), 2_000);
    assert_eq!(store.run("nightly").await.unwrap().unwrap().lease, None);
}
