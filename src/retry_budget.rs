//! A limit on retries that several tasks and runs share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decimal::Decimal;
use crate::error::ConfigError;
use crate::lock::lock;
use crate::retry::budget::Window;
use crate::rt::{Instant, Mutex};

/// A limit on retries, as a fraction of the first attempts, that several tasks and runs share; see
/// [`retry_budget`](crate::AsyncMapTaskBuilder::retry_budget).
///
/// [`retries`](crate::AsyncMapTaskBuilder::retries) limits the attempts at one item. If a server is down, every item fails,
/// and `retries(3)` sends it four times the usual load. A budget limits the retries of all items together. A few errors are
/// retried as before. If most attempts fail, the load grows by the [`ratio`](RetryBudgetBuilder::ratio) only.
///
/// A retry is granted if this is at least 1, in exact arithmetic:
///
/// > floor([`ratio`](RetryBudgetBuilder::ratio) × first attempts begun in the last
/// > [`window`](RetryBudgetBuilder::window)) + [`min_per_second`](RetryBudgetBuilder::min_per_second) × `window` - retries
/// > granted in the last `window`
///
/// The retry is charged when it is granted: after an attempt has failed, if everything else allows another attempt. That is
/// before its delay. If the budget is spent, [`when_spent`](RetryBudgetBuilder::when_spent) decides: the item fails with the
/// error that it has, or waits. Running attempts are never affected. An item that needs no attempt, because its output was
/// recovered, cached or carried over, is no first attempt.
///
/// A clone is the same budget. The runs may live in different runtimes and threads, but only in one process. It needs 24 bytes
/// for each millisecond of the window in which an attempt begins or a retry is granted: at most 240 KB by default, and 1.4 MB
/// for a window of 60 s.
///
/// The guide compares [its results](crate::guide::limits#a-budget-for-retries) with other budgets.
///
/// # Examples
///
/// All 100 items fail. Without a budget, there would be 300 retries:
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::{AsyncMapTask, RetryBudget};
///
/// let budget = RetryBudget::builder().ratio(0.2).min_per_second(0).build()?;
/// let task = AsyncMapTask::builder().retries(3).retry_budget(&budget).allow_failures().build()?;
/// let result = task.run(0..100, |_| async { Err::<(), _>("the server is down") }).await?;
/// // Each item has begun its first attempt, and one in five of them was retried.
/// assert_eq!((result.summary.retries, result.summary.retries_refused), (20, 100));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RetryBudgetBuilder,
    /// The start of the milliseconds that the window counts.
    origin: Instant,
    /// No code of the caller's runs while this is locked.
    window: Mutex<Window>,
}

/// Decides if an item that could be retried fails or waits while the [`RetryBudget`] is spent; see
/// [`when_spent`](RetryBudgetBuilder::when_spent).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenSpent {
    /// The item fails immediately with the error that it has, and counts in
    /// [`Summary::retries_refused`](crate::Summary::retries_refused).
    #[default]
    Fail,
    /// The item waits, without a permit, until the budget grants its retry.
    ///
    /// Its time limits continue. It counts as held, like an item that waits for the delay of its retry: it counts towards
    /// [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead). The items of a run are granted their retries in the order of
    /// their failures. Several runs that wait are not served in any order.
    ///
    /// A run whose items wait asks the budget again whenever it begins a first attempt, when one of its attempts fails, and when
    /// the window frees a retry. It is not woken by the first attempts of other runs: it may notice the room that these have
    /// made only at the next of its own occasions.
    Wait,
}

impl RetryBudget {
    /// The default of [`ratio`](RetryBudgetBuilder::ratio): one retry for five first attempts.
    pub const DEFAULT_RATIO: f64 = 0.2;
    /// The default of [`min_per_second`](RetryBudgetBuilder::min_per_second): 10 retries.
    pub const DEFAULT_MIN_PER_SECOND: u32 = 10;
    /// The default of [`window`](RetryBudgetBuilder::window): 10 seconds.
    pub const DEFAULT_WINDOW: Duration = Duration::from_secs(10);

    /// Returns a builder with the defaults.
    ///
    /// # Examples
    ///
    /// ```
    /// use async_map_task::RetryBudget;
    /// use std::time::Duration;
    ///
    /// // At most one retry for ten first attempts, and 5 retries a second more, over the last 30 seconds.
    /// let budget = RetryBudget::builder()
    ///     .ratio(0.1)
    ///     .min_per_second(5)
    ///     .window(Duration::from_secs(30))
    ///     .build()?;
    /// # let _ = budget;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder {
            ratio: Self::DEFAULT_RATIO,
            min_per_second: Self::DEFAULT_MIN_PER_SECOND,
            window: Self::DEFAULT_WINDOW,
            when_spent: WhenSpent::Fail,
        }
    }

    pub(crate) fn when_spent(&self) -> WhenSpent {
        self.shared.settings.when_spent
    }

    /// Counts a first attempt that begins now.
    pub(crate) fn count_first_attempt(&self, now: Instant) {
        lock(&self.shared.window).count_first_attempt(self.millis(now));
    }

    /// Grants a retry and charges it. Returns `false` if the budget is spent.
    pub(crate) fn grant(&self, now: Instant) -> bool {
        lock(&self.shared.window).grant(self.millis(now))
    }

    /// Returns the time from which the budget has room if no other event is counted until then. It has passed if the budget has
    /// room now. `None` if it never has room without a first attempt.
    pub(crate) fn next_room(&self) -> Option<Instant> {
        let room = lock(&self.shared.window).next_room();
        room.map(|millis| self.shared.origin + Duration::from_millis(millis))
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.shared.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryBudgetBuilder { ratio, min_per_second, window, when_spent } = self.shared.settings;
        // The formatter is the caller's code, so the lock is released before.
        let (first_attempts, retries) = lock(&self.shared.window).counts(self.millis(Instant::now()));
        f.debug_struct("RetryBudget")
            .field("ratio", &ratio)
            .field("min_per_second", &min_per_second)
            .field("window", &window)
            .field("when_spent", &when_spent)
            .field("first_attempts", &first_attempts)
            .field("retries", &retries)
            .finish()
    }
}

/// The settings of a [`RetryBudget`] before it is built; created by [`RetryBudget::builder`].
///
/// No setter panics, and none checks its value: [`build`](Self::build) checks them all.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RetryBudgetBuilder {
    ratio: f64,
    min_per_second: u32,
    window: Duration,
    when_spent: WhenSpent,
}

impl RetryBudgetBuilder {
    /// Sets how many retries each first attempt allows, from 0 to 10.
    ///
    /// The default is [`DEFAULT_RATIO`](RetryBudget::DEFAULT_RATIO), 0.2. The ratio is the decimal that was written: 0.2 is
    /// exactly one retry for five first attempts, and 0.3 three for ten. With 0, only
    /// [`min_per_second`](Self::min_per_second) allows retries.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::RetryBudget;
    /// let budget = RetryBudget::builder().ratio(0.3).build()?;
    ///
    /// let error = RetryBudget::builder().ratio(20.0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "ratio must be between 0 and 10, got 20");
    /// # let _ = budget;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets how many retries a second are allowed besides those of the [`ratio`](Self::ratio), on average over the window.
    ///
    /// The default is [`DEFAULT_MIN_PER_SECOND`](RetryBudget::DEFAULT_MIN_PER_SECOND), 10. So a small run is retried as if
    /// there were no budget. With the default [`window`](Self::window) of 10 s, these are 100 retries in any 10 s, which may
    /// all be granted at once. The number for a window is rounded down.
    ///
    /// With 0, the first attempts have to earn every retry. That is an error of [`build`](Self::build) with
    /// [`WhenSpent::Wait`], because a retry could wait for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::RetryBudget;
    /// let budget = RetryBudget::builder().min_per_second(1).build()?;
    /// # let _ = budget;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn min_per_second(mut self, retries: u32) -> Self {
        self.min_per_second = retries;
        self
    }

    /// Sets for how long a first attempt and a granted retry count, from 1 s to 60 s.
    ///
    /// The default is [`DEFAULT_WINDOW`](RetryBudget::DEFAULT_WINDOW), 10 seconds. It is counted in whole milliseconds of
    /// Tokio's clock; a fraction of one is dropped. A longer window allows more retries at once, after a longer time without
    /// failures.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::RetryBudget;
    /// # use std::time::Duration;
    /// let budget = RetryBudget::builder().window(Duration::from_secs(30)).build()?;
    /// # let _ = budget;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets if an item that could be retried fails or waits while the budget is spent.
    ///
    /// The default is [`WhenSpent::Fail`].
    ///
    /// # Examples
    ///
    /// Every item gets its retry, but at most 10 of them start in any second:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use async_map_task::{AsyncMapTask, RetryBudget, WhenSpent};
    /// # use std::time::Duration;
    /// let budget = RetryBudget::builder()
    ///     .ratio(0.0)
    ///     .window(Duration::from_secs(1))
    ///     .when_spent(WhenSpent::Wait)
    ///     .build()?;
    /// let task =
    ///     AsyncMapTask::builder().retries(1).retry_delay(Duration::ZERO).retry_budget(&budget).build()?;
    /// let run = task.over(0..100).map_with_context(|cx, n| async move {
    ///     if cx.attempt() == 1 { Err("busy") } else { Ok(n) }
    /// });
    /// let result = run.await?;
    /// assert_eq!((result.successes(), result.summary.retries), (100, 100));
    /// assert_eq!(result.summary.elapsed.as_secs(), 9);
    /// # Ok(())
    /// # }
    /// ```
    pub fn when_spent(mut self, when_spent: WhenSpent) -> Self {
        self.when_spent = when_spent;
        self
    }

    /// Checks the settings and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that names the first invalid setting, its value and the allowed values. A setting is
    /// invalid if:
    ///
    /// - [`ratio`](Self::ratio) is below 0, above 10 or NaN;
    /// - [`window`](Self::window) is below 1 s or above 60 s;
    /// - [`min_per_second`](Self::min_per_second) is 0 with [`WhenSpent::Wait`].
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        let Some(ratio) = Decimal::within(self.ratio, 10.0) else {
            return Err(ConfigError::new("ratio", self.ratio, "between 0 and 10"));
        };
        let allowed = Duration::from_secs(1)..=Duration::from_secs(60);
        if !allowed.contains(&self.window) {
            return Err(ConfigError::new("window", format_args!("{:?}", self.window), "between 1s and 60s"));
        }
        if self.when_spent == WhenSpent::Wait && self.min_per_second == 0 {
            let allowed = "at least 1 with WhenSpent::Wait, because a retry could wait for ever";
            return Err(ConfigError::new("min_per_second", 0, allowed));
        }
        // At most 60,000, so it fits.
        let length = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        let window = Mutex::new(Window::new(ratio, self.min_per_second, length));
        Ok(RetryBudget { shared: Arc::new(Shared { settings: self, origin: Instant::now(), window }) })
    }
}
