//! The caller's code: the source, the map function, and the functions of the options.

pub(crate) mod batches;
pub(crate) mod bounds;
pub(crate) mod call;
pub(crate) mod hooks;
pub(crate) mod leftovers;
pub(crate) mod source;
