//! The shutdown of a runtime, as a run sees it.

/// The runtime of a timer, a worker or a task of the run was shut down. This is not a failure: the run ends as cancelled.
#[derive(Debug, thiserror::Error)]
#[error("the runtime was shut down")]
pub struct ShutDown;
