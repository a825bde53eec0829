//! The ways out: where the outcomes of a run go.

pub(crate) mod outcome_channel;
pub(crate) mod outcome_queue;
pub(crate) mod outcomes;
pub(crate) mod sink;
