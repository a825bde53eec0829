//! The limit that the runs share: who comes first is served first.

use std::collections::VecDeque;

pub(super) struct Limit {
    permits: usize,
    in_use: usize,
    /// Who waits, and for how many permits, in the order of their coming. A run stands here once.
    queue: Vec<(usize, usize)>,
    /// What each run was served and has not picked up.
    served: Vec<Option<usize>>,
    /// Who was served or turned away and has not looked, in this order.
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
        Self { permits, in_use: 0, queue: Vec::new(), served: vec![None; runs], answered: VecDeque::new() }
    }

    /// A run wants so many permits. It keeps its place in the queue for as long as it wants as many.
    pub(super) fn ask(&mut self, run: usize, needed: usize) -> Answer {
        if self.served[run] == Some(needed) {
            self.served[run] = None;
            return Answer::Yes;
        }
        if self.queue.contains(&(run, needed)) {
            return Answer::NotYet;
        }
        self.leave(run);
        if needed > self.permits {
            Answer::Never
        } else if self.queue.is_empty() && self.in_use + needed <= self.permits {
            self.in_use += needed;
            Answer::Yes
        } else {
            self.queue.push((run, needed));
            Answer::NotYet
        }
    }

    /// For how many permits a run stands in the queue, or was served and has not picked them up.
    pub(super) fn queued(&self, run: usize) -> Option<usize> {
        let waiting = self.queue.iter().find(|(waiting, _)| *waiting == run).map(|(_, needed)| *needed);
        self.served[run].or(waiting)
    }

    /// A run wants nothing any more.
    pub(super) fn leave(&mut self, run: usize) {
        self.queue.retain(|(waiting, _)| *waiting != run);
        self.in_use -= self.served[run].take().unwrap_or(0);
        self.serve();
    }

    /// Who should look next.
    pub(super) fn next_answered(&mut self) -> Option<usize> {
        self.answered.pop_front()
    }

    pub(super) fn give_back(&mut self, permits: usize) {
        self.in_use -= permits;
        self.serve();
    }

    /// Who waits for more than there is, waits no longer.
    pub(super) fn set_permits(&mut self, permits: usize) {
        self.permits = permits;
        let refused = self.queue.iter().filter(|(_, needed)| *needed > permits).map(|(run, _)| *run);
        self.answered.extend(refused);
        self.queue.retain(|(_, needed)| *needed <= permits);
        self.serve();
    }

    /// The first is served as soon as it can be, and nobody before it.
    fn serve(&mut self) {
        while let Some((run, needed)) = self.queue.first().copied() {
            if self.in_use + needed > self.permits {
                return;
            }
            self.in_use += needed;
            self.served[run] = Some(needed);
            self.answered.push_back(run);
            self.queue.remove(0);
        }
    }
}
