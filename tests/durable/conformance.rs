//! What every store must hold, sentence by sentence, for each of the three, and for PostgreSQL behind PgBouncer as well.
//!
//! A lease of no time at all is over at once, so that nothing here waits for one, except where the waiting is the point.

use std::time::Duration;

use async_map_task::store::{CacheKey, Record, Recorded, Sealed, Store, StoreError};

/// Makes tests of functions that take a store: one for each store.
macro_rules! for_every_store {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(async_map_task::store::MemoryStore::new()).await;
                }
            )*
        }

        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let folder = crate::folder::Folder::new();
                    let store = async_map_task::store::SqliteStore::open(folder.file("runs.db")).await.unwrap();
                    super::$case(store).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let url = crate::cluster::shared().database().await;
                    let store = async_map_task::store::PostgresStore::connect(&url).await.unwrap();
                    super::$case(store).await;
                }
            )*
        }

        mod pgbouncer {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let direct = crate::cluster::shared().database().await;
                    let url = crate::pgbouncer::shared().before(&direct);
                    let store = async_map_task::store::PostgresStore::connect(&url).await.unwrap();
                    super::$case(store).await;
                }
            )*
        }
    };
}

mod cache;
mod items;
mod leases;
mod limits;
mod races;
mod runs;
mod text;

const HOUR: Duration = Duration::from_secs(3600);

const OVER_AT_ONCE: Duration = Duration::ZERO;

fn sealed(json: &str) -> Sealed {
    Sealed { json: json.to_owned(), checksum: "0123456789abcdef".to_owned() }
}

fn succeeded(index: u64, json: &str) -> Record {
    Record {
        index,
        item_hash: format!("{index:064x}"),
        attempts: 1,
        elapsed: Duration::new(index, 123_456_789),
        recorded: Recorded::Succeeded { output: sealed(json) },
    }
}

fn failed(index: u64, message: &str) -> Record {
    Record { attempts: 4, recorded: Recorded::Failed { message: message.to_owned() }, ..succeeded(index, "") }
}

fn key(item: &str) -> CacheKey {
    CacheKey { task: "embed".to_owned(), version: "3".to_owned(), item_hash: item.to_owned() }
}

/// Opens the run `nightly` of the task `resize` for an hour.
async fn open<S: Store>(store: &S, holder: &str) -> Result<(), StoreError> {
    store.open_run("nightly", "resize", holder, HOUR).await
}

/// All successes of a run.
async fn successes<S: Store>(store: &S, run_id: &str) -> Vec<Record> {
    store.successes(run_id, 0, u32::MAX).await.unwrap()
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(result: Result<T, StoreError>, run: &str, by: &str) {
    match result {
        Err(StoreError::LeaseLost { run_id, holder, .. }) => {
            assert_eq!((run_id.as_str(), holder.as_str()), (run, by))
        }
        other => panic!("{other:?} where the lease is lost"),
    }
}
