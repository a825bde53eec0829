//! What is dropped after the state of a run is unlocked, because its destructor wakes other tasks.

use std::fmt;

use super::key_request::KeyRequest;
use crate::limiter::{LimiterSet, Permit, Ticket, Turn, Wakers};

/// What is dropped later, in this order.
#[derive(Default)]
pub struct Later {
    all: Vec<Released>,
    /// The last clone of the limiter of a key may let another key in.
    limiters: Vec<LimiterSet>,
}

/// A part of a shared limit that is no longer needed, or a turn of others there.
#[expect(dead_code, reason = "they are only dropped")]
enum Released {
    Permit(Permit),
    Ticket(Ticket),
    Turn(Turn),
    Request(KeyRequest),
    Wakers(Wakers),
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").field("len", &(self.all.len() + self.limiters.len())).finish()
    }
}

impl Later {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.limiters.is_empty()
    }

    pub(in super::super) fn permits(&mut self, permits: impl IntoIterator<Item = Permit>) {
        self.all.extend(permits.into_iter().map(Released::Permit));
    }

    /// Permits with which nothing has begun.
    pub(in super::super) fn unused_permits(&mut self, permits: impl IntoIterator<Item = Permit>) {
        self.permits(permits.into_iter().map(Permit::unused));
    }

    pub(in super::super) fn tickets(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        self.all.extend(tickets.into_iter().map(Released::Ticket));
    }

    pub(in super::super) fn turns(&mut self, turns: impl IntoIterator<Item = Turn>) {
        self.all.extend(turns.into_iter().map(Released::Turn));
    }

    pub(in super::super) fn limiters(&mut self, sets: impl IntoIterator<Item = LimiterSet>) {
        self.limiters.extend(sets);
    }

    pub(in super::super) fn requests(&mut self, requests: impl IntoIterator<Item = KeyRequest>) {
        self.all.extend(requests.into_iter().map(Released::Request));
    }

    pub(in super::super) fn wakers(&mut self, wakers: impl IntoIterator<Item = Wakers>) {
        self.all.extend(wakers.into_iter().map(Released::Wakers));
    }
}
