//! The requests of attempts that wait for the permits of their keys.

use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::super::scheduler::Stop;
use super::super::scheduler::key_request::KeyRequest;
use super::super::state::AnyState;
use super::super::state_guard::DriverGuard;
use super::DriverCore;
use crate::error::FailureReason;

/// The requests that the driver awaits.
pub(super) type KeyRequests = FuturesUnordered<KeyRequest>;

impl DriverCore {
    /// Takes what the requests were granted, if items have keys. Returns `true` if there was anything.
    #[inline]
    pub(super) fn has_key_grants(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) -> bool {
        self.key_requests.is_some() && self.poll_key_requests(cx, state)
    }

    /// Polls the requests while the state is not locked: they can wake other tasks, also when they are dropped.
    #[cold]
    fn poll_key_requests(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) -> bool {
        let Some(requests) = &mut self.key_requests else { return false };
        let taken = DriverGuard::new(state).get().scheduler.keys.as_mut().map(|keys| keys.take_requests());
        let Some((drops_former, new)) = taken else { return false };
        if drops_former {
            requests.clear();
        }
        requests.extend(new);
        let mut grants = Vec::new();
        while let Poll::Ready(Some(grant)) = requests.poll_next_unpin(cx) {
            grants.push(grant);
        }
        if grants.is_empty() {
            return false;
        }
        let mut guard = DriverGuard::new(state);
        let scheduler = &mut guard.get().scheduler;
        for grant in grants {
            let Some(keys) = &mut scheduler.keys else { continue };
            if let Err(error) = keys.grant(grant) {
                scheduler.stop(Stop::Failed(FailureReason::Config(error)));
            }
        }
        true
    }

    /// Ends a poll of the driver: returns the permits of keys for attempts that cannot start now. A paused run leaves the queues.
    pub(super) fn end_key_requests(&mut self, cx: &mut Context<'_>, state: &AnyState<'_>) {
        DriverGuard::new(state).get().return_unused_keys();
        if self.poll_key_requests(cx, state) {
            cx.waker().wake_by_ref();
        }
    }
}
