//! Where durable runs keep what must not be lost: the trait, and what goes in and out.

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

/// The longest lease, and the longest time that a cached value is kept for unless it is kept for ever: a hundred years.
/// What is longer is taken for this.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long a run waits for one call of a store that sets no [`time_limit`](Store::time_limit): two minutes.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(120);

/// With how many bytes a page of [`Store::successes`] and a group of what is written take nothing further.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// Keeps the outcomes of runs, cached outputs and checkpoints.
///
/// Outputs and states are JSON text here, so that a person can read them, and items are hashes. The crate brings three stores:
/// [`MemoryStore`] for tests, `SqliteStore` (feature `sqlite`) for one machine, `PostgresStore` (feature `postgres`)
/// for many. Implement it for another one, and test that with the suite in `store::conformance` (feature `store-conformance`).
///
/// A clone is another handle to the same store. Times are the store's own: a store that several machines share
/// compares leases with one clock, its own. A *holder* is the name of one run or one computation in one process, and
/// no two are ever the same.
///
/// Whatever a method has returned `Ok` for is durable, and each call takes effect as a whole or not at all. A call may
/// be made again after an error, with the same arguments, and then has the effect of one. A call whose future is dropped has
/// taken effect or not. One whose future is not polled must not hold up the calls of others for longer than they can bear, so
/// open no transaction that only its caller drives.
pub trait Store: Clone + Send + Sync + 'static {
    /// How long a run waits for one call before it drops the call's future and takes it as failed, with
    /// [`StoreError::NoAnswer`]. Zero fails each call that does not answer at once. The default is
    /// [`DEFAULT_TIME_LIMIT`], two minutes. A store that tries again inside needs a limit above the time that this takes.
    ///
    /// A run whose [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout) is over waits for a second at most, whatever this
    /// limit is.
    fn time_limit(&self) -> Duration {
        DEFAULT_TIME_LIMIT
    }

    /// Takes a run for `holder`, until `lease` is over: a new one, or one that nobody holds any more. A run that
    /// `holder` has already is renewed.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherTask`] where the id is that of a run of another task, and else [`StoreError::Held`] while
    /// another holder's lease lasts.
    fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes the lease last for `lease` from now.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] where another has taken the run, or the run was closed or forgotten. A lease that is
    /// over and that nobody has taken is renewed.
    fn renew_run(
        &self,
        run_id: &str,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the holder's lease at once, and notes how the run ended: with [`RunStatus::Running`], that it was
    /// interrupted. Does nothing where another has taken the run, or the run was closed or forgotten.
    fn close_run(
        &self,
        run_id: &str,
        holder: &str,
        status: &RunStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Keeps what became of these items, all of them or none. What was kept of the same indices before is replaced, and
    /// the checkpoints of those that succeeded are deleted. No index stands in `records` twice.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] where another has taken the run, or the run was closed or forgotten. A lease that is
    /// over and that nobody has taken will do.
    fn commit(
        &self,
        run_id: &str,
        holder: &str,
        records: &[Record],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What was kept of the items of a run that succeeded, from the index `from` on, by ascending index, at most `limit`.
    ///
    /// A store may return fewer, so that large outputs do not fill the memory: those of this crate end a page once it has
    /// 4 MiB of outputs. Only an empty page means that there are no more.
    fn successes(
        &self,
        run_id: &str,
        from: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Every run, the one that began last before all others.
    fn runs(&self) -> impl Future<Output = Result<Vec<RunInfo>, StoreError>> + Send;

    /// One run, `None` where there is none of that id.
    fn run(&self, run_id: &str) -> impl Future<Output = Result<Option<RunInfo>, StoreError>> + Send;

    /// Deletes a run with all that was kept of it. Says whether there was one. Whoever holds it loses it.
    fn forget(&self, run_id: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends the lease of a run whose holder is known to be dead, so that the next one can take it at once. Returns
    /// `false` if nobody has it. What was kept of the run stays. A holder that lives loses the run: its next write is
    /// refused with [`StoreError::LeaseLost`], and its run ends.
    ///
    /// The default [closes](Self::close_run) the run as interrupted, for the holder that [`run`](Self::run) returns.
    fn release(&self, run_id: &str) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async move {
            let Some(lease) = self.run(run_id).await?.and_then(|run| run.lease) else { return Ok(false) };
            self.close_run(run_id, &lease.holder, &RunStatus::Running).await?;
            Ok(true)
        }
    }

    /// The state of an item that was saved last, `None` where none was, or where it was saved for other content.
    fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> impl Future<Output = Result<Option<Checksummed>, StoreError>> + Send;

    /// Keeps the state of an item, in place of what was saved of that index before.
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

    /// The value kept for a key, `None` where there is none or it has expired.
    fn cached(&self, key: &CacheKey) -> impl Future<Output = Result<Option<Checksummed>, StoreError>> + Send;

    /// Keeps a value for a key, for `expires_after` from now or for ever, in place of the one before, and ends
    /// whatever claim there is on the key. Values that have expired may be deleted meanwhile.
    fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes the right to compute the value of a key, until `lease` is over. With `overwrite` it is taken also where
    /// there is a value.
    fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> impl Future<Output = Result<Claim, StoreError>> + Send;

    /// Makes the claim last for `lease` from now. Says whether it is still the holder's.
    fn renew_claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends the holder's claim at once, so that the next one computes. Does nothing where it is not the holder's.
    fn release_claim(
        &self,
        key: &CacheKey,
        holder: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes all cached values of a task, of one version or of all. Says how many.
    fn evict(
        &self,
        task: &str,
        version: Option<&str>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
