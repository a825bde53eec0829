//! The stores of the crate, tested with the suite that it ships, and with their further guarantees.

use std::fmt::Debug;
use std::time::Duration;

use async_map_task::store::conformance::{self, Nonconforming};
use async_map_task::store::{
    CacheKey, MemoryStore, PostgresStore, Record, Recorded, SqliteStore, Store, StoreError,
};

use crate::folder::Folder;
use crate::support::{HOUR, checksummed, key};
use crate::{cluster, pgbouncer};

mod faults;
mod faulty;

/// The number of cases in the suite. A missing case fails the tests of the stores.
const CASES: usize = 56;

/// Returns an output of this many bytes.
fn succeeded(index: u64, bytes: usize) -> Record {
    let output = checksummed(&format!("\"{}\"", "x".repeat(bytes - 2)));
    Record {
        index,
        item_hash: format!("{index:064x}"),
        attempts: 1,
        elapsed: Duration::ZERO,
        recorded: Recorded::Succeeded { output },
    }
}

async fn in_memory() -> MemoryStore {
    MemoryStore::new()
}

async fn on_server() -> PostgresStore {
    let url = cluster::shared().database().await;
    PostgresStore::connect(&url).await.unwrap()
}

async fn behind_pooler() -> PostgresStore {
    let direct = cluster::shared().database().await;
    PostgresStore::connect(&pgbouncer::shared().before(&direct)).await.unwrap()
}

/// New files in a folder.
fn in_files(folder: &Folder) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = SqliteStore>>> {
    let paths: Vec<_> = (0..2 * CASES).map(|number| folder.file(&format!("{number}.db"))).collect();
    let mut paths = paths.into_iter();
    move || {
        let path = paths.next().unwrap();
        Box::pin(async { SqliteStore::open(path).await.unwrap() })
    }
}

#[track_caller]
fn assert_holds(checked: Result<usize, Nonconforming>) {
    assert_eq!(checked.unwrap(), CASES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_conforms() {
    assert_holds(conformance::check(in_memory).await);
    promises_of_the_crate(in_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_store_conforms() {
    let folder = Folder::new();
    let mut new_file = in_files(&folder);
    assert_holds(conformance::check(&mut new_file).await);
    promises_of_the_crate(new_file).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_conforms() {
    assert_holds(conformance::check(on_server).await);
    promises_of_the_crate(on_server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_behind_pgbouncer_conforms() {
    assert_holds(conformance::check(behind_pooler).await);
    promises_of_the_crate(behind_pooler).await;
}

/// Checks the common guarantees of the crate's stores that the trait does not require.
async fn promises_of_the_crate<S: Store, F: Future<Output = S>>(mut new_store: impl FnMut() -> F) {
    longer_names_are_refused_by_name(&new_store().await).await;
    a_page_ends_once_it_has_4_mib(&new_store().await).await;
}

async fn longer_names_are_refused_by_name<S: Store>(store: &S) {
    #[track_caller]
    fn refused<T: Debug>(result: Result<T, StoreError>, what: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::NameTooLong { found: 6_000, allowed: 512, .. }), "{error}");
        assert_eq!(error.to_string(), format!("{what} must have at most 512 bytes, got 6000"));
    }
    let long = "n".repeat(6_000);
    refused(store.open_run(&long, "resize", "a", HOUR).await, "the run id");
    refused(store.open_run("nightly", &long, "a", HOUR).await, "the name of the task");
    refused(store.open_run("nightly", "resize", &long, HOUR).await, "the name of the holder");
    for (key, what) in [
        (CacheKey { task: long.clone(), ..key("1") }, "the name of the task"),
        (CacheKey { version: long.clone(), ..key("1") }, "the version"),
        (key(&long), "the hash of the item"),
    ] {
        refused(store.put_cached(&key, &checksummed("1"), None).await, what);
        refused(store.claim(&key, "a", HOUR, false).await, what);
    }
    refused(store.claim(&key("1"), &long, HOUR, false).await, "the name of the holder");
    assert_eq!(store.runs().await.unwrap(), []);
    assert_eq!(store.run(&long).await.unwrap(), None);
}

async fn a_page_ends_once_it_has_4_mib<S: Store>(store: &S) {
    let page = async |from, limit| {
        let page = store.successes("nightly", from, limit).await.unwrap();
        page.iter().map(|record| record.index).collect::<Vec<_>>()
    };
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let large: Vec<_> = (0..7).map(|index| succeeded(index, 1_500_000)).collect();
    store.commit("nightly", "a", &large).await.unwrap();
    store.commit("nightly", "a", &[succeeded(9, 9_000_000)]).await.unwrap();
    assert_eq!(page(0, 100).await, [0, 1, 2]);
    assert_eq!(page(3, 100).await, [3, 4, 5]);
    assert_eq!(page(7, 100).await, [9], "a page has one at least");
    let small: Vec<_> = (10..2_010).map(|index| succeeded(index, 2)).collect();
    store.commit("nightly", "a", &small).await.unwrap();
    assert_eq!(page(10, 700).await.len(), 700, "small outputs fill a page");
}
