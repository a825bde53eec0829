//! The stores, with real files and a real server, and durable runs in them. One binary with a module for each
//! concern.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod alone;
mod cluster;
mod conformance;
mod failover;
mod folder;
mod kill;
mod large_outputs;
mod pgbouncer;
mod pooled;
mod postgres_connections;
mod postgres_groups;
mod postgres_store;
mod process;
#[path = "../it/support/random.rs"]
mod random;
mod restart;
mod rigged;
mod rules_at_random;
mod rules_batches;
mod rules_cache;
mod rules_checkpoint;
mod rules_checkpoint_order;
mod rules_commit;
mod rules_given_back;
mod rules_lease;
mod rules_recover;
mod rules_serialized;
mod rules_shutdown;
mod rules_store_failure;
#[path = "../it/support/shared.rs"]
mod shared;
mod sqlite_file;
mod sqlite_store;
mod sqlite_writes;
mod support;
mod takeover;
mod time_limits;
mod torn_files;
mod values;
mod warnings;
