//! The guide beyond the crate's front page: how to use it in a service, for work that computes, and for
//! results that are taken as they come.
//!
//! These pages are documentation and nothing else: there are no such modules to import from.

#[doc = include_str!("guide/services.md")]
pub mod services {}

#[doc = include_str!("guide/cpu_work.md")]
pub mod cpu_work {}

#[doc = include_str!("guide/streaming.md")]
pub mod streaming {}
