//! The open connections: at most [`MAX_CONNECTIONS`], each of which waits for a request or works on one.
//!
//! A connection waits until its request is there as a whole, with the body, and again when its answer has been sent.
//! At the limit, a new client displaces the connection that has waited longest. So clients that send half a request
//! and stop cannot keep others away: their connections are the oldest that wait. A client that sends its request at
//! once does not wait long enough to be displaced. An idle connection that is displaced costs its client a reconnect.
//! Connections that work are never displaced. [`long`](crate::long) keeps them below the limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The maximum number of open connections. Each needs a file descriptor, and so does each outgoing request. Together
/// they should stay below `ulimit -n`, which is often 1024.
pub(crate) const MAX_CONNECTIONS: usize = 768;

#[derive(Default)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    /// Notified when a connection has ended or begins to wait.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    last_number: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    phase: Phase,
    displaced: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    WaitingSince(Instant),
    Working,
    /// It has been displaced, and its place is free soon.
    Leaving,
}

/// An open connection. Dropping it frees its place.
pub(crate) struct Connection {
    number: u64,
    displaced: CancellationToken,
    all: Arc<Connections>,
}

/// A connection that works. Dropping it lets the connection wait again.
pub(crate) struct Working(Arc<Connection>);

impl Connections {
    /// Waits for a place, and displaces a connection if there is none. If all of them work, this waits until one does not.
    pub(crate) async fn admit(self: &Arc<Self>) -> Connection {
        loop {
            if let Some(connection) = self.try_admit() {
                return connection;
            }
            self.changed.notified().await;
        }
    }

    fn try_admit(self: &Arc<Self>) -> Option<Connection> {
        let mut table = self.lock();
        if table.open.len() >= MAX_CONNECTIONS {
            table.displace();
            return None;
        }
        table.last_number += 1;
        let (number, displaced) = (table.last_number, CancellationToken::new());
        let open = Open { phase: Phase::WaitingSince(Instant::now()), displaced: displaced.clone() };
        table.open.insert(number, open);
        Some(Connection { number, displaced, all: Arc::clone(self) })
    }

    /// Closes the connection that has waited longest, if one waits.
    pub(crate) fn displace(&self) {
        self.lock().displace();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Displaces the connection that has waited longest, unless one is already leaving.
    fn displace(&mut self) {
        if self.open.values().any(|open| open.phase == Phase::Leaving) {
            return;
        }
        let waiting = self.open.values_mut().filter_map(|open| match open.phase {
            Phase::WaitingSince(since) => Some((since, open)),
            _ => None,
        });
        if let Some((_, longest)) = waiting.min_by_key(|(since, _)| *since) {
            longest.phase = Phase::Leaving;
            longest.displaced.cancel();
        }
    }
}

impl Connection {
    /// Waits until a new client displaces this connection. The caller then drops it.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// Protects the connection until the returned value is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Working {
        self.set(Phase::Working);
        Working(Arc::clone(self))
    }

    fn set(&self, phase: Phase) {
        let mut table = self.all.lock();
        if let Some(open) = table.open.get_mut(&self.number).filter(|open| open.phase != Phase::Leaving) {
            open.phase = phase;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().open.remove(&self.number);
        self.all.changed.notify_one();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.set(Phase::WaitingSince(Instant::now()));
        self.0.all.changed.notify_one();
    }
}
