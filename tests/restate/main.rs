//! Runs over Restate, against the real server and real workers. One binary, with a module per concern.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod bad_input;
mod balancer;
mod binary;
mod checksums;
mod descriptors;
#[path = "../durable/folder.rs"]
mod folder;
mod guarded;
#[allow(dead_code, unused_imports, reason = "the tests of the other examples use more of it")]
#[path = "../examples/harness/mod.rs"]
mod harness;
mod kill;
mod late;
mod odd;
mod page;
mod ports;
mod process;
mod proxies;
mod proxy;
#[path = "../it/support/random.rs"]
mod random;
mod relay;
mod restate_map;
mod restate_map_proxies;
mod restate_map_stopped;
mod rules_again;
mod rules_answers;
mod rules_cancelling;
mod rules_engine;
mod rules_failures;
mod rules_messages;
mod rules_settled;
mod rules_stopping;
mod rules_twice;
mod scene;
mod sequences;
mod server;
mod support;
#[path = "../durable/warnings.rs"]
mod warnings;
mod work;
mod worker;
