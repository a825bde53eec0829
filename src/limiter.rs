//! A limit that several tasks and requests share.

mod acquire;
mod adaptive;
mod builder;
mod hold;
mod joint;
mod key;
mod numbered;
mod rate;
mod request;
mod room;
mod seeking;
mod set;
mod state;
mod ticket;

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub(crate) use self::acquire::Acquire;
pub(crate) use self::adaptive::Change;
pub use self::builder::LimiterBuilder;
pub(crate) use self::key::KeyLimiter;
use self::key::KeyUses;
use self::rate::Rate;
use self::request::{Request, Task};
pub(crate) use self::room::{KeyId, Room, Wakers};
pub(crate) use self::set::LimiterSet;
use self::state::State;
use self::ticket::Ended;
pub use self::ticket::Permit;
pub(crate) use self::ticket::{Acquired, SharedPermits, Ticket, Turn};
use crate::error::ConfigError;
use crate::lock::lock;
use crate::rt::{Instant, Mutex, MutexGuard};

/// The longest hold, unless [`LimiterBuilder::max_hold`] sets another.
const MAX_HOLD: Duration = Duration::from_secs(300);

/// A limit on running attempts that several tasks, runs and requests share; see
/// [`limiter`](crate::AsyncMapTaskBuilder::limiter).
///
/// A clone is the same limit. An attempt of a task with a limiter needs permits of its run, within
/// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), and as many permits of the limiter. Their number is the
/// [`weight`](crate::MapRun::weight) of the item, by default 1. The attempt returns them when it ends, before the delay of a
/// retry. An attempt of [`map_blocking`](crate::Over::map_blocking) returns them when its function has returned.
///
/// Besides the number of attempts at once, or instead of it, a limiter can bound how many begin per second; see
/// [`builder`](Self::builder). It can hold everything back after a refusal; see [`hold_back`](Self::hold_back). Code outside of
/// runs takes permits by hand; see [`acquire`](Self::acquire). The guide helps to [choose](crate::guide::limits).
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
/// theirs. If these are all permits, every other run of the limiter waits until the run is polled again or dropped. If the
/// limiter has a rate, all requests behind that run wait, because it does not take its turn when the time has come. The same
/// holds for a future of [`acquire`](Self::acquire) that is not polled.
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
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, Limiter};
/// use std::time::Duration;
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
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         Ok::<_, String>(n)
///     }
/// };
/// let (one, other) = tokio::join!(thumbnails.run(0..500, note), uploads.run(0..500, note));
/// assert_eq!((one?.successes(), other?.successes()), (500, 500));
/// assert_eq!((peak.get(), limiter.in_use()), (100, 0));
/// # Ok(())
/// # }
/// ```
pub struct Limiter {
    shared: Arc<Shared>,
}

/// What the clones of a limiter share.
struct Shared {
    state: Mutex<State>,
    /// Set for the limiter of a key of a keyed limiter. Such a key is not forgotten before all clones are dropped.
    uses: Option<KeyUses>,
    /// `true` if the limiter finds its own number of permits.
    is_adaptive: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Limiter {
    /// Creates a limiter with this many permits, and no rate.
    ///
    /// With 0 permits, it refuses every attempt until [`set_permits`](Self::set_permits) gives it some: a run ends
    /// with [`FailureReason::Config`](crate::FailureReason::Config) when its first item is due to start. To begin with
    /// a limiter that holds all runs back instead, create it with permits and then call `set_permits(0)`.
    pub fn new(permits: usize) -> Self {
        Self::with_state(State::new(permits, "Limiter::new(0)"))
    }

    /// Creates a limiter that lets this many attempts begin per second, evenly spaced. Any number of them may run at once.
    ///
    /// It is the short form of [`builder().rate(n, one second)`](LimiterBuilder::rate). With 0, it refuses every attempt, as
    /// [`new(0)`](Self::new) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Limiter};
    ///
    /// let task = AsyncMapTask::builder().concurrency(100).limiter(&Limiter::per_second(50)).build()?;
    /// let result = task.run(0..101, async |n: u32| Ok::<_, String>(n)).await?;
    /// assert_eq!(result.summary.elapsed.as_secs(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("rate", "rate limit", "throttle"))]
    pub fn per_second(count: u32) -> Self {
        let rate = Rate::new(count, Duration::from_secs(1), 1);
        let permits = if rate.is_ok() { usize::MAX } else { 0 };
        let mut state = State::new(permits, "Limiter::per_second(0)");
        rate.into_iter().for_each(|rate| state.set_rate(rate));
        Self::with_state(state)
    }

    /// Returns a builder for a limiter with a rate, permits, or both.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    /// Creates the limiter of a run that can hold its own items back: it bounds nothing else.
    pub(crate) fn for_holds(concurrency: usize) -> Self {
        let mut state = State::new(usize::MAX, "");
        state.starts_after_hold = Some(concurrency);
        Self::with_state(state)
    }

    fn with_state(state: State) -> Self {
        let is_adaptive = state.is_adaptive();
        Self { shared: Arc::new(Shared { state: Mutex::new(state), uses: None, is_adaptive }) }
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
    ///
    /// An [adaptive](LimiterBuilder::adaptive) limiter goes on from the new number, which is brought into its range. After
    /// `set_permits(0)`, it holds everything back until another call gives it permits.
    pub fn set_permits(&self, permits: usize) {
        let mut state = self.lock();
        state.set_permits(permits);
        self.serve(state);
    }

    /// Changes the rate immediately, or gives the limiter a rate: at most `count` attempts begin per `period`; see
    /// [`LimiterBuilder::rate`]. The burst stays as it is, by default 1.
    ///
    /// Attempts that have begun are still counted: after a burst of 10, the first start under the new rate comes ten of the
    /// new intervals later.
    ///
    /// # Errors
    ///
    /// Returns an error if `count` is 0, or `period` is 0 or above 24 hours. The rate does not change then.
    pub fn set_rate(&self, count: u32, period: Duration) -> Result<(), ConfigError> {
        let mut state = self.lock();
        let rate = Rate::new(count, period, state.burst())?;
        state.set_rate(rate);
        self.serve(state);
        Ok(())
    }

    /// Holds everything back: no attempt begins under this limiter until the time has passed, in any run. Running attempts
    /// continue.
    ///
    /// This is what a `429 Too Many Requests` with a `Retry-After` asks of a client: not only the item that got the answer
    /// waits, but all that would get the same. A run does it with [`hold_back`](crate::MapRun::hold_back).
    ///
    /// A hold can extend another, but not shorten it. Each lasts at most [`max_hold`](LimiterBuilder::max_hold), by default 300
    /// s. In the tenth of that time that follows, attempts start one after another, as many as there are permits, so that they
    /// do not all come at once. A limiter with a rate starts without a burst.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Limiter};
    /// use std::time::Duration;
    ///
    /// let api = Limiter::new(10);
    /// api.hold_back(Duration::from_secs(30));
    /// let task = AsyncMapTask::builder().limiter(&api).build()?;
    /// let result = task.run([1], async |n: u32| Ok::<_, String>(n)).await?;
    /// assert_eq!(result.summary.elapsed.as_secs(), 30);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold_back(&self, time: Duration) {
        self.begin_hold(time);
    }

    /// Holds everything back. Returns the length of the hold if nothing was held back before.
    // It wakes nobody: a grant only becomes later by it. A task that asks too early learns its new time then.
    pub(crate) fn begin_hold(&self, time: Duration) -> Option<Duration> {
        self.lock().hold_back(time)
    }

    /// Returns `true` if a hold is active.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().is_held()
    }

    /// Returns the present number of permits; `usize::MAX` if there is no bound.
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

    /// Returns the number of requests that wait: at most one of each run, and those of [`acquire`](Self::acquire).
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns the earliest time of the next grant, if it is in the future: because of the rate or a hold.
    pub(crate) fn next_grant(&self) -> Option<Instant> {
        self.lock().next_grant()
    }

    /// Requests permits. They are granted immediately if they are free and no other request waits.
    ///
    /// # Errors
    ///
    /// Returns an error if the weight is above the largest number of permits that the limiter has ever had.
    pub(crate) fn request(&self, weight: u32, waker: &Waker) -> Result<Acquired, ConfigError> {
        let mut own_waker = None;
        loop {
            let mut state = self.lock();
            state.check(weight)?;
            let now = state.now();
            if state.can_take_at_once(weight, now) {
                state.take_at_once(weight, now);
                return Ok(Acquired::Now(Permit::new(self.clone().into(), weight)));
            }
            if let Some(waker) = own_waker.take() {
                let number = state.next_number();
                state.join(number, Request::new(weight, waker));
                let owes_turn = state.tell(number, now);
                return Ok(Acquired::Later(Ticket::of_one(self.clone(), number, weight, owes_turn)));
            }
            drop(state);
            own_waker = Some(waker.clone());
        }
    }

    /// Takes permits, if they could be granted now.
    fn take_at_once(&self, weight: u32) -> bool {
        let mut state = self.lock();
        let now = state.now();
        let can_take = state.can_take_at_once(weight, now);
        if can_take {
            state.take_at_once(weight, now);
        }
        can_take
    }

    fn release(&self, weight: u32, is_unused: bool, ended: Option<&Ended>) {
        let mut state = self.lock();
        if let Some(ended) = ended {
            state.note_end(weight, ended);
        }
        state.release(weight, is_unused);
        if !state.waiting.is_empty() {
            self.serve(state);
        }
    }

    /// Grants permits to the requests that wait, as far as there are enough, and wakes their tasks. If the first that is left
    /// waits for a time, its task is woken as well, unless it knows that time.
    fn serve<'a>(&'a self, state: MutexGuard<'a, State>) {
        let mut others = self.serve_own(state);
        while let Some(other) = others.pop() {
            others.extend(other.serve_own(other.lock()));
        }
    }

    /// Serves the requests of this limiter. Returns other limiters that have to serve theirs.
    fn serve_own<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Vec<Self> {
        let mut others = Vec::new();
        loop {
            let now = state.now();
            let Some(task) = state.next_task(now) else { return others };
            drop(state);
            match task {
                Task::Wake(waker) => waker.wake(),
                Task::Try(joint) => joint.serve(&mut others),
            }
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
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
