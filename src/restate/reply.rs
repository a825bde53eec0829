//! The answer of a server, or the reason why there is none.

use std::error::Error;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::RestateError;
use crate::error::BoxError;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// Returns the text of a header, or an empty text if there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the id of the invocation, or an empty text if the engine does not name it.
    pub(super) fn invocation_id(&self) -> &str {
        Some(self.header("x-restate-id"))
            .filter(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or_default()
    }

    /// Returns `true` if the ingress itself has refused the request, not a proxy before it.
    pub(super) fn is_from_ingress(&self) -> bool {
        self.header("x-restate-error-source") == "ingress"
    }

    /// Returns `true` if this is the outcome of an invocation, a success or a failure. A program before the ingress, or in
    /// its place, may answer with any status, but only the engine names the invocation. Servers before 1.7.6 do not name the
    /// source of an error.
    pub(super) fn is_outcome(&self) -> bool {
        !self.invocation_id().is_empty()
            && ["", "invocation"].contains(&self.header("x-restate-error-source"))
    }

    /// Returns `true` if this is the output of an invocation. A terminal error may have any code, and its answer has that
    /// status.
    pub(super) fn is_output(&self) -> bool {
        self.is_outcome() && self.status.is_success() && self.header("x-restate-error-source").is_empty()
    }

    /// Returns `true` if the engine had kept this outcome before the call arrived. Then it names the time of its expiry.
    pub(super) fn was_kept(&self) -> bool {
        self.is_outcome() && !self.header("idempotency-expires").is_empty()
    }

    /// Returns `true` if the engine has the invocation, which has not ended yet.
    pub(super) fn is_not_ready(&self) -> bool {
        self.status.as_u16() == 470
    }

    /// Returns `true` if the ingress does not know the handler or the invocation. Servers before 1.7.6 do not name the
    /// source of an error. They send a message in JSON, which the error page of a proxy is not.
    pub(super) fn is_not_found(&self) -> bool {
        let is_unnamed = self.header("x-restate-error-source").is_empty() && self.invocation_id().is_empty();
        let is_from_engine = self.is_from_ingress() || is_unnamed && self.error_body().is_some();
        self.status == StatusCode::NOT_FOUND && is_from_engine
    }

    /// Returns the description of an error by the engine or a handler.
    pub(super) fn error_body(&self) -> Option<ErrorBody> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns `true` if the same request may get another answer a little later.
    pub(super) fn is_transient(&self) -> bool {
        let is_busy = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        !self.is_outcome() && (self.status.is_server_error() || is_busy)
    }
}

/// The body of an error of the engine, or of a handler.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    /// Servers before 1.7.6 do not set it in errors of their own.
    pub(super) code: Option<u16>,
    pub(super) message: String,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// No try was answered in time.
    Unreachable {
        server: &'static str,
        /// The time since the first of them failed.
        since: Duration,
        tries: u32,
        /// `true` if the server may have received one of the tries.
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

/// Returns an error with its causes, in one line.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns the beginning of a body, in quotes and in one line.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(body.get(..LONGEST).unwrap_or(body));
    let ellipsis = if body.len() > LONGEST { "..." } else { "" };
    format!("`{}{ellipsis}`", text.trim().escape_debug())
}
