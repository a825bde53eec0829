//! The readers: single values in groups, runs and pages one after another on each connection.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::file::StoreFile;
use super::items::Place;
use super::operation::Key;
use super::{cache, items, runs};
use crate::store::fault::Fault;
use crate::store::{Checksummed, Record, RunInfo, StoreError};

/// The maximum number of single values read at once.
const MAX_GROUP: usize = 64;

/// The sender of an answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A single value that is looked up.
#[derive(Debug)]
pub(super) enum LookUp {
    Cached(Key, Reply<Option<Checksummed>>),
    Checkpoint(Place, Reply<Option<Checksummed>>),
}

/// A read that takes longer.
#[derive(Debug)]
pub(super) enum Read {
    Successes { run_id: String, from: i64, limit: u32, reply: Reply<Vec<Record>> },
    Runs { run_id: Option<String>, reply: Reply<Vec<RunInfo>> },
}

pub(super) struct Reader {
    pub(super) connection: SqliteConnection,
    pub(super) file: Arc<StoreFile>,
}

impl Reader {
    /// Looks up single values until all senders are dropped.
    pub(super) async fn look_up(mut self, mut asked: UnboundedReceiver<LookUp>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while asked.recv_many(&mut group, MAX_GROUP).await > 0 {
            let (mut cached, mut checkpoints) = (Vec::new(), Vec::new());
            for look_up in group.drain(..) {
                match look_up {
                    LookUp::Cached(key, reply) => cached.push((key, reply)),
                    LookUp::Checkpoint(place, reply) => checkpoints.push((place, reply)),
                }
            }
            self.find(cached, "reading a cached value", async |connection, keys| {
                cache::values(connection, keys).await
            })
            .await;
            self.find(checkpoints, "reading a checkpoint", async |connection, places| {
                items::checkpoints(connection, places).await
            })
            .await;
        }
        self.close().await;
    }

    /// Looks up values of one kind in one statement. If that fails, looks them up one by one, so that a failure affects only
    /// its own value.
    async fn find<K>(
        &mut self,
        asked: Vec<(K, Reply<Option<Checksummed>>)>,
        doing: &'static str,
        find: impl AsyncFn(&mut SqliteConnection, &[&K]) -> Result<Vec<Option<Checksummed>>, Fault>,
    ) {
        if asked.is_empty() {
            return;
        }
        let keys: Vec<&K> = asked.iter().map(|(key, _)| key).collect();
        let found = match find(&mut self.connection, &keys).await {
            Ok(found) => self.file.check().map(|()| found).ok(),
            Err(_) => None,
        };
        if let Some(found) = found {
            for ((_, reply), found) in asked.into_iter().zip(found) {
                let _caller_may_have_gone = reply.send(Ok(found));
            }
            return;
        }
        for (key, reply) in asked {
            let found = find(&mut self.connection, &[&key]).await.map(|mut found| found.pop().flatten());
            let _caller_may_have_gone = reply.send(self.checked(found, doing));
        }
    }

    async fn read(mut self, read: Read) -> Self {
        match read {
            Read::Successes { run_id, from, limit, reply } if !reply.is_closed() => {
                let page = items::successes(&mut self.connection, &run_id, from, limit).await;
                let _caller_may_have_gone = reply.send(self.checked(page, "reading outcomes"));
            }
            Read::Runs { run_id, reply } if !reply.is_closed() => {
                let infos = runs::infos(&mut self.connection, run_id.as_deref()).await;
                let _caller_may_have_gone = reply.send(self.checked(infos, "reading the runs"));
            }
            Read::Successes { .. } | Read::Runs { .. } => {}
        }
        self
    }

    /// Closes the connection. SQLite cleans up the file when the last connection is closed, and only if that one can write.
    async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Returns the result of a read if the path still leads to the file.
    fn checked<T>(&self, read: Result<T, Fault>, doing: &'static str) -> Result<T, StoreError> {
        let read = read.map_err(|fault| fault.into_store_error(doing))?;
        self.file.check().map(|()| read)
    }
}

/// Serves reads until all senders are dropped, at most one for each reader at once. The reader that became idle last is
/// taken first. The thread of each connection keeps memory for the largest outputs that it has read. So consecutive pages
/// should not use all connections.
pub(super) async fn serve_reads(mut idle: Vec<Reader>, mut asked: UnboundedReceiver<Read>) {
    let mut busy = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(reader) = busy.join_next() => idle.extend(reader),
            read = asked.recv(), if !idle.is_empty() => match (read, idle.pop()) {
                (Some(read), Some(reader)) => drop(busy.spawn(reader.read(read))),
                (None, reader) => {
                    idle.extend(reader);
                    break;
                }
                (Some(_), None) => {}
            },
            // All readers have panicked.
            else => return,
        }
    }
    while let Some(reader) = busy.join_next().await {
        idle.extend(reader);
    }
    for reader in idle {
        reader.close().await;
    }
}
