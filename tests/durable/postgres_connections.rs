//! The connections of a store on a server.

use std::time::{Duration, Instant};

use async_map_task::store::{Claim, PostgresStore, RunStatus, Store};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::cluster;
use crate::support::{HOUR, checksummed, key, record};

/// Less than the time that a call waits for a connection of the pool.
const SOON: Duration = Duration::from_secs(4);

async fn execute(connection: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await.unwrap();
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

/// Waits until so many sessions of the database wait for a lock. The view does not change within a transaction.
async fn wait_for_blocked(url: &str, count: i64) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let blocked = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while number(&mut connection, blocked).await != count {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Ends all other sessions of the database, and waits until they have ended.
async fn end_sessions(connection: &mut PgConnection) -> i64 {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ended = number(connection, end).await;
    let left = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while number(connection, left).await > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    ended
}

/// Observed in the server: the sessions of the calls, and their settings.
#[tokio::test]
async fn calls_one_after_another_use_one_session() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    execute(
        &mut connection,
        "CREATE TABLE seen (session integer, whole_tables text, compiled text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen
             VALUES (pg_backend_pid(), current_setting('enable_seqscan'), current_setting('jit'));
             RETURN NULL;
         END $$;
         CREATE TRIGGER see AFTER INSERT ON map_task_items FOR EACH STATEMENT EXECUTE FUNCTION see();
         CREATE TRIGGER see AFTER INSERT ON map_task_cache FOR EACH STATEMENT EXECUTE FUNCTION see();",
    )
    .await;
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    for index in 0..20 {
        store.commit("nightly", "a", &[record(index)]).await.unwrap();
        store.put_cached(&key(index), &checksummed("1"), None).await.unwrap();
    }
    let seen: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT count(DISTINCT session), whole_tables, compiled FROM seen GROUP BY whole_tables, compiled",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(seen, [(1, "off".to_owned(), "off".to_owned())]);
}

/// Every kind of call, each after the end of the session that it would use.
#[tokio::test]
async fn the_end_of_a_session_between_calls_fails_no_call() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    store.runs().await.unwrap();
    let mut ended = 0;
    macro_rules! after_the_end {
        ($call:expr) => {{
            ended += i64::from(end_sessions(&mut connection).await > 0);
            $call.await.unwrap()
        }};
    }
    let (state, [cached, claimed]) = (checksummed("1"), ["cached", "claimed"].map(key));
    after_the_end!(store.open_run("nightly", "resize", "a", HOUR));
    after_the_end!(store.renew_run("nightly", "a", HOUR));
    after_the_end!(store.save_checkpoint("nightly", "a", 0, "hash", &state));
    assert_eq!(after_the_end!(store.checkpoint("nightly", 0, "hash")), Some(state.clone()));
    after_the_end!(store.commit("nightly", "a", &[record(0)]));
    let many: Vec<_> = (1..2_000).map(record).collect();
    after_the_end!(store.commit("nightly", "a", &many));
    assert_eq!(after_the_end!(store.successes("nightly", 0, 10)).len(), 10);
    after_the_end!(store.close_run("nightly", "a", &RunStatus::Succeeded));
    assert_eq!(after_the_end!(store.runs()).len(), 1);
    assert_eq!(after_the_end!(store.run("nightly")).unwrap().succeeded, 2_000);
    assert!(after_the_end!(store.forget("nightly")));
    assert_eq!(after_the_end!(store.claim(&claimed, "a", HOUR, false)), Claim::Granted);
    assert!(after_the_end!(store.renew_claim(&claimed, "a", HOUR)));
    after_the_end!(store.release_claim(&claimed, "a"));
    assert_eq!(after_the_end!(store.claim(&claimed, "b", HOUR, false)), Claim::Granted);
    after_the_end!(store.put_cached(&cached, &state, None));
    assert_eq!(after_the_end!(store.cached(&cached)), Some(state));
    assert_eq!(after_the_end!(store.evict("embed", None)), 1);
    assert_eq!(ended, 18, "each call had a session that was ended");
}

/// Seven of eight connections are blocked. When the eighth is free, the call that waits for it gets it, although no other
/// call returns a connection.
#[tokio::test]
async fn no_call_waits_beside_a_connection_that_is_free() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    for run in 0..9 {
        store.open_run(&format!("run {run}"), "resize", "a", HOUR).await.unwrap();
    }
    let commit = |run: usize| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&format!("run {run}"), "a", &[record(0)]).await.unwrap() })
    };
    let mut seven = PgConnection::connect(&url).await.unwrap();
    execute(&mut seven, "BEGIN; SELECT FROM map_task_runs WHERE run_id < 'run 7' FOR UPDATE").await;
    let mut eighth = PgConnection::connect(&url).await.unwrap();
    execute(&mut eighth, "BEGIN; SELECT FROM map_task_runs WHERE run_id = 'run 7' FOR UPDATE").await;
    let mut blocked: Vec<_> = (0..8).map(commit).collect();
    wait_for_blocked(&url, 8).await;
    let last = commit(8);
    sleep(Duration::from_millis(100)).await;
    assert!(!last.is_finished(), "a ninth connection was opened");
    execute(&mut eighth, "COMMIT").await;
    timeout(SOON, last).await.expect("the call waits beside a free connection").unwrap();
    timeout(SOON, blocked.remove(7)).await.unwrap().unwrap();
    execute(&mut seven, "COMMIT").await;
    for commit in blocked {
        commit.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_of_a_call_that_was_dropped_is_not_used_again() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    for run in ["locked", "free"] {
        store.open_run(run, "resize", "a", HOUR).await.unwrap();
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    execute(&mut connection, "BEGIN; SELECT FROM map_task_runs WHERE run_id = 'locked' FOR UPDATE").await;
    {
        let records = [record(0)];
        let commit = store.commit("locked", "a", &records);
        tokio::select! {
            biased;
            committed = commit => panic!("{committed:?} in spite of the lock"),
            () = wait_for_blocked(&url, 1) => {}
        }
    }
    let begun = Instant::now();
    store.commit("free", "a", &[record(0)]).await.unwrap();
    assert_eq!(store.successes("free", 0, 10).await.unwrap(), [record(0)]);
    assert!(begun.elapsed() < SOON, "the call waited for the one that was dropped");
    execute(&mut connection, "COMMIT").await;
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Without a retry: a connection of a runtime that has ended is not used.
#[test]
fn a_store_is_used_from_one_runtime_after_another() {
    let url = one_thread().block_on(cluster::shared().database());
    let store = one_thread().block_on(PostgresStore::connect(&url)).unwrap().retry_time(Duration::ZERO);
    for index in 0..5 {
        one_thread().block_on(async {
            store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
            store.commit("nightly", "a", &[record(index)]).await.unwrap();
            store.put_cached(&key(index), &checksummed("1"), None).await.unwrap();
        });
    }
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let last = one_thread();
    last.block_on(async {
        assert_eq!(store.successes("nightly", 0, 10).await.unwrap().len(), 5);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        assert_eq!(number(&mut connection, sessions).await, 1, "the spare");
    });
    // Outside of a runtime.
    drop(store);
    last.block_on(async {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        while number(&mut connection, sessions).await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
}
