//! Outputs that are kept for equal items.

mod backend;
mod store_task;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::backend::StoreBackend;
use crate::context::ItemContext;
use crate::engine::call::Call;
use crate::engine::hooks::HookSet;
use crate::engine::{Mode, Parts, lookups};
use crate::limiter::Permit;
use crate::run::MapRun;
use crate::store::checksum::item_hash;
use crate::store::json::{decode, encode};
use crate::store::lease::{DEFAULT_LEASE, MIN_LEASE};
use crate::store::limited::Limited;
use crate::store::{Store, StoreError};

/// How [`cache`](MapRun::cache) finds outputs and keeps them.
#[derive(Clone)]
#[must_use = "it does nothing by itself"]
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

/// An item is known by all that it is.
#[derive(Debug, Clone, Copy)]
pub struct WholeItem;

/// What an item is known by.
pub trait KeyOf<I> {
    /// Its hash.
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
    /// Outputs of this version of the function. Change it when the function would give something else for the same item.
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
    /// Lets at most one process at a time compute the output of a key; the others wait for it, and take no
    /// [place](crate::AsyncMapTaskBuilder::concurrency) while they do. Equal items of one run share one computation, too.
    /// The default is that whoever finds nothing computes.
    ///
    /// Where the computation fails for good, the next one computes at once; where its process dies, when its
    /// [lease](Self::lease) is over.
    pub fn serialized(self) -> Self {
        self.with(|options| options.serialized = true)
    }

    /// Computes every item, and replaces what is kept. Others read the old output or the new one. The default is to take
    /// what is there.
    pub fn overwrite(self) -> Self {
        self.with(|options| options.overwrite = true)
    }

    /// How long an output is kept. The default is for ever.
    pub fn expires_after(self, time: Duration) -> Self {
        self.with(|options| options.expires_after = Some(time))
    }

    /// With [`serialized`](Self::serialized): how long others wait after a process has died that computes what they need.
    /// While it lives, it renews its claim three times in this time, so it should be longer than it can be held up. The
    /// default is [`DEFAULT_LEASE`], 60 s; less than 30 ms counts as that.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|options| options.lease = lease.max(MIN_LEASE))
    }

    /// What stands for an item, where some of it makes no difference to the output: the function returns the rest.
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

impl<S, C, P, A, G, O, I, T, E, Fut, M: Mode> MapRun<Parts<S, C, HookSet<P, A, G, O>, I, T, E, Fut, M>> {
    /// Takes the outputs of items that were computed before, in this run or any other with the same store, and keeps those
    /// that are computed now. Feature `store`, and `sqlite` or `postgres` for a store that outlives the process.
    ///
    /// An output is found by the [name of the task](crate::AsyncMapTaskBuilder::name), the
    /// [version](Cache::version) and the hash of the item, or of what [`key_by`](Cache::key_by) leaves of it, and by
    /// nothing else: neither its index nor any setting of the task. The name is required. [What counts for the
    /// hash](crate::guide::durable_runs#what-an-item-is-known-by). Only successes are kept.
    ///
    /// Items are looked up when they would start, as many at once as may run, and take no place meanwhile; no limit of an
    /// attempt or an item runs. Those that are found settle at once, with [`Origin::Cached`](crate::Origin::Cached) and no
    /// attempt; the others start in the order in which that was learnt. With [`recover`](Self::recover), items that have
    /// succeeded in an earlier run are not looked up.
    ///
    /// Caching never fails an item: an output that cannot be read is computed, one that cannot be written or [does not come
    /// back](crate::guide::durable_runs#outputs-that-come-back) from JSON as it went is not kept, and the log has a warning
    /// of it. Each call to the store has a [time limit](Store::time_limit). The run ends when all its outputs are written, or a
    /// second after its [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    ///
    /// # Errors
    ///
    /// The run ends with [`FailureReason::Config`](crate::FailureReason::Config), before any item starts, if the task has
    /// no name.
    ///
    /// The run's calls to the store are made in a Tokio task of their own, whether or not the run is polled. If the run is
    /// dropped, that task ends once it has written what was computed.
    ///
    /// # Panics
    ///
    /// The run panics if it is polled outside a Tokio runtime. The function given to [`key_by`](Cache::key_by) is the
    /// caller's; its panic goes on through the run's poll.
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
    pub fn cache<R: Store, F: KeyOf<I> + Send + 'static>(
        self,
        store: &R,
        cache: Cache<F>,
    ) -> MapRun<Parts<S, Caching<C>, HookSet<P, A, G, O>, I, T, E, Fut, M>>
    where
        T: Serialize + DeserializeOwned,
    {
        MapRun::new(self.into_setup().map(|setup| {
            let mut setup = setup.change(|call, hooks| (Caching(call), hooks));
            let Cache { options, key } = cache;
            let name = setup.options.name().to_owned();
            let backend = StoreBackend::new(Limited::new(store.clone()), name.clone(), options);
            let hash = Box::new(move |item: &I| key.hash(item).map_err(Into::into));
            setup.options.durability.cache =
                Some(Box::new(lookups::Lookups::new(name, hash, (encode, decode), Box::new(backend))));
            setup
        }))
    }
}

/// A function whose outputs are kept for equal items.
#[derive(Debug)]
pub struct Caching<C>(C);

impl<I, C: Call<I>> Call<I> for Caching<C> {
    type Output = C::Output;
    type Error = C::Error;
    type Future = C::Future;

    const ONE_ATTEMPT: bool = C::ONE_ATTEMPT;
    const TAKES_CONTEXT: bool = C::TAKES_CONTEXT;
    const KEEPS: bool = true;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, permit: &mut Option<Permit>) -> C::Future {
        self.0.call(context, item, permit)
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        self.0.clone_item(item)
    }

    fn still_running(attempt: &C::Future) -> bool {
        C::still_running(attempt)
    }

    fn clone_fn(&self) -> Option<Self> {
        self.0.clone_fn().map(Self)
    }
}
