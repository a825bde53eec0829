//! A request that waits in the queue of a limiter.

use std::sync::Arc;
use std::task::Waker;

use super::Limiter;

/// A request for permits that has to wait.
pub(super) struct Request {
    pub(super) weight: u32,
    pub(super) waker: Waker,
    /// Only if it needs permits of other limiters as well.
    pub(super) joint: Option<Arc<dyn JointRequest>>,
    /// `true` if this limiter could grant it when it was last tried, and another could not. The requests behind it do not wait
    /// for it then.
    pub(super) waits_for_others: bool,
}

/// A request that waits in the queues of several limiters.
pub(super) trait JointRequest: Send + Sync {
    /// Returns its number, which is the same in all queues.
    fn number(&self) -> u64;

    /// Tries it on behalf of a limiter that has changed. Adds other limiters that have to serve their requests.
    fn serve(&self, others: &mut Vec<Limiter>);
}

impl Request {
    pub(super) fn new(weight: u32, waker: Waker) -> Self {
        Self { weight, waker, joint: None, waits_for_others: false }
    }
}

/// What has to be done after a limiter has changed, while it is not locked.
pub(super) enum Task {
    /// Wakes the task of a request that was granted, or must ask again.
    Wake(Waker),
    /// Tries to grant a request that needs other limiters as well.
    Try(Arc<dyn JointRequest>),
}
