//! The pages of the guide. The front page lists them by task.
//!
//! These modules contain only documentation. They exist while the documentation is built, and cannot be imported.

#[doc = include_str!("guide/start.md")]
pub mod start {}

#[doc = include_str!("guide/retries.md")]
pub mod retries {}

#[doc = include_str!("guide/limits.md")]
pub mod limits {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/seeing_a_run.md")]
#[doc = include_str!("guide/pictures/healthy.html")]
#[doc = include_str!("guide/pictures/slow_tail.html")]
#[doc = include_str!("guide/pictures/refuses.html")]
pub mod seeing_a_run {}

#[doc = include_str!("guide/production.md")]
pub mod production {}

#[doc = include_str!("guide/cookbook.md")]
pub mod cookbook {}

// Its code needs crates that this package does not depend on. The package `pages` tests it.
#[cfg_attr(not(doctest), doc = include_str!("guide/cookbook_ecosystem.md"))]
#[cfg_attr(doctest, doc = "")]
pub mod cookbook_ecosystem {}

#[doc = include_str!("guide/services.md")]
pub mod services {}

#[doc = include_str!("guide/batches.md")]
pub mod batches {}

#[doc = include_str!("guide/batch_jobs.md")]
pub mod batch_jobs {}

#[doc = include_str!("guide/cpu_work.md")]
pub mod cpu_work {}

#[doc = include_str!("guide/streaming.md")]
pub mod streaming {}

// Its code needs the features.
#[cfg_attr(feature = "sqlite", doc = include_str!("guide/durable_runs.md"))]
#[cfg_attr(
    not(feature = "sqlite"),
    doc = "Runs that outlive their process. Enable the feature `sqlite` to see this page."
)]
pub mod durable_runs {}

// `tests/pages` tests its code, which needs the SDK.
#[cfg_attr(all(feature = "restate", not(doctest)), doc = include_str!("guide/past_one_machine.md"))]
#[cfg_attr(
    not(feature = "restate"),
    doc = "Runs on more than one machine. Enable the feature `restate` to see this page."
)]
pub mod past_one_machine {}

#[doc = include_str!("guide/rules.md")]
pub mod rules {}
