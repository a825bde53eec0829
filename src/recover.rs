//! Runs that go on where an earlier one of the same id has stopped.

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
use crate::engine::call::Call;
use crate::engine::commit_log::{Codec, CommitLog};
use crate::engine::hooks::HookSet;
use crate::engine::{Mode, Parts};
use crate::limiter::Permit;
use crate::outcome::ItemError;
use crate::run::MapRun;
use crate::store::Store;
use crate::store::checksum::item_hash;
use crate::store::holder::holder;
use crate::store::json::{decode, encode};
use crate::store::lease::{DEFAULT_LEASE, MIN_LEASE};
use crate::store::limited::Limited;

/// Which run [`recover`](MapRun::recover) goes on with, and how. A `&str` or a `String` is one with the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it does nothing by itself"]
pub struct Recovery {
    pub(crate) run_id: String,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
}

impl Recovery {
    /// The run of this id, which is yours to choose: the name of the job and its date, say.
    pub fn run(run_id: impl Into<String>) -> Self {
        Self { run_id: run_id.into(), lease: DEFAULT_LEASE, wait: Duration::ZERO }
    }

    /// How long the run is refused to others after its process has died. The default is [`DEFAULT_LEASE`], 60 s; less
    /// than 30 ms counts as that.
    ///
    /// While the process lives, it renews its lease three times in this time. So it should be longer than the process can be
    /// held up: by a suspended machine, by a function that keeps a runtime of one thread busy, or by a store that takes its
    /// time to write a thousand outputs; and half as long again as the store tries to reach its server. A holder that could
    /// not renew its lease in time stops.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease: lease.max(MIN_LEASE), ..self }
    }

    /// How long to wait for another holder to end or to lose its lease, before the run is refused. The default is not
    /// to wait.
    ///
    /// A little longer than the lease, it lets a job that was killed be started again at once.
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

impl<S, C, P, A, G, O, I, T, E, Fut, M: Mode> MapRun<Parts<S, C, HookSet<P, A, G, O>, I, T, E, Fut, M>> {
    /// Makes the run durable, and goes on with an earlier run of the same id: items that have succeeded are not run
    /// again, and their outputs come back in their places. Feature `store`, and `sqlite` or `postgres` for a store that
    /// outlives the process.
    ///
    /// - An item is known by its index and the [hash of its
    ///   content](crate::guide::durable_runs#what-an-item-is-known-by). One that has changed since is run again, and counted
    ///   in [`Summary::changed`](crate::Summary::changed). Items that had failed, were cancelled or had not ended
    ///   are run again, too.
    /// - An item counts as succeeded once its output is durable: not before is it in the result, given to
    ///   [`for_each`](Self::for_each) or shown to an observer. Outputs are written in groups, and the next items run
    ///   meanwhile; at most 1,024 of them, and those that run, wait for it. What was reported is never lost and not run
    ///   again, whenever the process is killed; what was running then, or was not written yet, runs again, so the
    ///   function has to bear that.
    /// - A run is one process's at a time. Another that wants it is told who has it and since when, until the holder has
    ///   ended it or its [lease](Recovery::lease) is over. A holder that has lost its lease stops.
    /// - The id belongs to the [name of the task](crate::AsyncMapTaskBuilder::name), which is required.
    ///
    /// Outputs are kept as JSON. Before an output is written it is read once, and one that [does not come
    /// back](crate::guide::durable_runs#outputs-that-come-back) as it went ends the run as a store failure. An output of an
    /// earlier run that cannot be read any more, because its type has changed, is run again, with a warning. `for_each` and
    /// `stream` give the outcomes of earlier runs, too, with [`Origin::Recovered`](crate::Origin::Recovered).
    ///
    /// Failures are recorded, too, for whoever [asks](Store::run). Changing the concurrency, the retries or any other
    /// setting changes nothing about what is recovered.
    ///
    /// The run's connection to the store is a Tokio task of its own. Where the run is dropped, that task ends once it has
    /// written what had succeeded and given the run back.
    ///
    /// # Errors
    ///
    /// The run ends with [`FailureReason::Store`](crate::FailureReason::Store), and all that had finished in the partial
    /// result, where the store fails for longer than it tries again, does not answer a call within its [time
    /// limit](Store::time_limit), is damaged, the run is held by another or is one of
    /// another task, has outcomes of an earlier version of this crate with other item hashes, and where an item cannot be
    /// serialized or an output cannot be kept as JSON. The reason's
    /// [`source()`](std::error::Error::source) is a [`StoreError`](crate::store::StoreError).
    ///
    /// [`FailureReason::Config`](crate::FailureReason::Config) if the task has no name. The store is not touched then.
    ///
    /// # Panics
    ///
    /// The run panics where it is polled outside a Tokio runtime.
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
    pub fn recover<R: Store>(
        self,
        store: &R,
        run: impl Into<Recovery>,
    ) -> MapRun<Parts<S, Recovering<C>, HookSet<P, A, G, O>, I, T, E, Fut, M>>
    where
        I: Serialize,
        T: Serialize + DeserializeOwned,
        E: Display,
    {
        let (recovery, holder) = (run.into(), holder());
        let store = Limited::new(store.clone());
        let (requests, queue) = CheckpointQueue::new(store.clone(), recovery.run_id.clone(), holder.clone());
        MapRun::new(self.into_setup().map(|setup| {
            let journal = StoreJournal::new(store, setup.options.name().to_owned(), recovery, holder, queue);
            let commit_log = CommitLog::new(codec(), Box::new(journal));
            let mut setup =
                setup.change(|call, hooks| (Recovering { call, checkpoints: Arc::new(requests) }, hooks));
            setup.options.durability.commit_log = Some(Box::new(commit_log));
            setup
        }))
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

/// A function whose context knows the item's checkpoint.
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
    type Future = C::Future;

    const ONE_ATTEMPT: bool = C::ONE_ATTEMPT;
    const TAKES_CONTEXT: bool = C::TAKES_CONTEXT;
    const KEEPS: bool = true;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, permit: &mut Option<Permit>) -> C::Future {
        if !C::TAKES_CONTEXT {
            return self.call.call(context, item, permit);
        }
        // The run has hashed the item before, so it can be hashed.
        let item_hash = item_hash(&item).unwrap_or_default();
        let context = || {
            let context = context();
            let checkpoint = Checkpoint::new(Arc::clone(&self.checkpoints), context.index, item_hash);
            ItemContext { checkpoint, ..context }
        };
        self.call.call(context, item, permit)
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
