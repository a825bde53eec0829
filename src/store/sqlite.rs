//! A store in a file: SQLite.

mod batch;
mod cache;
mod file;
mod items;
mod operation;
mod reader;
mod runs;
mod schema;
mod thread;
mod values;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use self::file::StoreFile;
use self::operation::{Commit, Holding, Key, NewClaim, Operation, Put, Save, Value};
use self::reader::{LookUp, Read};
use self::thread::StoreThread;
use super::fault::Fault;
use super::{
    CacheKey, Checksummed, Claim, MAX_DURATION, Record, RunInfo, RunStatus, Store, StoreError, names, rows,
};

/// How long a call waits for the file while another process writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The mean pause between two attempts to lock a file that another process has locked.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Stores everything in one file, for the processes of one machine. Needs the feature `sqlite`.
///
/// SQLite is compiled into the program. The build needs a C compiler, and the program needs nothing.
///
/// A clone is another handle to the same store, and several processes may open one file. The file must be on a disk of this
/// machine, because SQLite cannot lock files on a network share. Next to it, SQLite creates `-wal` and `-shm` files, which
/// belong to it. Committed data has reached the disk (write-ahead log, `synchronous=FULL`), so it survives a loss of power.
/// Leases use the machine's clock.
///
/// A store has one thread that writes for all its clones. It commits the waiting calls together, up to 1,024 calls or about
/// 4 MiB. Each call returns when its group is durable. A call waits for earlier ones without a time limit; renewals of
/// leases do not wait for them. A call that its caller does not poll delays no other call. Several processes take turns: a
/// write fails if others have the file for 30 seconds without a pause.
///
/// A file that the store creates is readable and writable by its owner only; an existing file keeps its permissions. The
/// store stays with the file that it has opened. If the path later leads to another file, or to none, its calls fail with
/// [`StoreError::Replaced`].
///
/// [`open`](Self::open) reads the whole file once and refuses a damaged one. This takes about a second for each gigabyte.
/// Damage that is found later is [`StoreError::Corrupt`], too.
///
/// # Tables
///
/// Version 3. Times are milliseconds since 1970; JSON is text, unchanged. `map_task_schema` has the version in its only row.
/// A newer version of the crate migrates the tables when it opens the file. You can read the tables while runs are in
/// progress. To delete a run, call [`forget`](Store::forget).
///
/// | table | one row for | columns |
/// | --- | --- | --- |
/// | `map_task_runs` | a run | `run_id`, `task`, `status` (`running`, `succeeded`, `failed`), `reason` of a failure, `holder` with `held_since_ms`, `held_until_ms` and `lease_ms` until the run ends, `started_ms`, `updated_ms` |
/// | `map_task_items` | an item of a run that succeeded or failed | `run_id`, `item_index` from 0, `item_hash`, `attempts`, `elapsed_ns`; `output` with its `checksum`, or `error` |
/// | `map_task_checkpoints` | an item with a saved state | `run_id`, `item_index`, `item_hash`, `state` with its `checksum`, `saved_ms` |
/// | `map_task_cache` | a cached value | `task`, `version`, `item_hash`, `output` with its `checksum`, `written_ms`, `expires_ms` if it expires |
/// | `map_task_claims` | a value that is being computed | `task`, `version`, `item_hash`, `holder`, `held_until_ms`, `lease_ms` |
///
/// # Queries
///
/// In `sqlite3 -box runs.db` (3.38 or later), also while the job is running. The failed items with the time of their run:
///
/// ```sql
/// SELECT datetime(started_ms / 1000, 'unixepoch', 'localtime') AS started, run_id, item_index, attempts, error
/// FROM map_task_items JOIN map_task_runs USING (run_id)
/// WHERE error IS NOT NULL ORDER BY started_ms DESC, item_index LIMIT 20;
/// ```
///
/// Others:
///
/// ```sql
/// -- The progress and the holder of each run.
/// SELECT run_id, status, count(output) AS succeeded, count(error) AS failed,
///        iif(held_until_ms > unixepoch() * 1000, holder, '') AS held_by
/// FROM map_task_runs LEFT JOIN map_task_items USING (run_id)
/// GROUP BY run_id ORDER BY started_ms DESC;
///
/// -- The slowest items.
/// SELECT item_index, elapsed_ns / 1000000 AS ms FROM map_task_items
/// WHERE run_id = 'invoices-2026-11-22' ORDER BY elapsed_ns DESC LIMIT 10;
///
/// -- The contents of the cache.
/// SELECT task, version, count(*) AS outputs, sum(length(output)) AS bytes
/// FROM map_task_cache GROUP BY task, version;
/// ```
///
/// To run a single item again, delete its row while the run has no holder:
///
/// ```sql
/// DELETE FROM map_task_items WHERE run_id = 'invoices-2026-11-22' AND item_index = 7;
/// ```
///
/// Do not edit an output, because its checksum would no longer match. To copy a store, use `sqlite3 runs.db '.backup
/// copy.db'`. The file alone, without its `-wal`, is not complete. `forget` makes room in the file for the next run, and
/// `sqlite3 runs.db VACUUM` returns it to the disk. An item takes 120 bytes, its output as JSON or its error, and the run id
/// twice. A cached output takes 180 bytes, its JSON, and the task's name and the version twice.
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
#[derive(Clone)]
pub struct SqliteStore {
    thread: Arc<StoreThread>,
}

impl SqliteStore {
    /// Opens a file, or creates it if it does not exist. A relative path is resolved against the current directory at the
    /// time of the call.
    ///
    /// Opens all connections, and starts a thread that ends with the last clone of the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the file is damaged or not an SQLite file. [`StoreError::TooNew`] if a newer version of
    /// this crate has written it. [`StoreError::Database`] if it cannot be opened or written, or the thread cannot be
    /// started.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let opened = Self::connect(path.as_ref()).await;
        opened.map_err(|fault| fault.into_store_error("opening the SQLite store"))
    }

    async fn connect(path: &Path) -> Result<Self, Fault> {
        let begun = Instant::now();
        loop {
            match StoreFile::open(path, BUSY_TIMEOUT).await {
                // The process that creates the file locks it exclusively, and SQLite does not wait for that lock.
                Err(fault) if fault.is_busy() && begun.elapsed() < BUSY_TIMEOUT => sleep(BUSY_PAUSE).await,
                opened => {
                    let (file, connections) = opened?;
                    let thread = StoreThread::start(file, connections).map_err(sqlx::Error::Io)?;
                    return Ok(Self { thread: Arc::new(thread) });
                }
            }
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.thread.path()).finish_non_exhaustive()
    }
}

/// Returns the current time as the tables store it.
fn now() -> i64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Returns the time after `duration` from now.
fn after(duration: Duration) -> i64 {
    now().saturating_add(length(duration))
}

/// Returns the length of a lease as the tables store it, rounded up to whole milliseconds.
fn length(duration: Duration) -> i64 {
    milliseconds(duration.min(MAX_DURATION) + Duration::from_nanos(999_999))
}

/// Returns the new end of a lease if it must be shortened: at most its length from now. The stored end can be later than
/// that because a clock was ahead.
fn max_lease_end(now: i64, until: i64, length: Option<i64>) -> Option<i64> {
    length.map(|length| now.saturating_add(length)).filter(|longest| *longest < until)
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
        names::check_run(run_id, task, holder)?;
        let (run, task) = (Holding::new(run_id, holder), task.into());
        self.thread.write("opening a run", Operation::OpenRun { run, task, lease }).await.map(drop)
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        let run = Holding::new(run_id, holder);
        self.thread
            .write_first("renewing the lease of a run", Operation::RenewRun { run, lease })
            .await
            .map(drop)
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        let (run, status) = (Holding::new(run_id, holder), status.clone());
        self.thread.write("closing a run", Operation::CloseRun { run, status }).await.map(drop)
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        let commit = Commit::new(run_id, holder, records)?;
        self.thread.write("committing outcomes", Operation::Commit(commit)).await.map(drop)
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let (run_id, from) = (run_id.to_owned(), rows::index_column(from)?);
        let read = |reply| Read::Successes { run_id, from, limit, reply };
        self.thread.read("reading outcomes", read).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.thread.read("listing the runs", |reply| Read::Runs { run_id: None, reply }).await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        let run_id = Some(run_id.to_owned());
        Ok(self.thread.read("looking up a run", |reply| Read::Runs { run_id, reply }).await?.pop())
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        let forgotten = self.thread.write("forgetting a run", Operation::Forget { run_id: run_id.into() });
        Ok(forgotten.await?.rows() > 0)
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        let place = (run_id.into(), rows::index_column(index)?, item_hash.into());
        self.thread.look_up("reading a checkpoint", |reply| LookUp::Checkpoint(place, reply)).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let (run, index) = (Holding::new(run_id, holder), rows::index_column(index)?);
        let save = Save { run, index, item_hash: item_hash.into(), state: Value::new(state) };
        self.thread.write("saving a checkpoint", Operation::SaveCheckpoint(save)).await.map(drop)
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        let key = Key::new(key);
        self.thread.look_up("reading a cached value", |reply| LookUp::Cached(key, reply)).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        names::check_key(key)?;
        let put = Put { key: Key::new(key), value: Value::new(value), expires_after };
        self.thread.write("caching a value", Operation::Put(put)).await.map(drop)
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        names::check_claim(key, holder)?;
        // An existing value is found without waiting for a turn to write.
        if !overwrite {
            if let Some(value) = self.cached(key).await? {
                return Ok(Claim::Cached(value));
            }
        }
        let claim = NewClaim { key: Key::new(key), holder: holder.into(), lease, overwrite };
        Ok(self.thread.write("claiming a cached value", Operation::Claim(claim)).await?.claim())
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        let renewal = Operation::RenewClaim { key: Key::new(key), holder: holder.into(), lease };
        Ok(self.thread.write_first("renewing a claim", renewal).await?.rows() > 0)
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        let release = Operation::ReleaseClaim { key: Key::new(key), holder: holder.into() };
        self.thread.write("releasing a claim", release).await.map(drop)
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        let evict = Operation::Evict { task: task.into(), version: version.map(Into::into) };
        Ok(self.thread.write("evicting cached values", evict).await?.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Recorded;

    /// After the disk was full, the next write succeeds as soon as there is room again.
    #[tokio::test]
    async fn a_full_disk_is_an_error_until_there_is_room() {
        let path = std::env::temp_dir().join(format!("full-disk-{}.db", std::process::id()));
        let (file, mut connections) = StoreFile::open(&path, BUSY_TIMEOUT).await.unwrap();
        // The limit applies to this connection only.
        sqlx::query("PRAGMA max_page_count = 40").execute(&mut connections.writer).await.unwrap();
        let store = SqliteStore { thread: Arc::new(StoreThread::start(file, connections).unwrap()) };
        store.open_run("nightly", "resize", "a", Duration::from_secs(100)).await.unwrap();
        let record = |index, bytes| Record {
            index,
            item_hash: "hash".to_owned(),
            attempts: 1,
            elapsed: Duration::ZERO,
            recorded: Recorded::Failed { message: "x".repeat(bytes) },
        };
        // The operations that fit are written, whatever else is in their group.
        let [large, small, last] = [record(0, 400_000), record(1, 10), record(2, 10)].map(|record| [record]);
        let commit = |record| store.commit("nightly", "a", record);
        let (large, small) = tokio::join!(commit(&large), commit(&small));
        let error = large.unwrap_err();
        assert!(error.to_string().contains("database or disk is full"), "{error}");
        small.unwrap();
        commit(&last).await.unwrap();
        assert_eq!(store.run("nightly").await.unwrap().unwrap().failed, 2);
        drop(store);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}
