//! The in-memory store, which lives as long as the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    CacheKey, Checksummed, Claim, Lease, LeaseLoss, MAX_BYTES, MAX_DURATION, Record, Recorded, RunInfo,
    RunStatus, Store, StoreError, names,
};
use crate::lock::lock;

/// The number of a run's failures that its description lists.
const LISTED_FAILURES: usize = 10;

/// Stores everything in memory: for tests.
///
/// A clone is another handle to the same store. Leases and expiry use Tokio's clock. A test can pause it and move it on with
/// `tokio::time::pause` and `advance`.
///
/// # Examples
///
/// ```
/// use async_map_task::store::{MemoryStore, Store};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), async_map_task::store::StoreError> {
/// let store = MemoryStore::new();
/// store.open_run("nightly", "resize", "host/1/a", Duration::from_secs(30)).await?;
/// assert!(store.open_run("nightly", "resize", "host/2/b", Duration::from_secs(30)).await.is_err());
///
/// tokio::time::advance(Duration::from_secs(31)).await;
/// store.open_run("nightly", "resize", "host/2/b", Duration::from_secs(30)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// One moment on both clocks, to convert from one to the other.
    epoch: (Instant, SystemTime),
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    /// By the time of their first opening, the newest last.
    runs: Vec<Run>,
    cache: HashMap<CacheKey, Value>,
    claims: HashMap<CacheKey, Held>,
}

struct Run {
    id: String,
    task: String,
    status: RunStatus,
    held: Option<Held>,
    started: Instant,
    updated: Instant,
    items: BTreeMap<u64, Record>,
    /// By index: the hash of the item, and its state.
    checkpoints: HashMap<u64, (String, Checksummed)>,
}

struct Held {
    holder: String,
    since: Instant,
    until: Instant,
}

struct Value {
    checksummed: Checksummed,
    expires: Option<Instant>,
}

impl Held {
    fn new(holder: &str, lease: Duration) -> Self {
        let now = Instant::now();
        Self { holder: holder.to_owned(), since: now, until: now + lease.min(MAX_DURATION) }
    }

    fn excludes(&self, holder: &str) -> bool {
        self.holder != holder && self.until > Instant::now()
    }
}

impl Data {
    fn run(&self, run_id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == run_id)
    }

    /// Returns the run if this holder has it.
    fn held_by(&mut self, run_id: &str, holder: &str) -> Result<&mut Run, StoreError> {
        let run = self.runs.iter_mut().find(|run| run.id == run_id);
        let found = run.as_ref().map(|run| run.held.as_ref().map(|held| held.holder.clone()));
        run.filter(|_| found.as_ref().is_some_and(|held| held.as_deref() == Some(holder)))
            .ok_or_else(|| StoreError::lease_lost(run_id, holder, LeaseLoss::of_row(found)))
    }

    fn value(&self, key: &CacheKey) -> Option<&Checksummed> {
        let value = self.cache.get(key)?;
        let has_expired = value.expires.is_some_and(|expires| expires <= Instant::now());
        (!has_expired).then_some(&value.checksummed)
    }
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        let epoch = (Instant::now(), SystemTime::now());
        Self { inner: Arc::new(Inner { epoch, data: Mutex::default() }) }
    }

    fn time(&self, instant: Instant) -> SystemTime {
        let (epoch, time) = self.inner.epoch;
        time + instant.saturating_duration_since(epoch)
    }

    fn lease(&self, held: &Held) -> Lease {
        Lease { holder: held.holder.clone(), since: self.time(held.since), expires: self.time(held.until) }
    }

    fn info(&self, run: &Run) -> RunInfo {
        let failure = |record: &Record| match &record.recorded {
            Recorded::Failed { message } => Some((record.index, message.clone())),
            Recorded::Succeeded { .. } => None,
        };
        let failed = run.items.values().filter_map(failure).count();
        RunInfo {
            run_id: run.id.clone(),
            task: run.task.clone(),
            status: run.status.clone(),
            lease: run.held.as_ref().map(|held| self.lease(held)),
            started: self.time(run.started),
            updated: self.time(run.updated),
            succeeded: (run.items.len() - failed) as u64,
            failed: failed as u64,
            failures: run.items.values().filter_map(failure).take(LISTED_FAILURES).collect(),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    async fn open_run(
        &self,
        run_id: &str,
        task: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        names::check_run(run_id, task, holder)?;
        let mut data = lock(&self.inner.data);
        let mut taken = Held::new(holder, lease);
        let Some(run) = data.runs.iter_mut().find(|run| run.id == run_id) else {
            data.runs.push(Run {
                id: run_id.to_owned(),
                task: task.to_owned(),
                status: RunStatus::Running,
                started: taken.since,
                updated: taken.since,
                held: Some(taken),
                items: BTreeMap::new(),
                checkpoints: HashMap::new(),
            });
            return Ok(());
        };
        if run.task != task {
            let (run_id, found, task) = (run_id.to_owned(), run.task.clone(), task.to_owned());
            return Err(StoreError::OtherTask { run_id, found, task });
        }
        if let Some(held) = &run.held {
            if held.excludes(holder) {
                let Lease { holder, since, expires } = self.lease(held);
                return Err(StoreError::Held { run_id: run_id.to_owned(), holder, since, expires });
            }
            if held.holder == holder {
                taken.since = held.since;
            }
        }
        run.status = RunStatus::Running;
        run.updated = Instant::now();
        run.held = Some(taken);
        Ok(())
    }

    async fn renew_run(&self, run_id: &str, holder: &str, lease: Duration) -> Result<(), StoreError> {
        let mut data = lock(&self.inner.data);
        let run = data.held_by(run_id, holder)?;
        let until = Instant::now() + lease.min(MAX_DURATION);
        run.held.iter_mut().for_each(|held| held.until = until);
        Ok(())
    }

    async fn close_run(&self, run_id: &str, holder: &str, status: &RunStatus) -> Result<(), StoreError> {
        if let Ok(run) = lock(&self.inner.data).held_by(run_id, holder) {
            run.held = None;
            run.status = status.clone();
            run.updated = Instant::now();
        }
        Ok(())
    }

    async fn commit(&self, run_id: &str, holder: &str, records: &[Record]) -> Result<(), StoreError> {
        let mut data = lock(&self.inner.data);
        let run = data.held_by(run_id, holder)?;
        run.updated = Instant::now();
        for record in records {
            if matches!(record.recorded, Recorded::Succeeded { .. }) {
                run.checkpoints.remove(&record.index);
            }
            run.items.insert(record.index, record.clone());
        }
        Ok(())
    }

    async fn successes(&self, run_id: &str, from: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        let data = lock(&self.inner.data);
        let Some(run) = data.run(run_id) else { return Ok(Vec::new()) };
        let items = run.items.range((Bound::Included(from), Bound::Unbounded)).map(|(_, record)| record);
        let mut bytes = 0;
        let succeeded = items.filter_map(|record| match &record.recorded {
            Recorded::Succeeded { output } => Some((record, output.json.len())),
            Recorded::Failed { .. } => None,
        });
        let page = succeeded.take(limit as usize).take_while(|(_, size)| {
            let has_room = bytes < MAX_BYTES;
            bytes += size;
            has_room
        });
        Ok(page.map(|(record, _)| record.clone()).collect())
    }

    async fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        Ok(lock(&self.inner.data).runs.iter().rev().map(|run| self.info(run)).collect())
    }

    async fn run(&self, run_id: &str) -> Result<Option<RunInfo>, StoreError> {
        Ok(lock(&self.inner.data).run(run_id).map(|run| self.info(run)))
    }

    async fn forget(&self, run_id: &str) -> Result<bool, StoreError> {
        let mut data = lock(&self.inner.data);
        let before = data.runs.len();
        data.runs.retain(|run| run.id != run_id);
        Ok(data.runs.len() < before)
    }

    async fn checkpoint(
        &self,
        run_id: &str,
        index: u64,
        item_hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        let data = lock(&self.inner.data);
        let saved = data.run(run_id).and_then(|run| run.checkpoints.get(&index));
        Ok(saved.filter(|(hash, _)| hash == item_hash).map(|(_, state)| state.clone()))
    }

    async fn save_checkpoint(
        &self,
        run_id: &str,
        holder: &str,
        index: u64,
        item_hash: &str,
        state: &Checksummed,
    ) -> Result<(), StoreError> {
        let mut data = lock(&self.inner.data);
        let run = data.held_by(run_id, holder)?;
        run.updated = Instant::now();
        run.checkpoints.insert(index, (item_hash.to_owned(), state.clone()));
        Ok(())
    }

    async fn cached(&self, key: &CacheKey) -> Result<Option<Checksummed>, StoreError> {
        Ok(lock(&self.inner.data).value(key).cloned())
    }

    async fn put_cached(
        &self,
        key: &CacheKey,
        value: &Checksummed,
        expires_after: Option<Duration>,
    ) -> Result<(), StoreError> {
        names::check_key(key)?;
        let mut data = lock(&self.inner.data);
        let expires = expires_after.map(|after| Instant::now() + after.min(MAX_DURATION));
        data.cache.insert(key.clone(), Value { checksummed: value.clone(), expires });
        data.claims.remove(key);
        Ok(())
    }

    async fn claim(
        &self,
        key: &CacheKey,
        holder: &str,
        lease: Duration,
        overwrite: bool,
    ) -> Result<Claim, StoreError> {
        names::check_claim(key, holder)?;
        let mut data = lock(&self.inner.data);
        if let Some(value) = data.value(key).filter(|_| !overwrite) {
            return Ok(Claim::Cached(value.clone()));
        }
        if let Some(held) = data.claims.get(key).filter(|held| held.excludes(holder)) {
            return Ok(Claim::Held { remaining: held.until.saturating_duration_since(Instant::now()) });
        }
        data.claims.insert(key.clone(), Held::new(holder, lease));
        Ok(Claim::Granted)
    }

    async fn renew_claim(&self, key: &CacheKey, holder: &str, lease: Duration) -> Result<bool, StoreError> {
        let mut data = lock(&self.inner.data);
        let Some(held) = data.claims.get_mut(key).filter(|held| held.holder == holder) else {
            return Ok(false);
        };
        held.until = Instant::now() + lease.min(MAX_DURATION);
        Ok(true)
    }

    async fn release_claim(&self, key: &CacheKey, holder: &str) -> Result<(), StoreError> {
        let mut data = lock(&self.inner.data);
        if data.claims.get(key).is_some_and(|held| held.holder == holder) {
            data.claims.remove(key);
        }
        Ok(())
    }

    async fn evict(&self, task: &str, version: Option<&str>) -> Result<u64, StoreError> {
        let mut data = lock(&self.inner.data);
        let before = data.cache.len();
        let is_meant =
            |key: &CacheKey| key.task == task && version.is_none_or(|version| key.version == version);
        data.cache.retain(|key, _| !is_meant(key));
        Ok((before - data.cache.len()) as u64)
    }
}
