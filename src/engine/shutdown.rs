//! The end of a runtime, as a run notices it.

/// The runtime that a timer, a worker or a task of the run belongs to was shut down. It is no failure: the run ends as
/// cancelled.
#[derive(Debug, thiserror::Error)]
#[error("the runtime was shut down")]
pub struct ShutDown;
