//! The stores, against real files and a real server, and what is durable in them. One binary, a module a concern.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod cluster;
mod conformance;
mod folder;
mod postgres_store;
mod sqlite_store;
mod torn_files;
