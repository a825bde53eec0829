//! A store that follows a script, implemented as a user would implement one.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::store::{
    CacheKey, Checksummed, Claim, MemoryStore, Record, Recorded, RunInfo, RunStatus, Store, StoreError,
};
use tokio::sync::Semaphore;

/// The kind of a request to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    OpenRun,
    RenewRun,
    CloseRun,
    Commit,
    Successes,
    Checkpoint,
    SaveCheckpoint,
    Cached,
    PutCached,
    Claim,
    RenewClaim,
    ReleaseClaim,
}

/// The reaction of a store to a call.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// It does the request.
    Go,
    /// It does nothing, and never answers.
    Hang,
    /// It does nothing, and fails: the disk is full.
    Fail,
    /// The same, once a permit is available.
    FailAfter(Arc<Semaphore>),
    /// It does the request once a permit is available.
    After(Arc<Semaphore>),
    /// It does the request, but answers only once a permit is available.
    Answer(Arc<Semaphore>),
    /// It does the request in a task, once a permit is available, even if its caller has dropped the call by then. Only for
    /// saves of checkpoints.
    Later(Arc<Semaphore>),
}

type Script = Box<dyn FnMut(Call) -> Step + Send>;

/// A store in memory that remembers its requests, and follows a script.
#[derive(Clone)]
pub(crate) struct Rigged {
    pub(crate) memory: MemoryStore,
    script: Arc<Mutex<Script>>,
    calls: Arc<Mutex<Vec<Call>>>,
    /// The indices of the successes of each commit that has returned.
    commits: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Rigged {
    pub(crate) fn new(script: impl FnMut(Call) -> Step + Send + 'static) -> Self {
        Self::over(&MemoryStore::new(), script)
    }

    /// Another handle to a store that is shared.
    pub(crate) fn over(memory: &MemoryStore, script: impl FnMut(Call) -> Step + Send + 'static) -> Self {
        let (calls, commits) = Default::default();
        Self { memory: memory.clone(), script: Arc::new(Mutex::new(Box::new(script))), calls, commits }
    }

    /// A store that does every request.
    pub(crate) fn willing() -> Self {
        Self::new(|_| Step::Go)
    }

    /// A store that reacts in this way to such calls, and does all other requests.
    pub(crate) fn on(what: Call, step: Step) -> Self {
        Self::new(move |call| if call == what { step.clone() } else { Step::Go })
    }

    /// A store that fails the nth of such calls and all after it.
    pub(crate) fn failing_from(what: Call, nth: usize) -> Self {
        let mut left = nth;
        Self::new(move |call| {
            if call == what {
                left = left.saturating_sub(1);
            }
            if call == what && left == 0 { Step::Fail } else { Step::Go }
        })
    }

    pub(crate) fn rig(&self, script: impl FnMut(Call) -> Step + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn count(&self, what: Call) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| **call == what).count()
    }

    /// Returns the indices of the successes in the commits that have returned.
    pub(crate) fn durable(&self) -> Vec<u64> {
        self.commits.lock().unwrap().concat()
    }

    /// Returns the number of successes in each commit.
    pub(crate) fn groups(&self) -> Vec<usize> {
        self.commits.lock().unwrap().iter().map(Vec::len).collect()
    }

    async fn obey<T>(
        &self,
        call: Call,
        doing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let step = (*self.script.lock().unwrap())(call);
        self.follow(call, step, doing).await
    }

    async fn follow<T>(
        &self,
        call: Call,
        step: Step,
        doing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.lock().unwrap().push(call);
        match step {
            Step::Go => doing.await,
            Step::Fail => Err(disk_full()),
            Step::Hang => std::future::pending().await,
            Step::FailAfter(latch) => {
                latch.acquire().await.unwrap().forget();
                Err(disk_full())
            }
            Step::After(latch) => {
                latch.acquire().await.unwrap().forget();
                doing.await
            }
            Step::Later(_) => unreachable!("{call:?} is never done later"),
            Step::Answer(latch) => {
                let done = doing.await;
                latch.acquire().await.unwrap().forget();
                done
            }
        }
    }
}

fn disk_full() -> StoreError {
    StoreError::Database { doing: "doing as it was told", error: "disk full".into() }
}

impl fmt::Debug for Rigged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rigged").finish_non_exhaustive()
    }
}

impl Store for Rigged {
    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        self.obey(Call::OpenRun, self.memory.open_run(run_id, task, holder, lease)).await
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        self.obey(Call::RenewRun, self.memory.renew_run(run_id, holder, lease)).await
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        self.obey(Call::CloseRun, self.memory.close_run(run_id, holder, status)).await
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        self.obey(Call::Commit, self.memory.commit(run_id, holder, records)).await?;
        let succeeded = records.iter().filter(|record| matches!(record.recorded, Recorded::Succeeded { .. }));
        self.commits.lock().unwrap().push(succeeded.map(|record| record.index).collect());
        Ok(())
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.obey(Call::Successes, self.memory.successes(run_id, from, limit)).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.memory.runs().await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        self.memory.run(run_id).await
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        self.memory.forget(run_id).await
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        self.obey(Call::Checkpoint, self.memory.checkpoint(run_id, index, hash)).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let step = (*self.script.lock().unwrap())(Call::SaveCheckpoint);
        let doing = self.memory.save_checkpoint(run_id, holder, index, hash, state);
        let Step::Later(latch) = step else { return self.follow(Call::SaveCheckpoint, step, doing).await };
        self.calls.lock().unwrap().push(Call::SaveCheckpoint);
        let (memory, state) = (self.memory.clone(), state.clone());
        let [run_id, holder, hash] = [run_id, holder, hash].map(str::to_owned);
        let later = async move {
            latch.acquire().await.unwrap().forget();
            memory.save_checkpoint(&run_id, &holder, index, &hash, &state).await
        };
        tokio::spawn(later).await.unwrap()
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        self.obey(Call::Cached, self.memory.cached(key)).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.obey(Call::PutCached, self.memory.put_cached(key, value, expires_after)).await
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        self.obey(Call::Claim, self.memory.claim(key, holder, lease, overwrite)).await
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        self.obey(Call::RenewClaim, self.memory.renew_claim(key, holder, lease)).await
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        self.obey(Call::ReleaseClaim, self.memory.release_claim(key, holder)).await
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        self.memory.evict(task, version).await
    }
}
