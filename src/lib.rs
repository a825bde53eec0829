#![doc = include_str!("guide.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod config;
mod context;
mod engine;
mod error;
#[cfg(feature = "serde")]
mod map_task_config;
mod observe;
mod outcome;
mod result;
mod retry;
mod run;
mod task;
mod verdict;
mod zip;

pub use builder::AsyncMapTaskBuilder;
pub use config::{
    DEFAULT_CONCURRENCY, DEFAULT_MAX_RETRY_DELAY, DEFAULT_MIN_SUCCESS_RATIO, DEFAULT_RETRIES,
    DEFAULT_RETRY_DELAY, DEFAULT_RETRY_JITTER, DEFAULT_RETRY_MULTIPLIER,
};
pub use context::ItemContext;
pub use error::{BoxError, ConfigError, FailureReason, MapTaskError};
#[cfg(feature = "serde")]
pub use map_task_config::MapTaskConfig;
pub use observe::{Event, Observer};
pub use outcome::{FailureKind, ItemError, TimeoutScope};
pub use result::{MapTaskResult, Summary};
pub use run::{MapRun, Over};
pub use task::AsyncMapTask;
pub use zip::{LengthMismatch, zip_exact, zip3_exact};

// The code in the README is tested as the crate's own is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
