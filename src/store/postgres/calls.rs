//! Calls that are retried after a broken connection, a restart or a failover.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::connections::Connections;
use super::link::{Link, Scope};
use crate::store::StoreError;
use crate::store::fault::Fault;

/// The wait before the second try; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How long one try may take.
pub(super) const MAX_TRY: Duration = Duration::from_secs(30);

/// How long one try may take if it reads or deletes whole tables.
const MAX_BULK_TRY: Duration = Duration::from_secs(600);

/// The name, the scope and the time limit of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) doing: &'static str,
    pub(super) scope: Scope,
    max_try: Duration,
}

impl Call {
    pub(super) const fn new(doing: &'static str, scope: Scope) -> Self {
        Self { doing, scope, max_try: MAX_TRY }
    }

    /// Creates a call that reads or deletes whole tables.
    pub(super) const fn bulk(doing: &'static str, scope: Scope) -> Self {
        Self { doing, scope, max_try: MAX_BULK_TRY }
    }
}

/// Makes calls, and retries them if the connection or the server fails.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) connections: Arc<Connections>,
    /// `true` if the server's sessions are shared with other connections.
    pub(super) is_pooled: bool,
    pub(super) retry: Retry,
}

impl Calls {
    pub(super) async fn run<T, F>(&self, call: Call, operation: impl Fn(Link) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.try_run(call, operation).await.map_err(|fault| fault.into_store_error(call.doing))
    }

    pub(super) async fn try_run<T, F>(&self, call: Call, operation: impl Fn(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        self.retry.run(call.doing, || self.within_time(call, &operation)).await
    }

    async fn within_time<T, F>(&self, call: Call, operation: &impl Fn(Link) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let once = async {
            let mut link = Link::acquire(&self.connections, self.is_pooled).await?;
            link.begin(call.scope).await?;
            operation(link).await
        };
        let tried = timeout(call.max_try, once).await;
        let tried = tried.unwrap_or_else(|_| Err(no_answer(call.max_try)));
        if tried.as_ref().is_err_and(is_of_all_connections) {
            self.connections.note_broken();
        }
        tried
    }
}

pub(super) fn no_answer(waited: Duration) -> Fault {
    let waited = humantime::format_duration(waited);
    Fault::Sql(sqlx::Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the server did not answer for {waited}"),
    )))
}

#[derive(Debug, Clone)]
pub(super) struct Retry {
    /// How long an operation is retried, from its first failure on.
    pub(super) time: Duration,
}

impl Retry {
    /// Runs an operation that may be executed twice.
    async fn run<T, F>(&self, doing: &'static str, operation: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut fault = match operation().await {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        let failed = tokio::time::Instant::now();
        let mut wait = FIRST_WAIT;
        while is_transient(&fault) && failed.elapsed() < self.time {
            tracing::warn!(%fault, ?wait, "{doing} failed, will retry");
            sleep(wait).await;
            wait = (2 * wait).min(MAX_WAIT);
            match operation().await {
                Ok(done) => return Ok(done),
                // A timeout of the pool does not name the cause: the error before it does.
                Err(Fault::Sql(sqlx::Error::PoolTimedOut)) => {}
                Err(later) => fault = later,
            }
        }
        Err(fault)
    }
}

/// Returns `true` if a retry on another connection may succeed. The connection broke, the server stops, starts, is full or
/// became read-only, or two transactions conflicted.
pub(super) fn is_transient(fault: &Fault) -> bool {
    match fault {
        Fault::Store(_) => false,
        Fault::Sql(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => true,
        Fault::Sql(_) => state(fault).is_some_and(|code| is_transient_state(&code)),
    }
}

/// Returns `true` if the other connections may fail in the same way, because the cause is the server or the network.
fn is_of_all_connections(fault: &Fault) -> bool {
    match fault {
        Fault::Sql(sqlx::Error::Io(_)) => true,
        _ => state(fault).is_some_and(|code| is_state_of_server(&code)),
    }
}

/// Returns the SQLSTATE of an error of the database.
fn state(fault: &Fault) -> Option<Cow<'_, str>> {
    match fault {
        Fault::Sql(sqlx::Error::Database(error)) => error.code(),
        _ => None,
    }
}

/// Returns `true` for the states of the server, too many connections, serialization failures and deadlocks.
fn is_transient_state(code: &str) -> bool {
    is_state_of_server(code) || ["53300", "40001", "40P01"].contains(&code)
}

/// Returns `true` for classes 08 (connection) and 57P (the server stops or starts), and for a read-only server: a former
/// primary after a failover.
fn is_state_of_server(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P") || code == "25006"
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_state_is_transient_or_it_is_not() {
        for code in ["08006", "08003", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "25006"] {
            assert!(is_transient_state(code), "{code}");
        }
        for code in ["23505", "42P01", "53100", "57014", "28P01", "XX001", ""] {
            assert!(!is_transient_state(code), "{code}");
        }
    }

    fn broken() -> Fault {
        Fault::Sql(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_comes_back_is_not_noticed() {
        let retry = Retry { time: Duration::from_secs(30) };
        let (start, tries) = (Instant::now(), Cell::new(0));
        let operation = || async {
            tries.set(tries.get() + 1);
            if start.elapsed() < Duration::from_secs(29) { Err(broken()) } else { Ok(tries.get()) }
        };
        assert!(retry.run("asking", operation).await.unwrap() > 10);
        assert!(start.elapsed() < Duration::from_secs(32));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_is_an_error_that_says_why() {
        let retry = Retry { time: Duration::from_secs(30) };
        let (start, tries) = (Instant::now(), Cell::new(0));
        let operation = || async {
            tries.set(tries.get() + 1);
            if tries.get() == 1 { Err::<(), _>(broken()) } else { Err(sqlx::Error::PoolTimedOut.into()) }
        };
        let error = retry.run("asking", operation).await.unwrap_err();
        assert_eq!(error.to_string(), "error communicating with database: connection reset");
        assert!((30..33).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert!(tries.get() > 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_for_good_is_not_tried_again() {
        let tries = Cell::new(0);
        let operation = || async {
            tries.set(tries.get() + 1);
            Err::<(), _>(StoreError::lease_lost("run", "holder", crate::store::LeaseLoss::Forgotten).into())
        };
        let retry = Retry { time: Duration::from_secs(30) };
        assert!(matches!(
            retry.run("asking", operation).await,
            Err(Fault::Store(StoreError::LeaseLost { .. }))
        ));
        assert_eq!(tries.get(), 1);
    }
}
