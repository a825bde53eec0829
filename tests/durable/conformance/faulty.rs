//! A store with one fault, as a user might make it.

use std::time::Duration;

use async_map_task::store::{
    CacheKey, Checksummed, Claim, MemoryStore, Record, RunInfo, RunStatus, Store, StoreError,
};

/// The fault of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No fault.
    None,
    /// A commit is accepted from a holder that has lost the run.
    CommitsForAnyHolder,
    /// A large commit fails halfway and leaves its first half.
    CommitsByHalves,
    /// A success does not delete the checkpoint of its item.
    KeepsCheckpoints,
    /// A checkpoint is found by its index alone.
    IgnoresContentOfCheckpoints,
    /// A page begins with the first record, regardless of the request.
    StartsEachPageAnew,
    /// Each renewal is granted.
    RenewsLostLeases,
    /// Any holder can close a run.
    ClosesForAnyHolder,
    /// A closed run keeps its lease.
    KeepsLeasesOfClosedRuns,
    /// A forgotten run is only closed.
    ForgetsNothing,
    /// The version is not part of the key.
    IgnoresVersions,
    /// A value never expires.
    NeverExpires,
    /// Each caller is granted the claim.
    GrantsEachClaim,
    /// It checks if a claim is held, and takes it later.
    ClaimsInTwoSteps,
    /// A released claim stays held.
    KeepsReleasedClaims,
    /// JSON is serialized again.
    RewritesJson,
    /// Names are cut to 255 bytes.
    CutsNames,
    /// A megabyte is too large.
    RefusesLargeOutputs,
    /// `evict` panics.
    Panics,
    /// `evict` never returns.
    Hangs,
}

#[derive(Clone)]
pub(super) struct Faulty {
    memory: MemoryStore,
    fault: Fault,
}

impl Faulty {
    pub(super) fn new(fault: Fault) -> Self {
        Self { memory: MemoryStore::new(), fault }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn name<'a>(&self, name: &'a str) -> &'a str {
        let most = if self.has(Fault::CutsNames) { 255 } else { name.len() };
        let end = (0..=name.len().min(most)).rev().find(|end| name.is_char_boundary(*end));
        &name[..end.unwrap_or_default()]
    }

    fn key(&self, key: &CacheKey) -> CacheKey {
        let version = if self.has(Fault::IgnoresVersions) { "" } else { self.name(&key.version) };
        let (task, item_hash) = (self.name(&key.task).to_owned(), self.name(&key.item_hash).to_owned());
        CacheKey { task, version: version.to_owned(), item_hash }
    }

    /// The holder of a run, if it has one.
    async fn any_holder(&self, run_id: &str, holder: &str) -> String {
        let lease = self.memory.run(run_id).await.unwrap().and_then(|run| run.lease);
        lease.map_or_else(|| holder.to_owned(), |lease| lease.holder)
    }
}

impl Store for Faulty {
    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        self.memory.open_run(self.name(run_id), self.name(task), self.name(holder), lease).await
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        let renewed = self.memory.renew_run(self.name(run_id), self.name(holder), lease).await;
        if self.has(Fault::RenewsLostLeases) { Ok(()) } else { renewed }
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        match self.fault {
            Fault::KeepsLeasesOfClosedRuns => return Ok(()),
            Fault::ClosesForAnyHolder => {
                let holder = self.any_holder(run_id, holder).await;
                return self.memory.close_run(run_id, &holder, status).await;
            }
            _ => {}
        }
        self.memory.close_run(self.name(run_id), self.name(holder), status).await
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        let large = records.iter().any(|record| format!("{record:?}").len() > 1_000_000);
        match self.fault {
            Fault::CommitsForAnyHolder => {
                let holder = self.any_holder(run_id, holder).await;
                return self.memory.commit(run_id, &holder, records).await;
            }
            Fault::CommitsByHalves if records.len() > 600 => {
                self.memory.commit(run_id, holder, &records[..300]).await?;
                return Err(StoreError::Corrupt("the second half".to_owned()));
            }
            Fault::KeepsCheckpoints => {
                let mut states = Vec::new();
                for record in records {
                    let state = self.memory.checkpoint(run_id, record.index, "hash").await?;
                    states.extend(state.map(|state| (record.index, state)));
                }
                self.memory.commit(run_id, holder, records).await?;
                for (index, state) in states {
                    self.memory.save_checkpoint(run_id, holder, index, "hash", &state).await?;
                }
                return Ok(());
            }
            Fault::RefusesLargeOutputs if large => {
                return Err(StoreError::Corrupt("the output is too large".to_owned()));
            }
            _ => {}
        }
        self.memory.commit(self.name(run_id), self.name(holder), records).await
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let from = if self.has(Fault::StartsEachPageAnew) { 0 } else { from };
        self.memory.successes(self.name(run_id), from, limit).await
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.memory.runs().await
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        self.memory.run(self.name(run_id)).await
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        if self.has(Fault::ForgetsNothing) {
            let holder = self.any_holder(run_id, "").await;
            self.memory.close_run(run_id, &holder, &RunStatus::Running).await?;
            return Ok(true);
        }
        self.memory.forget(self.name(run_id)).await
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        let hash = if self.has(Fault::IgnoresContentOfCheckpoints) { "" } else { hash };
        self.memory.checkpoint(self.name(run_id), index, self.name(hash)).await
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let hash = if self.has(Fault::IgnoresContentOfCheckpoints) { "" } else { self.name(hash) };
        self.memory.save_checkpoint(self.name(run_id), self.name(holder), index, hash, state).await
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        self.memory.cached(&self.key(key)).await
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        let mut value = value.clone();
        if self.has(Fault::RewritesJson) {
            value.json = value.json.replace(char::is_whitespace, "");
        }
        let expires_after = expires_after.filter(|_| !self.has(Fault::NeverExpires));
        self.memory.put_cached(&self.key(key), &value, expires_after).await
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        let key = self.key(key);
        if self.has(Fault::ClaimsInTwoSteps) {
            let looked = self.memory.clone().claim(&key, "nobody", Duration::ZERO, overwrite).await?;
            if looked != Claim::Granted {
                return Ok(looked);
            }
            tokio::task::yield_now().await;
            self.memory.claim(&key, holder, lease, overwrite).await?;
            return Ok(Claim::Granted);
        }
        match self.memory.claim(&key, self.name(holder), lease, overwrite).await? {
            Claim::Held { .. } if self.has(Fault::GrantsEachClaim) => Ok(Claim::Granted),
            claim => Ok(claim),
        }
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        self.memory.renew_claim(&self.key(key), self.name(holder), lease).await
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        if self.has(Fault::KeepsReleasedClaims) {
            return Ok(());
        }
        self.memory.release_claim(&self.key(key), self.name(holder)).await
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        match self.fault {
            Fault::Panics => panic!("no eviction today"),
            Fault::Hangs => std::future::pending().await,
            _ => self.memory.evict(self.name(task), version.map(|version| self.name(version))).await,
        }
    }
}
