//! The example `axum_service` as its clients see it: its endpoints, and its behaviour under load.
//!
//! It is a separate test, because the service must be a separate process. The test measures the tasks of its runtime and
//! its resident memory, which in one process would include those of two hundred clients. `cargo test --release -p axum_service
//! --test service` tests the release build. It needs Linux, because it reads the account of a process in `/proc`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod endpoints;
mod lines;
mod load;
mod server;
