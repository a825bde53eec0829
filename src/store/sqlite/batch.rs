//! Many operations in one transaction, with few statements.

use std::collections::HashSet;

use sqlx::SqliteConnection;

use super::items::Touched;
use super::operation::{Answer, Commit, Holding, Key, NewClaim, Operation, Put, Request, Save};
use super::{cache, items, runs};
use crate::store::StoreError;
use crate::store::fault::Fault;

/// The result of an operation that left the transaction intact.
pub(super) type Outcome = Result<Answer, StoreError>;

/// Executes the operations in the open transaction. The outcomes are in the order of the requests.
///
/// The effect is that of one operation after another. Operations of one kind share their statements if no operation between
/// them affects the same run or key.
///
/// # Errors
///
/// The error of the database. Then no operation of the group has taken effect.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    group: &[Request],
) -> Result<Vec<Outcome>, Fault> {
    let mut batch = Batch { outcomes: Vec::new(), pending: Pending::default() };
    batch.outcomes.resize_with(group.len(), || Ok(Answer::Done));
    for (place, request) in group.iter().enumerate() {
        match &request.operation {
            Operation::SaveCheckpoint(save) => {
                if batch.pending.commits.iter().any(|(_, commit)| commit.run.run_id == save.run.run_id) {
                    batch.flush(connection).await?;
                }
                batch.pending.saves.push((place, save));
            }
            Operation::Put(put) => {
                if batch.pending.claimed.contains(&put.key) {
                    batch.flush(connection).await?;
                }
                batch.pending.puts.push(put);
            }
            Operation::Claim(claim) => {
                batch.pending.claimed.insert(&claim.key);
                batch.pending.claims.push((place, claim));
            }
            Operation::Commit(commit) => batch.pending.commits.push((place, commit)),
            alone => {
                batch.flush(connection).await?;
                batch.set(place, single(connection, alone).await?);
            }
        }
    }
    batch.flush(connection).await?;
    Ok(batch.outcomes)
}

struct Batch<'g> {
    outcomes: Vec<Outcome>,
    pending: Pending<'g>,
}

/// The operations to execute, each with its position in the group. They are executed in this order.
#[derive(Default)]
struct Pending<'g> {
    saves: Vec<(usize, &'g Save)>,
    commits: Vec<(usize, &'g Commit)>,
    puts: Vec<&'g Put>,
    claims: Vec<(usize, &'g NewClaim)>,
    /// The keys of the claims.
    claimed: HashSet<&'g Key>,
}

impl Batch<'_> {
    fn set(&mut self, place: usize, outcome: Outcome) {
        if let Some(of_place) = self.outcomes.get_mut(place) {
            *of_place = outcome;
        }
    }

    async fn flush(&mut self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        let Pending { saves, commits, puts, claims, .. } = std::mem::take(&mut self.pending);
        let mut touched = Touched::default();
        let mut held = Vec::with_capacity(saves.len());
        for (place, save) in saves {
            match touched.touch(connection, &save.run).await? {
                None => held.push(save),
                Some(loss) => self.set(place, lost(&save.run, loss)),
            }
        }
        items::save(connection, &held).await?;
        for (place, commit) in commits {
            match touched.touch(connection, &commit.run).await? {
                None => items::commit(connection, commit).await?,
                Some(loss) => self.set(place, lost(&commit.run, loss)),
            }
        }
        if !puts.is_empty() {
            cache::put(connection, &puts).await?;
        }
        let (places, claims): (Vec<usize>, Vec<&NewClaim>) = claims.into_iter().unzip();
        for (place, claim) in places.into_iter().zip(cache::claim(connection, &claims).await?) {
            self.set(place, Ok(Answer::Claim(claim)));
        }
        Ok(())
    }
}

fn lost(run: &Holding, loss: crate::store::LeaseLoss) -> Outcome {
    Err(StoreError::lease_lost(&run.run_id, &run.holder, loss))
}

/// Executes an operation of a rare kind.
async fn single(connection: &mut SqliteConnection, operation: &Operation) -> Result<Outcome, Fault> {
    let outcome = match operation {
        Operation::OpenRun { run, task, lease } => {
            runs::open(connection, run, task, *lease).await?.map(|()| Answer::Done)
        }
        Operation::RenewRun { run, lease } => match runs::renew(connection, run, *lease).await? {
            None => Ok(Answer::Done),
            Some(loss) => lost(run, loss),
        },
        Operation::CloseRun { run, status } => {
            runs::close(connection, run, status).await?;
            Ok(Answer::Done)
        }
        Operation::Forget { run_id } => Ok(Answer::Rows(runs::forget(connection, run_id).await?)),
        Operation::RenewClaim { key, holder, lease } => {
            Ok(Answer::Rows(cache::renew(connection, key, holder, *lease).await?))
        }
        Operation::ReleaseClaim { key, holder } => {
            cache::release(connection, key, holder).await?;
            Ok(Answer::Done)
        }
        Operation::Evict { task, version } => {
            Ok(Answer::Rows(cache::evict(connection, task, version.as_ref()).await?))
        }
        Operation::Commit(_) | Operation::SaveCheckpoint(_) | Operation::Put(_) | Operation::Claim(_) => {
            unreachable!("{operation:?} must be executed in a group")
        }
    };
    Ok(outcome)
}
