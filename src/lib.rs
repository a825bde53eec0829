#![doc = include_str!("guide.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "http",
        feature = "indicatif",
        feature = "macros",
        feature = "metrics",
        feature = "postgres",
        feature = "report",
        feature = "restate",
        feature = "serde",
        feature = "signal",
        feature = "sqlite"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "pages link to what the other features add")
)]

mod batcher;
mod builder;
#[cfg(feature = "store")]
mod cache;
#[cfg(feature = "store")]
mod checkpoint;
mod config;
mod context;
mod count;
#[cfg(feature = "signal")]
mod ctrl_c;
mod decimal;
mod engine;
mod error;
mod for_each;
mod signals;
// Pages of documentation, not an importable module.
#[cfg(feature = "macros")]
#[doc(hidden)]
#[path = "macros.rs"]
pub mod __macros;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod keyed_limiter;
mod limiter;
mod lock;
#[cfg(feature = "serde")]
mod map_task_config;
#[cfg(feature = "metrics")]
mod metrics_observer;
mod observe;
mod outcome;
mod over;
mod panic_payload;
pub mod plan;
mod progress;
#[cfg(feature = "indicatif")]
mod progress_bar;
#[cfg(any(feature = "store", feature = "restate"))]
mod random;
#[cfg(feature = "store")]
mod recover;
#[cfg(feature = "restate")]
pub mod restate;
mod result;
mod retry;
#[cfg(feature = "http")]
mod retry_after_header;
mod retry_budget;
mod rt;
mod run;
#[cfg(feature = "report")]
mod run_report;
#[cfg(feature = "store")]
pub mod store;
mod stream;
mod task;
mod verdict;
mod zip;

#[cfg(feature = "macros")]
#[doc = include_str!("map_task.md")]
pub use async_map_task_macros::map_task;
// The names that a search finds an item by. On an item of a private module they would not be in the index.
#[doc(alias("bulk", "micro-batch", "dataloader", "coalesce"))]
pub use batcher::Batcher;
pub use builder::AsyncMapTaskBuilder;
#[cfg(feature = "store")]
pub use cache::Cache;
#[cfg(feature = "store")]
pub use checkpoint::Checkpoint;
pub use config::{
    DEFAULT_CONCURRENCY, DEFAULT_MAX_RETRY_DELAY, DEFAULT_MIN_SUCCESS_RATIO, DEFAULT_RETRIES,
    DEFAULT_RETRY_DELAY, DEFAULT_RETRY_JITTER, DEFAULT_RETRY_MULTIPLIER,
};
pub use context::ItemContext;
pub use error::{BoxError, ConfigError, FailureReason, MapTaskError, RunError};
pub use handle::MapHandle;
#[doc(alias("per host", "per key", "rate limit", "semaphore"))]
pub use keyed_limiter::KeyedLimiter;
pub use keyed_limiter::KeyedLimiterBuilder;
#[doc(alias("semaphore", "rate limit", "RateLimiter", "throttle", "concurrency limit", "pool"))]
pub use limiter::Limiter;
pub use limiter::LimiterBuilder;
#[doc(alias("SemaphorePermit"))]
pub use limiter::Permit;
#[cfg(feature = "serde")]
pub use map_task_config::MapTaskConfig;
#[cfg(feature = "metrics")]
pub use metrics_observer::MetricsObserver;
#[doc(alias("metrics", "hook", "callback", "listener"))]
pub use observe::Observer;
pub use observe::{Event, LimitChange, RunSettings};
pub use outcome::{FailureKind, ItemError, ItemOutcome, LeftOver, NotRetried, Origin, TimeoutScope};
pub use over::Over;
#[doc(alias("progress bar", "eta"))]
pub use progress::Progress;
#[cfg(feature = "store")]
pub use recover::Recovery;
pub use result::{Completion, ItemState, MapTaskResult, Summary};
#[cfg(feature = "http")]
#[doc(alias("429", "Retry-After"))]
pub use retry_after_header::retry_after_header;
#[doc(alias("circuit breaker", "retry storm", "TpsBudget"))]
pub use retry_budget::RetryBudget;
pub use retry_budget::{RetryBudgetBuilder, WhenSpent};
#[doc(alias("join_all", "buffer_unordered"))]
pub use run::MapRun;
#[cfg(feature = "report")]
pub use run_report::RunRecorder;
#[cfg(feature = "report")]
#[doc(alias("html", "timeline", "gantt", "visualization"))]
pub use run_report::RunReport;
pub use stream::MapStream;
#[doc(alias("task pool", "worker pool", "executor"))]
pub use task::AsyncMapTask;
pub use zip::{LengthMismatch, zip_exact, zip3_exact, zip4_exact};

// The code in the README is tested like the crate's own examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
