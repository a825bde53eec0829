//! An operation that outlives a broken connection and a restart of the server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::StoreError;
use crate::store::fault::Fault;

/// The wait before the second try; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Retry {
    /// For how long, from the first failure on.
    pub(super) time: Duration,
}

impl Retry {
    /// Does an operation that may be done twice.
    pub(super) async fn run<T, F>(
        &self,
        doing: &'static str,
        operation: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut fault = match operation().await {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        let failed = Instant::now();
        let mut wait = FIRST_WAIT;
        while is_transient(&fault) && failed.elapsed() < self.time {
            tracing::warn!(%fault, ?wait, "{doing} failed and is tried again");
            sleep(wait).await;
            wait = (2 * wait).min(LONGEST_WAIT);
            match operation().await {
                Ok(done) => return Ok(done),
                // That the pool has waited in vain does not say why: what went wrong before does.
                Err(Fault::Sql(sqlx::Error::PoolTimedOut)) => {}
                Err(later) => fault = later,
            }
        }
        Err(fault.into_store_error(doing))
    }
}

/// Whether the same may succeed a little later: the connection broke, the server stops, starts, or is full, or two
/// transactions got into each other's way.
fn is_transient(fault: &Fault) -> bool {
    match fault {
        Fault::Store(_) => false,
        Fault::Sql(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => true,
        Fault::Sql(error) => error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| is_transient_state(&code)),
    }
}

/// Classes 08 (connection) and 57P (the server stops or starts), too many connections, serialization, deadlock.
fn is_transient_state(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P") || ["53300", "40001", "40P01"].contains(&code)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    #[test]
    fn a_state_is_transient_or_it_is_not() {
        for code in ["08006", "08003", "57P01", "57P02", "57P03", "53300", "40001", "40P01"] {
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
        assert_eq!(error.to_string(), "asking: error communicating with database: connection reset");
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
        assert!(matches!(retry.run("asking", operation).await, Err(StoreError::LeaseLost { .. })));
        assert_eq!(tries.get(), 1);
    }
}
