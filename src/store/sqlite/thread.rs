//! The thread of a store. It drives all connections, independently of the callers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use sqlx::Connection;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::file::{Connections, StoreFile};
use super::operation::{Answer, Operation, Request};
use super::reader::{LookUp, Read, Reader, Reply, serve_reads};
use super::writer::{Waiting, Writer};
use crate::store::StoreError;

/// The channels to the thread. The thread ends when this is dropped.
///
/// A call is in one of these queues once, from its first poll until its answer. So they are no longer than the number of
/// waiting calls. A call that was dropped before it began is skipped.
pub(super) struct StoreThread {
    file: Arc<StoreFile>,
    urgent: UnboundedSender<Request>,
    writes: UnboundedSender<Request>,
    look_ups: UnboundedSender<LookUp>,
    reads: UnboundedSender<Read>,
}

impl StoreThread {
    pub(super) fn start(file: StoreFile, connections: Connections) -> io::Result<Self> {
        let file = Arc::new(file);
        let (urgent, urgent_requests) = unbounded_channel();
        let (writes, others) = unbounded_channel();
        let (look_ups, asked_values) = unbounded_channel();
        let (reads, asked_pages) = unbounded_channel();
        let waiting = Waiting { urgent: urgent_requests, others };
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let work = Work { file: Arc::clone(&file), connections, waiting, asked_values, asked_pages };
        thread::Builder::new().name("map-task-store".to_owned()).spawn(move || work.run(&runtime))?;
        Ok(Self { file, urgent, writes, look_ups, reads })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) async fn write(
        &self,
        doing: &'static str,
        operation: Operation,
    ) -> Result<Answer, StoreError> {
        send(&self.writes, doing, |answer| Request { operation, doing, answer }).await
    }

    /// Writes without waiting for less urgent operations.
    pub(super) async fn write_first(
        &self,
        doing: &'static str,
        operation: Operation,
    ) -> Result<Answer, StoreError> {
        send(&self.urgent, doing, |answer| Request { operation, doing, answer }).await
    }

    pub(super) async fn look_up<T>(
        &self,
        doing: &'static str,
        ask: impl FnOnce(Reply<T>) -> LookUp,
    ) -> Result<T, StoreError> {
        send(&self.look_ups, doing, ask).await
    }

    pub(super) async fn read<T>(
        &self,
        doing: &'static str,
        ask: impl FnOnce(Reply<T>) -> Read,
    ) -> Result<T, StoreError> {
        send(&self.reads, doing, ask).await
    }
}

async fn send<R, T>(
    requests: &UnboundedSender<R>,
    doing: &'static str,
    ask: impl FnOnce(Reply<T>) -> R,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    // If it cannot be sent, there is no answer.
    let _ = requests.send(ask(reply));
    let has_ended = |_| StoreError::Database { doing, error: "the thread of the store has ended".into() };
    answer.await.map_err(has_ended)?
}

/// The work of the thread.
struct Work {
    file: Arc<StoreFile>,
    connections: Connections,
    waiting: Waiting,
    asked_values: UnboundedReceiver<LookUp>,
    asked_pages: UnboundedReceiver<Read>,
}

impl Work {
    fn run(self, runtime: &Runtime) {
        let Self { file, connections, waiting, asked_values, asked_pages } = self;
        let Connections { writer, look_ups, readers } = connections;
        let reader = |connection| Reader { connection, file: Arc::clone(&file) };
        let reading = runtime.spawn(serve_reads(readers.into_iter().map(reader).collect(), asked_pages));
        let looking_up = runtime.spawn(reader(look_ups).look_up(asked_values));
        let writer = Writer { connection: writer, file: Arc::clone(&file), contended: None };
        runtime.block_on(async {
            let connection = writer.run(waiting).await;
            // Each task ends when all senders are dropped. A panic was already reported.
            let _ = looking_up.await;
            let _ = reading.await;
            // This connection is closed last, because closing it writes the log into the file.
            let _ = connection.close().await;
        });
    }
}
