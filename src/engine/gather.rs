//! Decides which items join a call, in a run of batches.

use super::items::Items;
use super::scheduler::batches::{BatchOptions, CallRoom};
use super::scheduler::{Next, SourceState, Start};
use super::state::State;

/// For how many items a call reserves memory in advance, at most.
const MOST_RESERVED: usize = 512;

impl State<dyn Items + '_> {
    /// Returns `true` if the next call may start: it is full, or nothing joins it soon. Pulls the items that it still lacks.
    pub(super) fn is_batch_ready(&mut self) -> bool {
        let Some(batches) = &self.scheduler.batches else { return true };
        let waits = !batches.options.wait.is_zero();
        if self.scheduler.retries.is_group_next() || !(waits || self.scheduler.is_durable) {
            return true;
        }
        let options = batches.options.clone();
        while !self.has_full_call(&options) {
            let pulled = if self.may_pull() { self.pull() } else { None };
            match pulled {
                Some(pulled) => self.scheduler.backlog.push_back(pulled),
                None => return self.has_waited(waits),
            }
        }
        self.end_wait()
    }

    fn may_pull(&mut self) -> bool {
        self.scheduler.apply_signals();
        self.scheduler.stop.is_none()
            && self.scheduler.source_state == SourceState::Open
            && self.admits_new_items()
    }

    /// Returns `true` if a call that is not full does not wait any longer for more items.
    fn has_waited(&mut self, waits: bool) -> bool {
        if self.scheduler.retries.ready() == 0 && self.scheduler.backlog.is_empty() {
            return self.end_wait();
        }
        // The store answers soon, and an item joins if its output is not there.
        let is_looking_up = self.items.durable().is_some_and(|items| items.is_looking_up());
        if self.scheduler.source_state == SourceState::Loading || is_looking_up {
            return false;
        }
        let can_come = self.scheduler.source_state == SourceState::Stalled && self.admits_new_items();
        if waits && can_come && self.scheduler.stop.is_none() {
            let now = self.scheduler.clock.read();
            if let Some(batches) = &mut self.scheduler.batches {
                if !batches.has_waited(now) {
                    return false;
                }
            }
        }
        self.end_wait()
    }

    fn end_wait(&mut self) -> bool {
        if let Some(batches) = &mut self.scheduler.batches {
            batches.end_wait();
        }
        true
    }

    /// Returns `true` if the items that may start fill a call.
    fn has_full_call(&mut self, options: &BatchOptions) -> bool {
        let Self { scheduler, items } = self;
        if options.most_weight.is_none() {
            return scheduler.retries.due_and_immediate() + scheduler.backlog.len() >= options.size;
        }
        let mut room = CallRoom::new(options);
        let new = scheduler.backlog.iter().map(|pulled| pulled.slot);
        let mut slots = scheduler.retries.due_and_immediate_slots().chain(new).enumerate();
        slots.any(|(at, slot)| !room.take(at == 0, || items.weight(slot)) || room.is_full())
    }

    /// Adds the items that can join a call without waiting. Retries come first in the call.
    pub(super) fn gather(&mut self, first: Next) -> Start {
        self.end_wait();
        let Some(batches) = &self.scheduler.batches else { return first.into() };
        if first.group().is_some() {
            return first.into();
        }
        let mut room = CallRoom::new(&batches.options);
        room.take(true, || self.items.weight(first.slot()));
        let mut start = Start::from(first);
        start.new.reserve(batches.options.size.min(MOST_RESERVED));
        while !room.is_full() {
            let Some(next) = self.next_to_join() else { break };
            if !room.take(false, || self.items.weight(next.slot())) {
                self.scheduler.put_back(next);
                break;
            }
            match next {
                Next::Retry(ticket) => start.retries.push(ticket),
                Next::New(pulled) => start.new.push(pulled),
            }
        }
        start.put_retries_first();
        start
    }

    /// Takes the next item that may join a call.
    fn next_to_join(&mut self) -> Option<Next> {
        let scheduler = &mut self.scheduler;
        if let Some(ticket) = scheduler.retries.pop_due_alone() {
            return Some(Next::Retry(ticket));
        }
        let admitted = scheduler.admitted();
        if let Some(ticket) = scheduler.retries.pop_immediate(admitted) {
            return Some(Next::Retry(ticket));
        }
        // An item that was looked up must start even if the window is full.
        if scheduler.is_durable || self.admits_new_items() {
            if let Some(pulled) = self.scheduler.backlog.pop_front() {
                return Some(Next::New(pulled));
            }
        }
        let pulled = if self.may_pull() { self.pull() } else { None };
        pulled.map(Next::New)
    }
}
