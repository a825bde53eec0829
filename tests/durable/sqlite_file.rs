//! The file of a store: its identity, its permissions, and the resources that the store needs.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use async_map_task::store::{CacheKey, SqliteStore, Store, StoreError};
use async_map_task::{AsyncMapTask, Cache, MapTaskError, MapTaskResult, Recovery};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::alone::is_alone;
use crate::folder::Folder;
use crate::support::{in_another_process, store_error};

fn task() -> AsyncMapTask {
    AsyncMapTask::builder().name("test").concurrency(8).build().unwrap()
}

/// A run that multiplies three numbers.
async fn multiply(
    store: &SqliteStore,
    by: i64,
) -> Result<MapTaskResult<i64, String>, MapTaskError<i64, String>> {
    let run = task().over([1, 2, 3]).map(|n: i64| async move { Ok::<_, String>(by * n) });
    run.recover(store, Recovery::run("nightly")).await
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A store in which the run has succeeded with other outputs, all of it in one file.
async fn another_store(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    multiply(&store, 100).await.unwrap();
    drop(store);
    let log = path.with_extension("db-wal");
    in_another_process(|| !log.exists());
}

#[test]
fn a_change_of_directory_does_not_affect_a_store() {
    if !is_alone("sqlite_file::a_change_of_directory_does_not_affect_a_store", |_| {}) {
        return;
    }
    runtime().block_on(async {
        let (here, there) = (Folder::new(), Folder::new());
        another_store(&there.file("runs.db")).await;
        std::env::set_current_dir(here.path()).unwrap();
        let store = SqliteStore::open("runs.db").await.unwrap();
        std::env::set_current_dir(there.path()).unwrap();
        let result = multiply(&store, 1).await.unwrap();
        assert_eq!((result.summary.recovered, &result.results), (0, &vec![Some(1), Some(2), Some(3)]));
        let again = SqliteStore::open(here.file("runs.db")).await.unwrap();
        assert_eq!(again.run("nightly").await.unwrap().unwrap().succeeded, 3);
    });
}

#[track_caller]
fn assert_replaced<T: std::fmt::Debug>(result: Result<T, StoreError>, path: &Path) {
    match result {
        Err(StoreError::Replaced { path: found }) => assert_eq!(found, path),
        other => panic!("{other:?} where the file was replaced"),
    }
}

#[tokio::test]
async fn a_store_without_its_file_refuses_every_call() {
    for is_replaced in [true, false] {
        let folder = Folder::new();
        let path = folder.file("runs.db");
        another_store(&folder.file("other.db")).await;
        let store = SqliteStore::open(&path).await.unwrap();
        if is_replaced {
            fs::rename(folder.file("other.db"), &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let error = multiply(&store, 1).await.unwrap_err();
        assert!(matches!(store_error(error.reason()), StoreError::Replaced { .. }), "{error:?}");
        let text = store_error(error.reason()).to_string();
        assert!(text.starts_with(&format!("`{}` was replaced or removed", path.display())), "{text}");

        let key = CacheKey { task: "t".into(), version: "1".into(), item_hash: "hash".into() };
        assert_replaced(store.cached(&key).await, &path);
        assert_replaced(store.claim(&key, "a", Duration::from_secs(9), true).await, &path);
        assert_replaced(store.runs().await, &path);
        assert_replaced(store.successes("nightly", 0, 10).await, &path);
        assert_replaced(store.checkpoint("nightly", 0, "hash").await, &path);
        assert_replaced(store.forget("nightly").await, &path);
        drop(store);
    }
}

/// A run has everything it needs, even if not one more file can be opened.
#[test]
fn an_open_store_needs_no_more_file_descriptors() {
    if !is_alone("sqlite_file::an_open_store_needs_no_more_file_descriptors", |_| {}) {
        return;
    }
    runtime().block_on(async {
        let folder = Folder::new();
        let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: Some(100) }).unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        let run = task().over(0..500_u64).map_with_context(|cx, n| async move {
            let checkpoint = cx.checkpoint();
            assert_eq!(checkpoint.load::<u64>().await?, None);
            checkpoint.save(&n).await?;
            Ok::<_, StoreError>(n)
        });
        let run = run.cache(&store, Cache::version("1").serialized()).recover(&store, "nightly");
        assert_eq!(run.await.unwrap().successes(), 500);
        assert_eq!(store.successes("nightly", 0, 1_000).await.unwrap().len(), 500);
        assert_eq!(store.runs().await.unwrap().len(), 1);
        drop(taken);
    });
}

#[tokio::test]
async fn only_the_owner_can_read_a_new_store() {
    let folder = Folder::new();
    let mode = |name: &str| fs::metadata(folder.file(name)).unwrap().permissions().mode() & 0o777;
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    multiply(&store, 1).await.unwrap();
    for name in ["runs.db", "runs.db-wal", "runs.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    // A file that exists keeps the permissions that its owner has set.
    File::create(folder.file("shared.db")).unwrap();
    fs::set_permissions(folder.file("shared.db"), Permissions::from_mode(0o660)).unwrap();
    let shared = SqliteStore::open(folder.file("shared.db")).await.unwrap();
    multiply(&shared, 1).await.unwrap();
    for name in ["shared.db", "shared.db-wal", "shared.db-shm"] {
        assert_eq!(mode(name), 0o660, "{name}");
    }
}

/// The number of threads of stores in this process.
fn threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread may end meanwhile.
        fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| name.starts_with("map-task-")).count()
}

#[test]
fn threads_of_a_store_end_with_its_last_clone() {
    if !is_alone("sqlite_file::threads_of_a_store_end_with_its_last_clone", |_| {}) {
        return;
    }
    let folder = Folder::new();
    let first = runtime();
    let store = first.block_on(SqliteStore::open(folder.file("runs.db"))).unwrap();
    drop(first);
    let clone = store.clone();
    drop(store);
    assert_eq!(runtime().block_on(multiply(&clone, 1)).unwrap().successes(), 3);
    assert!(threads() > 0);
    drop(clone);
    in_another_process(|| threads() == 0);
}
