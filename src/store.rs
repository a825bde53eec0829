//! The [`Store`] trait of durable runs, its data types, and the stores of this crate. Needs the feature `store`. `SqliteStore`
//! needs `sqlite`, `PostgresStore` needs `postgres`; both include `store`.
//!
//! # How items are identified
//!
//! A run and a cache know an item by the hash of the value that its `Serialize` gives. The hash does not depend on the
//! features of `serde_json`.
//!
//! | counts | does not count |
//! |---|---|
//! | every field and its name, every element and its position | a field with `#[serde(skip)]` |
//! | every bit of a float: `-0.0`, the infinities and NaN are four values | the bits of a NaN |
//! | integers up to `u128` and `i128` | the width of an integer: `7_u8` and `7_u64` are equal |
//! | `None`, `Some(None)` and `()` are three values | `Some` around anything else: `Some(7)` and `7` are equal |
//! | a duplicate key, for example by `#[serde(flatten)]` | the order of keys |
//! | the name of an enum's variant | the names of types |
//!
//! So a `HashMap` is suitable as an item. A `HashSet` is not: it is a list, in another order each time. Use a `BTreeSet`.
//! An item with `SystemTime::now()` in it also differs each time.
//!
//! Hashes have a format, and begin with its number: `2-7f83..`. Version 2 of the tables introduced format 2. Earlier hashes
//! had no number, and were equal for some items that differ. A store with such hashes is treated as follows:
//!
//! | recorded with hashes without a number | in this version |
//! |---|---|
//! | the file or the database | opens, and then has the newest version. Programs of the earlier version refuse it, because they would run every item again. Stop the programs that have it open before you update. |
//! | a run with successes | is refused, with [`StoreError::OtherFormat`], and stays unchanged. So finish your runs before you update. With another run id, or after [`forget`](Store::forget), all of its items run. |
//! | a run without successes | continues. All of its items run, each from its beginning, because the checkpoints are not found. |
//! | a cached output | is not found. Each item is computed once more; [`evict`](Store::evict) deletes the old outputs. |
//!
//! # Outputs that come back
//!
//! An output must come back from JSON unchanged, and so must the state of a [`Checkpoint`](crate::Checkpoint). So each is
//! read back once before it is written, and compared:
//!
//! | output | result |
//! |---|---|
//! | NaN and the infinities | refused: JSON writes `null` |
//! | `Some(None)`, `Some(())` | refused: JSON writes `null`, as for `None` |
//! | a duplicate key, or a key that is not text under `#[serde(flatten)]` | refused |
//! | `u128` or `i128` in an internally tagged or untagged enum, or under `#[serde(flatten)]` | refused; elsewhere it comes back |
//! | a value of an untagged enum that reads as an earlier variant | refused |
//! | a field that is written and not read, for example by `#[serde(skip_deserializing)]` | refused unless it has its default |
//! | more than 256 levels of lists and maps | refused |
//! | a field with `#[serde(skip)]` | comes back as its default; this cannot be detected |
//!
//! With [`recover`](crate::MapRun::recover), an output that is refused ends the run with
//! [`FailureReason::Store`](crate::FailureReason::Store). The error names the item's index and the problem. The output is in
//! the partial result, and the item runs again. With [`cache`](crate::MapRun::cache), the output is not stored, and the log
//! has a warning. A [`Checkpoint::save`](crate::Checkpoint::save) of such a state fails.
//!
//! Reading an output back takes about as long as running and recording its item without a database: less than 0.1 µs for a
//! number, 1.3 µs for a record of six fields, 45 µs for 1,536 floats.

mod canonical;
pub(crate) mod checksum;
#[cfg(feature = "store-conformance")]
pub mod conformance;
mod error;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod fault;
pub(crate) mod holder;
pub(crate) mod json;
pub(crate) mod lease;
pub(crate) mod limited;
mod memory;
mod names;
#[cfg(feature = "postgres")]
mod postgres;
pub(crate) mod record;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

pub use self::error::{LeaseLoss, StoreError};
pub use self::lease::DEFAULT_LEASE;
pub use self::memory::MemoryStore;
pub use self::names::MAX_NAME_BYTES;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
pub use self::record::{CacheKey, Checksummed, Claim, Lease, Record, Recorded, RunInfo, RunStatus};
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;

/// The longest lease, and the longest expiry of a cached value: a hundred years. Longer durations are shortened to this. A
/// cached value without expiry is stored for ever.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long a run waits for one call to a store that does not override [`time_limit`](Store::time_limit): two minutes.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(120);

/// The size limit in bytes: a page of [`Store::successes`] ends when its outputs reach it, and a group of several records
/// never exceeds it.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// Stores the outcomes of runs, cached outputs and checkpoints.
///
/// Outputs and states are JSON text, which a person can read. Items are stored as hashes. The crate has three stores:
/// [`MemoryStore`] for tests, `SqliteStore` (feature `sqlite`) for one machine, and `PostgresStore` (feature `postgres`) for
/// many. Implement this trait for another database, and test it with the suite in `store::conformance` (feature
/// `store-conformance`).
///
/// A clone is another handle to the same store. Times are the store's own: a store that several machines share compares
/// leases with one clock, its own. A *holder* is the name of one run or one computation in one process. No two holders are
/// ever equal.
///
/// When a method returns `Ok`, its effect is durable. Each call takes effect completely or not at all. A call may be
/// repeated after an error with the same arguments; the effect is that of one call. If the future of a call is dropped, the
/// call has taken effect or not. A future that is not polled must not delay other calls for longer than they can tolerate.
/// So do not open a transaction that only its caller drives.
///
/// A run uses [`open_run`](Self::open_run), [`renew_run`](Self::renew_run), [`close_run`](Self::close_run),
/// [`commit`](Self::commit), [`successes`](Self::successes) and the two methods for checkpoints. A cache uses
/// [`cached`](Self::cached), [`put_cached`](Self::put_cached) and the three for claims. The others are for operators.
/// `commit` compares the holder and writes in one transaction. Any error that a store returns stops the run, so a store that
/// can restore its connection retries internally, within its [`time_limit`](Self::time_limit). [`MemoryStore`] is the
/// shortest example.
pub trait Store: Clone + Send + Sync + 'static {
    /// Returns how long a run waits for one call. After this time the run drops the call's future, and the call fails with
    /// [`StoreError::NoAnswer`]. With zero, each call fails that is not ready when it is first polled. The default is
    /// [`DEFAULT_TIME_LIMIT`], two minutes. A store that retries internally needs a limit above the duration of its retries.
    ///
    /// After its [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout), a run waits for a call for at most one second,
    /// whatever this limit is.
    fn time_limit(&self) -> Duration {
        DEFAULT_TIME_LIMIT
    }

    /// Acquires a run for `holder`, for the duration `lease`. The run is new, or has no holder, or its lease has expired. If
    /// `holder` already holds the run, its lease is renewed.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherTask`] if the id belongs to a run of another task; otherwise [`StoreError::Held`] if another
    /// holder's lease has not expired.
    fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Extends the lease to `lease` from now.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] if another holder has acquired the run, or if the run was closed or forgotten. A lease that
    /// has expired is renewed if no other holder has acquired the run.
    fn renew_run(
        &self,
        run_id: &str,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the holder's lease immediately, and records how the run ended. [`RunStatus::Running`] means that it was
    /// interrupted. Does nothing if another holder has acquired the run, or if the run was closed or forgotten.
    fn close_run(
        &self,
        run_id: &str,
        holder: &str,
        status: &RunStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores the outcomes of these items, all of them or none. Replaces earlier records of the same indices, and deletes
    /// the checkpoints of the items that succeeded. No index occurs twice in `records`.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] if another holder has acquired the run, or if the run was closed or forgotten. An expired
    /// lease is sufficient if no other holder has acquired the run.
    fn commit(
        &self,
        run_id: &str,
        holder: &str,
        records: &[Record],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the records of the items that succeeded, from the index `from` on, by ascending index, at most `limit`.
    ///
    /// A store may return fewer, to bound the memory for large outputs. The stores of this crate end a page when it has 4
    /// MiB of outputs. Only an empty page means that there are no more.
    fn successes(
        &self,
        run_id: &str,
        from: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Returns all runs, the newest first.
    fn runs(&self) -> impl Future<Output = Result<Vec<RunInfo>, StoreError>> + Send;

    /// Returns one run, or `None` if there is no run with this id.
    fn run(&self, run_id: &str) -> impl Future<Output = Result<Option<RunInfo>, StoreError>> + Send;

    /// Deletes a run and all its data. Returns `true` if the run existed. Its holder, if any, loses the run.
    fn forget(&self, run_id: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends the lease of a run, for use when its holder is known to be dead. The next holder can then acquire the run
    /// immediately. Returns `false` if the run has no holder. The data of the run stays. If the holder is alive, it loses
    /// the run: its next write fails with [`StoreError::LeaseLost`], and its run ends.
    ///
    /// The default implementation [closes](Self::close_run) the run as interrupted, for the holder that [`run`](Self::run)
    /// returns.
    fn release(&self, run_id: &str) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async move {
            let Some(lease) = self.run(run_id).await?.and_then(|run| run.lease) else { return Ok(false) };
            self.close_run(run_id, &lease.holder, &RunStatus::Running).await?;
            Ok(true)
        }
    }

    /// Returns the last saved state of an item, or `None` if there is none or if it was saved for other content.
    fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> impl Future<Output = Result<Option<Checksummed>, StoreError>> + Send;

    /// Stores the state of an item, and replaces the earlier state of that index.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] as for [`commit`](Self::commit).
    fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Checksummed,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the value stored for a key, or `None` if there is none or it has expired.
    fn cached(&self, key: &CacheKey) -> impl Future<Output = Result<Option<Checksummed>, StoreError>> + Send;

    /// Stores a value for a key, for `expires_after` from now or for ever. Replaces the earlier value, and ends any claim on
    /// the key. May delete expired values at the same time.
    fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Acquires the right to compute the value of a key, for the duration `lease`. With `overwrite`, the claim is granted
    /// even if there is a value.
    fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> impl Future<Output = Result<Claim, StoreError>> + Send;

    /// Extends the claim to `lease` from now. Returns `true` if the claim is still the holder's.
    fn renew_claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends the holder's claim immediately, so that the next claimant computes. Does nothing if the claim is not the
    /// holder's.
    fn release_claim(
        &self,
        key: &CacheKey,
        holder: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes all cached values of a task, of one version or of all versions. Returns their number.
    fn evict(
        &self,
        task: &str,
        version: Option<&str>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
