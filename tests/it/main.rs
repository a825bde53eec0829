//! The rules, the model, and what holds the house together. One binary, a module a concern.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod config;
mod drop_anywhere;
mod errors;
mod model;
mod rules_admission;
mod rules_attempts;
mod rules_stopping;
mod rules_tracing;
mod rules_verdict;
mod snooze;
mod support;
mod tidy;
mod types;
mod zip;
