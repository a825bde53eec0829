//! A limit that several tasks and requests share.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::lock::lock;
use crate::rt::{Mutex, MutexGuard};

/// A limit on running attempts that several tasks, runs and requests share; see
/// [`limiter`](crate::AsyncMapTaskBuilder::limiter).
///
/// A clone is the same limit. An attempt of a task with a limiter needs a place of its run, within
/// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), and permits of the limiter: one, or as many as
/// [`weight`](crate::MapRun::weight) says. It gives them back when it ends, before a retry waits; one of
/// [`map_blocking`](crate::Over::map_blocking) when its function has really returned.
///
/// It is fair: who comes first is served first. So an attempt that needs many permits is not starved by those
/// that need few; while it waits, those behind it wait, too. A run stands in the queue with one item at a time,
/// so a run of many items gets no more turns than a run of few.
///
/// An item that awaits another run under the same limiter holds a permit that the inner items wait for; where all
/// permits are held so, none moves on. Give inner runs a limiter of their own, or none.
///
/// The runs may live in different runtimes and threads.
///
/// # Examples
///
/// One limit over all requests of a service, whatever each of them runs:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, Limiter};
///
/// let limiter = Limiter::new(100);
/// let thumbnails = AsyncMapTask::builder().concurrency(64).limiter(&limiter).build()?;
/// let uploads = AsyncMapTask::builder().concurrency(64).limiter(&limiter).build()?;
///
/// let peak = &std::cell::Cell::new(0);
/// let watch = limiter.clone();
/// let note = |n: u32| {
///     peak.set(peak.get().max(watch.in_use()));
///     async move {
///         tokio::task::yield_now().await;
///         Ok::<_, String>(n)
///     }
/// };
/// let (one, other) = tokio::join!(thumbnails.run(0..500, note), uploads.run(0..500, note));
/// assert_eq!((one?.successes(), other?.successes()), (500, 500));
/// assert_eq!((peak.get(), limiter.in_use()), (100, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Limiter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    permits: usize,
    /// More than `permits` for a while after these were made fewer.
    in_use: usize,
    /// How many have ever had to wait.
    asked: u64,
    /// Who waits, in the order of their coming.
    queue: VecDeque<Request>,
    /// The numbers of those who were given their permits and have not taken them yet, in the same order.
    granted: VecDeque<u64>,
}

/// One who waits for permits.
#[derive(Debug)]
struct Request {
    number: u64,
    weight: u32,
    waker: Waker,
}

impl Limiter {
    /// A limit of so many permits.
    ///
    /// No attempt can ever start where there are fewer permits than it needs, so with 0 permits every run ends
    /// with [`FailureReason::Config`](crate::FailureReason::Config).
    pub fn new(permits: usize) -> Self {
        let (queue, granted) = (VecDeque::new(), VecDeque::new());
        Self { state: Arc::new(Mutex::new(State { permits, in_use: 0, asked: 0, queue, granted })) }
    }

    /// Changes the limit at once. What runs goes on: with fewer permits than are in use, nothing starts
    /// until enough of them have come back.
    ///
    /// A run whose next item needs more than the new limit ends with
    /// [`FailureReason::Config`](crate::FailureReason::Config), because it would wait for ever.
    pub fn set_permits(&self, permits: usize) {
        let mut state = self.lock();
        state.permits = permits;
        let (possible, refused): (VecDeque<_>, VecDeque<_>) =
            mem::take(&mut state.queue).into_iter().partition(|request| request.weight as usize <= permits);
        state.queue = possible;
        self.serve(state);
        refused.into_iter().for_each(|request| request.waker.wake());
    }

    /// How many permits there are.
    pub fn permits(&self) -> usize {
        self.lock().permits
    }

    /// How many permits are in use. It can be more than [`permits`](Self::permits) for a while after the limit
    /// was lowered.
    pub fn in_use(&self) -> usize {
        self.lock().in_use
    }

    /// Asks for permits: they are there at once where there are enough of them and nobody waits.
    pub(crate) fn acquire(&self, weight: u32, waker: &Waker) -> Result<Acquired, TooHeavy> {
        let mut state = self.lock();
        let (permits, needed) = (state.permits, weight as usize);
        if needed > permits {
            return Err(TooHeavy { permits });
        }
        let limiter = self.clone();
        if state.queue.is_empty() && state.in_use.saturating_add(needed) <= permits {
            state.in_use += needed;
            return Ok(Acquired::Now(Permit { limiter, weight }));
        }
        let number = state.asked;
        state.asked += 1;
        state.queue.push_back(Request { number, weight, waker: waker.clone() });
        Ok(Acquired::Later(Ticket { limiter, number, weight }))
    }

    fn release(&self, weight: u32) {
        let mut state = self.lock();
        state.in_use -= weight as usize;
        self.serve(state);
    }

    /// Grants what can be granted. Whoever gets something is woken while the limiter is not locked.
    fn serve<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(waker) = state.grant_next() {
            drop(state);
            waker.wake();
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Gives the first in the queue its permits, if there are enough.
    fn grant_next(&mut self) -> Option<Waker> {
        let weight = self.queue.front()?.weight as usize;
        if self.in_use.saturating_add(weight) > self.permits {
            return None;
        }
        let Request { number, waker, .. } = self.queue.pop_front()?;
        self.in_use += weight;
        self.granted.push_back(number);
        Some(waker)
    }

    /// Takes what was granted to a request.
    fn take_granted(&mut self, number: u64) -> bool {
        let found = self.granted.binary_search(&number);
        found.is_ok_and(|at| self.granted.remove(at).is_some())
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |request| request.number).ok()
    }
}

/// Permits, or a place in the queue for them.
#[derive(Debug)]
pub(crate) enum Acquired {
    Now(Permit),
    Later(Ticket),
}

/// A place in the queue of a limiter. Dropped, it leaves the queue and gives back what it was granted.
#[derive(Debug)]
pub(crate) struct Ticket {
    limiter: Limiter,
    number: u64,
    weight: u32,
}

/// There are fewer permits than were asked for, and it says how many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooHeavy {
    pub(crate) permits: usize,
}

impl Ticket {
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// The permits, once it is its turn. They are given out once.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Permit, TooHeavy>> {
        let mut state = self.limiter.lock();
        if state.take_granted(self.number) {
            return Poll::Ready(Ok(Permit { limiter: self.limiter.clone(), weight: self.weight }));
        }
        let found = state.find(self.number);
        match found.and_then(|at| state.queue.get_mut(at)) {
            Some(request) => {
                request.waker.clone_from(waker);
                Poll::Pending
            }
            // It was refused, or its permits were taken.
            None => Poll::Ready(Err(TooHeavy { permits: state.permits })),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        if state.take_granted(self.number) {
            state.in_use -= self.weight as usize;
        } else if let Some(at) = state.find(self.number) {
            state.queue.remove(at);
        } else {
            return;
        }
        self.limiter.serve(state);
    }
}

/// Permits of a limiter in use, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limiter: Limiter,
    weight: u32,
}

impl Permit {
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self.weight);
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { permits, in_use, ref queue, .. } = *self.lock();
        let waiting = queue.len();
        f.debug_struct("Limiter")
            .field("permits", &permits)
            .field("in_use", &in_use)
            .field("waiting", &waiting)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(ticket: &Ticket) -> Option<Permit> {
        match ticket.poll(Waker::noop()) {
            Poll::Ready(Ok(permit)) => Some(permit),
            _ => None,
        }
    }

    fn at_once(limiter: &Limiter, weight: u32) -> Permit {
        match limiter.acquire(weight, Waker::noop()) {
            Ok(Acquired::Now(permit)) => permit,
            other => panic!("{other:?}"),
        }
    }

    fn ask(limiter: &Limiter, weight: u32) -> Ticket {
        match limiter.acquire(weight, Waker::noop()) {
            Ok(Acquired::Later(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_light_ones_do_not_pass_a_heavy_one() {
        let limiter = Limiter::new(4);
        let first = at_once(&limiter, 3);
        let heavy = ask(&limiter, 4);
        let light = ask(&limiter, 1);
        assert!(granted(&heavy).is_none() && granted(&light).is_none());
        drop(first);
        let heavy = granted(&heavy).unwrap();
        assert!(granted(&light).is_none());
        assert_eq!(limiter.in_use(), 4);
        drop(heavy);
        assert!(granted(&light).is_some());
        assert_eq!(limiter.in_use(), 0);
    }

    #[test]
    fn a_ticket_that_is_dropped_gives_back_its_turn_and_its_permits() {
        let limiter = Limiter::new(1);
        let running = at_once(&limiter, 1);
        let (gone, next) = (ask(&limiter, 1), ask(&limiter, 1));
        drop(gone);
        drop(running);
        // It was granted and nobody has taken it.
        let last = ask(&limiter, 1);
        assert_eq!(limiter.in_use(), 1);
        drop(next);
        let permit = granted(&last).unwrap();
        drop((last, permit));
        assert_eq!(limiter.in_use(), 0);
    }

    #[test]
    fn what_can_never_be_granted_is_refused_at_once_and_after_the_limit_was_lowered() {
        let limiter = Limiter::new(4);
        let refused = |ticket: &Ticket| match ticket.poll(Waker::noop()) {
            Poll::Ready(Err(TooHeavy { permits })) => permits,
            other => panic!("{other:?}"),
        };
        assert_eq!(limiter.acquire(5, Waker::noop()).unwrap_err(), TooHeavy { permits: 4 });
        let running = at_once(&limiter, 4);
        let (heavy, light) = (ask(&limiter, 3), ask(&limiter, 2));
        limiter.set_permits(2);
        assert_eq!(refused(&heavy), 2);
        assert!(granted(&light).is_none());
        drop(running);
        assert!(granted(&light).is_some());
    }

    #[test]
    fn raising_the_limit_serves_those_who_wait() {
        let limiter = Limiter::new(1);
        let running = at_once(&limiter, 1);
        let waiting: Vec<_> = (0..3).map(|_| ask(&limiter, 1)).collect();
        limiter.set_permits(3);
        let permits: Vec<_> = waiting.iter().filter_map(granted).collect();
        assert_eq!((permits.len(), limiter.in_use(), limiter.permits()), (2, 3, 3));
        assert_eq!(format!("{limiter:?}"), "Limiter { permits: 3, in_use: 3, waiting: 1 }");
        drop(running);
    }
}
