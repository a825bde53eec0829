//! The examples as their users see them: their output, their exit codes, and their reactions to signals. A module per
//! example.
//!
//! `cargo test --all-features --test examples` runs these tests. They need Linux with `sha256sum` and a
//! PostgreSQL server, and they wait in real time.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod binary;
mod bulk_insert;
mod bulk_insert_killed;
mod cargo;
mod clean_text;
#[path = "../durable/cluster.rs"]
#[allow(dead_code, reason = "the tests of the examples do not suspend the server")]
mod cluster;
mod embed;
#[path = "../durable/folder.rs"]
mod folder;
mod harness;
mod hash_files;
mod hyperparameter_search;
mod link_checker;
mod load_shards;
mod picture_hashes;
mod pictures;
mod pipeline;
mod pipeline_stopped;
mod proof;
#[path = "../it/support/random.rs"]
mod random;
mod resize_images;
mod resume_batch;
mod resume_batch_stopped;
mod run_commands;
mod run_commands_stopped;
mod stream_rows;
mod validate_records;
