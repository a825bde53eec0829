//! The addresses of a handler.

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use serde_json::json;

use super::engine::Engine;
use crate::error::ConfigError;

/// The addresses of a handler at the ingress.
#[derive(Debug)]
pub(super) struct Target {
    service: String,
    handler: String,
    /// Runs the handler and waits for its outcome.
    pub(super) call: Uri,
    /// Runs the handler a minute later, and does not wait.
    pub(super) send: Uri,
    /// Returns the outcome of a call, if it has ended.
    pub(super) output: Uri,
    /// Returns the id of a call's invocation, even if there is none yet.
    pub(super) lookup: Uri,
}

impl Target {
    pub(super) fn new(engine: &Engine, service: &str, handler: &str) -> Result<Self, ConfigError> {
        for (field, name) in [("service", service), ("handler", handler)] {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || !name.chars().all(is_allowed) || [".", ".."].contains(&name) {
                let allowed = "one or more ASCII letters, digits, `_`, `-` or `.`, but not `.` or `..`";
                return Err(ConfigError::new(field, format_args!("`{}`", name.escape_debug()), allowed));
            }
        }
        let uri = |operation: &str, query: &str| {
            let path = format!("/restate/{operation}/{service}/{handler}{query}");
            engine.ingress.uri(&path)
        };
        Ok(Self {
            service: service.to_owned(),
            handler: handler.to_owned(),
            call: uri("call", "")?,
            send: uri("send", "?delay=PT60S")?,
            output: engine.ingress.uri("/restate/output")?,
            lookup: engine.ingress.uri("/restate/lookup")?,
        })
    }

    /// Returns the body of a query about the call with this key.
    pub(super) fn query(&self, key: &HeaderValue) -> Bytes {
        let key = key.to_str().unwrap_or_default();
        let body = json!({
            "target": "idempotentInvocation",
            "service": self.service,
            "handler": self.handler,
            "idempotencyKey": key,
        });
        body.to_string().into()
    }

    /// Returns a name that no other handler has.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.service, self.handler)
    }
}
