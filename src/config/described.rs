//! The settings of a run as text.

use std::fmt::{Debug, Display, Formatter, Result};

use super::{Config, default_look_ahead};
use crate::count::Count;
use crate::observe::Describe;

/// A value that is shown by its `Debug` form, such as a duration: `1.5s`.
struct Plain<T>(T);

impl<T: Debug> Display for Plain<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.fmt(f)
    }
}

impl Describe for Config {
    fn describe(&self, setting: &mut dyn FnMut(&'static str, &dyn Display)) {
        match self.concurrency {
            usize::MAX => setting("concurrency", &"unbounded"),
            bounded => setting("concurrency", &bounded),
        }
        if self.look_ahead != default_look_ahead(self.concurrency) {
            setting("look_ahead", &self.look_ahead);
        }
        if let Some(limiters) = &self.limiters {
            setting("limiter", &Count(limiters.count(), "shared limit"));
        }
        self.describe_retries(setting);
        for (name, limit) in [
            ("timeout_per_attempt", self.timeout_per_attempt),
            ("timeout_per_item", self.timeout_per_item),
            ("run_timeout", self.run_timeout),
            ("cancel_grace", Some(self.cancel_grace).filter(|grace| !grace.is_zero())),
        ] {
            if let Some(limit) = limit {
                setting(name, &Plain(limit));
            }
        }
        self.describe_criteria(setting);
    }
}

impl Config {
    fn describe_retries(&self, setting: &mut dyn FnMut(&'static str, &dyn Display)) {
        let retry = &self.retry;
        setting("retries", &retry.retries);
        if retry.retries == 0 {
            return;
        }
        setting("retry_delay", &Plain(retry.delay));
        setting("max_retry_delay", &Plain(retry.max_delay));
        setting("retry_multiplier", &retry.multiplier);
        setting("retry_jitter", &retry.jitter);
        if !retry.timeouts {
            setting("retry_timeouts", &false);
        }
        if self.retry_budget.is_some() {
            setting("retry_budget", &"set");
        }
    }

    fn describe_criteria(&self, setting: &mut dyn FnMut(&'static str, &dyn Display)) {
        let criteria = &self.criteria;
        if let Some(ratio) = self.given.0.min_success_ratio {
            setting("min_success_ratio", &ratio);
        }
        for (name, count) in
            [("min_successes", criteria.min_successes), ("max_failures", criteria.max_failures)]
        {
            match count {
                Some(usize::MAX) => setting(name, &"unbounded"),
                Some(count) => setting(name, &count),
                None => {}
            }
        }
        for (name, is_set) in [
            ("early_success", criteria.early_success),
            ("fail_fast", criteria.fail_fast),
            ("accept_partial", self.accept_partial),
        ] {
            if is_set {
                setting(name, &true);
            }
        }
    }
}
