//! Runs with a store: what is written, looked up and recovered.

#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod commit_log;
pub(crate) mod durability;
pub(super) mod durable;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "used only with `store`"))]
pub(crate) mod lookups;
