//! The limit that the runs share: who comes first is served first.

use std::collections::VecDeque;

pub(super) struct Limit {
    permits: usize,
    /// The most permits that there have ever been.
    most: usize,
    in_use: usize,
    /// Who waits, and for how many permits, in the order of their coming. A run stands here once.
    queue: Vec<(usize, usize)>,
    /// What each run was served and has not picked up.
    served: Vec<Option<usize>>,
    /// The runs that were served and have not looked, in this order.
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

    /// A run that waits for more than there is goes on waiting.
    pub(super) fn set_permits(&mut self, permits: usize) {
        self.permits = permits;
        self.most = self.most.max(permits);
        self.serve();
    }

    /// Whether there is enough. More than the limit is there only for one that has all of it alone.
    fn fits(&self, needed: usize) -> bool {
        let alone = needed > self.permits && self.in_use == 0 && self.permits > 0;
        alone || self.in_use + needed <= self.permits
    }

    /// The first is served as soon as it can be, and nobody before it.
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
