//! Properties of the store in a server.

use std::time::{Duration, Instant};

use async_map_task::AsyncMapTask;
use async_map_task::store::{PostgresStore, Record, Store, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::cluster::{self, Cluster};
use crate::support::{HOUR, checksummed, key, record};

fn records(first: u64, count: u64) -> Vec<Record> {
    (first..first + count).map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stores_connect_to_an_empty_database_at_once() {
    let url = cluster::shared().database().await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let url = url.clone();
        tasks.spawn(async move {
            let store = PostgresStore::connect(&url).await.unwrap();
            store.open_run(&format!("run {number}"), "resize", "a", HOUR).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(PostgresStore::connect(&url).await.unwrap().runs().await.unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_loses_nothing() {
    let cluster = Cluster::start();
    let url = cluster.database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let mut committers = JoinSet::new();
    for number in 0..4 {
        let store = store.clone();
        committers.spawn(async move {
            for batch in 0..150 {
                store.commit("nightly", "a", &records(1_000_000 * number + 20 * batch, 20)).await.unwrap();
            }
        });
    }
    // After the first commits, and again in the middle of the others.
    for kept in [1, 2000, 6000] {
        while store.run("nightly").await.unwrap().unwrap().succeeded < kept {
            if let Some(ended) = committers.try_join_next() {
                ended.unwrap();
            }
            tokio::task::yield_now().await;
        }
        tokio::task::block_in_place(|| cluster.restart_immediate());
    }
    committers.join_all().await;
    let kept = store.successes("nightly", 0, u32::MAX).await.unwrap();
    assert_eq!(kept, (0..4).flat_map(|number| records(1_000_000 * number, 3000)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_down_is_an_error_with_its_cause() {
    let cluster = Cluster::start();
    let retry_time = Duration::from_secs(1);
    let url = cluster.database().await;
    let store = PostgresStore::connect(&url).await.unwrap().retry_time(retry_time);
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    tokio::task::block_in_place(|| drop(cluster));
    let started = Instant::now();
    let error = store.commit("nightly", "a", &records(0, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { doing: "committing outcomes", .. }), "{error}");
    let elapsed = started.elapsed();
    assert!(elapsed >= retry_time && elapsed < Duration::from_secs(20), "{elapsed:?}");

    let started = Instant::now();
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { doing: "connecting to PostgreSQL", .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "it is an error at once");
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let url = cluster::shared().database().await;
    drop(PostgresStore::connect(&url).await.unwrap());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("UPDATE map_task_schema SET version = 1000").execute(&mut connection).await.unwrap();
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 1000, supported: 2 }), "{error}");
    assert!(matches!(PostgresStore::connect("no url").await, Err(StoreError::Database { .. })));
}

/// Observed in the server: the transactions of a store wait for the disk, although the database is set not to wait.
#[tokio::test]
async fn commits_wait_for_the_disk_whatever_the_database_says() {
    let url = cluster::shared().database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
    let off = sqlx::AssertSqlSafe(format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    sqlx::raw_sql(off).execute(&mut connection).await.unwrap();

    let store = PostgresStore::connect(&url).await.unwrap();
    // A trigger records the setting of the store's transactions.
    sqlx::raw_sql(
        "CREATE TABLE seen (synchronous_commit text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL;
         END $$;
         CREATE TRIGGER see AFTER INSERT ON map_task_items FOR EACH STATEMENT EXECUTE FUNCTION see();",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    store.commit("nightly", "a", &records(0, 1)).await.unwrap();
    let seen: Vec<String> =
        sqlx::query_scalar("SELECT synchronous_commit FROM seen").fetch_all(&mut connection).await.unwrap();
    assert_eq!(seen, ["on"]);
}

/// Observed in the server, version 14 or later: a statement for a single row is planned at five calls of a session, and its
/// plan uses the indexes although the tables were empty at that time.
#[tokio::test]
async fn the_server_keeps_the_plans_of_single_calls() {
    let url = cluster::shared().database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let store = PostgresStore::connect(&url).await.unwrap();
    // A trigger sees the prepared statements of the session.
    sqlx::raw_sql(
        "CREATE TABLE seen (session integer, statement text, kept bigint, planned bigint, UNIQUE (session, statement));
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen
             SELECT pg_backend_pid(), statement, generic_plans, custom_plans FROM pg_prepared_statements
             ON CONFLICT (session, statement) DO UPDATE SET kept = excluded.kept, planned = excluded.planned;
             RETURN NULL;
         END $$;
         CREATE TRIGGER see AFTER INSERT ON map_task_cache FOR EACH STATEMENT EXECUTE FUNCTION see();",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let value = checksummed("1");
    for index in 0..200 {
        store.save_checkpoint("nightly", "a", index, "hash", &value).await.unwrap();
        store.commit("nightly", "a", &records(index, 1)).await.unwrap();
        let key = key(index);
        store.claim(&key, "a", HOUR, false).await.unwrap();
        store.put_cached(&key, &value, (index % 2 == 0).then_some(HOUR)).await.unwrap();
        assert_eq!(store.cached(&key).await.unwrap(), Some(value.clone()));
    }
    drop(store);

    let statements: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT statement, sum(kept)::bigint, max(planned) FROM seen
         WHERE statement LIKE '%map_task_%(SELECT $%' OR statement LIKE '%(SELECT $%map_task_%' GROUP BY statement",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(statements.len(), 5, "{statements:#?}");
    for (statement, kept, planned) in statements {
        assert!(kept > 100 && planned <= 5, "{planned} plans and one for {kept} calls: {statement}");
    }
    // The counts of a session are complete when it has ended.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut connection).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The creation of the indexes reads a table at most twice.
    let whole_tables: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE relname LIKE 'map_task_%' AND seq_scan > 2
             AND relname NOT IN ('map_task_schema', 'map_task_runs')",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(whole_tables, []);
}

#[tokio::test]
async fn the_operators_query_of_the_documentation_runs() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    store.commit("nightly", "a", &records(0, 7)).await.unwrap();
    let docs = include_str!("../../src/store/postgres.rs");
    let (_, query) = docs.split_once("```sql").unwrap();
    let query = query.split_once("```").unwrap().0.replace("///", "");
    let query = format!(
        "SELECT run_id, holder, succeeded, failed FROM ({}) AS told",
        query.trim().trim_end_matches(';')
    );
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let rows: Vec<(String, String, i64, i64)> =
        sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows, [("nightly".to_owned(), "a".to_owned(), 7, 0)]);
}

/// PostgreSQL has no text with NUL, and one output with a NUL must not fail the query for all others.
#[tokio::test]
async fn the_query_of_the_documentation_reads_outputs_with_nul() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Output {
        size: usize,
        name: String,
    }
    let names = ["plain", "a\0b", "\0\0", "\\\0\\", "\\u0000", "\\\\u0000", "\u{1}\"\0"];
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let task = AsyncMapTask::builder().name("name").build().unwrap();
    let run = task.over(names).map_once(|name: &str| async move {
        Ok::<_, String>(Output { size: name.len(), name: name.to_owned() })
    });
    run.recover(&store, "invoices-2026-11-22").await.unwrap();

    let docs = include_str!("../../src/store/postgres.rs").replace("/// ", "");
    let (_, query) = docs.split_once("-- A field of the outputs.").unwrap();
    let query = format!("-- {} ORDER BY 1", query.split_once(';').unwrap().0);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let read = async |connection: &mut PgConnection, query: String| -> Vec<(i64, String)> {
        sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(connection).await.unwrap()
    };
    let sizes: Vec<_> = (0..).zip(names.map(|name| name.len().to_string())).collect();
    assert_eq!(read(&mut connection, query.clone()).await, sizes);
    let replaced: Vec<_> = (0..).zip(names.map(|name| name.replace('\0', "\u{fffd}"))).collect();
    assert_eq!(read(&mut connection, query.replace("'size'", "'name'")).await, replaced);
}
