//! The rules, the model, and the checks of the code base. One binary with a module for each concern.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod adaptive_simulation;
mod awaiting;
mod config;
#[cfg(all(unix, feature = "signal"))]
mod ctrl_c;
mod doubts;
mod drop_anywhere;
mod error_texts;
mod errors;
mod every_batch;
mod every_end;
mod inline_wakers;
mod inputs;
#[cfg(feature = "macros")]
mod macros;
#[cfg(feature = "metrics")]
mod metrics;
mod model;
mod not_retried;
mod observers;
mod permit_waits;
#[cfg(feature = "indicatif")]
mod progress_bar;
mod recorded_trace;
mod rules_account;
mod rules_adaptive;
mod rules_admission;
mod rules_batcher;
mod rules_batches;
mod rules_batches_failed;
mod rules_batches_filling;
mod rules_batches_random;
mod rules_batches_service;
mod rules_blocking;
mod rules_corners;
mod rules_corners_ends;
mod rules_corners_parallel;
mod rules_faults;
mod rules_give_back;
mod rules_grace;
mod rules_handle;
mod rules_hold_back;
mod rules_item_states;
mod rules_keys;
mod rules_labels;
mod rules_leftovers;
mod rules_limit_per;
mod rules_limiter;
mod rules_limits;
mod rules_panic_payloads;
mod rules_panics;
mod rules_parallel;
mod rules_partial;
mod rules_permits_in_use;
mod rules_places;
mod rules_progress;
#[cfg(feature = "http")]
mod rules_quota;
mod rules_rates;
mod rules_ratio;
mod rules_redo;
mod rules_results;
mod rules_retries;
mod rules_retry_budget;
mod rules_retry_budget_waits;
mod rules_retry_settings;
mod rules_several_limiters;
mod rules_shutdown;
mod rules_stopping;
mod rules_streaming;
mod rules_terminals;
mod rules_tracing;
mod rules_turns;
mod rules_verdict;
mod rules_waiting;
mod rules_weights;
#[cfg(feature = "report")]
mod run_report;
#[cfg(feature = "serde")]
mod serde_config;
mod shutdown_table;
mod snippets;
mod snippets_ends;
mod snooze;
mod support;
mod tidy;
mod types;
mod zip;
