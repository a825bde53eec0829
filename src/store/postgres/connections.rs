//! The connections of a store: a pool, and outside of it the connection that was used last.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::time::sleep;

use crate::lock::lock;

/// The maximum number of connections of a store.
const CONNECTIONS: u32 = 8;

/// How long one try waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection stays outside of the pool. The pool then tests it, and closes it if it is too old or not needed.
const MAX_LOAN: Duration = Duration::from_secs(60);

/// The connections of a store. They are not tested before use, because a failed operation is retried on another one.
///
/// SQLx tests each connection that returns to its pool, in a task of its own. The next call does not wait for the test, but
/// uses another connection. Calls one after another would thus go through several sessions, and occupy the server twice as
/// long. So the connection that was used last stays outside of the pool as a spare, and the next call uses it.
#[derive(Debug)]
pub(super) struct Connections {
    pool: PgPool,
    broken: Broken,
    spare: Mutex<Spare>,
}

#[derive(Debug, Default)]
struct Spare {
    loan: Option<Loan>,
    /// The number of calls that acquire a connection.
    waiting: usize,
    /// `true` while a [`Keeper`] exists.
    is_kept: bool,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, is_pooled: bool) -> Arc<Self> {
        let broken = Broken::default();
        let pool = pool(options, is_pooled, broken.clone());
        Arc::new(Self { pool, broken, spare: Mutex::default() })
    }

    /// Returns the spare, or else a connection of the pool.
    pub(super) async fn acquire(&self) -> sqlx::Result<Loan> {
        let _waiting = Waiting::new(&self.spare);
        let is_sound = |spare: &Loan| !self.broken.includes(spare.since.elapsed());
        if let Some(spare) = self.take_spare().filter(is_sound) {
            return Ok(spare);
        }
        // Before the connection is opened, so that a failure in the meantime includes it.
        let since = Instant::now();
        let connection = self.pool.acquire().await?;
        Ok(Loan { connection: Some(connection), since })
    }

    /// Takes a connection back after a call that has ended. It becomes the spare, unless another call needs it.
    pub(super) fn give_back(self: &Arc<Self>, loan: Loan) {
        if loan.is_over() {
            return loan.return_to_pool();
        }
        let mut spare = lock(&self.spare);
        // A waiting call gets its connection from the pool, and no call waits while there is a spare.
        if spare.waiting > 0 || spare.loan.is_some() {
            drop(spare);
            return loan.return_to_pool();
        }
        spare.loan = Some(loan);
        let was_kept = std::mem::replace(&mut spare.is_kept, true);
        drop(spare);
        if !was_kept {
            tokio::spawn(Keeper(Arc::downgrade(self)).run());
        }
    }

    /// Notes that the server or the network failed. Connections that are open now are not used again.
    pub(super) fn note_broken(&self) {
        self.broken.note();
    }

    fn take_spare(&self) -> Option<Loan> {
        lock(&self.spare).loan.take()
    }
}

/// Counts a call that acquires a connection.
struct Waiting<'s>(&'s Mutex<Spare>);

impl<'s> Waiting<'s> {
    fn new(spare: &'s Mutex<Spare>) -> Self {
        lock(spare).waiting += 1;
        Self(spare)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.0).waiting -= 1;
    }
}

/// Returns a spare that no call uses to the pool. If its runtime is shut down first, it closes the spare, which belongs to
/// that runtime.
struct Keeper(Weak<Connections>);

impl Keeper {
    async fn run(self) {
        sleep(MAX_LOAN).await;
        let spare = self.0.upgrade().and_then(|connections| connections.take_spare());
        if let Some(spare) = spare {
            spare.return_to_pool();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let Some(connections) = self.0.upgrade() else { return };
        let mut spare = lock(&connections.spare);
        spare.is_kept = false;
        let left = spare.loan.take();
        drop(spare);
        drop(left);
    }
}

/// A connection outside of the pool. It is closed if it is dropped: a returned connection in the middle of a call would make
/// the pool wait for the end of the call.
#[derive(Debug)]
pub(super) struct Loan {
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
}

impl Loan {
    pub(super) fn connection(&mut self) -> Option<&mut PgConnection> {
        self.connection.as_deref_mut()
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= MAX_LOAN
    }

    /// Returns the connection in a task, which tests it.
    fn return_to_pool(mut self) {
        drop(self.connection.take());
    }
}

/// Closes the connection. This needs no runtime.
impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// When a connection last failed. Connections that were open at that time are not used again.
#[derive(Debug, Clone, Default)]
struct Broken(Arc<Mutex<Option<Instant>>>);

impl Broken {
    fn note(&self) {
        *lock(&self.0) = Some(Instant::now());
    }

    /// Returns `true` if a connection of this age may have failed, too.
    fn includes(&self, age: Duration) -> bool {
        lock(&self.0).is_some_and(|failed| failed.elapsed() <= age)
    }
}

fn pool(options: PgConnectOptions, is_pooled: bool, broken: Broken) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |_, connection| {
            let is_sound = !broken.includes(connection.age);
            Box::pin(async move { Ok(is_sound) })
        });
    let pool = if is_pooled {
        pool
    } else {
        pool.after_connect(|connection, _| Box::pin(prepare_session(connection)))
    };
    pool.connect_lazy_with(options)
}

/// Switches durable commits on, because committed data must survive a crash of the server, even if its configuration
/// differs. Switches plans off that read whole tables: the plan of a prepared statement stays when the tables grow. A
/// statement without another plan would be compiled because of its high cost, so that is off, too.
async fn prepare_session(connection: &mut PgConnection) -> sqlx::Result<()> {
    let set = "SELECT set_config('synchronous_commit', 'on', false)
               WHERE current_setting('synchronous_commit') = 'off'
               UNION ALL SELECT set_config('enable_seqscan', 'off', false)
               UNION ALL SELECT set_config('jit', 'off', false)";
    sqlx::query(set).execute(connection).await?;
    Ok(())
}
