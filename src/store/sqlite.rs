//! The store in a file: SQLite.

mod cache;
mod items;
mod runs;
mod schema;

use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction};
use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::{CacheKey, Claim, LONGEST, Record, RunInfo, RunStatus, Sealed, Store, StoreError};

/// How long a write waits for those of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait before a file that is busy is opened again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// How many reads go on at once.
const READERS: u32 = 4;

/// Keeps everything in one file, for the processes of one machine. SQLite is built in; there is nothing to install.
///
/// A clone is another handle to the same store, and several processes may open one file. The file must be on a disk of
/// this machine: SQLite cannot lock files on a network share. Beside it SQLite keeps `-wal` and `-shm` files, which
/// belong to it. What is committed has reached the disk (write-ahead log, `synchronous=FULL`), so that it outlives a
/// loss of power as well. One write goes on at a time, and waits for those of other processes for up to 30 seconds.
/// Leases go by the machine's clock.
///
/// [`open`](Self::open) reads the file once from end to end and refuses a damaged one, which takes about a second for
/// each gigabyte. Damage that is found later is [`StoreError::Corrupt`], too.
///
/// # Tables
///
/// Version 2. Times are milliseconds since 1970, JSON is text as it was given. `map_task_schema` has the version in
/// its one row, and a newer version of the crate migrates the tables when it opens the file. Read them as you like
/// while runs go on; to delete a run, call [`forget`](Store::forget).
///
/// | table | one row for | columns |
/// | --- | --- | --- |
/// | `map_task_runs` | a run | `run_id`, `task`, `status` (`running`, `succeeded`, `failed`), `reason` of a failure, `holder` with `held_since_ms` and `held_until_ms` until the run ends, `started_ms`, `updated_ms` |
/// | `map_task_items` | an item of a run that succeeded or failed | `run_id`, `item_index` from 0, `item_hash`, `attempts`, `elapsed_ns`; `output` with its `checksum`, or `error` |
/// | `map_task_checkpoints` | an item with a saved state | `run_id`, `item_index`, `item_hash`, `state` with its `checksum`, `saved_ms` |
/// | `map_task_cache` | a cached value | `task`, `version`, `item_hash`, `output` with its `checksum`, `written_ms`, `expires_ms` if it expires |
/// | `map_task_claims` | a value that is being computed | `task`, `version`, `item_hash`, `holder`, `held_until_ms` |
///
/// What failed, with the time of the run, as an operator asks in `sqlite3 runs.db`:
///
/// ```sql
/// SELECT datetime(started_ms / 1000, 'unixepoch', 'localtime') AS started, run_id, item_index, attempts, error
/// FROM map_task_items JOIN map_task_runs USING (run_id)
/// WHERE error IS NOT NULL ORDER BY started_ms DESC, item_index LIMIT 20;
/// ```
///
/// # Examples
///
/// ```
/// use async_map_task::store::{SqliteStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("sqlite-store-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("runs.db");
/// let store = SqliteStore::open(&path).await?;
/// for run in store.runs().await? {
///     println!("{} {:?}: {} succeeded, {} failed", run.run_id, run.status, run.succeeded, run.failed);
/// }
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// Of one connection, so that writes wait for one another here and not by asking the file again and again.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens a file, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] where the file is damaged or not one of SQLite, [`StoreError::TooNew`] where a newer
    /// version of this crate has written it, and [`StoreError::Database`] where it cannot be opened or written.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let begun = Instant::now();
        loop {
            match Self::connect(path.as_ref()).await {
                // Whoever makes the file needs it for himself, and SQLite does not wait for that by itself.
                Err(fault) if fault.is_busy() && begun.elapsed() < BUSY_TIMEOUT => sleep(BUSY_PAUSE).await,
                opened => return opened.map_err(|fault| fault.into_store_error("opening the SQLite store")),
            }
        }
    }

    async fn connect(path: &Path) -> Result<Self, Fault> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // A page is looked over as it is read, so that damage is found before it is followed.
            .pragma("cell_size_check", "ON")
            .disable_statement_logging();
        let writer = pool(1).after_release(is_clean).connect_with(options.clone()).await?;
        schema::check(&writer).await?;
        schema::migrate(&writer).await?;
        let readers = pool(READERS).connect_lazy_with(options.create_if_missing(false).read_only(true));
        Ok(Self { writer, readers })
    }

    /// Begins a transaction that can write, and waits for other processes' here: one that has read cannot wait.
    async fn write(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }
}

/// Whether a connection that comes back can be used again. Where the disk is full, SQLite ends a transaction by itself, and
/// the connection believes ever after that it is in one.
fn is_clean(
    connection: &mut SqliteConnection,
    _: PoolConnectionMetadata,
) -> BoxFuture<'_, sqlx::Result<bool>> {
    Box::pin(async move {
        // A roll-back may be on its way.
        connection.ping().await?;
        Ok(!connection.is_in_transaction())
    })
}

/// A connection to a file does not break, so that none is tried before it is used, or replaced because it is old.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// The time as the tables have it.
fn now() -> i64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// When what lasts for `duration` from now is over; what is no whole number of milliseconds lasts a little longer.
fn after(duration: Duration) -> i64 {
    now().saturating_add(milliseconds(duration.min(LONGEST) + Duration::from_nanos(999_999)))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store for SqliteStore {
    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let opened = runs::open(self, run_id, task, holder, lease).await;
        opened.map_err(|fault| fault.into_store_error("opening a run"))
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        let renewed = runs::renew(self, run_id, holder, lease).await;
        renewed.map_err(|fault| fault.into_store_error("renewing the lease of a run"))
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        let closed = runs::close(self, run_id, holder, status).await;
        closed.map_err(|fault| fault.into_store_error("closing a run"))
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        let committed = items::commit(self, run_id, holder, records).await;
        committed.map_err(|fault| fault.into_store_error("committing outcomes"))
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let successes = items::successes(self, run_id, from, limit).await;
        successes.map_err(|fault| fault.into_store_error("reading outcomes"))
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        let infos = runs::infos(self, None).await;
        infos.map_err(|fault| fault.into_store_error("listing the runs"))
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        let infos = runs::infos(self, Some(run_id)).await;
        Ok(infos.map_err(|fault| fault.into_store_error("looking up a run"))?.pop())
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        let forgotten = runs::forget(self, run_id).await;
        forgotten.map_err(|fault| fault.into_store_error("forgetting a run"))
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Sealed>, StoreError> {
        let state = items::checkpoint(self, run_id, index, item_hash).await;
        state.map_err(|fault| fault.into_store_error("reading a checkpoint"))
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Sealed,
    ) -> Result<(), StoreError> {
        let saved = items::save_checkpoint(self, run_id, holder, index, item_hash, state).await;
        saved.map_err(|fault| fault.into_store_error("saving a checkpoint"))
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Sealed>, StoreError> {
        let value = cache::value(&self.readers, key).await;
        value.map_err(|fault| fault.into_store_error("reading a cached value"))
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Sealed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        let put = cache::put(self, key, value, expires_after).await;
        put.map_err(|fault| fault.into_store_error("caching a value"))
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        let claim = cache::claim(self, key, holder, lease, overwrite).await;
        claim.map_err(|fault| fault.into_store_error("claiming a cached value"))
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        let renewed = cache::renew(self, key, holder, lease).await;
        renewed.map_err(|fault| fault.into_store_error("renewing a claim"))
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        let released = cache::release(self, key, holder).await;
        released.map_err(|fault| fault.into_store_error("releasing a claim"))
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        let evicted = cache::evict(self, task, version).await;
        evicted.map_err(|fault| fault.into_store_error("evicting cached values"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Recorded;

    /// Where the disk was full, the next write succeeds as soon as there is room again.
    #[tokio::test]
    async fn a_full_disk_is_an_error_until_there_is_room() {
        let path = std::env::temp_dir().join(format!("full-disk-{}.db", std::process::id()));
        let store = SqliteStore::open(&path).await.unwrap();
        store.open_run("nightly", "resize", "a", Duration::from_secs(100)).await.unwrap();
        let record = |index| Record {
            index,
            item_hash: "hash".to_owned(),
            attempts: 1,
            elapsed: Duration::ZERO,
            recorded: Recorded::Failed { message: "x".repeat(100_000) },
        };
        // It is a limit of this one connection.
        sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
        let error = store.commit("nightly", "a", &[record(0)]).await.unwrap_err();
        assert!(error.to_string().contains("database or disk is full"), "{error}");
        store.commit("nightly", "a", &[record(1)]).await.unwrap();
        assert_eq!(store.run("nightly").await.unwrap().unwrap().failed, 1);
        drop(store);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}
