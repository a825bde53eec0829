//! PostgreSQL behind a pooler, where connections share the sessions of the server. The conformance tests run there, too.

use async_map_task::store::{PostgresStore, Store, StoreError};
use async_map_task::{AsyncMapTask, Cache};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use crate::cluster;
use crate::pgbouncer::{self, PgBouncer};

/// Runs with all options, in two stores that share the sessions with each other and with another client.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_run_works_with_a_pooler() {
    let direct = cluster::shared().database().await;
    let url = pgbouncer::shared().before(&direct);
    let stores = [PostgresStore::connect(&url).await.unwrap(), PostgresStore::connect(&url).await.unwrap()];
    let mut runs = JoinSet::new();
    for number in 0..6 {
        let store = stores[number % 2].clone();
        runs.spawn(async move {
            let task = AsyncMapTask::builder().name("pooled").concurrency(32).build().unwrap();
            let run = task.over(0..200_u64).map_with_context(|cx, n| async move {
                let checkpoint = cx.checkpoint();
                assert_eq!(checkpoint.load::<u64>().await?, None);
                checkpoint.save(&n).await?;
                Ok::<_, StoreError>(n)
            });
            let run = run.cache(&store, Cache::version(number.to_string()).serialized());
            run.recover(&store, format!("run {number}")).await.unwrap().successes()
        });
    }
    assert_eq!(runs.join_all().await, [200; 6]);
    for store in &stores {
        let runs = store.runs().await.unwrap();
        assert!(runs.len() == 6 && runs.iter().all(|run| run.succeeded == 200 && run.lease.is_none()));
    }
    // No session keeps a statement of a store.
    let options: PgConnectOptions = url.parse().unwrap();
    let mut connection = PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap();
    let count = "SELECT count(*) FROM pg_prepared_statements";
    let prepared: i64 = sqlx::Row::get(&sqlx::raw_sql(count).fetch_one(&mut connection).await.unwrap(), 0);
    assert_eq!(prepared, 0);
}

/// Observed in the server: transactions wait for the disk although the database is set not to wait, and although
/// settings of a session do not last.
#[tokio::test]
async fn commits_through_a_pooler_wait_for_the_disk() {
    let direct = cluster::shared().database().await;
    let mut connection = PgConnection::connect(&direct).await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
    let off = AssertSqlSafe(format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    sqlx::raw_sql(off).execute(&mut connection).await.unwrap();
    let store = PostgresStore::connect(&pgbouncer::shared().before(&direct)).await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE seen (synchronous_commit text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL;
         END $$;
         CREATE TRIGGER see AFTER INSERT ON map_task_items FOR EACH STATEMENT EXECUTE FUNCTION see();
         CREATE TRIGGER see AFTER INSERT ON map_task_cache FOR EACH STATEMENT EXECUTE FUNCTION see();",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let task = AsyncMapTask::builder().name("pooled").concurrency(1).build().unwrap();
    let run = task.over(0..2).map(|n| async move { Ok::<_, String>(n) });
    run.cache(&store, Cache::version("1")).recover(&store, "r").await.unwrap();
    let seen: Vec<String> = sqlx::query_scalar("SELECT DISTINCT synchronous_commit FROM seen")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(seen, ["on"]);
}

#[tokio::test]
async fn a_pooler_in_statement_mode_is_refused_at_connect() {
    let direct = cluster::shared().database().await;
    let pgbouncer = PgBouncer::start(cluster::shared(), "statement", 6_433);
    let error = PostgresStore::connect(&pgbouncer.before(&direct)).await.unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("connecting to PostgreSQL: "), "{error}");
    assert!(error.contains("statement pooling mode"), "{error}");
    tokio::task::spawn_blocking(|| drop(pgbouncer)).await.unwrap();
}
