//! Explores schedules of the parallel engine, and of some of its parts alone.
//!
//! This target compiles the library's own files again, with the `rt` of this folder in place of `src/rt.rs`. At each lock,
//! atomic, task and timer of the engine, a scheduler of `shuttle` then decides which task runs next. Each schedule runs one
//! case, drawn at random, and checks the properties that every schedule must have. A deadlock is a failure, and so is an
//! exchange without end.
//!
//! ```text
//! cargo test -p test-explorer                                       a few thousand schedules, as in `tests/all.sh`
//! EXPLORER_SCHEDULES=100000 cargo test --release -p test-explorer   100,000 schedules of each test
//! cargo test -p test-explorer -- limiter                            only tests with a word in their names
//! EXPLORER_REPLAY=file cargo test -p test-explorer -- limiter       replays a schedule that a failure has printed
//! ```
//!
//! Not explored: items in one task, `map_blocking`, durable runs, and calls to other machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod attempts;
mod case;
#[cfg(feature = "store")]
mod checkpoint;
mod ends;
mod explore;
mod flag;
mod parts;
mod rt;

/// The library. Its files import one another as `crate::engine`, so the root of this crate imports them all.
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the explorer uses a part of the library, and none of its unit tests"
)]
#[path = "../../src"]
mod library {
    pub mod builder;
    pub mod config;
    pub mod context;
    pub mod count;
    #[cfg(feature = "signal")]
    pub mod ctrl_c;
    pub mod decimal;
    pub mod engine;
    pub mod error;
    pub mod for_each;
    pub mod handle;
    pub mod keyed_limiter;
    pub mod limiter;
    pub mod lock;
    pub mod observe;
    pub mod outcome;
    pub mod over;
    pub mod panic_payload;
    pub mod progress;
    pub mod result;
    pub mod retry;
    pub mod retry_budget;
    pub mod run;
    pub mod signals;
    pub mod stream;
    pub mod task;
    pub mod verdict;
    pub mod zip;
}
use library::*;

fn main() {
    explore::all(&[
        ("runs", ends::run_case, 4_000),
        ("mixed weights", ends::run_case_of_mixed_weights, 4_000),
        ("limiter", parts::limiter::permits_come_back, 1_000),
        ("keyed limiter", parts::keyed_limiter::keys_are_forgotten, 1_000),
        ("outcome channel", parts::outcome_channel::every_outcome_is_taken, 1_000),
        ("signals", parts::signals::orders_are_heard, 1_000),
        ("lock", parts::lock::one_at_a_time, 1_000),
    ]);
}
