//! The store task of a run: acquires the run, renews its lease, writes in groups, and gives the run back.

use std::mem;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{Instrument, Span, info, warn};

use super::Recovery;
use super::own_runs::{OwnRun, Phase, phase_of};
use crate::checkpoint::CheckpointQueue;
use crate::engine::persist::commit_log::Entry;
use crate::store::checksum::has_this_format;
use crate::store::holder::is_of_this_process;
use crate::store::record::groups;
use crate::store::{Checksummed, LeaseLoss, Record, Recorded, RunStatus, Store, StoreError};

/// How many records of an earlier run are read at once.
const PAGE: u32 = 2_048;

/// How many records are written at once.
const MAX_GROUP: usize = 1_024;

/// How long to wait before another holder's run is requested again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for a run of this process that is about to be given back, before the store is asked again. If the
/// runtime of that run is not driven, its lease has to expire.
const OWN_RUN_WAIT: Duration = Duration::from_secs(1);

/// How long to wait before a run of this process is treated as one in progress. If its stream was dropped, the runtime drops
/// the run within this time.
const DROP_WAIT: Duration = Duration::from_millis(100);

/// The minimum time that a store has to answer a renewal, even a late one.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// A timer that fires this late means that the process was suspended, or its runtime was busy.
const STALL: Duration = Duration::from_millis(100);

/// How long to wait before the store is asked again to take a run back.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(500);

/// A request of the run to its store task. The commit log limits the number of records in progress, and of the other kinds
/// there is at most one each.
pub(super) enum Request {
    Keep(Entry),
    Page { from: u64 },
    Close { status: RunStatus },
}

/// An answer of the store task.
pub(super) enum Answer {
    /// The holder has acquired the run.
    Opened,
    Page(Vec<Record>),
    Kept(usize),
    Failed(StoreError),
}

/// The task that accesses the store for a run.
pub(super) struct StoreTask<R> {
    pub(super) store: R,
    pub(super) task: String,
    pub(super) recovery: Recovery,
    pub(super) holder: String,
}

impl<R: Store> StoreTask<R> {
    pub(super) async fn run(
        self,
        own: OwnRun,
        mut asked: UnboundedReceiver<Request>,
        answering: UnboundedSender<Answer>,
        mut checkpoints: CheckpointQueue<R>,
    ) {
        let ended = match self.open(&answering).await {
            Err(error) => Err(error),
            Ok(opened) => {
                let _ = answering.send(Answer::Opened);
                let renewed = self.renew(opened);
                let worked = self.work(&mut asked, &answering, &mut checkpoints);
                let ended = tokio::select! {
                    biased;
                    error = renewed => Err(error),
                    ended = worked => ended,
                };
                // Attempts that still wait for a checkpoint get the error that the run has ended.
                drop(checkpoints);
                let status = match &ended {
                    Ok(status) => status.clone(),
                    Err(error) => RunStatus::Failed { reason: error.to_string() },
                };
                self.close(own, status).await;
                ended
            }
        };
        if let Err(error) = ended {
            // A run that was dropped does not receive it.
            let _ = answering.send(Answer::Failed(error));
        }
    }

    /// Acquires the run as soon as no other holder has it. Gives up if the run no longer waits for it. Returns the time at
    /// which the lease began, or a little earlier.
    async fn open(&self, answering: &UnboundedSender<Answer>) -> Result<Instant, StoreError> {
        let Self { store, task, recovery: Recovery { run_id, lease, wait }, holder } = self;
        let (begun, mut is_waiting, mut asked_again) = (Instant::now(), false, None);
        loop {
            let asked = Instant::now();
            let opened = store.open_run(run_id, task, holder, *lease).await.map(|()| asked);
            let Err(StoreError::Held { holder: other, .. }) = &opened else { return opened };
            match self.wait_for_own(other, begun, answering).await {
                Ok(true) => continue,
                Ok(false) if is_gone(other, &mut asked_again) => continue,
                Err(error) if begun.elapsed() >= *wait => return Err(error),
                _ if begun.elapsed() >= *wait => return opened,
                _ => {}
            }
            if !mem::replace(&mut is_waiting, true) {
                info!(target: "async_map_task", task, run_id, holder = other, "waiting for the holder of the run");
            }
            let pause = RETRY_PAUSE.min(wait.saturating_sub(begun.elapsed()));
            if timeout(pause, answering.closed()).await.is_ok() {
                return opened;
            }
        }
    }

    /// Waits for a limited time if another run of this process is about to give the run back, or gives it back in its place.
    /// Returns `false` if the holder is not such a run.
    async fn wait_for_own(
        &self,
        other: &str,
        begun: Instant,
        answering: &UnboundedSender<Answer>,
    ) -> Result<bool, StoreError> {
        let Some(mut phase) = phase_of(other) else { return Ok(false) };
        let current = phase.borrow_and_update().clone();
        match current {
            Phase::Running => {
                let pause = DROP_WAIT.saturating_sub(begun.elapsed());
                let changed = timeout(pause, phase.changed());
                tokio::select! {
                    biased;
                    changed = changed => return Ok(changed.is_ok()),
                    () = answering.closed() => return Ok(false),
                }
            }
            Phase::Over => {}
            Phase::Ending => {
                tokio::select! {
                    biased;
                    _changed = timeout(OWN_RUN_WAIT, phase.changed()) => {}
                    () = answering.closed() => return Ok(false),
                }
            }
            Phase::NotGivenBack(status) => {
                self.store.close_run(&self.recovery.run_id, other, &status).await?;
            }
        }
        Ok(true)
    }

    /// Renews the lease for as long as possible. A failing store is asked again until the lease expires. A renewal that is
    /// late, because the process was stalled, is sent nevertheless: the store knows if another holder has the run.
    async fn renew(&self, opened: Instant) -> StoreError {
        let Self { store, task, recovery: Recovery { run_id, lease, .. }, holder } = self;
        let (mut renewed, mut asked) = (opened, Instant::now());
        loop {
            sleep_until(asked + *lease / 3).await;
            asked = Instant::now();
            let deadline = (renewed + *lease).max(asked + (*lease / 3).max(LEAST_WAIT));
            match timeout_at(deadline, store.renew_run(run_id, holder, *lease)).await {
                Ok(Ok(())) => renewed = asked,
                Ok(Err(error @ (StoreError::Database { .. } | StoreError::NoAnswer { .. })))
                    if renewed.elapsed() < *lease =>
                {
                    warn!(target: "async_map_task", task, run_id, %error, "failed to renew the lease, will retry");
                }
                Ok(Err(error)) => return error,
                Err(_) if deadline.elapsed() > STALL => {}
                Err(_) => {
                    let waited = asked.elapsed();
                    return StoreError::lease_lost(run_id, holder, LeaseLoss::NotRenewed { waited });
                }
            }
        }
    }

    /// Serves requests until one of them closes the run.
    async fn work(
        &self,
        asked: &mut UnboundedReceiver<Request>,
        answering: &UnboundedSender<Answer>,
        checkpoints: &mut CheckpointQueue<R>,
    ) -> Result<RunStatus, StoreError> {
        let mut requests = Vec::with_capacity(MAX_GROUP);
        while checkpoints.drive_beside(asked.recv_many(&mut requests, MAX_GROUP)).await > 0 {
            let (mut records, mut page, mut status) = (Vec::new(), None, None);
            for request in requests.drain(..) {
                match request {
                    Request::Keep(entry) => records.push(self.record(entry)),
                    Request::Page { from } => page = Some(from),
                    Request::Close { status: end } => status = Some(end),
                }
            }
            for group in groups(&records) {
                // A late save must not be written after the success that deletes it.
                checkpoints.drain(successes(group)).await;
                let commit = self.store.commit(&self.recovery.run_id, &self.holder, group);
                checkpoints.drive_beside(commit).await?;
                let _ = answering.send(Answer::Kept(group.len()));
            }
            if let Some(from) = page {
                let page = checkpoints.drive_beside(self.read(from)).await?;
                let _ = answering.send(Answer::Page(page));
            }
            if let Some(status) = status {
                return Ok(status);
            }
        }
        Ok(RunStatus::Failed { reason: "the run was dropped".to_owned() })
    }

    async fn read(&self, from: u64) -> Result<Vec<Record>, StoreError> {
        let page = self.store.successes(&self.recovery.run_id, from, PAGE).await?;
        for record in &page {
            if let Recorded::Succeeded { output } = &record.recorded {
                output.verify(&[&self.recovery.run_id, &record.index.to_string(), &record.item_hash])?;
                if !has_this_format(&record.item_hash) {
                    return Err(StoreError::OtherFormat { run_id: self.recovery.run_id.clone() });
                }
            }
        }
        Ok(page)
    }

    fn record(&self, entry: Entry) -> Record {
        let Entry { index, item_hash, attempts, elapsed, result } = entry;
        let recorded = match result {
            Ok(json) => {
                let output = Checksummed::new(json, &[&self.recovery.run_id, &index.to_string(), &item_hash]);
                Recorded::Succeeded { output }
            }
            Err(message) => Recorded::Failed { message },
        };
        Record { index: index as u64, item_hash, attempts, elapsed, recorded }
    }

    /// Gives the run back. Its outcomes are durable already, so a failure only delays the next holder. After a failure the
    /// store is asked again in the background, because a disk may have room again before the lease expires.
    async fn close(&self, own: OwnRun, status: RunStatus) {
        let Self { store, task, recovery: Recovery { run_id, lease, .. }, holder } = self;
        let Err(error) = store.close_run(run_id, holder, &status).await else { return };
        if !matches!(error, StoreError::Database { .. } | StoreError::NoAnswer { .. }) {
            warn!(target: "async_map_task", task, run_id, %error, "failed to release the run, it is held until its lease expires");
            return;
        }
        warn!(target: "async_map_task", task, run_id, %error, "failed to release the run, will retry until its lease expires");
        own.set(Phase::NotGivenBack(status.clone()));
        let (store, run_id, holder, over) =
            (store.clone(), run_id.clone(), holder.clone(), Instant::now() + *lease);
        let pause = GIVE_BACK_PAUSE.min(*lease / 3);
        let retried = async move {
            let _held_until_given_back = own;
            while Instant::now() < over {
                sleep(pause).await;
                if let Ok(Ok(())) = timeout_at(over, store.close_run(&run_id, &holder, &status)).await {
                    return;
                }
            }
        };
        tokio::spawn(retried.instrument(Span::current()));
    }
}

/// Returns `true`, once for each holder, if the holder was a run of this process that no longer exists. It may have given
/// the run back after the store answered.
fn is_gone(other: &str, asked_again: &mut Option<String>) -> bool {
    let is_gone = is_of_this_process(other) && phase_of(other).is_none();
    is_gone && asked_again.replace(other.to_owned()).as_deref() != Some(other)
}

/// Returns the indices of the items of a group that have succeeded.
fn successes(group: &[Record]) -> impl Iterator<Item = usize> + Clone {
    let succeeded = group.iter().filter(|record| matches!(record.recorded, Recorded::Succeeded { .. }));
    succeeded.map(|record| record.index as usize)
}
