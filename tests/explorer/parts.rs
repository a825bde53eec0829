//! Parts of the engine, each alone.

pub(crate) mod bell;
pub(crate) mod limiter;
pub(crate) mod lock;
pub(crate) mod outbox;
