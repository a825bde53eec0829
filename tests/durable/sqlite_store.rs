//! Properties of the store in a file.

use std::time::{Duration, Instant, SystemTime};

use async_map_task::store::{CacheKey, Claim, Record, Recorded, SqliteStore, Store, StoreError};
use futures::FutureExt;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::task::JoinSet;

use crate::folder::Folder;
use crate::support::{HOUR, pass, record};

/// The file as an operator's `sqlite3` sees it.
async fn file(path: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

#[tokio::test]
async fn records_are_there_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let first = SqliteStore::open(&path).await.unwrap();
    first.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    first.commit("nightly", "a", &[record(0)]).await.unwrap();
    // While the first is still open, as in another process, and after.
    let second = SqliteStore::open(&path).await.unwrap();
    assert_eq!(second.successes("nightly", 0, 10).await.unwrap(), [record(0)]);
    assert!(matches!(second.open_run("nightly", "resize", "b", HOUR).await, Err(StoreError::Held { .. })));
    drop((first, second));
    let third = SqliteStore::open(&path).await.unwrap();
    assert_eq!(third.successes("nightly", 0, 10).await.unwrap(), [record(0)]);
}

/// The creator of the file locks it for a moment, and the others wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_stores_create_one_file() {
    for _ in 0..50 {
        let folder = Folder::new();
        let path = folder.file("runs.db");
        let opening: Vec<_> = (0..8).map(|_| tokio::spawn(SqliteStore::open(path.clone()))).collect();
        for opened in opening {
            opened.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stores_create_one_file_and_write_to_it() {
    let folder = Folder::new();
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let path = folder.file("runs.db");
        tasks.spawn(async move {
            let store = SqliteStore::open(&path).await.unwrap();
            let run_id = format!("run {number}");
            store.open_run(&run_id, "resize", "a", HOUR).await.unwrap();
            for _ in 0..10 {
                store.commit(&run_id, "a", &[record(0)]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(SqliteStore::open(folder.file("runs.db")).await.unwrap().runs().await.unwrap().len(), 16);
}

#[tokio::test]
async fn a_dropped_commit_is_rolled_back() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let records: Vec<_> = (0..1000).map(|index| Record { index, ..record(0) }).collect();
    let (mut given_up, mut done) = (0, 0);
    for pause in (0..).map(|n| Duration::from_micros(50 * n)) {
        let mut commit = Box::pin(store.commit("nightly", "a", &records));
        assert!(commit.as_mut().now_or_never().is_none());
        pass(pause);
        let ended = commit.as_mut().now_or_never();
        drop(commit);
        let kept = store.run("nightly").await.unwrap().unwrap().succeeded;
        // A commit that is on its way to the disk may still get there.
        assert!(kept == 0 || kept == 1000, "{kept} of 1000 after {pause:?}");
        match ended {
            None => given_up += 1,
            Some(ended) => {
                ended.unwrap();
                assert_eq!(kept, 1000);
                done += 1;
            }
        }
        if done == 3 {
            break;
        }
        store.forget("nightly").await.unwrap();
        store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    }
    assert!(given_up > 0, "it was never given up");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_unchanged() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let mut connection = file(&path).await;
    sqlx::raw_sql("UPDATE map_task_schema SET version = 1000").execute(&mut connection).await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 1000, supported: 3 }), "{error}");
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM map_task_schema").fetch_one(&mut connection).await.unwrap();
    assert_eq!(version, 1000);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn files_of_other_kinds_are_refused() {
    let folder = Folder::new();
    let text = folder.file("notes.txt");
    std::fs::write(&text, "this is a list of things, and not a database at all\n".repeat(100)).unwrap();
    let error = SqliteStore::open(&text).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");

    let error = SqliteStore::open(folder.file("no/such/folder/runs.db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
    let error = SqliteStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
    let error = SqliteStore::open(":memory:").await.unwrap_err();
    assert!(error.to_string().contains("must be `wal`"), "{error}");
}

#[tokio::test]
async fn commits_have_reached_the_disk() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    store.commit("nightly", "a", &[record(0)]).await.unwrap();
    // The state after a crash: the files as they are now.
    for suffix in ["", "-wal"] {
        std::fs::copy(folder.file(&format!("runs.db{suffix}")), folder.file(&format!("copy.db{suffix}")))
            .unwrap();
    }
    let copy = SqliteStore::open(folder.file("copy.db")).await.unwrap();
    assert_eq!(copy.successes("nightly", 0, 10).await.unwrap(), [record(0)]);
}

/// A process that died while its clock was two days ahead has left such times.
#[tokio::test]
async fn a_changed_clock_does_not_lengthen_a_lease() {
    const LEASE: Duration = Duration::from_millis(300);
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let key = CacheKey { task: "t".into(), version: "1".into(), item_hash: "hash".into() };
    store.open_run("nightly", "resize", "a", LEASE).await.unwrap();
    store.claim(&key, "a", LEASE, false).await.unwrap();
    let ahead = "UPDATE map_task_runs SET held_since_ms = held_since_ms + 172800000,
                     held_until_ms = held_until_ms + 172800000;
                 UPDATE map_task_claims SET held_until_ms = held_until_ms + 172800000";
    sqlx::raw_sql(ahead).execute(&mut file(&path).await).await.unwrap();

    let refused = store.open_run("nightly", "resize", "b", HOUR).await.unwrap_err();
    let StoreError::Held { expires, .. } = refused else { panic!("{refused}") };
    assert!(expires <= SystemTime::now() + LEASE, "{expires:?}");
    let claim = store.claim(&key, "b", HOUR, false).await.unwrap();
    let Claim::Held { remaining } = claim else { panic!("{claim:?}") };
    assert!(remaining <= LEASE, "{remaining:?}");
    let begun = Instant::now();
    while store.open_run("nightly", "resize", "b", HOUR).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the run is not free");
    }
    while store.claim(&key, "b", HOUR, false).await.unwrap() != Claim::Granted {
        assert!(begun.elapsed() < Duration::from_secs(30), "the claim is not free");
    }
    // The whole lease was granted, because its holder may have been alive.
    assert!(begun.elapsed() + Duration::from_millis(100) > LEASE, "{:?}", begun.elapsed());
}

/// A file of version 1 is opened, and its content is there.
#[tokio::test]
async fn a_file_of_the_first_version_is_migrated() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let mut first =
        SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE map_task_schema (version INTEGER NOT NULL) STRICT; INSERT INTO map_task_schema VALUES (1)")
        .execute(&mut first)
        .await
        .unwrap();
    sqlx::raw_sql(include_str!("../../src/store/sql/sqlite_1.sql")).execute(&mut first).await.unwrap();
    let held = "INSERT INTO map_task_runs VALUES ('nightly', 'resize', 'running', NULL, 'a', 1, 9999999999999, 1, 1)";
    sqlx::raw_sql(held).execute(&mut first).await.unwrap();
    first.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let refused = store.open_run("nightly", "resize", "b", HOUR).await;
    assert!(matches!(refused, Err(StoreError::Held { .. })), "{refused:?}");
    store.renew_run("nightly", "a", Duration::ZERO).await.unwrap();
    store.open_run("nightly", "resize", "b", HOUR).await.unwrap();
}

#[tokio::test]
async fn the_operators_query_of_the_documentation_runs() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let failed = Record { recorded: Recorded::Failed { message: "no".to_owned() }, ..record(0) };
    store.commit("nightly", "a", &[failed]).await.unwrap();
    let rows: Vec<(String, String, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(documented_query()))
            .fetch_all(&mut file(&path).await)
            .await
            .unwrap();
    let [(started, run_id, index, attempts, error)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((run_id.as_str(), *index, *attempts, error.as_str()), ("nightly", 0, 1, "no"));
    assert!(started.starts_with("20"), "{started}");
}

fn documented_query() -> String {
    let docs = include_str!("../../src/store/sqlite.rs");
    let (_, query) = docs.split_once("```sql").unwrap();
    query.split_once("```").unwrap().0.replace("///", "")
}
