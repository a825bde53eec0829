//! The validated configuration of a task, and the defaults.

mod described;
mod doubts;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error::ConfigError;
use crate::limiter::LimiterSet;
use crate::observe::Observers;
use crate::outcome::TimeoutScope;
use crate::retry::RetryPolicy;
use crate::retry_budget::RetryBudget;
use crate::verdict::{Criteria, Ratio};

/// The default of [`concurrency`](crate::AsyncMapTaskBuilder::concurrency): 4 attempts at once.
pub const DEFAULT_CONCURRENCY: usize = 4;
/// The default of [`retries`](crate::AsyncMapTaskBuilder::retries): none.
pub const DEFAULT_RETRIES: u32 = 0;
/// The default of [`retry_delay`](crate::AsyncMapTaskBuilder::retry_delay): 1 second.
pub const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The default of [`max_retry_delay`](crate::AsyncMapTaskBuilder::max_retry_delay): 60 seconds.
pub const DEFAULT_MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// The default of [`retry_multiplier`](crate::AsyncMapTaskBuilder::retry_multiplier): 2.
pub const DEFAULT_RETRY_MULTIPLIER: f64 = 2.0;
/// The default of [`retry_jitter`](crate::AsyncMapTaskBuilder::retry_jitter): one half.
pub const DEFAULT_RETRY_JITTER: f64 = 0.5;
/// The default of [`min_success_ratio`](crate::AsyncMapTaskBuilder::min_success_ratio) if no other success criterion
/// is set: every item must succeed.
pub const DEFAULT_MIN_SUCCESS_RATIO: f64 = 1.0;

/// The smallest default of [`look_ahead`](crate::AsyncMapTaskBuilder::look_ahead).
const LEAST_DEFAULT_LOOK_AHEAD: usize = 256;

/// The number of held items per permit, by default.
const LOOK_AHEAD_PER_PERMIT: usize = 16;

/// Returns the window of a task for which none is set.
fn default_look_ahead(concurrency: usize) -> usize {
    concurrency.saturating_mul(LOOK_AHEAD_PER_PERMIT).max(LEAST_DEFAULT_LOOK_AHEAD)
}

/// The settings before validation.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) concurrency: usize,
    pub(crate) look_ahead: Option<usize>,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) timeout_per_attempt: Option<Duration>,
    pub(crate) timeout_per_item: Option<Duration>,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) min_success_ratio: Option<f64>,
    pub(crate) min_successes: Option<usize>,
    pub(crate) max_failures: Option<usize>,
    pub(crate) early_success: bool,
    pub(crate) fail_fast: bool,
    pub(crate) accept_partial: bool,
    pub(crate) limiters: Option<LimiterSet>,
    pub(crate) observers: Observers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: None,
            concurrency: DEFAULT_CONCURRENCY,
            look_ahead: None,
            retry: RetryPolicy {
                retries: DEFAULT_RETRIES,
                delay: DEFAULT_RETRY_DELAY,
                max_delay: DEFAULT_MAX_RETRY_DELAY,
                multiplier: DEFAULT_RETRY_MULTIPLIER,
                jitter: DEFAULT_RETRY_JITTER,
                timeouts: true,
            },
            retry_budget: None,
            timeout_per_attempt: None,
            timeout_per_item: None,
            run_timeout: None,
            cancel_grace: Duration::ZERO,
            min_success_ratio: None,
            min_successes: None,
            max_failures: None,
            early_success: false,
            fail_fast: false,
            accept_partial: false,
            limiters: None,
            observers: Observers::default(),
        }
    }
}

/// The settings of a task as they were given. They are in its configuration, which is shown without them.
#[derive(Clone)]
pub(crate) struct Given(pub(crate) Settings);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The configuration of a task. Every value has been validated.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) concurrency: usize,
    /// While this many items are held, no new item is admitted.
    pub(crate) look_ahead: usize,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) timeout_per_attempt: Option<Duration>,
    pub(crate) timeout_per_item: Option<Duration>,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) criteria: Criteria,
    pub(crate) limiters: Option<LimiterSet>,
    /// The observers of all runs of the task.
    pub(crate) observers: Observers,
    /// `true` if a run that was cancelled or has timed out ends with its partial result.
    pub(crate) accept_partial: bool,
    /// The settings as they were given, for a task that differs in some of them.
    pub(crate) given: Given,
    /// The shorter of the limits of an attempt and of an item, which is the only limit of a first attempt.
    pub(crate) first_limit: Option<(Duration, TimeoutScope)>,
}

impl TryFrom<Settings> for Config {
    type Error = ConfigError;

    fn try_from(settings: Settings) -> Result<Self, ConfigError> {
        let retry = &settings.retry;
        if settings.concurrency == 0 {
            return Err(ConfigError::new(
                "concurrency",
                0,
                "at least 1 (unbounded_concurrency() removes the limit)",
            ));
        }
        if settings.look_ahead == Some(0) {
            return Err(ConfigError::new("look_ahead", 0, "at least 1"));
        }
        if !retry.multiplier.is_finite() || retry.multiplier < 1.0 {
            return Err(ConfigError::new(
                "retry_multiplier",
                retry.multiplier,
                "a finite number of at least 1",
            ));
        }
        if !(0.0..=1.0).contains(&retry.jitter) {
            return Err(ConfigError::new("retry_jitter", retry.jitter, "between 0 and 1"));
        }
        settings.check_limits()?;
        let min_success_ratio = match settings.min_success_ratio {
            None => None,
            Some(ratio) => Some(
                Ratio::new(ratio)
                    .ok_or_else(|| ConfigError::new("min_success_ratio", ratio, "between 0 and 1"))?,
            ),
        };
        let config = Self::new(settings, min_success_ratio);
        if config.criteria.early_success && !config.criteria.is_any_set() {
            let allowed = "false unless min_success_ratio, min_successes or max_failures is set";
            return Err(ConfigError::new("early_success", true, allowed));
        }
        Ok(config)
    }
}

impl Settings {
    /// Checks the time limits, each alone and against those that contain it.
    fn check_limits(&self) -> Result<(), ConfigError> {
        for (field, limit) in [
            ("timeout_per_attempt", self.timeout_per_attempt),
            ("timeout_per_item", self.timeout_per_item),
            ("run_timeout", self.run_timeout),
        ] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                return Err(ConfigError::new(field, "0s", "greater than zero, or not set for no limit"));
            }
        }
        let pairs = [
            ("timeout_per_attempt", self.timeout_per_attempt, "timeout_per_item", self.timeout_per_item),
            ("cancel_grace", Some(self.cancel_grace), "run_timeout", self.run_timeout),
        ];
        for (field, found, bound, most) in pairs {
            if let (Some(found), Some(most)) = (found, most) {
                if found > most {
                    let allowed = format!("at most the {bound} of {most:?}");
                    return Err(ConfigError::new(field, format_args!("{found:?}"), allowed));
                }
            }
        }
        Ok(())
    }
}

impl Config {
    /// Creates the configuration from valid settings, with their ratio in its exact form.
    fn new(settings: Settings, min_success_ratio: Option<Ratio>) -> Self {
        let of_attempt = settings.timeout_per_attempt.map(|limit| (limit, TimeoutScope::Attempt));
        let of_item = settings.timeout_per_item.map(|limit| (limit, TimeoutScope::Item));
        Self {
            given: Given(settings.clone()),
            accept_partial: settings.accept_partial,
            first_limit: of_attempt.into_iter().chain(of_item).min_by_key(|(limit, _)| *limit),
            name: settings.name,
            limiters: settings.limiters,
            observers: settings.observers,
            concurrency: settings.concurrency,
            look_ahead: settings.look_ahead.unwrap_or_else(|| default_look_ahead(settings.concurrency)),
            retry: settings.retry,
            retry_budget: settings.retry_budget,
            timeout_per_attempt: settings.timeout_per_attempt,
            timeout_per_item: settings.timeout_per_item,
            run_timeout: settings.run_timeout,
            cancel_grace: settings.cancel_grace,
            criteria: Criteria {
                min_success_ratio,
                min_successes: settings.min_successes,
                max_failures: settings.max_failures,
                early_success: settings.early_success,
                fail_fast: settings.fail_fast,
            },
        }
    }
}

/// The defaults need no validation: they are the builder's initial settings, without a ratio.
impl Default for Config {
    fn default() -> Self {
        Self::new(Settings::default(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_an_untouched_builder_builds() {
        let built = Config::try_from(Settings::default()).unwrap();
        assert_eq!(format!("{built:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn rule_06_the_window_follows_the_concurrency() {
        let table = [(1, 256), (4, 256), (16, 256), (17, 272), (64, 1_024), (usize::MAX, usize::MAX)];
        for (concurrency, look_ahead) in table {
            assert_eq!(default_look_ahead(concurrency), look_ahead, "at {concurrency}");
        }
    }
}
