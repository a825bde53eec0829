//! The options of a run.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::progress::Reporter;
use crate::signals::{SignalSource, Signals};

/// The options of a run that do not depend on its types.
pub(crate) struct Options {
    pub(crate) config: Arc<Config>,
    /// The type name of the map function, which names the run if the task has no name.
    pub(crate) function: &'static str,
    pub(crate) token: Option<CancellationToken>,
    pub(crate) drain_token: Option<CancellationToken>,
    /// Creates a source of signals for the run with this name.
    pub(crate) listen: Option<fn(Arc<Signals>, String) -> SignalSource>,
    /// `true` if outcomes are given out in the order of the input.
    pub(crate) ordered: bool,
    /// Lets a handle or a stream control the run and ask for its progress.
    pub(crate) reporter: Option<Reporter>,
}

impl Options {
    pub(crate) fn new(config: Arc<Config>, function: &'static str) -> Self {
        let (token, drain_token, listen, reporter) = Default::default();
        Self { config, function, token, drain_token, listen, ordered: false, reporter }
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(self.function)
    }
}
