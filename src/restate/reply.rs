//! What a server has answered, or why it has not.

use std::error::Error;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;

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

    /// Whether it is the outcome of an invocation, good or bad. Anything may stand before the ingress, or in its place, and
    /// answer with any status; the engine names the invocation. Servers before 1.7.6 do not name the source of an error.
    pub(super) fn is_outcome(&self) -> bool {
        !self.invocation_id().is_empty()
            && ["", "invocation"].contains(&self.header("x-restate-error-source"))
    }

    /// Whether it is the output of an invocation. A terminal error may have any code, and its answer that status.
    pub(super) fn is_output(&self) -> bool {
        self.is_outcome() && self.status.is_success() && self.header("x-restate-error-source").is_empty()
    }

    /// Whether the engine kept this outcome before it was asked for: then it says until when it keeps it.
    pub(super) fn was_kept(&self) -> bool {
        self.is_outcome() && !self.header("idempotency-expires").is_empty()
    }

    /// Whether the engine has the invocation, which has not ended yet.
    pub(super) fn is_not_ready(&self) -> bool {
        self.status.as_u16() == 470
    }

    /// Whether the ingress knows no such thing: a handler, or an invocation. Servers before 1.7.6 do not name the source, but
    /// have a message in JSON, as no page of a proxy has.
    pub(super) fn is_not_found(&self) -> bool {
        let is_unnamed = self.header("x-restate-error-source").is_empty() && self.invocation_id().is_empty();
        let is_engines = self.is_of_ingress() || is_unnamed && self.refusal().is_some();
        self.status == StatusCode::NOT_FOUND && is_engines
    }

    /// What the engine and the handlers say of an error.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn is_transient(&self) -> bool {
        let is_busy = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        !self.is_outcome() && (self.status.is_server_error() || is_busy)
    }
}

/// The body of an error of the engine, or of a handler.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// Servers before 1.7.6 have none in errors of their own.
    pub(super) code: Option<u16>,
    pub(super) message: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// No try was answered in time.
    Unreachable {
        server: &'static str,
        /// How long ago the first of them failed.
        since: Duration,
        tries: u32,
        /// Whether a try came so far that the server may have it.
        is_sent: bool,
        source: BoxError,
    },
    /// The server's certificate is not trusted.
    Certificate { server: &'static str, source: BoxError },
    /// The answer is longer than allowed.
    TooLarge { size: u64, limit: u64 },
}

impl From<Fault> for RestateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable { server, since, tries, source, .. } => {
                Self::Unavailable { server, since, tries, source }
            }
            Fault::Certificate { server, source } => Self::Certificate { server, source },
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
