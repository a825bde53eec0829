//! Runs with a store: the commit log, the cache lookups, and the changes of a run by both.

#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod commit_log;
pub(crate) mod durability;
pub(super) mod durable;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod lookups;
pub(crate) mod previous;
