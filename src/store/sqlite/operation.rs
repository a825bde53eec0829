//! The operations of the store's thread, and their results.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::rows;
use crate::store::{CacheKey, Checksummed, Claim, Record, RunStatus, StoreError};

/// Text that is bound to a statement without a copy.
pub(super) type Text = Arc<str>;

/// One call that writes, and the sender of its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) doing: &'static str,
    pub(super) answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// A write.
#[derive(Debug)]
pub(super) enum Operation {
    OpenRun { run: Holding, task: Text, lease: Duration },
    RenewRun { run: Holding, lease: Duration },
    CloseRun { run: Holding, status: RunStatus },
    Forget { run_id: Text },
    Commit(Commit),
    SaveCheckpoint(Save),
    Put(Put),
    Claim(NewClaim),
    RenewClaim { key: Key, holder: Text, lease: Duration },
    ReleaseClaim { key: Key, holder: Text },
    Evict { task: Text, version: Option<Text> },
}

/// The result of an operation.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    /// The number of affected rows.
    Rows(u64),
    Claim(Claim),
}

/// A run and its holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holding {
    pub(super) run_id: Text,
    pub(super) holder: Text,
}

/// The outcomes of one commit.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) run: Holding,
    pub(super) outcomes: Vec<Outcome>,
}

/// A row of `map_task_items`, without its run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) index: i64,
    pub(super) item_hash: Text,
    pub(super) attempts: i64,
    pub(super) elapsed: i64,
    pub(super) output: Option<Text>,
    pub(super) checksum: Option<Text>,
    pub(super) error: Option<Text>,
}

/// A row of `map_task_checkpoints`.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) run: Holding,
    pub(super) index: i64,
    pub(super) item_hash: Text,
    pub(super) state: Value,
}

/// A row of `map_task_cache`.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) expires_after: Option<Duration>,
}

/// A row of `map_task_claims`.
#[derive(Debug)]
pub(super) struct NewClaim {
    pub(super) key: Key,
    pub(super) holder: Text,
    pub(super) lease: Duration,
    pub(super) overwrite: bool,
}

/// A [`CacheKey`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) task: Text,
    pub(super) version: Text,
    pub(super) item_hash: Text,
}

/// A [`Checksummed`].
#[derive(Debug)]
pub(super) struct Value {
    pub(super) json: Text,
    pub(super) checksum: Text,
}

impl Operation {
    /// Returns the approximate number of bytes that it writes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Commit(commit) => commit.outcomes.iter().map(Outcome::bytes).sum(),
            Self::SaveCheckpoint(save) => save.state.json.len(),
            Self::Put(put) => put.value.json.len(),
            _ => 0,
        }
    }
}

impl Answer {
    pub(super) fn rows(self) -> u64 {
        if let Self::Rows(rows) = self {
            rows
        } else {
            unreachable!("expected a number of rows, got {self:?}")
        }
    }

    pub(super) fn claim(self) -> Claim {
        if let Self::Claim(claim) = self { claim } else { unreachable!("expected a claim, got {self:?}") }
    }
}

impl Holding {
    pub(super) fn new(run_id: &str, holder: &str) -> Self {
        Self { run_id: run_id.into(), holder: holder.into() }
    }
}

impl Commit {
    pub(super) fn new(run_id: &str, holder: &str, records: &[Record]) -> Result<Self, StoreError> {
        let outcomes = records.iter().map(Outcome::new).collect::<Result<_, _>>()?;
        Ok(Self { run: Holding::new(run_id, holder), outcomes })
    }
}

impl Outcome {
    fn new(record: &Record) -> Result<Self, StoreError> {
        let (output, checksum, error) = rows::outcome_columns(&record.recorded);
        Ok(Self {
            index: rows::index_column(record.index)?,
            item_hash: record.item_hash.as_str().into(),
            attempts: record.attempts.into(),
            elapsed: rows::elapsed_column(record.elapsed),
            output: output.map(Into::into),
            checksum: checksum.map(Into::into),
            error: error.map(Into::into),
        })
    }

    fn bytes(&self) -> usize {
        self.output.as_ref().or(self.error.as_ref()).map_or(0, |text| text.len())
    }
}

impl Key {
    pub(super) fn new(key: &CacheKey) -> Self {
        let CacheKey { task, version, item_hash } = key;
        Self {
            task: task.as_str().into(),
            version: version.as_str().into(),
            item_hash: item_hash.as_str().into(),
        }
    }
}

impl Value {
    pub(super) fn new(checksummed: &Checksummed) -> Self {
        Self { json: checksummed.json.as_str().into(), checksum: checksummed.checksum.as_str().into() }
    }
}
