//! The store of many machines: PostgreSQL.

mod cache;
mod items;
mod retry;
mod runs;
mod schema;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use self::retry::Retry;
use super::fault::Fault;
use super::{CacheKey, Claim, LONGEST, Record, RunInfo, RunStatus, Sealed, Store, StoreError};

/// How many connections to the server a store has at most.
const CONNECTIONS: u32 = 8;

/// How long one try waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps everything in a PostgreSQL database, for many machines. Version 12 of the server and later will do.
///
/// A clone is another handle to the same store, and shares its at most eight connections. All leases and expiries go
/// by the server's clock, so that those of the machines may differ.
///
/// An operation that fails because the connection broke, or because the server restarts, is tried again with growing
/// waits for the [retry time](Self::retry_time): the run does not notice. One whose answer was lost may be done twice,
/// which has the effect of once; only what [`forget`](Store::forget) and [`evict`](Store::evict) say they found may
/// then be what the second try found.
///
/// What is committed is durable as far as the server promises it; where `synchronous_commit` is off by the server's
/// configuration, the store switches it on for its own connections. The character NUL, which PostgreSQL cannot keep in
/// text, becomes U+FFFD in messages and reasons; in names and hashes it is an error, and JSON never has it.
///
/// # Tables
///
/// Version 2. They are in the first schema of the connection's search path, and made by the first that connects, which
/// needs the right to. `map_task_schema` has the version in its one row, and a newer version of the crate migrates the
/// tables when it connects. Times are `timestamptz`, JSON is text as it was given. Read the tables as you like while
/// runs go on; to delete a run, call [`forget`](Store::forget).
///
/// | table | one row for | columns |
/// | --- | --- | --- |
/// | `map_task_runs` | a run | `run_id`, `task`, `status` (`running`, `succeeded`, `failed`), `reason` of a failure, `holder` with `held_since` and `held_until` until the run ends, `started`, `updated` |
/// | `map_task_items` | an item of a run that succeeded or failed | `run_id`, `item_index` from 0, `item_hash`, `attempts`, `elapsed_ns`; `output` with its `checksum`, or `error` |
/// | `map_task_checkpoints` | an item with a saved state | `run_id`, `item_index`, `item_hash`, `state` with its `checksum`, `saved` |
/// | `map_task_cache` | a cached value | `task`, `version`, `item_hash`, `output` with its `checksum`, `written`, `expires` if it expires |
/// | `map_task_claims` | a value that is being computed | `task`, `version`, `item_hash`, `holder`, `held_until` |
///
/// Which runs go on, on which machine, and how far they have come, as an operator asks in `psql`:
///
/// ```sql
/// SELECT run_id, holder, started, count(output) AS succeeded, count(error) AS failed
/// FROM map_task_runs LEFT JOIN map_task_items USING (run_id)
/// WHERE held_until > now() GROUP BY run_id ORDER BY started DESC;
/// ```
///
/// # Examples
///
/// ```no_run
/// use async_map_task::store::{PostgresStore, Store};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://jobs@db.example/jobs?sslmode=verify-full").await?;
/// for run in store.runs().await? {
///     println!("{} {:?}: {} succeeded, {} failed", run.run_id, run.status, run.succeeded, run.failed);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    retry: Retry,
}

impl PostgresStore {
    /// The [`retry_time`](Self::retry_time) of a store where none is set.
    pub const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(30);

    /// Connects to a database, and makes or migrates the tables.
    ///
    /// The URL is one of libpq: `postgres://user:password@host:5432/database`, with `sslmode`, `sslrootcert` and the
    /// like as parameters; what it leaves out comes from the `PG...` variables of the environment. Without an
    /// `sslmode` the connection is encrypted where the server can do it. A server that is not there is an error at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooNew`] where a newer version of this crate has made the tables, and [`StoreError::Database`]
    /// where the URL is none or the server refuses.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::try_connect(url).await.map_err(|fault| fault.into_store_error("connecting to PostgreSQL"))
    }

    async fn try_connect(url: &str) -> Result<Self, Fault> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.disable_statement_logging();
        // Not through the pool, which tells only that it has waited, and not for what.
        let mut connection = PgConnection::connect_with(&options).await?;
        schema::migrate(&mut connection).await?;
        connection.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| Box::pin(commit_durably(connection)))
            .connect_lazy_with(options);
        Ok(Self { pool, retry: Retry { time: Self::DEFAULT_RETRY_TIME } })
    }

    /// For how long an operation is tried again while the server cannot be reached, from its first failure on, before
    /// it is a [`StoreError::Database`]. The last try may take five seconds more.
    ///
    /// Keep it below the lease of your runs, or another machine may take a run over meanwhile. The default is
    /// [`DEFAULT_RETRY_TIME`](Self::DEFAULT_RETRY_TIME), 30 seconds.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use async_map_task::store::PostgresStore;
    /// # use std::time::Duration;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::connect("postgres://db.example/jobs").await?.retry_time(Duration::from_secs(120));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn retry_time(mut self, retry_time: Duration) -> Self {
        self.retry.time = retry_time;
        self
    }
}

/// What is reported as committed must outlive the server, also where it is configured otherwise.
async fn commit_durably(connection: &mut PgConnection) -> sqlx::Result<()> {
    let set = "SELECT set_config('synchronous_commit', 'on', false)
               WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::query(set).execute(connection).await?;
    Ok(())
}

/// A lease or an expiry as a statement is given it.
fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
}

/// A message as PostgreSQL can keep it.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Store for PostgresStore {
    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        self.retry.run("opening a run", || runs::open(&self.pool, run_id, task, holder, lease)).await
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        let renew = || runs::renew(&self.pool, run_id, holder, lease);
        self.retry.run("renewing the lease of a run", renew).await
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        self.retry.run("closing a run", || runs::close(&self.pool, run_id, holder, status)).await
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        self.retry.run("committing outcomes", || items::commit(&self.pool, run_id, holder, records)).await
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.retry.run("reading outcomes", || items::successes(&self.pool, run_id, from, limit)).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.retry.run("listing the runs", || runs::infos(&self.pool, None)).await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        let infos = self.retry.run("looking up a run", || runs::infos(&self.pool, Some(run_id))).await;
        Ok(infos?.pop())
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        self.retry.run("forgetting a run", || runs::forget(&self.pool, run_id)).await
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Sealed>, StoreError> {
        let load = || items::checkpoint(&self.pool, run_id, index, item_hash);
        self.retry.run("reading a checkpoint", load).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Sealed,
    ) -> Result<(), StoreError> {
        let save = || items::save_checkpoint(&self.pool, run_id, holder, index, item_hash, state);
        self.retry.run("saving a checkpoint", save).await
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Sealed>, StoreError> {
        self.retry.run("reading a cached value", || cache::value(&self.pool, key)).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Sealed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.retry.run("caching a value", || cache::put(&self.pool, key, value, expires_after)).await
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        let claim = || cache::claim(&self.pool, key, holder, lease, overwrite);
        self.retry.run("claiming a cached value", claim).await
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        self.retry.run("renewing a claim", || cache::renew(&self.pool, key, holder, lease)).await
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        self.retry.run("releasing a claim", || cache::release(&self.pool, key, holder)).await
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        self.retry.run("evicting cached values", || cache::evict(&self.pool, task, version)).await
    }
}
