//! What a server has answered, or why it has not.

use std::error::Error;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};

use super::RestateError;
use crate::error::BoxError;

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The text of a header; empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the engine calls the invocation; empty where it does not say.
    pub(super) fn invocation_id(&self) -> &str {
        Some(self.header("x-restate-id"))
            .filter(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or_default()
    }

    /// Whether the ingress itself has refused, and not a proxy before it.
    pub(super) fn is_of_ingress(&self) -> bool {
        self.header("x-restate-error-source") == "ingress"
    }

    /// Whether it is the outcome of an invocation, good or bad.
    pub(super) fn is_of_invocation(&self) -> bool {
        self.status.is_success() || self.header("x-restate-error-source") == "invocation"
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn is_transient(&self) -> bool {
        let is_busy = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        !self.is_of_invocation() && (self.status.is_server_error() || is_busy)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// No try was answered in time.
    Unreachable {
        /// How long ago the first of them failed.
        since: Duration,
        tries: u32,
        /// Whether a try came so far that the server may have it.
        is_sent: bool,
        source: BoxError,
    },
    /// The answer is longer than allowed.
    TooLarge { size: u64, limit: u64 },
}

impl Fault {
    /// The server has the request, and did not answer in this time.
    pub(super) fn unanswered(since: Duration, source: impl Into<BoxError>) -> Self {
        Self::Unreachable { since, tries: 1, is_sent: true, source: source.into() }
    }
}

impl From<Fault> for RestateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable { since, tries, source, .. } => Self::Unavailable { since, tries, source },
            Fault::TooLarge { size, limit } => Self::TooLarge { what: "output", size, limit },
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The beginning of a body, in quotes and in one line.
pub(super) fn beginning(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(body.get(..LONGEST).unwrap_or(body));
    let ellipsis = if body.len() > LONGEST { "..." } else { "" };
    format!("`{}{ellipsis}`", text.trim().escape_debug())
}
