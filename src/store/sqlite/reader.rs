//! Those that read: single values in groups, runs and pages one after another on each connection.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, oneshot};

use super::file::StoreFile;
use super::items::Place;
use super::operation::Key;
use super::{cache, items, runs};
use crate::store::fault::Fault;
use crate::store::{Record, RunInfo, Sealed, StoreError};

/// How many single values are read at once.
const MOST_AT_ONCE: usize = 64;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A single value that is looked up.
#[derive(Debug)]
pub(super) enum LookUp {
    Cached(Key, Reply<Option<Sealed>>),
    Checkpoint(Place, Reply<Option<Sealed>>),
}

/// What takes longer.
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
    /// Looks single values up until nobody can ask any more.
    pub(super) async fn look_up(mut self, mut asked: UnboundedReceiver<LookUp>) {
        let mut group = Vec::with_capacity(MOST_AT_ONCE);
        while asked.recv_many(&mut group, MOST_AT_ONCE).await > 0 {
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

    /// Looks values of one kind up. Where that fails, one by one, so that each fails only by itself.
    async fn find<K>(
        &mut self,
        asked: Vec<(K, Reply<Option<Sealed>>)>,
        doing: &'static str,
        find: impl AsyncFn(&mut SqliteConnection, &[&K]) -> Result<Vec<Option<Sealed>>, Fault>,
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
                let _nobody_waits = reply.send(Ok(found));
            }
            return;
        }
        for (key, reply) in asked {
            let found = find(&mut self.connection, &[&key]).await.map(|mut found| found.pop().flatten());
            let _nobody_waits = reply.send(self.checked(found, doing));
        }
    }

    /// Reads until nobody can ask any more.
    pub(super) async fn read(mut self, asked: Arc<Mutex<UnboundedReceiver<Read>>>) {
        loop {
            let next = asked.lock().await.recv().await;
            match next {
                None => return self.close().await,
                Some(Read::Successes { run_id, from, limit, reply }) if !reply.is_closed() => {
                    let page = items::successes(&mut self.connection, &run_id, from, limit).await;
                    let _nobody_waits = reply.send(self.checked(page, "reading outcomes"));
                }
                Some(Read::Runs { run_id, reply }) if !reply.is_closed() => {
                    let infos = runs::infos(&mut self.connection, run_id.as_deref()).await;
                    let _nobody_waits = reply.send(self.checked(infos, "reading the runs"));
                }
                Some(_) => {}
            }
        }
    }

    /// Closes the connection. SQLite tidies the file up when the last one is closed, and only if that one can write.
    async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// What was read, if the file still has the path.
    fn checked<T>(&self, read: Result<T, Fault>, doing: &'static str) -> Result<T, StoreError> {
        let read = read.map_err(|fault| fault.into_store_error(doing))?;
        self.file.check().map(|()| read)
    }
}
