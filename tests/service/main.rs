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
mod limits;
mod lines;
mod load;
mod metrics;
mod outbound;
mod secrets;
mod server;
mod strangers;

// The parts of the example that are tested without a process: a server of a test has no public address.
#[path = "../../examples/axum_service/src/fetch.rs"]
#[allow(dead_code, reason = "the tests use a part of it")]
mod fetch;
#[path = "../../examples/axum_service/src/internal.rs"]
mod internal;
#[path = "../../examples/axum_service/src/mask.rs"]
#[allow(dead_code, reason = "the tests use a part of it")]
mod mask;
#[path = "../../examples/axum_service/src/metrics.rs"]
#[allow(dead_code, reason = "the tests use a part of it")]
mod service_metrics;
