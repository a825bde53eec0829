//! Parts of the engine, each alone.

pub(crate) mod keyed_limiter;
pub(crate) mod limiter;
pub(crate) mod lock;
pub(crate) mod outcome_channel;
pub(crate) mod signals;
