//! A store with a time limit for every call.

use std::time::Duration;

use tokio::time::timeout;

use super::{CacheKey, Checksummed, Claim, Record, RunInfo, RunStatus, Store, StoreError, names};

/// The store of a run. It refuses names that are too long. A call that takes longer than the store's own limit fails. All
/// calls of a run go through here.
#[derive(Clone)]
pub(crate) struct Limited<R> {
    store: R,
}

impl<R: Store> Limited<R> {
    pub(crate) fn new(store: R) -> Self {
        Self { store }
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.store.time_limit();
        timeout(limit, call).await.unwrap_or(Err(StoreError::NoAnswer { doing, limit }))
    }
}

impl<R: Store> Store for Limited<R> {
    fn time_limit(&self) -> Duration {
        self.store.time_limit()
    }

    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        names::check_run(run_id, task, holder)?;
        self.within("opening a run", self.store.open_run(run_id, task, holder, lease)).await
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        self.within("renewing the lease of a run", self.store.renew_run(run_id, holder, lease)).await
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        self.within("closing a run", self.store.close_run(run_id, holder, status)).await
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        self.within("committing outcomes", self.store.commit(run_id, holder, records)).await
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.within("reading outcomes", self.store.successes(run_id, from, limit)).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.within("listing the runs", self.store.runs()).await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        self.within("looking up a run", self.store.run(run_id)).await
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        self.within("forgetting a run", self.store.forget(run_id)).await
    }

    async fn release(&self, run_id: &str) -> Result<bool, StoreError> {
        self.within("releasing a run", self.store.release(run_id)).await
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        self.within("reading a checkpoint", self.store.checkpoint(run_id, index, item_hash)).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let save = self.store.save_checkpoint(run_id, holder, index, item_hash, state);
        self.within("saving a checkpoint", save).await
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        self.within("reading a cached value", self.store.cached(key)).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        names::check_key(key)?;
        self.within("caching a value", self.store.put_cached(key, value, expires_after)).await
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        names::check_claim(key, holder)?;
        self.within("claiming a cached value", self.store.claim(key, holder, lease, overwrite)).await
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        self.within("renewing a claim", self.store.renew_claim(key, holder, lease)).await
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        self.within("releasing a claim", self.store.release_claim(key, holder)).await
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        self.within("evicting cached values", self.store.evict(task, version)).await
    }
}
