//! The outcomes of a run on their way to the caller.

pub(crate) mod outcome_channel;
pub(crate) mod outcome_queue;
pub(crate) mod outcomes;
pub(crate) mod sink;
