//! The names by which the engine knows the calls for an item.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderValue;

use crate::context::ItemContext;
use crate::error::ConfigError;
use crate::random::random;

/// The id of the runs of a handler.
#[derive(Debug, Clone)]
pub(super) enum RunId {
    /// The user has chosen it. A later run with this id finds the outcomes of this one.
    Chosen(String),
    /// No id was chosen. No two calls have a key in common, so no run finds the outcomes of another one.
    Random { beginning: String, calls: Arc<AtomicU64> },
}

impl RunId {
    pub(super) fn random() -> Self {
        Self::Random { beginning: format!("{:016x}", random()), calls: Arc::default() }
    }

    /// Returns the name of an item, for one attempt.
    ///
    /// # Errors
    ///
    /// Returns an error if the run id is empty or has a character that is not allowed.
    pub(super) fn name(&self, cx: &ItemContext) -> Result<Name, ConfigError> {
        let (run_id, call) = match self {
            Self::Chosen(run_id) => (run_id, None),
            Self::Random { beginning, calls } => (beginning, Some(calls.fetch_add(1, Ordering::Relaxed))),
        };
        if run_id.is_empty() || !run_id.chars().all(|c| c.is_ascii_graphic()) {
            let found = format!("`{}`", run_id.escape_debug());
            return Err(ConfigError::new("run_id", found, "one or more visible ASCII characters"));
        }
        Ok(Name { item: format!("{run_id}.{}", cx.index()), attempt: cx.attempt(), call })
    }
}

/// The name of an item, from which its keys are made.
#[derive(Debug, Clone)]
pub(super) struct Name {
    /// The id of the run and the index of the item.
    pub(super) item: String,
    pub(super) attempt: u32,
    /// The number of the call, if there is no run id.
    call: Option<u64>,
}

impl Name {
    /// Returns the [idempotency key](https://docs.restate.dev/services/invocation/http) with a number, from 1.
    pub(super) fn key(&self, number: u32) -> Result<HeaderValue, ConfigError> {
        let key = match self.call {
            None => format!("{}.{number}", self.item),
            Some(call) => format!("{}.{number}.{call}", self.item),
        };
        HeaderValue::try_from(key)
            .map_err(|error| ConfigError::new("run_id", error, "valid in an HTTP header"))
    }

    /// Returns `true` if no other call shares its keys.
    pub(super) fn is_of_one_call(&self) -> bool {
        self.call.is_some()
    }

    /// Returns the number of the first key. If no two calls share a key, it is the number of the attempt.
    pub(super) fn first_number(&self) -> u32 {
        if self.is_of_one_call() { self.attempt } else { 1 }
    }

    /// Returns the largest number of outcomes in the engine that earlier attempts of this run have had.
    pub(super) fn earlier_attempts(&self) -> u32 {
        if self.is_of_one_call() { 0 } else { self.attempt.saturating_sub(1) }
    }
}
