//! The conformance suite for stores of other crates. Feature `store-conformance`.
//!
//! Each [`Case`] tests one requirement of the [`Store`] trait with a new, empty store. [`check`] runs all cases and names
//! the failures. Enable the feature in `[dev-dependencies]`, and call [`check`] from a test:
//!
//! ```toml
//! [dev-dependencies]
//! async-map-task = { version = "0.1", features = ["store-conformance"] }
//! ```
//!
//! | cases about | requirements |
//! |---|---|
//! | runs | one holder, leases, the list of runs, `forget` |
//! | leases | how a loss is reported, `release` |
//! | items | atomic commits, pages, checkpoints |
//! | cache | keys, expiry, claims, `evict` |
//! | text | unusual names, JSON byte for byte, megabytes |
//! | limits | long names, large outputs |
//! | races | sixty-four callers at once |
//!
//! The suite cannot simulate a crash or a caller that stops polling. Test these two yourself. The effect of a call that has
//! returned `Ok` must survive the process. A future that is not polled must not block other calls.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use async_map_task::store::{Store, StoreError, conformance};
//! # use async_map_task::store::{CacheKey, Claim, MemoryStore, Record, RunInfo, RunStatus, Checksummed};
//!
//! /// The store to test.
//! #[derive(Clone)]
//! struct MyStore {
//!     // ..
//! #   memory: MemoryStore,
//! }
//!
//! impl MyStore {
//!     /// Creates an empty store.
//!     async fn new() -> Self {
//!         // ..
//! #       Self { memory: MemoryStore::new() }
//!     }
//! }
//!
//! impl Store for MyStore {
//!     async fn open_run(&self, run_id: &str, task: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
//!         // ..
//! #       self.memory.open_run(run_id, task, holder, lease).await
//!     }
//!     // .. and the other methods.
//! #   async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
//! #       self.memory.renew_run(run_id, holder, lease).await
//! #   }
//! #   async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
//! #       self.memory.close_run(run_id, holder, status).await
//! #   }
//! #   async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
//! #       self.memory.commit(run_id, holder, records).await
//! #   }
//! #   async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
//! #       self.memory.successes(run_id, from, limit).await
//! #   }
//! #   async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
//! #       self.memory.runs().await
//! #   }
//! #   async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
//! #       self.memory.run(run_id).await
//! #   }
//! #   async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
//! #       self.memory.forget(run_id).await
//! #   }
//! #   async fn checkpoint(&self, run_id: &str, index: u64, hash: &str) -> Result<Option<Checksummed>, StoreError> {
//! #       self.memory.checkpoint(run_id, index, hash).await
//! #   }
//! #   async fn save_checkpoint(
//! #       &self,
//! #       run_id: &str,
//! #       holder: &str,
//! #       index: u64,
//! #       hash: &str,
//! #       state: &Checksummed,
//! #   ) -> Result<(), StoreError> {
//! #       self.memory.save_checkpoint(run_id, holder, index, hash, state).await
//! #   }
//! #   async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
//! #       self.memory.cached(key).await
//! #   }
//! #   async fn put_cached(&self, key: &CacheKey, value: &Checksummed, after: Option<Duration>) -> Result<(), StoreError> {
//! #       self.memory.put_cached(key, value, after).await
//! #   }
//! #   async fn claim(&self, key: &CacheKey, by: &str, lease: Duration, over: bool) -> Result<Claim, StoreError> {
//! #       self.memory.claim(key, by, lease, over).await
//! #   }
//! #   async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
//! #       self.memory.renew_claim(key, holder, lease).await
//! #   }
//! #   async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
//! #       self.memory.release_claim(key, holder).await
//! #   }
//! #   async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
//! #       self.memory.evict(task, version).await
//! #   }
//! }
//!
//! # async fn in_a_test() {
//! #[tokio::test(flavor = "multi_thread")]
//! # async fn hidden() {}
//! async fn my_store_conforms() {
//!     let held = conformance::check(MyStore::new).await.unwrap();
//!     assert!(held > 50);
//! }
//! # my_store_conforms().await;
//! # }
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(in_a_test());
//! ```

mod broken;
mod cache;
mod items;
mod leases;
mod limits;
mod races;
mod runs;
mod text;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use self::broken::{Broken, Checked, ensure, ensure_eq, fail, list_cases, some};
pub use self::broken::{Failure, Nonconforming};
use super::{CacheKey, Checksummed, Lease, Record, Recorded, RunInfo, Store, StoreError};
use crate::panic_payload::into_message;

/// The time limit of a case.
const TIME_LIMIT: Duration = Duration::from_secs(120);

const HOUR: Duration = Duration::from_secs(3600);

/// A lease of zero duration is expired immediately. So a case waits for a lease only to measure when it ends.
const EXPIRED: Duration = Duration::ZERO;

/// A test of one requirement of the [`Store`] trait.
pub struct Case<S> {
    name: &'static str,
    holds: fn(S) -> Pin<Box<dyn Future<Output = Checked> + Send>>,
}

impl<S: Store> Case<S> {
    /// Returns the requirement, in the form of a function's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Tests a store in a Tokio task. The store must be empty.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the case continues in its task, and its result is lost.
    ///
    /// # Errors
    ///
    /// The store violates the requirement, panics, or does not finish within two minutes.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with a timer.
    pub async fn check(&self, store: S) -> Result<(), Failure> {
        let task = tokio::spawn(timeout(TIME_LIMIT, (self.holds)(store)));
        let broken = match task.await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(broken))) => broken,
            Ok(Err(_elapsed)) => Broken::without_place(format!("did not end within {TIME_LIMIT:?}")),
            Err(error) => Broken::without_place(match error.try_into_panic() {
                Ok(payload) => format!("the store panicked: {}", into_message(payload)),
                Err(_) => "the runtime was shut down".to_owned(),
            }),
        };
        Err(Failure::new(self.name, broken))
    }
}

impl<S> fmt::Debug for Case<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns all cases, for one test each. [`check`] runs them.
pub fn cases<S: Store>() -> Vec<Case<S>> {
    let mut all = runs::cases();
    all.extend(leases::cases());
    all.extend(items::cases());
    all.extend(cache::cases());
    all.extend(text::cases());
    all.extend(limits::cases());
    all.extend(races::cases());
    all
}

/// Runs all cases one after another. `new_store` is called for each case, and must return an empty store. Returns the number
/// of cases.
///
/// Run the test on a multi-threaded runtime, so that the calls of the races overlap. Do not pause its clock.
///
/// # Cancel safety
///
/// If the future is dropped, no further case starts.
///
/// # Errors
///
/// Some cases fail. The error names each of them. All others have run and passed.
///
/// # Panics
///
/// Panics outside a Tokio runtime with a timer.
///
/// # Examples
///
/// The [module](self) has an example of a test for another store. A store in files needs a new file each time:
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::store::{SqliteStore, conformance};
///
/// let folder = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let mut files = (0..).map(|number| folder.join(format!("{number}.db")));
/// conformance::check(|| {
///     let file = files.next();
///     async { SqliteStore::open(file.unwrap()).await.unwrap() }
/// })
/// .await?;
/// std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub async fn check<S, F>(mut new_store: impl FnMut() -> F) -> Result<usize, Nonconforming>
where
    S: Store,
    F: Future<Output = S>,
{
    let cases = cases::<S>();
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(failure) = case.check(new_store().await).await {
            failures.push(failure);
        }
    }
    if failures.is_empty() { Ok(cases.len()) } else { Err(Nonconforming::new(failures, cases.len())) }
}

fn checksummed(json: &str) -> Checksummed {
    Checksummed { json: json.to_owned(), checksum: "0123456789abcdef".to_owned() }
}

fn succeeded(index: u64, json: &str) -> Record {
    Record {
        index,
        item_hash: format!("{index:064x}"),
        attempts: 1,
        elapsed: Duration::new(index, 123_456_789),
        recorded: Recorded::Succeeded { output: checksummed(json) },
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

/// Returns a run that must exist.
async fn info<S: Store>(store: &S, run_id: &str) -> Result<RunInfo, Broken> {
    some(store.run(run_id).await?, "the run")
}

/// Returns the lease of a run that must exist.
async fn lease<S: Store>(store: &S, run_id: &str) -> Result<Lease, Broken> {
    some(info(store, run_id).await?.lease, "the lease of the run")
}

/// Returns all successes of a run.
async fn successes<S: Store>(store: &S, run_id: &str) -> Result<Vec<Record>, Broken> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(first) = from {
        let page = store.successes(run_id, first, u32::MAX).await?;
        let is_in_order = page.is_sorted_by(|one, next| one.index < next.index);
        ensure!(is_in_order, "a page is not sorted by ascending index");
        let begins = page.first().map_or(first, |record| record.index);
        ensure!(begins >= first, "a page from index {first} on begins at index {begins}");
        from = page.last().and_then(|record| record.index.checked_add(1));
        all.extend(page);
    }
    Ok(all)
}

#[track_caller]
fn lost<T: fmt::Debug>(result: Result<T, StoreError>, run: &str, by: &str) -> Checked {
    match result {
        Err(StoreError::LeaseLost { run_id, holder, .. }) if run_id == run && holder == by => Ok(()),
        other => Err(Broken::new(format!("found {other:?}, expected that `{by}` has lost the run `{run}`"))),
    }
}
