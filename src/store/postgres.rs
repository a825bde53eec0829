//! A store for many machines: PostgreSQL.

mod cache;
mod calls;
mod claims;
mod connections;
mod group;
mod items;
mod link;
mod over_rows;
mod pooler;
mod runs;
mod schema;

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use self::cache::{LookUp, Put};
use self::calls::{Call, Calls, MAX_TRY, Retry};
use self::claims::NewClaim;
use self::connections::Connections;
use self::group::Grouped;
use self::items::Save;
use self::link::{Scope, with_link};
use super::fault::Fault;
use super::{
    CacheKey, Checksummed, Claim, MAX_DURATION, Record, RunInfo, RunStatus, Store, StoreError, names, rows,
};

/// Stores everything in a PostgreSQL database, for many machines. Supports version 12 of the server and later. Needs the
/// feature `postgres`.
///
/// A clone is another handle to the same store, and shares its connections, at most eight. All leases and expiries use the
/// server's clock, so the clocks of the machines may differ.
///
/// An operation is retried on another connection if the connection broke or the server restarts. It is also retried if the
/// server is read-only for a while after a failover, or does not answer for 30 seconds. Calls that read or delete whole
/// tables may take 10 minutes: [`runs`](Store::runs), [`run`](Store::run), [`forget`](Store::forget) and
/// [`evict`](Store::evict). The waits between tries grow, and the [retry time](Self::retry_time) limits them. The run does
/// not notice. If an answer was lost, the operation may be executed twice, with the effect of one execution. Only the return
/// values of `forget` and `evict` may then be those of the second try.
///
/// Cached outputs, claims and checkpoints that arrive at the same time share one statement of their kind, as outcomes do.
/// The task that writes them runs on the runtime of one of the callers.
///
/// The store works behind PgBouncer or another pooler in transaction mode, which shares the server's sessions among
/// connections. It then uses no named prepared statement and leaves nothing in a session. [`connect`](Self::connect) detects
/// such a pooler. It refuses a pooler in statement mode, with the pooler's error text.
///
/// Committed data is as durable as the server guarantees. If the server's configuration switches `synchronous_commit` off,
/// the store switches it on for its own connections, or, behind a pooler, for its transactions. PostgreSQL cannot store the
/// character NUL in text. In messages and reasons it becomes U+FFFD; in names and hashes it is an error; JSON never contains
/// it.
///
/// # Tables
///
/// Version 2. The tables are in the first schema of the connection's search path. The first store that connects creates
/// them, and needs the privilege to do so. `map_task_schema` has the version in its only row. A newer version of the crate
/// migrates the tables when it connects. Times are `timestamptz`; JSON is text, unchanged. You can read the tables while
/// runs are in progress. To delete a run, call [`forget`](Store::forget).
///
/// | table | one row for | columns |
/// | --- | --- | --- |
/// | `map_task_runs` | a run | `run_id`, `task`, `status` (`running`, `succeeded`, `failed`), `reason` of a failure, `holder` with `held_since` and `held_until` until the run ends, `started`, `updated` |
/// | `map_task_items` | an item of a run that succeeded or failed | `run_id`, `item_index` from 0, `item_hash`, `attempts`, `elapsed_ns`; `output` with its `checksum`, or `error` |
/// | `map_task_checkpoints` | an item with a saved state | `run_id`, `item_index`, `item_hash`, `state` with its `checksum`, `saved` |
/// | `map_task_cache` | a cached value | `task`, `version`, `item_hash`, `output` with its `checksum`, `written`, `expires` if it expires |
/// | `map_task_claims` | a value that is being computed | `task`, `version`, `item_hash`, `holder`, `held_until` |
///
/// # Queries
///
/// The runs in progress, their machines and their progress, in `psql`:
///
/// ```sql
/// SELECT run_id, holder, started, count(output) AS succeeded, count(error) AS failed
/// FROM map_task_runs LEFT JOIN map_task_items USING (run_id)
/// WHERE held_until > now() GROUP BY run_id ORDER BY started DESC;
/// ```
///
/// Others:
///
/// ```sql
/// -- The interrupted runs: the process of the holder is gone.
/// SELECT run_id, holder, updated FROM map_task_runs
/// WHERE status = 'running' AND held_until <= now();
///
/// -- The most frequent errors.
/// SELECT regexp_replace(error, '[0-9]+', 'N', 'g') AS error, count(*) FROM map_task_items
/// WHERE run_id = 'invoices-2026-11-22' AND error IS NOT NULL
/// GROUP BY 1 ORDER BY 2 DESC LIMIT 10;
///
/// -- A field of the outputs. Text in PostgreSQL cannot contain NUL: U+FFFD replaces it.
/// SELECT item_index,
///        regexp_replace(output, '(?<!\\)((\\\\)*)\\u0000', '\1\\ufffd', 'g')::json ->> 'size' AS size
/// FROM map_task_items
/// WHERE run_id = 'invoices-2026-11-22' AND output IS NOT NULL;
/// ```
///
/// To run a single item again, delete its row from `map_task_items` while the run has no holder.
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
#[derive(Clone)]
pub struct PostgresStore {
    calls: Calls,
    look_ups: Grouped<LookUp>,
    puts: Grouped<Put>,
    claims: Grouped<NewClaim>,
    saves: Grouped<Save>,
}

impl PostgresStore {
    /// The default [`retry_time`](Self::retry_time) of a store.
    pub const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(30);

    /// Connects to a database, and creates or migrates the tables.
    ///
    /// The URL is one of libpq: `postgres://user:password@host:5432/database`, with parameters such as `sslmode` and
    /// `sslrootcert`. Omitted parts come from the `PG...` environment variables. Without an `sslmode`, the connection is
    /// encrypted if the server supports it. If the server cannot be reached, the error is returned immediately.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooNew`] if a newer version of this crate has created the tables. [`StoreError::Database`] if the URL
    /// is invalid, the server refuses the connection, or it does not answer for 30 seconds.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let connected = timeout(MAX_TRY, Self::try_connect(url)).await;
        let connected = connected.unwrap_or_else(|_| Err(calls::no_answer(MAX_TRY)));
        connected.map_err(|fault| fault.into_store_error("connecting to PostgreSQL"))
    }

    async fn try_connect(url: &str) -> Result<Self, Fault> {
        let options: PgConnectOptions = url.parse()?;
        // No float is sent or read, and PgBouncer refuses a connection that sets `extra_float_digits`.
        let options = options.disable_statement_logging().extra_float_digits(None);
        // Connects without the pool: the error of the pool would be a timeout without its cause.
        let mut connection = PgConnection::connect_with(&options).await?;
        schema::migrate(&mut connection).await?;
        let is_pooled = pooler::is_between(&mut connection, &options).await?;
        connection.close().await?;
        let connections = Connections::new(options, is_pooled);
        let retry = Retry { time: Self::DEFAULT_RETRY_TIME };
        let calls = Calls { connections, is_pooled, retry };
        let (look_ups, puts, claims, saves) = Default::default();
        Ok(Self { calls, look_ups, puts, claims, saves })
    }

    /// Sets how long an operation is retried while the server cannot be reached, from its first failure on. After that it is
    /// a [`StoreError::Database`]. The last try may take 30 seconds more, or 10 minutes if it reads or deletes whole tables.
    ///
    /// Keep it below the lease of your runs, or another machine may acquire a run in the meantime. The default is
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
        self.calls.retry.time = retry_time;
        self
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("retry_time", &self.calls.retry.time).finish_non_exhaustive()
    }
}

/// Returns a lease or an expiry in microseconds.
fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.min(MAX_DURATION).as_micros()).unwrap_or(i64::MAX)
}

/// Replaces the characters that PostgreSQL cannot store.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

const OPEN_RUN: Call = Call::new("opening a run", Scope::Transaction);
const RENEW_RUN: Call = Call::new("renewing the lease of a run", Scope::Statement);
const CLOSE_RUN: Call = Call::new("closing a run", Scope::Statement);
const SUCCESSES: Call = Call::new("reading outcomes", Scope::Statement);
const RUNS: Call = Call::bulk("listing the runs", Scope::Snapshot);
const RUN: Call = Call::bulk("looking up a run", Scope::Snapshot);
const FORGET: Call = Call::bulk("forgetting a run", Scope::Statement);
const CHECKPOINT: Call = Call::new("reading a checkpoint", Scope::Statement);
const RENEW_CLAIM: Call = Call::new("renewing a claim", Scope::Statement);
const RELEASE_CLAIM: Call = Call::new("releasing a claim", Scope::Statement);
const EVICT: Call = Call::bulk("evicting cached values", Scope::Statement);

impl Store for PostgresStore {
    /// Returns the retry time and one try before and after it.
    fn time_limit(&self) -> Duration {
        self.calls.retry.time.saturating_add(2 * MAX_TRY)
    }

    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        names::check_run(run_id, task, holder)?;
        self.calls.run(OPEN_RUN, with_link!(link => runs::open(&mut link, run_id, task, holder, lease))).await
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        self.calls.run(RENEW_RUN, with_link!(link => runs::renew(&mut link, run_id, holder, lease))).await
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        self.calls.run(CLOSE_RUN, with_link!(link => runs::close(&mut link, run_id, holder, status))).await
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        let commit = Call::new("committing outcomes", items::commit_scope(records));
        self.calls.run(commit, with_link!(link => items::commit(&mut link, run_id, holder, records))).await
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.calls.run(SUCCESSES, with_link!(link => items::successes(&mut link, run_id, from, limit))).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.calls.run(RUNS, with_link!(link => runs::infos(&mut link, None))).await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        let infos = self.calls.run(RUN, with_link!(link => runs::infos(&mut link, Some(run_id)))).await;
        Ok(infos?.pop())
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        self.calls.run(FORGET, with_link!(link => runs::forget(&mut link, run_id))).await
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        let load = with_link!(link => items::checkpoint(&mut link, run_id, index, item_hash));
        self.calls.run(CHECKPOINT, load).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let save = Save {
            run_id: run_id.to_owned(),
            holder: holder.to_owned(),
            index: rows::index_column(index)?,
            item_hash: item_hash.to_owned(),
            state: state.clone(),
        };
        self.saves.call(&self.calls, save).await
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        self.look_ups.call(&self.calls, LookUp(key.clone())).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        names::check_key(key)?;
        let put = Put { key: key.clone(), value: value.clone(), expires_after };
        self.puts.call(&self.calls, put).await
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        names::check_claim(key, holder)?;
        let claim = NewClaim { key: key.clone(), holder: holder.to_owned(), lease, overwrite };
        self.claims.call(&self.calls, claim).await
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        self.calls.run(RENEW_CLAIM, with_link!(link => claims::renew(&mut link, key, holder, lease))).await
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        self.calls.run(RELEASE_CLAIM, with_link!(link => claims::release(&mut link, key, holder))).await
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        self.calls.run(EVICT, with_link!(link => cache::evict(&mut link, task, version))).await
    }
}
