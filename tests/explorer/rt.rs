//! The same names as `src/rt.rs`, implemented over `shuttle`.
//!
//! Each operation on one of these types is a point where the scheduler may switch to another task. All other code, such as
//! `Arc` and the tokens of `tokio-util`, runs without interruption from one such point to the next. All atomic accesses are
//! sequentially consistent; weaker orders are not explored.

pub(crate) mod coop;
mod semaphore;
mod set;
mod task;
mod time;
mod waker;
pub(crate) mod world;

pub(crate) use shuttle::future::yield_now;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

pub(crate) use self::semaphore::{OwnedSemaphorePermit, Semaphore};
pub(crate) use self::set::JoinSet;
pub(crate) use self::task::{Handle, JoinError, JoinHandle, spawn};
pub(crate) use self::time::{FAR, Instant, Sleep, sleep_until};
pub(crate) use self::waker::AtomicWaker;
