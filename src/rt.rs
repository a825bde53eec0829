//! The primitives at which threads and tasks meet, and the clock: the seam of the schedule explorer.
//!
//! In the crate, these are the types of the standard library and of Tokio, and cost nothing. The test target
//! `tests/explorer` compiles the other files again, with a module of its own in place of this one. There, a scheduler
//! decides at each of these primitives which task runs next. A primitive that a file imports from elsewhere is not explored;
//! `tests/it/tidy.rs` checks that there is none.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use futures::task::AtomicWaker;
pub(crate) use tokio::runtime::Handle;
pub(crate) use tokio::sync::{OwnedSemaphorePermit, Semaphore};
pub(crate) use tokio::task::{JoinError, JoinHandle, JoinSet, coop, spawn, yield_now};
pub(crate) use tokio::time::{Instant, Sleep, sleep_until};
