//! Durable runs: [`recover`](MapRun::recover) continues an earlier run of the same id.

mod journal;
mod own_runs;
mod store_task;

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::journal::StoreJournal;
use crate::checkpoint::{Checkpoint, CheckpointQueue, Requests};
use crate::context::ItemContext;
use crate::engine::Plan;
use crate::engine::persist::commit_log::{Codec, CommitLog};
use crate::engine::persist::durability::{Durable, Persist};
use crate::engine::running::Parts;
use crate::engine::user::call::Call;
use crate::limiter::SharedPermits;
use crate::outcome::ItemError;
use crate::run::MapRun;
use crate::store::Store;
use crate::store::checksum::item_hash;
use crate::store::holder::holder;
use crate::store::json::{decode, encode};
use crate::store::lease::{DEFAULT_LEASE, MIN_LEASE};
use crate::store::limited::Limited;

/// The run that [`recover`](MapRun::recover) continues, and its settings. A `&str` or a `String` converts to one with the
/// defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a recovery does nothing until it is given to a run"]
pub struct Recovery {
    pub(crate) run_id: String,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
}

impl Recovery {
    /// Selects the run with this id. Choose the id freely: for example, the name of the job and its date.
    pub fn run(run_id: impl Into<String>) -> Self {
        Self { run_id: run_id.into(), lease: DEFAULT_LEASE, wait: Duration::ZERO }
    }

    /// Sets how long other processes cannot acquire the run after its process has died. The default is [`DEFAULT_LEASE`], 60
    /// seconds. Values below 30 ms are raised to 30 ms.
    ///
    /// While the process lives, it renews its lease three times in this time. So the lease should be longer than any stall
    /// of the process. A suspended machine stalls it, and so does a function that blocks a single-threaded runtime. A store
    /// can also take long to write a thousand outputs. The lease should also be at least 1.5 times as long as the store
    /// tries to reach its server. A holder that cannot renew its lease in time stops.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease: lease.max(MIN_LEASE), ..self }
    }

    /// Sets how long to wait for another holder to end or to lose its lease, before the run is refused. The default is not
    /// to wait.
    ///
    /// With a wait a little longer than the lease, a supervisor can restart a killed job immediately.
    pub fn wait_for_holder(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}

impl From<&str> for Recovery {
    fn from(run_id: &str) -> Self {
        Self::run(run_id)
    }
}

impl From<String> for Recovery {
    fn from(run_id: String) -> Self {
        Self::run(run_id)
    }
}

impl<W: Plan> MapRun<W> {
    /// Makes the run durable, and continues an earlier run of the same id. Items that have already succeeded do not run
    /// again; their outputs are in their places in the result. Needs the feature `store`, and `sqlite` or `postgres` for a
    /// store that outlives the process.
    ///
    /// - An item is identified by its index and the [hash of its
    ///   content](crate::store#how-items-are-identified). An item that has changed runs again, and is counted
    ///   in [`Summary::changed`](crate::Summary::changed). Items that failed, were cancelled or did not end run again, too.
    /// - An item counts as succeeded once its output is durable. Only then is it in the result, passed to
    ///   [`for_each`](Self::for_each) or reported to an observer. Outputs are written in groups, and the next items run in
    ///   the meantime. At most 1,024 succeeded items wait for the write, plus the items that run. A reported item is never
    ///   lost and does not run again, whenever the process is killed. Items that were running then run again, and so do
    ///   those with an unwritten output. So the function must tolerate this.
    /// - Only one process at a time has a run. Another process gets an error, with the holder and the start of its lease.
    ///   This lasts until the holder has ended the run or its [lease](Recovery::lease) has expired. A holder that has lost
    ///   its lease stops.
    /// - The id belongs to the [name of the task](crate::AsyncMapTaskBuilder::name), which is required.
    ///
    /// Outputs are stored as JSON. Each output is read back once before it is written. One that [does not come
    /// back](crate::store#outputs-that-come-back) unchanged ends the run as a store failure. If an output of
    /// an earlier run cannot be read any more, because its type has changed, its item runs again, with a warning. `for_each`
    /// and `stream` also give the outcomes of earlier runs, with [`Origin::Recovered`](crate::Origin::Recovered).
    ///
    /// Failures are recorded, too, and [`Store::run`] returns them. The concurrency, the retries and all other settings do
    /// not affect which items are recovered.
    ///
    /// The run accesses the store in a Tokio task of its own. If the run is dropped, that task writes the outputs of the
    /// succeeded items, gives the run back, and ends.
    ///
    /// # Errors
    ///
    /// The run ends with [`FailureReason::Store`](crate::FailureReason::Store), and with all finished items in the partial
    /// result, in these cases:
    ///
    /// - The store fails for longer than it retries, does not answer a call within its [time limit](Store::time_limit), or
    ///   is damaged.
    /// - The run is held by another holder, or belongs to another task. Or it has outcomes of an earlier version of this
    ///   crate, with other item hashes.
    /// - An item cannot be serialized, or an output cannot be stored as JSON.
    ///
    /// The reason's [`source()`](std::error::Error::source) is a [`StoreError`](crate::store::StoreError).
    ///
    /// [`FailureReason::Config`](crate::FailureReason::Config) if the task has no name. In this case the store is not
    /// accessed.
    ///
    /// # Panics
    ///
    /// The run panics if it is polled outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use async_map_task::store::MemoryStore;
    ///
    /// let store = MemoryStore::new(); // or SqliteStore::open("runs.db").await?
    /// let task = AsyncMapTask::builder().name("double").build()?;
    /// let broken = task
    ///     .over(0..10)
    ///     .map(|n| async move { if n == 7 { Err("broken") } else { Ok(2 * n) } })
    ///     .recover(&store, "doubles")
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(broken.first_failure().map(|(index, _)| index), Some(7));
    ///
    /// let mended = task.over(0..10).map(|n| async move { Ok::<_, String>(2 * n) }).recover(&store, "doubles").await?;
    /// assert_eq!(mended.successes(), 10);
    /// assert!(mended.summary.recovered >= 4);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("resume", "restart", "crash", "idempotent", "durable", "journal"))]
    pub fn recover<S: Store>(
        self,
        store: &S,
        run: impl Into<Recovery>,
    ) -> MapRun<Durable<W, Recovering<W::Call>>>
    where
        W::Item: Serialize,
        W::Output: Serialize + DeserializeOwned,
        W::Error: Display,
    {
        let (recovery, holder) = (run.into(), holder());
        let persistent = Limited::new(store.clone());
        let (requests, queue) =
            CheckpointQueue::new(persistent.clone(), recovery.run_id.clone(), holder.clone());
        self.change(|Parts { call, hooks, sink, outcomes, store }, options| {
            let name = options.name().to_owned();
            let journal = StoreJournal::new(persistent, name, recovery, holder, queue);
            let mut store = store.into_durability();
            store.commit_log = Some(Box::new(CommitLog::new(codec(), Box::new(journal))));
            let call = Recovering { call, checkpoints: Arc::new(requests) };
            Parts { call, hooks, sink, outcomes, store }
        })
    }
}

fn codec<I: Serialize, T: Serialize + DeserializeOwned, E: Display>() -> Codec<I, T, E> {
    Codec {
        hash: |index, item| item_hash(item).map_err(|error| error.of_item(index).into()),
        encode,
        decode,
        describe: ItemError::to_string,
    }
}

/// A function with a checkpoint in the context of its items.
pub struct Recovering<C> {
    call: C,
    checkpoints: Arc<Requests>,
}

impl<C> fmt::Debug for Recovering<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovering").finish_non_exhaustive()
    }
}

impl<I: Serialize, C: Call<I>> Call<I> for Recovering<C> {
    type Output = C::Output;
    type Error = C::Error;
    type Answer = C::Answer;
    type Future = C::Future;

    const ONE_ATTEMPT: bool = C::ONE_ATTEMPT;
    const TAKES_CONTEXT: bool = C::TAKES_CONTEXT;
    const LINGERS: bool = C::LINGERS;
    const BATCHES: bool = C::BATCHES;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, permits: &mut SharedPermits) -> C::Future {
        if !C::TAKES_CONTEXT {
            return self.call.call(context, item, permits);
        }
        // The run has already hashed the item, so this cannot fail.
        let item_hash = item_hash(&item).unwrap_or_default();
        let context = || {
            let context = context();
            let checkpoint = Checkpoint::new(Arc::clone(&self.checkpoints), context.index, item_hash);
            ItemContext { checkpoint, ..context }
        };
        self.call.call(context, item, permits)
    }

    // A checkpoint belongs to one item, so a call for a batch has none.
    fn call_batch(
        &self,
        context: impl FnOnce() -> ItemContext,
        first: I,
        others: Vec<I>,
        permits: &mut SharedPermits,
    ) -> C::Future {
        self.call.call_batch(context, first, others, permits)
    }

    #[inline(always)]
    fn output(answer: C::Answer) -> Option<C::Output> {
        C::output(answer)
    }

    fn results(answer: C::Answer) -> Vec<Result<C::Output, C::Error>> {
        C::results(answer)
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        self.call.clone_item(item)
    }

    fn still_running(attempt: &C::Future) -> bool {
        C::still_running(attempt)
    }

    fn clone_fn(&self) -> Option<Self> {
        let checkpoints = Arc::clone(&self.checkpoints);
        self.call.clone_fn().map(|call| Self { call, checkpoints })
    }
}
