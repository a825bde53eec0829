//! Items that were pulled and have not started, and attempts that were assigned to workers. It contains no items, only the
//! slots in which they are kept. Also the stop of the run, which takes back the assigned attempts.

use super::permits::HeldPermits;
use super::retries::{Group, Ticket};
use super::{Scheduler, SourceState, Stop};
use crate::error::FailureReason;
use crate::result::Started;
use crate::rt::Instant;

/// An item that was pulled and has not started.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Pulled {
    pub(in super::super) index: usize,
    /// The slot in which it is kept.
    pub(in super::super) slot: usize,
    /// How many permits it needs.
    pub(in super::super) weight: u32,
}

/// An attempt that is to start.
pub(in super::super) enum Next {
    /// The first of an item.
    New(Pulled),
    Retry(Ticket),
}

impl Next {
    /// Returns the slot of its item.
    pub(in super::super) fn slot(&self) -> usize {
        match self {
            Self::New(pulled) => pulled.slot,
            Self::Retry(ticket) => ticket.slot,
        }
    }

    pub(in super::super) fn is_new(&self) -> bool {
        self.new_index().is_some()
    }

    /// Returns the index of an item that has not started.
    pub(super) fn new_index(&self) -> Option<usize> {
        match self {
            Self::New(pulled) => Some(pulled.index),
            Self::Retry(_) => None,
        }
    }

    /// Returns how many permits it needs.
    pub(in super::super) fn weight(&self) -> u32 {
        match self {
            Self::New(pulled) => pulled.weight,
            Self::Retry(ticket) => ticket.weight,
        }
    }

    /// Returns the other items of a call that is made again.
    pub(in super::super) fn group(&self) -> Option<&Group> {
        match self {
            Self::New(_) => None,
            Self::Retry(ticket) => ticket.group(),
        }
    }

    /// Returns the time after which it is not made any more.
    pub(super) fn give_up(&self) -> Option<Instant> {
        match self {
            Self::New(_) => None,
            Self::Retry(ticket) => ticket.give_up,
        }
    }
}

/// An attempt that is to start: at one item or, in a run of batches, at several.
pub(in super::super) struct Start {
    pub(in super::super) first: Next,
    /// The other items that have started before.
    pub(in super::super) retries: Vec<Ticket>,
    /// The other items that have not started.
    pub(in super::super) new: Vec<Pulled>,
}

impl From<Next> for Start {
    fn from(first: Next) -> Self {
        Self { first, retries: Vec::new(), new: Vec::new() }
    }
}

impl Start {
    /// Makes a retry the first item, if there is one.
    pub(in super::super) fn put_retries_first(&mut self) {
        if let (Next::New(pulled), false) = (&self.first, self.retries.is_empty()) {
            self.new.insert(0, *pulled);
            self.first = Next::Retry(self.retries.remove(0));
        }
    }

    /// Returns how many of its items have not started, and how many wait for a retry.
    fn counts(&self) -> (usize, usize) {
        let is_new = usize::from(self.first.is_new());
        let again = self.first.group().map_or(0, |group| group.others.len());
        (self.new.len() + is_new, self.retries.len() + again + 1 - is_new)
    }
}

/// An attempt that is to start, with the permits that were taken for it.
pub(in super::super) struct Assignment {
    pub(in super::super) held: HeldPermits,
    pub(in super::super) start: Start,
}

impl Scheduler {
    /// Assigns an attempt to the first worker that asks.
    pub(in super::super) fn assign(&mut self, assignment: Assignment) {
        let (new, retries) = assignment.start.counts();
        self.assigned_new += new;
        self.assigned_retries += retries;
        self.assigned.push_back(assignment);
    }

    /// Takes the first assigned attempt.
    pub(in super::super) fn pop_assigned(&mut self) -> Option<Assignment> {
        let assignment = self.assigned.pop_front()?;
        let (new, retries) = assignment.start.counts();
        self.assigned_new -= new;
        self.assigned_retries -= retries;
        Some(assignment)
    }

    /// Takes back the attempts that were assigned and do not start now.
    pub(in super::super) fn take_back_assigned(&mut self) {
        // The last attempt is put back first, so that all keep their order.
        while let Some(Assignment { held, start: Start { first, retries, new } }) = self.assigned.pop_back() {
            self.permits.abandon(held);
            let others = retries.into_iter().map(Next::Retry).chain(new.into_iter().map(Next::New));
            others.rev().for_each(|next| self.put_back(next));
            self.put_back(first);
        }
        (self.assigned_new, self.assigned_retries) = (0, 0);
    }

    /// Puts back an item that does not start now.
    pub(in super::super) fn put_back(&mut self, next: Next) {
        match next {
            Next::New(pulled) => self.backlog.push_front(pulled),
            Next::Retry(ticket) => self.retries.put_back(ticket),
        }
    }

    /// Releases all permits held for attempts that have not started, and leaves the queue of the shared limit. None of these
    /// attempts starts any more.
    pub(in super::super) fn abandon(&mut self) {
        self.permits.leave_queue();
        self.take_back_assigned();
        self.clear_keys();
    }

    /// Stops the run: nothing more starts. Only the first cause counts.
    pub(in super::super) fn stop(&mut self, cause: Stop) {
        if self.stop.is_none() {
            self.stop = Some(cause);
            self.abandon();
            self.discarded.extend(self.retries.clear());
            self.notify_driver();
        }
    }

    /// Stops the run for a cause from outside. Running attempts may not continue to their end any more.
    pub(in super::super) fn halt(&mut self, reason: FailureReason) {
        self.stop(Stop::Failed(reason));
        self.draining = false;
    }

    /// Stops the run because its runtime is shut down.
    pub(in super::super) fn halt_for_shutdown(&mut self) {
        self.is_shut_down |= self.stop.is_none();
        self.halt(FailureReason::Cancelled);
    }

    /// Returns which items have started, once the run has stopped.
    pub(in super::super) fn started_items(&mut self) -> Started {
        self.take_back_assigned();
        let backlog = self.backlog.iter().map(|pulled| pulled.index);
        let mut except: Vec<usize> = backlog.chain(self.looked_up.keys().copied()).collect();
        except.sort_unstable();
        let may_be_more = self.total().is_none() && self.source_state != SourceState::Ended;
        Started { may_be_more: may_be_more || self.may_be_more, pulled: self.pulled, except }
    }

    /// Returns how many items were pulled and have not started: they are looked up, or wait for permits or for their worker.
    pub(in super::super) fn not_started(&self) -> usize {
        self.backlog.len() + self.keyed_new + self.assigned_new + self.looked_up.len()
    }

    /// Returns how many items have started and wait for their next attempt, or for the worker that makes it.
    pub(in super::super) fn waiting_for_retry(&self) -> usize {
        self.retries.len() + self.keyed_retries + self.assigned_retries
    }

    /// Returns how many items have started.
    pub(in super::super) fn started(&self) -> usize {
        self.pulled - self.not_started()
    }

    /// Returns how many items have started or are assigned to a worker.
    pub(in super::super) fn admitted(&self) -> usize {
        self.started() + self.assigned_new
    }

    /// Returns how many attempts are running.
    pub(in super::super) fn running(&self) -> usize {
        let tally = &self.tally;
        self.started() + tally.retries + tally.parts - tally.successes - tally.failed_attempts
    }

    /// Returns `true` if no item will ever start again.
    pub(in super::super) fn is_exhausted(&self) -> bool {
        self.source_state == SourceState::Ended && self.not_started() == 0 && self.waiting_for_retry() == 0
    }

    /// Returns `true` if every item has settled.
    pub(in super::super) fn is_finished(&self) -> bool {
        self.running() == 0 && self.is_exhausted()
    }
}
