//! The task and its builder.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;

use crate::config::{Config, Settings};
use crate::engine::call::Plain;
use crate::engine::hooks::NoHooks;
use crate::engine::source::{FromIter, FromStream, FromTryStream};
use crate::error::{BoxError, ConfigError};
use crate::run::{MapRun, Over};

/// How to run an async function over many items: how many at once, how often, how long, and how many may fail.
#[derive(Debug, Clone)]
pub struct AsyncMapTask {
    config: Arc<Config>,
}

impl AsyncMapTask {
    /// A builder.
    pub fn builder() -> AsyncMapTaskBuilder { AsyncMapTaskBuilder { settings: Settings::default() } }

    /// Short door.
    pub fn run<I, F, Fut, T, E>(&self, items: I, f: F) -> MapRun<FromIter<I::IntoIter>, Plain<F>, NoHooks<E>>
    where
        I: IntoIterator<Item: Clone>,
        F: Fn(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.over(items).map(f)
    }

    /// List
    pub fn over<I: IntoIterator>(&self, items: I) -> Over<FromIter<I::IntoIter>> {
        Over::new(Arc::clone(&self.config), FromIter(items.into_iter()))
    }

    /// Stream
    pub fn over_stream<S: Stream>(&self, stream: S) -> Over<FromStream<S>> {
        Over::new(Arc::clone(&self.config), FromStream(Box::pin(stream)))
    }

    /// Try stream
    pub fn over_try_stream<S, I, X>(&self, stream: S) -> Over<FromTryStream<S>>
    where
        S: Stream<Item = Result<I, X>>,
        X: Into<BoxError>,
    {
        Over::new(Arc::clone(&self.config), FromTryStream(Box::pin(stream)))
    }
}
/// b
#[derive(Debug, Clone)]
pub struct AsyncMapTaskBuilder { settings: Settings }
macro_rules! s { ($($n:ident, $t:ty, $f:expr;)*) => { impl AsyncMapTaskBuilder { $(
 /// x
 pub fn $n(mut self, v: $t) -> Self { let f: fn(&mut Settings, $t) = $f; f(&mut self.settings, v); self })* } } }
s! { concurrency, usize, |s, v| s.concurrency = v;
 retries, u32, |s, v| s.retry.retries = v;
 retry_delay, Duration, |s, v| s.retry.delay = v;
 max_retry_delay, Duration, |s, v| s.retry.max_delay = v;
 retry_multiplier, f64, |s, v| s.retry.multiplier = v;
 retry_jitter, f64, |s, v| s.retry.jitter = v;
 timeout_per_attempt, Duration, |s, v| s.timeout_per_attempt = Some(v);
 timeout_per_item, Duration, |s, v| s.timeout_per_item = Some(v);
 run_timeout, Duration, |s, v| s.run_timeout = Some(v);
 cancel_grace, Duration, |s, v| s.cancel_grace = v;
 min_success_ratio, f64, |s, v| s.min_success_ratio = Some(v);
 min_successes, usize, |s, v| s.min_successes = Some(v);
 max_failures, usize, |s, v| s.max_failures = Some(v);
 early_success, bool, |s, v| s.early_success = v;
 fail_fast, bool, |s, v| s.fail_fast = v;
}
impl AsyncMapTaskBuilder {
    /// n
    pub fn name(mut self, n: impl Into<Cow<'static, str>>) -> Self { self.settings.name = Some(n.into()); self }
    /// b
    pub fn build(self) -> Result<AsyncMapTask, ConfigError> { Ok(AsyncMapTask { config: Arc::new(Config::try_from(self.settings)?) }) }
}
impl Default for AsyncMapTask { fn default() -> Self { AsyncMapTask::builder().build().unwrap_or_else(|_| unreachable!()) } }
