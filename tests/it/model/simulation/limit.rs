//! The limit that the runs share: first come, first served.

use std::collections::VecDeque;

pub(super) struct Limit {
    permits: usize,
    /// The maximum number of permits so far.
    most: usize,
    in_use: usize,
    /// The waiting runs and the permits that each needs, in the order in which they came. Each run is here at most once.
    queue: Vec<(usize, usize)>,
    /// The permits that each run was granted and has not taken.
    served: Vec<Option<usize>>,
    /// The runs that were granted permits and have not checked, in this order.
    answered: VecDeque<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    NotYet,
    Never,
}

impl Limit {
    pub(super) fn new(permits: usize, runs: usize) -> Self {
        let (queue, served, answered) = (Vec::new(), vec![None; runs], VecDeque::new());
        Self { permits, most: permits, in_use: 0, queue, served, answered }
    }

    /// Requests this many permits for a run. The run keeps its position in the queue as long as it requests the same number.
    pub(super) fn ask(&mut self, run: usize, needed: usize) -> Answer {
        if self.served[run] == Some(needed) {
            self.served[run] = None;
            return Answer::Yes;
        }
        if self.queue.contains(&(run, needed)) {
            return Answer::NotYet;
        }
        self.leave(run);
        if needed > self.most {
            Answer::Never
        } else if self.queue.is_empty() && self.fits(needed) {
            self.in_use += needed;
            Answer::Yes
        } else {
            self.queue.push((run, needed));
            Answer::NotYet
        }
    }

    /// Returns the number of permits that a run queues for, or that it was granted and has not taken.
    pub(super) fn queued(&self, run: usize) -> Option<usize> {
        let waiting = self.queue.iter().find(|(waiting, _)| *waiting == run).map(|(_, needed)| *needed);
        self.served[run].or(waiting)
    }

    /// Removes a run that needs nothing any more.
    pub(super) fn leave(&mut self, run: usize) {
        self.queue.retain(|(waiting, _)| *waiting != run);
        self.in_use -= self.served[run].take().unwrap_or(0);
        self.serve();
    }

    /// Returns the run that should check next.
    pub(super) fn next_answered(&mut self) -> Option<usize> {
        self.answered.pop_front()
    }

    pub(super) fn give_back(&mut self, permits: usize) {
        self.in_use -= permits;
        self.serve();
    }

    /// A run that waits for more permits than there are keeps waiting.
    pub(super) fn set_permits(&mut self, permits: usize) {
        self.permits = permits;
        self.most = self.most.max(permits);
        self.serve();
    }

    /// Returns `true` if there are enough permits. More permits than the limit are granted only to a run that has all of it
    /// alone.
    fn fits(&self, needed: usize) -> bool {
        let alone = needed > self.permits && self.in_use == 0 && self.permits > 0;
        alone || self.in_use + needed <= self.permits
    }

    /// Serves the first run as soon as possible, and no other before it.
    fn serve(&mut self) {
        while let Some((run, needed)) = self.queue.first().copied() {
            if !self.fits(needed) {
                return;
            }
            self.in_use += needed;
            self.served[run] = Some(needed);
            self.answered.push_back(run);
            self.queue.remove(0);
        }
    }
}
