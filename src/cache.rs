//! Cached outputs for equal items.

mod backend;
mod store_task;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::backend::StoreBackend;
use crate::engine::Plan;
use crate::engine::persist::durability::{Durable, Persist};
use crate::engine::persist::lookups::Lookups;
use crate::engine::running::Parts;
use crate::run::MapRun;
use crate::store::checksum::item_hash;
use crate::store::json::{decode, encode};
use crate::store::lease::{DEFAULT_LEASE, MIN_LEASE};
use crate::store::limited::Limited;
use crate::store::{Store, StoreError};

/// The settings of [`cache`](MapRun::cache): how outputs are found and stored.
#[derive(Clone)]
#[must_use = "a cache does nothing until it is given to a run"]
pub struct Cache<F = WholeItem> {
    options: Options,
    key: F,
}

#[derive(Debug, Clone)]
struct Options {
    version: String,
    serialized: bool,
    overwrite: bool,
    expires_after: Option<Duration>,
    lease: Duration,
}

/// The default key: the whole item.
#[derive(Debug, Clone, Copy)]
pub struct WholeItem;

/// The key of an item in the cache.
pub trait KeyOf<I> {
    /// Returns the hash of the key.
    fn hash(&self, item: &I) -> Result<String, crate::store::StoreError>;
}

impl<I: Serialize> KeyOf<I> for WholeItem {
    fn hash(&self, item: &I) -> Result<String, StoreError> {
        item_hash(item)
    }
}

impl<I, K: Serialize, F: Fn(&I) -> K> KeyOf<I> for F {
    fn hash(&self, item: &I) -> Result<String, StoreError> {
        item_hash(&self(item))
    }
}

impl Cache {
    /// Creates the settings for this version of the function. Change the version when the function gives another output for
    /// the same item.
    pub fn version(version: impl Into<String>) -> Self {
        let options = Options {
            version: version.into(),
            serialized: false,
            overwrite: false,
            expires_after: None,
            lease: DEFAULT_LEASE,
        };
        Self { options, key: WholeItem }
    }
}

impl<F> Cache<F> {
    /// Allows at most one process at a time to compute the output of a key. The others wait for it, without a
    /// [permit](crate::AsyncMapTaskBuilder::concurrency). Equal items of one run share one computation, too. By default,
    /// each run that does not find an output computes it.
    ///
    /// If the computation fails finally, the next run computes at once. If its process dies, the next run computes when its
    /// [lease](Self::lease) has expired.
    #[doc(alias("single flight", "singleflight", "lock"))]
    pub fn serialized(self) -> Self {
        self.with(|options| options.serialized = true)
    }

    /// Computes every item, and replaces the stored output. Other runs read the old output or the new one. By default,
    /// stored outputs are used.
    pub fn overwrite(self) -> Self {
        self.with(|options| options.overwrite = true)
    }

    /// Sets how long an output is stored. The default is for ever.
    #[doc(alias("ttl"))]
    pub fn expires_after(self, time: Duration) -> Self {
        self.with(|options| options.expires_after = Some(time))
    }

    /// Sets the lease of a computation, with [`serialized`](Self::serialized): how long others wait for an output after the
    /// process that computes it has died. While the process lives, it renews its claim three times in this time. So the
    /// lease should be longer than any stall of the process. The default is [`DEFAULT_LEASE`], 60 s. Values below 30 ms are
    /// raised to 30 ms.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|options| options.lease = lease.max(MIN_LEASE))
    }

    /// Sets the key of an item, if a part of the item does not affect the output: the function returns the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::Cache;
    ///
    /// struct Request { text: String, trace_id: u64 }
    ///
    /// let cache = Cache::version("3").key_by(|request: &Request| request.text.clone());
    /// # let _ = cache;
    /// ```
    pub fn key_by<I, K: Serialize, G: Fn(&I) -> K>(self, key: G) -> Cache<G> {
        Cache { options: self.options, key }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }
}

impl<F> fmt::Debug for Cache<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl<W: Plan> MapRun<W> {
    /// Uses the outputs of items that were computed before, by this run or by any other with the same store, and stores the
    /// new ones. Needs the feature `store`, and `sqlite` or `postgres` for a store that outlives the process.
    ///
    /// An output is found by the [name of the task](crate::AsyncMapTaskBuilder::name), the [version](Cache::version), and
    /// the hash of the item or of its [`key_by`](Cache::key_by) value. Its index and the settings of the task do not matter.
    /// The name is required. The guide describes [what counts for the
    /// hash](crate::store#how-items-are-identified). Only successes are stored.
    ///
    /// Items are looked up when they are due to start, at most as many at once as may run. A look-up takes no permit, and no
    /// time limit of an attempt or an item runs. Items that are found settle immediately, with
    /// [`Origin::Cached`](crate::Origin::Cached) and no attempt. The others start in the order in which their look-ups end.
    /// With [`recover`](Self::recover), items that have succeeded in an earlier run are not looked up.
    ///
    /// Caching never fails an item. If an output cannot be read, it is computed. If it cannot be written, or [does not come
    /// back](crate::store#outputs-that-come-back) unchanged from JSON, it is not stored. In both cases the log
    /// has a warning. Each call to the store has a [time limit](Store::time_limit). The run ends when all its outputs are
    /// written, or a second after its [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    ///
    /// The run accesses the store in a Tokio task of its own, whether or not the run is polled. If the run is dropped, that
    /// task writes the computed outputs and ends.
    ///
    /// # Errors
    ///
    /// The run ends with [`FailureReason::Config`](crate::FailureReason::Config), before any item starts, if the task has no
    /// name.
    ///
    /// # Panics
    ///
    /// The run panics if it is polled outside a Tokio runtime. A panic of the function given to [`key_by`](Cache::key_by)
    /// propagates through the run's poll.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use async_map_task::Cache;
    /// use async_map_task::store::MemoryStore;
    /// use std::cell::Cell;
    ///
    /// let store = MemoryStore::new();
    /// let (task, calls) = (AsyncMapTask::builder().name("square").build()?, &Cell::new(0));
    /// for numbers in [[1, 2, 3], [3, 2, 4]] {
    ///     let squares = task
    ///         .over(numbers)
    ///         .map(|n| async move {
    ///             calls.set(calls.get() + 1);
    ///             Ok::<_, String>(n * n)
    ///         })
    ///         .cache(&store, Cache::version("1"))
    ///         .await?;
    ///     assert_eq!(squares.successes(), 3);
    /// }
    /// assert_eq!(calls.get(), 4);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("memoize", "deduplicate"))]
    pub fn cache<S: Store, F: KeyOf<W::Item> + Send + 'static>(
        self,
        store: &S,
        cache: Cache<F>,
    ) -> MapRun<Durable<W, W::Call>>
    where
        W::Output: Serialize + DeserializeOwned,
    {
        let persistent = Limited::new(store.clone());
        self.change(|Parts { call, hooks, sink, outcomes, store }, run| {
            let Cache { options, key } = cache;
            let name = run.name().to_owned();
            let backend = StoreBackend::new(persistent, name.clone(), options);
            let hash = Box::new(move |item: &W::Item| key.hash(item).map_err(Into::into));
            let lookups = Lookups::new(name, hash, (encode, decode), Box::new(backend));
            let mut store = store.into_durability();
            store.cache = Some(Box::new(lookups));
            Parts { call, hooks, sink, outcomes, store }
        })
    }
}
