//! Where the calls of a handler go.

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use serde_json::json;

use super::engine::Engine;
use crate::error::ConfigError;

/// Where the calls of a handler go.
#[derive(Debug)]
pub(super) struct Target {
    service: String,
    handler: String,
    /// Runs the handler and waits for its outcome.
    pub(super) call: Uri,
    /// Has the handler run some time later, and does not wait.
    pub(super) send: Uri,
    /// Gives the outcome of a call, if it has ended.
    pub(super) output: Uri,
    /// Gives the id of a call's invocation, whether there is one or not.
    pub(super) lookup: Uri,
}

impl Target {
    pub(super) fn new(engine: &Engine, service: &str, handler: &str) -> Result<Self, ConfigError> {
        for (field, name) in [("service", service), ("handler", handler)] {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || !name.chars().all(is_allowed) || [".", ".."].contains(&name) {
                let allowed = "a name of letters and digits of ASCII, `_`, `-` and `.`";
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

    /// The body of a question about the call that has a key.
    pub(super) fn question(&self, key: &HeaderValue) -> Bytes {
        let key = key.to_str().unwrap_or_default();
        let question = json!({
            "target": "idempotentInvocation",
            "service": self.service,
            "handler": self.handler,
            "idempotencyKey": key,
        });
        question.to_string().into()
    }

    /// What calls of other handlers have not.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.service, self.handler)
    }
}
