//! Where the calls of a handler go.

use hyper::Uri;

use super::engine::Engine;
use crate::error::ConfigError;

/// Where the calls of a handler go.
#[derive(Debug)]
pub(super) struct Target {
    /// Runs the handler and waits for its outcome.
    pub(super) call: Uri,
    /// Has the handler run some time later, and does not wait.
    pub(super) send: Uri,
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
        Ok(Self { call: uri("call", "")?, send: uri("send", "?delay=PT10S")? })
    }
}
