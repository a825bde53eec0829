//! A limit for each key, such as each host, that several tasks and requests share.

mod builder;
mod keys;
mod shared;
mod table;
mod waiter;

use std::fmt;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::KeyedLimiterBuilder;
use self::shared::{Entrance, Shared};
use crate::error::ConfigError;
use crate::limiter::{KeyLimiter, Limiter, Permit, Wakers};

/// How many keys are remembered by default.
const MAX_KEYS: usize = 100_000;

/// A limit for each key, such as each host, tenant or account, that several tasks and requests share.
///
/// Each key has a [`Limiter`] of its own, and all of them have the same settings. So a slow host with a full queue does not
/// delay the requests to other hosts. A clone is the same limiter. Its users may live in different runtimes and threads, but
/// only in one process.
///
/// A run uses it with [`limit_per`](crate::MapRun::limit_per): an item that waits for its key holds no permit of the run, and
/// its wait counts in no time limit of an attempt. Code outside of runs takes one permit with [`acquire`](Self::acquire). Within
/// a key it is fair: first come, first served.
///
/// # Which keys are remembered
///
/// A key is remembered from its first use until it is idle. It is idle if no permit of it is in use, no request for it waits, its
/// [rate](KeyedLimiterBuilder::rate) has recovered completely, and no [hold](Self::hold_back) is active. The tenth of its time
/// that follows a hold belongs to it. An idle key is like a new one, so it can be forgotten, and calls forget idle keys as they
/// go: each looks at a few keys that were used before. There is no background task, and no call looks at all keys. So the memory
/// follows the number of keys that are in use, however many keys there are over time.
///
/// At most [`max_keys`](KeyedLimiterBuilder::max_keys) keys are remembered. While that many are not idle, `acquire` of a new
/// key waits. The tasks that wait are served in the order in which they came, as soon as a key is idle: because its last permit is
/// dropped, its rate has recovered or its hold has ended. A key that is remembered has no such wait. For a key that tasks had to
/// wait for, requests that come while it is being added may go before these.
///
/// # What holds up others
///
/// **A future that is not polled.** When a permit is granted to a future of [`acquire`](Self::acquire) that is neither polled nor
/// dropped, the permit is in use, and the requests behind it in the queue of that key wait. If the future waits for room for a
/// new key, all others that wait for room wait behind it. Await such a future, or drop it. [`Limiter`] shows how this [happens in
/// `select!`](Limiter#what-holds-up-other-runs).
///
/// **A task that waits for a second key while it has a permit of a first.** Two such tasks can wait for each other, and so can
/// tasks that have permits of `max_keys` keys and wait for a new key. Drop the first permit before.
///
/// **A key that is slow to compare.** The key's `Eq` runs under a lock that all keys share. It must not use the limiter, because
/// that would be a deadlock. The key's `Hash`, `Clone` and `Drop` run without the lock. If one of the four panics, the panic
/// is passed on to the caller, and the limiter works as before.
///
/// # Examples
///
/// Crawl many hosts, with at most 2 requests to each of them at once:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, KeyedLimiter};
/// use std::time::Duration;
///
/// let hosts = KeyedLimiter::new(2);
/// let task = AsyncMapTask::builder().concurrency(100).build()?;
/// let pages = (0..100).map(|page| (if page < 90 { "slow.example" } else { "fast.example" }, page));
/// let result = task
///     .over(pages)
///     .map(async |(host, page): (&'static str, u32)| {
///         let wait = if host == "slow.example" { 1_000 } else { 1 };
///         tokio::time::sleep(Duration::from_millis(wait)).await; // a request to the host belongs here
///         Ok::<_, String>(page)
///     })
///     .limit_per(|(host, _)| *host, &hosts)
///     .await?;
/// assert_eq!(result.successes(), 100);
/// assert_eq!(result.summary.elapsed.as_secs(), 45);
/// assert_eq!(hosts.keys(), 0);
/// # Ok(())
/// # }
/// ```
pub struct KeyedLimiter<K> {
    shared: Arc<Shared<K>>,
}

impl<K> KeyedLimiter<K> {
    /// The default of [`max_keys`](KeyedLimiterBuilder::max_keys): 100,000 keys.
    pub const DEFAULT_MAX_KEYS: usize = MAX_KEYS;

    /// Returns a builder for a limiter with a rate, permits, or both, for each key.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::KeyedLimiter;
    /// use std::time::Duration;
    ///
    /// let tenants = KeyedLimiter::<u64>::builder().permits(4).rate(600, Duration::from_secs(60)).build()?;
    /// # let _ = tenants;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn builder() -> KeyedLimiterBuilder<K> {
        KeyedLimiterBuilder::new()
    }

    fn like(model: Limiter, max_keys: usize) -> Self {
        Self { shared: Arc::new(Shared::new(model, max_keys)) }
    }

    /// Returns the number of keys that it remembers. Idle keys are forgotten before they are counted, so these are the keys that
    /// are in use, or recover from a rate or a hold.
    ///
    /// It looks at all keys that were used since the last call of any method.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::KeyedLimiter;
    /// use std::time::Duration;
    ///
    /// let hosts = KeyedLimiter::builder().rate(10, Duration::from_secs(1)).build()?;
    /// drop(hosts.acquire("a.example").await?);
    /// assert_eq!(hosts.keys(), 1);
    /// tokio::time::sleep(Duration::from_millis(100)).await;
    /// assert_eq!(hosts.keys(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> usize {
        self.shared.count_keys()
    }
}

impl<K: Eq + Hash + Clone> KeyedLimiter<K> {
    /// Creates a limiter with this many permits for each key, and no rate.
    ///
    /// With 0 permits, [`acquire`](Self::acquire) returns an error.
    pub fn new(permits: usize) -> Self {
        Self::like(Limiter::model(permits), MAX_KEYS)
    }

    /// Waits for one permit of the key. It is returned when it is dropped.
    ///
    /// If the key is new and [`max_keys`](KeyedLimiterBuilder::max_keys) keys are not idle, it first waits until one of them is;
    /// see [which keys are remembered](Self#which-keys-are-remembered).
    ///
    /// # Errors
    ///
    /// Returns an error if the limiter was created by [`new(0)`](Self::new).
    ///
    /// # Panics
    ///
    /// Panics if it has to wait for a rate, a hold, or a key that recovers from one, outside a Tokio runtime that has its time
    /// enabled. Passes on a panic of the key's `Hash`, `Eq`, `Clone` or `Drop`.
    ///
    /// # Cancel safety
    ///
    /// It is cancel safe. A future that is dropped leaves the queue, and has consumed nothing. Its key is forgotten when it is
    /// idle.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::KeyedLimiter;
    ///
    /// let hosts = KeyedLimiter::new(4);
    /// let permit = hosts.acquire("a.example").await?;
    /// assert_eq!(hosts.in_use(&"a.example"), 1); // a request to the host belongs here
    /// drop(permit);
    /// assert_eq!(hosts.in_use(&"a.example"), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&self, key: K) -> Result<Permit, ConfigError> {
        let shared = &*self.shared;
        let hash = shared.hash(&key);
        let mut attempt = move |number| {
            shared.limiter(hash, &key, Entrance::InTurn(number)).map(|(limiter, _woken)| limiter)
        };
        let limiter = match attempt(None) {
            Ok(limiter) => limiter,
            Err(_) => {
                let mut waiter = shared.waiter(Some(hash));
                poll_fn(|cx| waiter.poll(cx, &mut attempt)).await
            }
        };
        // This drops the key, before the permit is there. Its `Drop` may panic, which would leak a permit that is being returned.
        drop(attempt);
        limiter.acquire().await
    }

    /// Takes one permit of the key, if [`acquire`](Self::acquire) would not have to wait. Returns `None` otherwise. The permit
    /// counts as a start of the key's rate, also if it is dropped at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::KeyedLimiter;
    ///
    /// let hosts = KeyedLimiter::new(1);
    /// let permit = hosts.try_acquire("a.example");
    /// assert!(permit.is_some() && hosts.try_acquire("a.example").is_none());
    /// assert!(hosts.try_acquire("b.example").is_some());
    /// ```
    pub fn try_acquire(&self, key: K) -> Option<Permit> {
        let hash = self.shared.hash(&key);
        let (limiter, wakers) = self.shared.limiter(hash, &key, Entrance::InTurn(None)).ok()?;
        drop(wakers);
        // Its `Drop` may panic, which would leak a permit that is being returned.
        drop(key);
        limiter.try_acquire()
    }

    /// Holds one key back: no permit of it is granted until the time has passed. Permits that are in use are not affected, and
    /// neither are other keys.
    ///
    /// A hold can extend another, but not shorten it. Each lasts at most [`max_hold`](KeyedLimiterBuilder::max_hold), by default
    /// 300 s. In the tenth of that time that follows, permits are granted one after another; see [`Limiter::hold_back`].
    ///
    /// A key that is held back counts as in use. A key with a permit in use or a request that waits is remembered anyway. For
    /// a new key, the hold is kept even if [`max_keys`](KeyedLimiterBuilder::max_keys) keys are not idle. Then up to twice as many
    /// keys are remembered, until holds have ended. Returns `false` if that was not enough, so that the hold was not
    /// kept; `true` in all other cases.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::KeyedLimiter;
    /// use std::time::Duration;
    ///
    /// let hosts = KeyedLimiter::new(4);
    /// hosts.hold_back(&"a.example", Duration::from_secs(30));
    /// assert!(hosts.try_acquire("a.example").is_none());
    /// assert!(hosts.try_acquire("b.example").is_some());
    ///
    /// let start = tokio::time::Instant::now();
    /// drop(hosts.acquire("a.example").await?);
    /// assert_eq!(start.elapsed(), Duration::from_secs(30));
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold_back(&self, key: &K, time: Duration) -> bool {
        let hash = self.shared.hash(key);
        let limiter = self.shared.limiter(hash, key, Entrance::Hold);
        limiter.map(|(limiter, _woken)| limiter.hold_back(time)).is_ok()
    }

    /// Returns the number of permits of the key that are in use; 0 if it is not remembered.
    pub fn in_use(&self, key: &K) -> usize {
        self.shared.look(key, KeyLimiter::in_use)
    }

    /// Returns the number of requests that wait for a permit of the key; 0 if it is not remembered. Requests that wait until
    /// there is room for their key do not count.
    pub fn waiting(&self, key: &K) -> usize {
        self.shared.look(key, KeyLimiter::waiting)
    }

    /// Returns the limiter of the key, which is created if there is none, and the tasks that have waited for it. `None` if the key is new and `max_keys` keys are not
    /// idle; then [`room`](Self::room) waits for a change.
    ///
    /// The key is remembered until all clones of its limiter are dropped, and all permits and tickets of it. Dropping the last of
    /// them may wake a task that waits for room, so drop it where tasks may be woken.
    pub(crate) fn limiter(&self, key: &K) -> Option<(Limiter, Wakers)> {
        let hash = self.shared.hash(key);
        self.shared.limiter(hash, key, Entrance::Room).ok()
    }

    /// Returns the limiter of the key, if it is remembered; see [`limiter`](Self::limiter).
    pub(crate) fn known(&self, key: &K) -> Option<Limiter> {
        self.shared.known(key)
    }
}

impl<K: Send + 'static> KeyedLimiter<K> {
    /// Waits until a new key may fit, behind all tasks that wait for that.
    ///
    /// It keeps no room: another task may use it first. A future that is neither polled nor dropped holds up those behind it. So
    /// it must not be kept while its task does not want to add a key.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + use<K> + 'static {
        let shared = Arc::clone(&self.shared);
        let mut waiter = shared.waiter(None);
        poll_fn(move |cx| waiter.poll(cx, &mut |number| shared.has_room(number)))
    }
}

impl<K> Clone for KeyedLimiter<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for KeyedLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is the caller's code, so the lock is released before.
        let keys = self.keys();
        f.debug_struct("KeyedLimiter").field("max_keys", &self.shared.max_keys).field("keys", &keys).finish()
    }
}

#[cfg(test)]
mod tests;
