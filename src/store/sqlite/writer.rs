//! The writer: it commits the waiting operations together.

use std::sync::Arc;
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use super::batch::{self, Outcome};
use super::file::StoreFile;
use super::operation::Request;
use super::{BUSY_PAUSE, BUSY_TIMEOUT};
use crate::random::random;
use crate::store::StoreError;
use crate::store::fault::Fault;

/// The maximum number of operations of one transaction.
const MAX_GROUP: usize = 1_024;

/// The size in bytes at which a transaction takes no further operation.
const MAX_BYTES: usize = 4 << 20;

/// How long the writer pauses after each transaction so that other processes can write. It does so for [`CONTENTION_TIME`]
/// after another process last had the file.
const YIELD_TIME: Duration = Duration::from_millis(2);
const CONTENTION_TIME: Duration = Duration::from_secs(1);

/// The operations that wait to be written. A call is here once, for as long as it waits for its answer.
pub(super) struct Waiting {
    /// Renewals, which do not wait for other operations.
    pub(super) urgent: UnboundedReceiver<Request>,
    pub(super) others: UnboundedReceiver<Request>,
}

impl Waiting {
    /// Returns the next request, or `None` after the last one.
    async fn next(&mut self) -> Option<Request> {
        tokio::select! {
            biased;
            Some(request) = self.urgent.recv() => Some(request),
            Some(request) = self.others.recv() => Some(request),
            else => None,
        }
    }

    fn try_next(&mut self) -> Option<Request> {
        self.urgent.try_recv().or_else(|_| self.others.try_recv()).ok()
    }
}

pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) file: Arc<StoreFile>,
    /// When another process last had the file.
    pub(super) contended: Option<Instant>,
}

impl Writer {
    /// Writes until all senders are dropped. Returns the connection.
    pub(super) async fn run(mut self, mut waiting: Waiting) -> SqliteConnection {
        while let Some(first) = waiting.next().await {
            // Its caller has dropped it before it began.
            if first.answer.is_closed() {
                continue;
            }
            // Requests that arrive while another process writes belong to the group.
            let begun = self.begin().await;
            let group = gather(first, &mut waiting);
            let written = match begun {
                Ok(()) => self.write(&group).await,
                Err(fault) => Err(fault),
            };
            match written {
                Ok(outcomes) => answer(group, outcomes),
                Err(fault) => self.write_each(group, fault).await,
            }
            self.yield_to_others().await;
        }
        self.connection
    }

    /// Begins a transaction, as soon as no other process writes. Retries with short pauses. SQLite's own pauses become so
    /// long that a process could miss its turn for many seconds.
    async fn begin(&mut self) -> Result<(), Fault> {
        self.file.check()?;
        let asked = Instant::now();
        loop {
            let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await;
            match begun.map_err(Fault::from) {
                Ok(_) => return Ok(()),
                Err(fault) if fault.is_busy() && asked.elapsed() < BUSY_TIMEOUT => {
                    self.contended = Some(Instant::now());
                    sleep(pause()).await;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Pauses so that other processes can write, if one had the file recently.
    async fn yield_to_others(&mut self) {
        match self.contended {
            Some(contended) if contended.elapsed() < CONTENTION_TIME => sleep(YIELD_TIME).await,
            _ => self.contended = None,
        }
    }

    /// Writes and commits a group completely, or nothing of it. On success its outcomes are durable, in the file to which
    /// the path leads.
    async fn write(&mut self, group: &[Request]) -> Result<Vec<Outcome>, Fault> {
        let written = async {
            let outcomes = batch::execute(&mut self.connection, group).await?;
            sqlx::query("COMMIT").execute(&mut self.connection).await?;
            self.file.check()?;
            Ok(outcomes)
        };
        let written = written.await;
        if written.is_err() {
            // If the disk is full, SQLite has already ended the transaction.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        }
        written
    }

    /// Handles a group that has failed. Writes each operation separately, so that a failing one does not fail the others.
    async fn write_each(&mut self, group: Vec<Request>, fault: Fault) {
        let group = match <[Request; 1]>::try_from(group) {
            Ok([request]) => return fail(request, fault),
            // All of them have waited for the other process, and none waits once more.
            Err(group) if fault.is_busy() => {
                let text = fault.to_string();
                return group.into_iter().for_each(|request| {
                    let error = StoreError::Database { doing: request.doing, error: text.clone().into() };
                    fail(request, error.into());
                });
            }
            Err(group) => group,
        };
        for request in group {
            let written = match self.begin().await {
                Ok(()) => self.write(std::slice::from_ref(&request)).await,
                Err(fault) => Err(fault),
            };
            match written {
                Ok(outcomes) => answer(vec![request], outcomes),
                Err(fault) => fail(request, fault),
            }
        }
    }
}

/// Returns a random pause of 0.5 to 1.5 times the mean, so that several processes do not retry in step.
fn pause() -> Duration {
    let thousandths = 500 + u32::try_from(random() % 1_000).unwrap_or_default();
    BUSY_PAUSE * thousandths / 1_000
}

/// Returns the first request and the waiting ones, up to the limits of a transaction.
fn gather(first: Request, waiting: &mut Waiting) -> Vec<Request> {
    let (mut bytes, mut group) = (first.operation.bytes(), vec![first]);
    while group.len() < MAX_GROUP && bytes < MAX_BYTES {
        let Some(request) = waiting.try_next() else { break };
        if !request.answer.is_closed() {
            bytes += request.operation.bytes();
            group.push(request);
        }
    }
    group
}

fn answer(group: Vec<Request>, outcomes: Vec<Outcome>) {
    for (request, outcome) in group.into_iter().zip(outcomes) {
        let _caller_may_have_gone = request.answer.send(outcome);
    }
}

fn fail(request: Request, fault: Fault) {
    let error: StoreError = fault.into_store_error(request.doing);
    let _caller_may_have_gone = request.answer.send(Err(error));
}
