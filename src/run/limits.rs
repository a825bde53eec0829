//! The options of a run that delay its attempts: weights, keys and holds.

use std::hash::Hash;
use std::time::Duration;

use super::MapRun;
use super::options::hook;
use crate::engine::Plan;
use crate::engine::running::{Options, Parts};
use crate::engine::user::hooks::{
    HoldBack, LimitPer, OnHoldBack, OnLimitPer, OnOverload, OnWeight, Overload, PerKey, Weight,
};
use crate::keyed_limiter::KeyedLimiter;

/// # Limits
impl<R: Plan> MapRun<R> {
    /// Sets how many permits an item takes from the run's own limit,
    /// [`concurrency`](crate::AsyncMapTaskBuilder::concurrency), and from the shared
    /// [`limiter`](crate::AsyncMapTaskBuilder::limiter). The default is 1, and 0 counts as 1.
    ///
    /// With weights, both limits count an amount of any scarce resource instead of items: megabytes, connections,
    /// cores. Items still start in their order. A heavy item waits until enough permits are free, and the items
    /// behind it wait, too, so it is not starved. The function is called once per item, when the item is pulled.
    ///
    /// With weights, set `concurrency` to the available amount: the default of 4 lets no item of weight 5 start.
    ///
    /// # Errors
    ///
    /// An item that weighs more than the largest value that a limit has had can never start. It ends the run with
    /// [`FailureReason::Config`](crate::FailureReason::Config) when all items before it have started.
    ///
    /// # Examples
    ///
    /// At most 100 megabytes at once:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// #[derive(Clone)]
    /// struct Image { megabytes: u32 }
    ///
    /// let images = [40, 80, 20, 60].map(|megabytes| Image { megabytes });
    /// let in_memory = &std::cell::Cell::new(0);
    /// let task = AsyncMapTask::builder().concurrency(100).build()?;
    /// task.over(images)
    ///     .map(|image| async move {
    ///         in_memory.set(in_memory.get() + image.megabytes);
    ///         assert!(in_memory.get() <= 100);
    ///         tokio::task::yield_now().await;
    ///         in_memory.set(in_memory.get() - image.megabytes);
    ///         Ok::<_, String>(())
    ///     })
    ///     .weight(|image| image.megabytes)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("cost", "tokens"))]
    pub fn weight<F>(self, function: F) -> MapRun<Weight<R, F>>
    where
        F: Fn(&R::Item) -> u32,
    {
        let run = self.with_options(Options::note_weights);
        hook!(run, below => OnWeight { below, function })
    }

    /// Limits the attempts at items with the same key, such as the requests to one host: each key has a limiter of its own in the
    /// [`KeyedLimiter`], which runs and requests share. The default is no keys.
    ///
    /// An item whose key has no free permit waits without a permit of the run, and items with other keys start before it. Items
    /// with the same key start in the order of the input; only retries may come first. An attempt takes one permit of its key,
    /// whatever its [`weight`](Self::weight). It gets it before those of the run and of the
    /// [`limiter`](crate::AsyncMapTaskBuilder::limiter)s, so a run can hold one such permit for an attempt that waits for these.
    ///
    /// Items that wait for their key count in [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead). If they fill it, no other
    /// item is pulled. So an input that is sorted by key runs at the pace of one key at a time: shuffle it, or set `look_ahead`
    /// above the number of items of the slowest key.
    ///
    /// A second call adds another key: an attempt needs a permit of each of them at the same time. The function is called
    /// before each attempt, and more often for an item that has to wait. [`hold_back`](Self::hold_back) holds
    /// the item's key, the first one if there are several.
    ///
    /// # Examples
    ///
    /// At most two requests at once to each host. The slow host does not delay the fast one:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, KeyedLimiter};
    /// use std::time::Duration;
    ///
    /// let hosts = KeyedLimiter::new(2);
    /// let task = AsyncMapTask::builder().concurrency(16).look_ahead(100).build()?;
    /// let urls = (0..40).map(|n| if n % 2 == 0 { ("slow.example", n) } else { ("fast.example", n) });
    /// let result = task
    ///     .over(urls)
    ///     .map(|(host, n)| async move {
    ///         let millis = if host == "slow.example" { 1_000 } else { 10 };
    ///         tokio::time::sleep(Duration::from_millis(millis)).await;
    ///         Ok::<_, String>(n)
    ///     })
    ///     .limit_per(|(host, _)| *host, &hosts)
    ///     .await?;
    /// assert_eq!(result.summary.elapsed.as_secs(), 10); // 20 slow requests, two at once
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("per host", "per key", "partition", "group"))]
    pub fn limit_per<K, F>(self, key: F, limiter: &KeyedLimiter<K>) -> MapRun<LimitPer<R, PerKey<F, K>>>
    where
        F: Fn(&R::Item) -> K,
        K: Eq + Hash + Clone + Send + 'static,
    {
        let function = PerKey { key, limiter: limiter.clone() };
        hook!(self, below => OnLimitPer { below, function })
    }

    /// Holds attempts back after an error that asks for it, such as a `429 Too Many Requests`: none of them begins until the
    /// time that this function returns has passed. Running attempts continue. `None` holds nothing back. The first of these
    /// that the run has is held:
    ///
    /// 1. **The item's key**, with [`limit_per`](Self::limit_per): all items with this key wait, in all runs of the
    ///    [`KeyedLimiter`]. Items with other keys continue.
    /// 2. **The first [`limiter`](crate::AsyncMapTaskBuilder::limiter)**: all its runs wait.
    /// 3. **The run**: only this run waits, and `concurrency` counts as its permits.
    ///
    /// [`Limiter::hold_back`](crate::Limiter::hold_back) states the longest time, and the starts after it. To hold all keys of
    /// a run that also has a limiter, call that method of the limiter in the map function.
    ///
    /// The function does not decide if the item is tried again; [`retry_if`](Self::retry_if) does. It is called for each error
    /// of the map function, also for one that is not retried, and not for timeouts and panics. A hold is a time at which no
    /// retry can start: if it ends after the deadline of the item or of the run, the item fails immediately with this error. The
    /// first hold is logged at INFO, those that extend it are not.
    ///
    /// # Examples
    ///
    /// One refusal, and all four items wait:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use std::time::Duration;
    ///
    /// #[derive(Debug)]
    /// struct Refused { retry_after: Duration }
    ///
    /// let task = AsyncMapTask::builder().concurrency(2).retries(1).retry_delay(Duration::ZERO).build()?;
    /// let result = task
    ///     .over(0..4)
    ///     .map_with_context(|cx, n| async move {
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///         if n == 0 && cx.attempt() == 1 { Err(Refused { retry_after: Duration::from_secs(60) }) } else { Ok(n) }
    ///     })
    ///     .hold_back(|error: &Refused| Some(error.retry_after))
    ///     .await
    ///     .unwrap();
    /// assert_eq!(result.successes(), 4);
    /// assert!(result.summary.elapsed >= Duration::from_secs(1 + 60 + 1));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("429", "cooldown", "circuit breaker", "too many requests", "throttle"))]
    pub fn hold_back<F>(self, function: F) -> MapRun<HoldBack<R, F>>
    where
        F: Fn(&R::Error) -> Option<Duration>,
    {
        hook!(self, below => OnHoldBack { below, function })
    }

    /// Sets which errors are overloads of the server, for the [adaptive](crate::LimiterBuilder::adaptive) limiters of this run. They
    /// lower the limit. Without such a limiter, it has no effect.
    ///
    /// The default is every error that [holds back](Self::hold_back) other items. With this function, its answer counts instead.
    /// An attempt that exceeds [`timeout_per_attempt`](crate::AsyncMapTaskBuilder::timeout_per_attempt) is an overload in any case.
    /// All other ends of attempts tell the limiter how long the server takes. So name errors that a server returns because it is busy,
    /// such as `503 Service Unavailable`: they come faster than an answer.
    ///
    /// The function is called for each error of the map function, also for one that is not retried.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::{AsyncMapTask, Limiter};
    ///
    /// let server = Limiter::builder().adaptive(1..=100).start_at(10).build()?;
    /// let task = AsyncMapTask::builder().concurrency(100).limiter(&server).allow_failures().build()?;
    /// task.over(0..100)
    ///     .map(async |_| Err::<(), _>(503))
    ///     .overload(|status| *status == 503)
    ///     .await
    ///     .unwrap();
    /// assert!(server.permits() < 10);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("503", "load shedding", "congestion"))]
    pub fn overload<F>(self, function: F) -> MapRun<Overload<R, F>>
    where
        F: Fn(&R::Error) -> bool,
    {
        hook!(self, below => OnOverload { below, function })
    }
}
