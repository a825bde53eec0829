//! A limit that several tasks and requests share.

mod numbered;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use self::numbered::Numbered;
use crate::lock::lock;
use crate::rt::{Mutex, MutexGuard};

/// A limit on running attempts that several tasks, runs and requests share; see
/// [`limiter`](crate::AsyncMapTaskBuilder::limiter).
///
/// A clone is the same limit. An attempt of a task with a limiter needs permits of its run, within
/// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), and as many permits of the limiter. Their number is the
/// [`weight`](crate::MapRun::weight) of the item, by default 1. The attempt returns them when it ends, before the delay of a
/// retry. An attempt of [`map_blocking`](crate::Over::map_blocking) returns them when its function has returned.
///
/// It is fair: first come, first served. An attempt that needs many permits is not starved by attempts that need few. While
/// it waits, the requests behind it wait, too. A run waits in the queue with one item at a time. So a run of many items gets
/// no more turns than a run of few.
///
/// The runs may live in different runtimes and threads.
///
/// # What holds up other runs
///
/// **An item that awaits another run of the same limiter.** It holds a permit that the inner items wait for. If such items
/// hold all permits, none of them continues. Give inner runs a limiter of their own, or none.
///
/// **A run that is not polled.** When its turn in the queue comes, the limiter grants permits to the run. They are in use
/// from then on. A run that is not polled neither starts its item nor returns these permits, and its running items keep
/// theirs. If these are all permits, every other run of the limiter waits until the run is polled again or dropped.
///
/// This happens easily in `select!`. While the body of one branch runs, the other branches are not polled:
///
/// ```no_run
/// # use async_map_task::{AsyncMapTask, MapTaskError};
/// # use std::{pin::pin, time::Duration};
/// # async fn wrong(task: AsyncMapTask) -> Result<(), MapTaskError<u64, String>> {
/// # let call = async |n: u64| Ok::<_, String>(n);
/// # let mut tick = tokio::time::interval(Duration::from_secs(1));
/// let mut report = pin!(task.run(0..100, call));
/// loop {
///     tokio::select! {
///         biased;
///         result = &mut report => return result.map(drop),
///         // Wrong: this can wait forever for permits that `report` has, because nothing polls `report` here.
///         _ = tick.tick() => drop(task.run(0..3, call).await?),
///     }
/// }
/// # }
/// ```
///
/// [`spawn`](crate::MapRun::spawn) the run, so that the runtime polls it, or poll all runs together, for example with
/// `tokio::join!`:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use async_map_task::{AsyncMapTask, Limiter};
/// # use std::time::Duration;
/// # let task = AsyncMapTask::builder().limiter(&Limiter::new(1)).build()?;
/// # let call = async |n: u64| {
/// #     tokio::time::sleep(Duration::from_secs(1)).await;
/// #     Ok::<_, String>(n)
/// # };
/// # let mut tick = tokio::time::interval(Duration::from_secs(10));
/// let mut report = task.run(0..100, call).spawn();
/// let result = loop {
///     tokio::select! {
///         biased;
///         result = &mut report => break result?,
///         _ = tick.tick() => drop(task.run(0..3, call).await?),
///     }
/// };
/// assert_eq!(result.successes(), 100);
///
/// let (one, other) = tokio::join!(task.run(0..3, call), task.run(0..3, call));
/// assert_eq!((one?.successes(), other?.successes()), (3, 3));
/// # Ok(())
/// # }
/// ```
///
/// # Examples
///
/// One limit for all requests of a service, however many tasks they run:
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

/// No code of the caller's runs while this is locked: a waker is cloned, woken and dropped after the lock is released.
struct State {
    permits: usize,
    /// The largest number of permits so far.
    most: usize,
    /// The permits of running attempts, and of grants that were not taken. It is above `permits` after these were lowered,
    /// and while a heavier attempt runs alone.
    in_use: usize,
    /// The number of the next request that has to wait.
    next_number: u64,
    /// The requests that wait, in the order in which they were made.
    waiting: Numbered<Request>,
    /// The requests that were granted permits and have not taken them, in the same order.
    granted: Numbered<()>,
    /// How many requests have left the queue without permits.
    given_up: u64,
}

/// A request for permits that has to wait.
struct Request {
    weight: u32,
    waker: Waker,
}

impl Limiter {
    /// Creates a limiter with this many permits.
    ///
    /// With 0 permits, it refuses every attempt until [`set_permits`](Self::set_permits) gives it some: a run ends
    /// with [`FailureReason::Config`](crate::FailureReason::Config) when its first item is due to start. To begin with
    /// a limiter that holds all runs back instead, create it with permits and then call `set_permits(0)`.
    pub fn new(permits: usize) -> Self {
        let (waiting, granted) = (Numbered::new(), Numbered::new());
        let state =
            State { permits, most: permits, in_use: 0, next_number: 0, waiting, granted, given_up: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the number of permits immediately.
    ///
    /// Running attempts continue. If more permits are in use than there are now, nothing starts until enough of them
    /// have been returned.
    ///
    /// Lowering the limit never ends a run. An item with a weight above the new limit keeps its turn in the queue, and
    /// starts alone. It waits until all permits have been returned, and nothing else starts until it has returned its own.
    /// Only a weight above the largest number of permits that this limiter has ever had is refused. It ends its run with
    /// [`FailureReason::Config`](crate::FailureReason::Config).
    ///
    /// `set_permits(0)` holds everything back: nothing starts until the limit is raised again. Time limits continue
    /// meanwhile, such as [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout).
    pub fn set_permits(&self, permits: usize) {
        let mut state = self.lock();
        state.permits = permits;
        state.most = state.most.max(permits);
        self.serve(state);
    }

    /// Returns the number of permits.
    pub fn permits(&self) -> usize {
        self.lock().permits
    }

    /// Returns the number of permits in use.
    ///
    /// It can be above [`permits`](Self::permits) for a while after the limit was lowered, and while an item that
    /// weighs more than the limit runs alone.
    pub fn in_use(&self) -> usize {
        self.lock().in_use
    }

    /// Requests permits. They are granted immediately if they are free and no other request waits.
    pub(crate) fn acquire(&self, weight: u32, waker: &Waker) -> Result<Acquired, TooHeavy> {
        let mut own_waker = None;
        loop {
            let mut state = self.lock();
            if weight as usize > state.most {
                return Err(TooHeavy { most: state.most });
            }
            if state.waiting.is_empty() && state.fits(weight) {
                state.in_use += weight as usize;
                return Ok(Acquired::Now(Permit { limiter: self.clone(), weight }));
            }
            if let Some(waker) = own_waker.take() {
                let number = state.join(Request { weight, waker });
                return Ok(Acquired::Later(Ticket { limiter: self.clone(), number, weight }));
            }
            drop(state);
            own_waker = Some(waker.clone());
        }
    }

    fn release(&self, weight: u32) {
        let mut state = self.lock();
        state.in_use -= weight as usize;
        self.serve(state);
    }

    /// Grants permits to the requests that wait, as far as there are enough, and wakes their tasks.
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
    /// Returns `true` if there are enough permits now. A weight above the limit needs all permits to be free.
    fn fits(&self, weight: u32) -> bool {
        let is_free = self.in_use == 0 || self.in_use.saturating_add(weight as usize) <= self.permits;
        self.permits > 0 && is_free
    }

    fn join(&mut self, request: Request) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.push(number, request);
        number
    }

    /// Grants the first request its permits, if there are enough, and returns its waker.
    fn grant_next(&mut self) -> Option<Waker> {
        let weight = self.waiting.first()?.weight;
        if !self.fits(weight) {
            return None;
        }
        let (number, request) = self.waiting.remove_first()?;
        self.in_use += weight as usize;
        self.granted.push(number, ());
        Some(request.waker)
    }
}

/// Permits, or a position in the queue for them.
#[derive(Debug)]
pub(crate) enum Acquired {
    Now(Permit),
    Later(Ticket),
}

/// A position in the queue of a limiter. When it is dropped, it leaves the queue, and returns permits that were granted and
/// not taken.
#[derive(Debug)]
pub(crate) struct Ticket {
    limiter: Limiter,
    number: u64,
    weight: u32,
}

/// The weight is above `most`, the largest number of permits that the limiter has ever had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooHeavy {
    pub(crate) most: usize,
}

/// The permits of a ticket were taken before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AlreadyTaken;

impl Ticket {
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Takes the permits if they are granted, and replaces the waker if they are not.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Permit, AlreadyTaken>> {
        let mut own_waker = None;
        loop {
            let mut state = self.limiter.lock();
            if state.granted.remove(self.number).is_some() {
                return Poll::Ready(Ok(Permit { limiter: self.limiter.clone(), weight: self.weight }));
            }
            let Some(request) = state.waiting.get_mut(self.number) else {
                return Poll::Ready(Err(AlreadyTaken));
            };
            if request.waker.will_wake(waker) {
                return Poll::Pending;
            }
            if let Some(new) = own_waker.take() {
                let old = mem::replace(&mut request.waker, new);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            drop(state);
            own_waker = Some(waker.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        if state.granted.remove(self.number).is_some() {
            state.in_use -= self.weight as usize;
        }
        // Its waker is dropped at the end of this function, after the lock was released.
        let request = state.waiting.remove(self.number);
        state.given_up += u64::from(request.is_some());
        self.limiter.serve(state);
    }
}

/// Permits that are in use until this is dropped.
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
        let state = self.lock();
        let (permits, in_use, waiting, given_up) =
            (state.permits, state.in_use, state.waiting.len(), state.given_up);
        // The formatter is the caller's code.
        drop(state);
        f.debug_struct("Limiter")
            .field("permits", &permits)
            .field("in_use", &in_use)
            .field("waiting", &waiting)
            .field("given_up", &given_up)
            .finish()
    }
}

#[cfg(test)]
mod tests;
