//! Counts the failed tries of a request, and decides when it is sent again.

use std::time::Duration;

use tokio::time::Instant;

use super::health::Trouble;
use super::reply::{Fault, Reply};
use crate::error::BoxError;
use crate::retry::RetryPolicy;

/// The waits between tries. The retry time limits their number.
const RETRY: RetryPolicy = RetryPolicy {
    retries: u32::MAX,
    delay: Duration::from_millis(50),
    max_delay: Duration::from_secs(5),
    multiplier: 2.0,
    jitter: 0.5,
    timeouts: true,
};

/// A connection that was cut within this time is made again only after a growing wait.
const SOON: Duration = Duration::from_secs(1);

/// The result of one try.
pub(super) enum Try {
    Ended(Result<Reply, Fault>),
    Failed(Failure),
}

/// The reason why a try has no answer. Another try may have one.
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    /// The time at which the try began.
    pub(super) began: Instant,
    /// `true` if the server may have the request.
    pub(super) is_sent: bool,
    pub(super) error: BoxError,
}

pub(super) fn failed(trouble: Trouble, began: Instant, is_sent: bool, error: String) -> Failure {
    Failure { trouble, began, is_sent, error: error.into() }
}

/// The tries of one request.
#[derive(Debug, Default)]
pub(super) struct Tries {
    first_failure: Option<Instant>,
    failures: u32,
    cuts: u32,
    pub(super) is_sent: bool,
}

impl Tries {
    /// Counts a failure. Returns how long ago the first one was, and how long to wait before the next try.
    pub(super) fn fail(&mut self, is_sent: bool) -> (Duration, Duration) {
        self.is_sent |= is_sent;
        self.failures = self.failures.saturating_add(1);
        let since = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        (since, RETRY.wait_before(self.failures))
    }

    /// Counts a connection that was cut while its server was well. Returns how long to wait before the next one.
    pub(super) fn cut(&mut self, lasted: Duration) -> Duration {
        let cuts = if lasted < SOON { self.cuts.saturating_add(1) } else { 1 };
        *self = Self { cuts, is_sent: true, ..Self::default() };
        RETRY.wait_before(cuts)
    }

    /// Returns how many tries in succession have failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}
