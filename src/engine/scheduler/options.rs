//! The options of a run.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::batches::BatchOptions;
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
    /// The options of the batches, if one call takes several items.
    pub(crate) batches: Option<BatchOptions>,
}

impl Options {
    pub(crate) fn new(config: Arc<Config>, function: &'static str) -> Self {
        let (token, drain_token, listen, reporter, batches) = Default::default();
        Self { config, function, token, drain_token, listen, ordered: false, reporter, batches }
    }

    /// Makes it a run of batches of this size.
    pub(crate) fn set_batch_size(&mut self, size: usize) {
        self.batches = Some(BatchOptions::new(size));
    }

    /// Notes that the items have weights that count permits. A run of batches refuses them.
    pub(crate) fn note_weights(&mut self) {
        if let Some(batches) = &mut self.batches {
            batches.is_weighted = true;
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(self.function)
    }
}
