//! The parts that all calls to one engine share.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::cancelling::Cancelling;
use super::server::Server;

/// How many calls are being cancelled at the same time. The others wait.
pub(super) const CANCELLED_AT_ONCE: usize = 64;

/// The parts that all calls to one engine share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) ingress: Server,
    pub(super) admin: Option<Server>,
    pub(super) kill_after: Duration,
    pub(super) message_limit: usize,
    /// The running calls, and the tasks that cancel. It is closed from the start, so that `wait` returns when it is empty.
    pub(super) calls: TaskTracker,
    pub(super) cancel_permits: Semaphore,
    pub(super) cancelling: Cancelling,
    pub(super) uncancelled: AtomicUsize,
}
