//! The example `axum_service` as its clients see it: its endpoints, and itself under load.
//!
//! It is a test of its own, because the service must be a process of its own: what is measured is the tasks of
//! its runtime and its resident memory, and in one process those of two hundred clients would be among them. It
//! builds the example as it was built itself, so `cargo test --release --test service` tests the release build.
//! It needs Linux, where a process has its account in `/proc`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

#[path = "../examples/binary.rs"]
mod binary;
mod endpoints;
mod lines;
mod load;
mod server;
