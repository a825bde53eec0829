//! The workers of a run: which of them are idle, and how each is woken.

use std::task::Waker;

use super::Admission;

/// All opened workers, by their ids.
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
    /// Returns how many workers are busy.
    pub(in super::super) fn busy(&self) -> usize {
        self.states.len() - self.idle.len()
    }

    /// Returns the wakers of the busy workers.
    pub(in super::super) fn busy_wakers(&self) -> Vec<Waker> {
        self.states
            .iter()
            .filter(|worker| !worker.is_idle)
            .filter_map(|worker| worker.waker.clone())
            .collect()
    }

    /// Returns the wakers of all workers.
    pub(in super::super) fn wakers(&self) -> Vec<Waker> {
        self.states.iter().filter_map(|worker| worker.waker.clone()).collect()
    }

    /// Returns `true` if there is a worker with this id. If there is none, the run has ended.
    pub(in super::super) fn contains(&self, id: usize) -> bool {
        id < self.states.len()
    }

    /// Returns `true` if a worker is idle until it is notified.
    pub(in super::super) fn is_idle(&self, id: usize) -> bool {
        self.states.get(id).is_some_and(|worker| worker.is_idle)
    }

    /// Finds a worker for an assigned attempt: an idle one, or a new one.
    pub(in super::super) fn find(&mut self) -> Admission {
        if let Some(worker) = self.idle.pop().and_then(|id| self.states.get_mut(id)) {
            worker.is_idle = false;
            return worker.waker.clone().map_or(Admission::Wait, Admission::Wake);
        }
        self.states.push(WorkerState { waker: None, is_idle: false });
        Admission::Open { id: self.states.len() - 1 }
    }

    /// Makes a worker idle until it is notified.
    pub(in super::super) fn go_idle(&mut self, id: usize, waker: &Waker) {
        self.idle.push(id);
        self.set_waker(id, waker);
        if let Some(worker) = self.states.get_mut(id) {
            worker.is_idle = true;
        }
    }

    /// Sets the waker of a worker.
    pub(in super::super) fn set_waker(&mut self, id: usize, waker: &Waker) {
        if let Some(worker) = self.states.get_mut(id) {
            match &mut worker.waker {
                Some(known) => known.clone_from(waker),
                None => worker.waker = Some(waker.clone()),
            }
        }
    }

    /// Sets the waker of a worker, if it has none.
    #[inline]
    pub(in super::super) fn set_waker_if_missing(&mut self, id: usize, waker: &Waker) {
        if let Some(worker @ WorkerState { waker: None, .. }) = self.states.get_mut(id) {
            worker.waker = Some(waker.clone());
        }
    }
}
