//! The workers of a run: which are idle, and how each is woken.

use std::task::Waker;

use super::Admission;

/// All workers that were opened, by their numbers.
#[derive(Debug, Default)]
pub(in super::super) struct Workers {
    states: Vec<WorkerState>,
    idle: Vec<usize>,
}

#[derive(Debug)]
struct WorkerState {
    waker: Option<Waker>,
    is_idle: bool,
}

impl Workers {
    /// How many have something to do.
    pub(in super::super) fn busy(&self) -> usize {
        self.states.len() - self.idle.len()
    }

    /// The wakers of those that have something to do.
    pub(in super::super) fn busy_wakers(&self) -> Vec<Waker> {
        self.states
            .iter()
            .filter(|worker| !worker.is_idle)
            .filter_map(|worker| worker.waker.clone())
            .collect()
    }

    /// The wakers of all.
    pub(in super::super) fn wakers(&self) -> Vec<Waker> {
        self.states.iter().filter_map(|worker| worker.waker.clone()).collect()
    }

    /// Returns `true` if there is a worker of this number. Without one, its run has ended.
    pub(in super::super) fn contains(&self, id: usize) -> bool {
        id < self.states.len()
    }

    /// Returns `true` if a worker is idle until it is woken.
    pub(in super::super) fn is_idle(&self, id: usize) -> bool {
        self.states.get(id).is_some_and(|worker| worker.is_idle)
    }

    /// Finds a worker for an attempt that was assigned: an idle one, or a new one.
    pub(in super::super) fn find(&mut self) -> Admission {
        if let Some(worker) = self.idle.pop().and_then(|id| self.states.get_mut(id)) {
            worker.is_idle = false;
            return worker.waker.clone().map_or(Admission::Wait, Admission::Wake);
        }
        self.states.push(WorkerState { waker: None, is_idle: false });
        Admission::Open { id: self.states.len() - 1 }
    }

    /// Makes a worker wait until it is woken.
    pub(in super::super) fn go_idle(&mut self, id: usize, waker: &Waker) {
        self.idle.push(id);
        self.remember(id, waker);
        if let Some(worker) = self.states.get_mut(id) {
            worker.is_idle = true;
        }
    }

    /// Notes how a worker is woken.
    pub(in super::super) fn remember(&mut self, id: usize, waker: &Waker) {
        if let Some(worker) = self.states.get_mut(id) {
            match &mut worker.waker {
                Some(known) => known.clone_from(waker),
                None => worker.waker = Some(waker.clone()),
            }
        }
    }

    /// Notes how a worker is woken, if that is not known.
    #[inline]
    pub(in super::super) fn introduce(&mut self, id: usize, waker: &Waker) {
        if let Some(worker @ WorkerState { waker: None, .. }) = self.states.get_mut(id) {
            worker.waker = Some(waker.clone());
        }
    }
}
