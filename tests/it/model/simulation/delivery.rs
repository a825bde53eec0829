//! The taker of the outcomes, and the end of the run.

use super::Simulation;
use crate::model::Ended;
use crate::model::plan::End;

impl Simulation<'_> {
    /// The taker takes one outcome after another, until it is busy or none is left for it.
    pub(super) fn give(&mut self) {
        let Some(taker) = self.run.taker() else { return };
        while self.busy.is_none_or(|until| until <= self.now) && !self.taker_failed && !self.closed {
            let was_busy = self.busy.take().is_some();
            if was_busy && taker.fails_at == self.seen.given.len().checked_sub(1) {
                self.taker_failed = true;
                self.held.clear();
                // An early success is not a failure, so this is the first one.
                if self.stop == Some(Ended::Succeeded) {
                    self.stop = Some(Ended::Sink);
                }
                return self.stop(Ended::Sink);
            }
            let Some(at) = self.next_to_give(taker.ordered) else { return };
            let index = self.held.remove(at);
            self.busy = Some(self.now + taker.nap(self.seen.given.len()));
            self.seen.given.push((index, self.now));
        }
    }

    /// A free taker takes an outcome before the permits of its item are used again. This holds for a sink in the task of
    /// the items, and with `parallel()` for each taker, because a task that has woken it yields.
    pub(super) fn give_at_once(&mut self) {
        let comes_first = self.run.parallel || matches!(self.run.end, End::ForEach(_));
        if comes_first && self.busy.is_none() {
            self.give();
        }
    }

    /// Returns the next item in the order of settling, or of the input. Cancelled items are skipped when the run is over.
    fn next_to_give(&self, ordered: bool) -> Option<usize> {
        if !ordered {
            return (!self.held.is_empty()).then_some(0);
        }
        let (at, index) = self.held.iter().enumerate().min_by_key(|(_, index)| **index)?;
        let turn = self.seen.given.last().map_or(0, |(last, _)| last + 1);
        (*index == turn || self.over).then_some(at)
    }

    /// Ends the run if nothing more can happen in it, and then the delivery of its outcomes.
    pub(super) fn end_if_over(&mut self) {
        let is_over = match self.stop {
            None => self.exhausted && self.running.is_empty() && self.waiting.is_empty(),
            Some(_) if self.draining => self.running.is_empty(),
            Some(_) => self.running.is_empty() || self.now >= self.stop_at,
        };
        if is_over && !self.over {
            self.over = true;
            self.seen.end = self.now;
            for dropped in std::mem::take(&mut self.running) {
                self.give_back_permits(dropped.index);
            }
            self.leave_queue();
            self.give();
        }
        let is_idle = self.busy.is_none() || self.taker_failed;
        if self.over && is_idle && self.held.is_empty() {
            self.closed = true;
            self.seen.closed = self.now;
            // A taker that is awaited together with the items belongs to the run.
            if let End::ForEach(_) = self.run.end {
                self.seen.end = self.now;
            }
        }
    }
}
