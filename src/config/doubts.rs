//! Warnings about valid settings that make another setting ineffective.

use std::time::Duration;

use super::{Config, Settings};
use crate::retry::RetryPolicy;
use crate::verdict::{Criteria, Ratio};

impl Config {
    /// Lists the settings that are probably a mistake, one line for each combination.
    ///
    /// Each combination can be intended: a file may set the delays for all tasks and `retries` for some. So these are
    /// only logged. Settings that cannot be intended are errors.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.retry.retries == 0 {
            doubts.extend(without_retries(&self.retry, self.retry_budget.is_some()));
        } else {
            doubts.extend(delays(&self.retry));
            doubts.extend(self.no_retry_starts());
        }
        doubts.extend(self.limits_above_the_run());
        doubts.extend(early_success(&self.criteria));
        doubts.extend(failures(&self.criteria));
        doubts
    }

    /// Warns about retries with a first delay as long as a limit: the item fails immediately if its retry cannot
    /// start in time.
    fn no_retry_starts(&self) -> Option<String> {
        let RetryPolicy { delay, max_delay, jitter, .. } = self.retry;
        let (field, first) =
            if max_delay < delay { ("max_retry_delay", max_delay) } else { ("retry_delay", delay) };
        // In floats, because the longest durations overflow when they are multiplied.
        let least = first.as_secs_f64() * (1.0 - jitter);
        let limits = [("timeout_per_item", self.timeout_per_item), ("run_timeout", self.run_timeout)];
        let reached = |(name, limit): (_, Option<Duration>)| {
            limit.filter(|limit| !first.is_zero() && least >= limit.as_secs_f64()).map(|limit| (name, limit))
        };
        let (name, limit) = limits.into_iter().find_map(reached)?;
        Some(format!(
            "retries: no retry starts unless retry_after returns a shorter delay, because the {field} of \
             {first:?} is not below the {name} of {limit:?}"
        ))
    }

    fn limits_above_the_run(&self) -> Vec<String> {
        let limits =
            [("timeout_per_attempt", self.timeout_per_attempt), ("timeout_per_item", self.timeout_per_item)];
        let above = limits.into_iter().filter_map(|(name, limit)| {
            let run = self.run_timeout?;
            let limit = limit.filter(|limit| *limit > run)?;
            Some(format!("{name}: no effect, because its {limit:?} is above the run_timeout of {run:?}"))
        });
        above.collect()
    }
}

fn without_retries(retry: &RetryPolicy, has_budget: bool) -> Option<String> {
    let default = Settings::default().retry;
    no_effect(
        &[
            ("retry_delay", retry.delay != default.delay),
            ("max_retry_delay", retry.max_delay != default.max_delay),
            ("retry_multiplier", differ(retry.multiplier, default.multiplier)),
            ("retry_jitter", differ(retry.jitter, default.jitter)),
            ("retry_timeouts", retry.timeouts != default.timeouts),
            ("retry_budget", has_budget),
        ],
        "retries is 0",
    )
}

fn delays(retry: &RetryPolicy) -> Vec<String> {
    let RetryPolicy { retries, delay, max_delay, multiplier, jitter, .. } = *retry;
    let default = Settings::default().retry;
    // 1 and 0 are not doubtful: they turn multiplication and jitter off.
    let multiplies = multiplier > 1.0 && differ(multiplier, default.multiplier);
    let jitters = jitter > 0.0 && differ(jitter, default.jitter);
    let mut doubts = Vec::new();
    if delay.is_zero() {
        let set = [("retry_multiplier", multiplies), ("retry_jitter", jitters)];
        doubts.extend(no_effect(&set, "a retry_delay of 0s stays 0s"));
    } else if retries == 1 {
        doubts.extend(no_effect(
            &[("retry_multiplier", multiplies)],
            "retries is 1, and the first delay is not multiplied",
        ));
    }
    // A max_retry_delay below the default retry_delay is a short way to set both.
    if max_delay < delay && delay != default.delay {
        doubts.push(format!(
            "retry_delay: no delay is longer than {max_delay:?}, because the max_retry_delay is below the \
             retry_delay of {delay:?}"
        ));
    }
    doubts
}

fn early_success(criteria: &Criteria) -> Option<String> {
    let Criteria { min_success_ratio: ratio, min_successes, max_failures, early_success, .. } = *criteria;
    if !early_success {
        return None;
    }
    let field = &[("early_success", true)];
    if max_failures == Some(0) {
        return no_effect(field, "max_failures is 0, so every item must succeed");
    }
    if ratio == Some(Ratio::ONE) {
        return no_effect(field, "min_success_ratio is 1, so every item must succeed");
    }
    let asks_for_none = ratio.is_none_or(is_zero)
        && min_successes.is_none_or(|least| least == 0)
        && max_failures.is_none_or(|most| most == usize::MAX);
    asks_for_none.then(|| {
        "early_success: the run ends at its first success, because no criterion needs more".to_owned()
    })
}

fn failures(criteria: &Criteria) -> Option<String> {
    let Criteria { min_success_ratio: ratio, max_failures, early_success, fail_fast, .. } = *criteria;
    if fail_fast && !early_success {
        // With `early_success` the criteria define when the run ends as a success.
        let tolerant = [
            ("min_success_ratio", ratio.is_some_and(|ratio| ratio != Ratio::ONE)),
            ("max_failures", max_failures.is_some_and(|most| most > 0)),
        ];
        return no_effect(&tolerant, "fail_fast ends the run at the first failure");
    }
    match (ratio, max_failures) {
        // This has an effect: over a source of unknown length it ends the run before the ratio is known.
        (Some(Ratio::ONE), Some(most)) if most > 0 => Some(format!(
            "max_failures: one failure fails the run, despite the max_failures of {most}, because \
             min_success_ratio is 1"
        )),
        (Some(ratio), Some(0)) if ratio != Ratio::ONE && !is_zero(ratio) => {
            no_effect(&[("min_success_ratio", true)], "max_failures is 0")
        }
        _ => None,
    }
}

fn is_zero(ratio: Ratio) -> bool {
    ratio.required(usize::MAX) == 0
}

fn differ(one: f64, other: f64) -> bool {
    one.to_bits() != other.to_bits()
}

/// Names the fields that are set and have no effect.
fn no_effect(fields: &[(&str, bool)], why: &str) -> Option<String> {
    let set: Vec<_> = fields.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    (!set.is_empty()).then(|| format!("{}: no effect, because {why}", set.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry_budget::RetryBudget;

    const NO_DOUBT: &[&str] = &[];

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn check(set: fn(&mut Settings), doubts: &[&str]) {
        let mut settings = Settings::default();
        set(&mut settings);
        let text = format!("{settings:?}");
        assert_eq!(Config::try_from(settings).unwrap().doubts(), doubts, "{text}");
    }

    #[test]
    fn retry_settings() {
        let table: [(fn(&mut Settings), &[&str]); 15] = [
            (|_| {}, NO_DOUBT),
            (|s| s.retry.delay = secs(5), &["retry_delay: no effect, because retries is 0"]),
            (|s| s.retry.max_delay = secs(5), &["max_retry_delay: no effect, because retries is 0"]),
            (
                |s| (s.retry.multiplier, s.retry.jitter) = (3.0, 0.0),
                &["retry_multiplier, retry_jitter: no effect, because retries is 0"],
            ),
            (
                |s| s.retry_budget = RetryBudget::builder().build().ok(),
                &["retry_budget: no effect, because retries is 0"],
            ),
            (|s| (s.retry.retries, s.retry.delay, s.retry.multiplier) = (2, secs(5), 3.0), NO_DOUBT),
            (|s| (s.retry.retries, s.retry.max_delay) = (3, Duration::ZERO), NO_DOUBT),
            (|s| (s.retry.retries, s.retry.delay) = (3, Duration::ZERO), NO_DOUBT),
            (
                |s| (s.retry.retries, s.retry.delay, s.retry.jitter) = (3, Duration::ZERO, 0.9),
                &["retry_jitter: no effect, because a retry_delay of 0s stays 0s"],
            ),
            (
                |s| {
                    (s.retry.retries, s.retry.delay) = (3, Duration::ZERO);
                    (s.retry.multiplier, s.retry.jitter) = (1.0, 0.0);
                },
                NO_DOUBT,
            ),
            (
                |s| (s.retry.retries, s.retry.multiplier) = (1, 3.0),
                &["retry_multiplier: no effect, because retries is 1, and the first delay is not multiplied"],
            ),
            (
                |s| (s.retry.retries, s.retry.delay, s.retry.max_delay) = (3, secs(5), secs(2)),
                &["retry_delay: no delay is longer than 2s, because the max_retry_delay is below the \
                   retry_delay of 5s"],
            ),
            (
                |s| (s.retry.retries, s.retry.delay, s.timeout_per_item) = (3, secs(60), Some(secs(30))),
                &["retries: no retry starts unless retry_after returns a shorter delay, because the \
                   retry_delay of 60s is not below the timeout_per_item of 30s"],
            ),
            (
                |s| (s.retry.retries, s.retry.delay, s.timeout_per_item) = (3, secs(59), Some(secs(30))),
                NO_DOUBT,
            ),
            (
                |s| {
                    (s.retry.retries, s.retry.delay, s.retry.jitter) = (3, Duration::MAX, 0.0);
                    (s.retry.max_delay, s.run_timeout) = (Duration::MAX, Some(Duration::MAX));
                },
                &["retries: no retry starts unless retry_after returns a shorter delay, because the \
                   retry_delay of 18446744073709551615.999999999s is not below the run_timeout of \
                   18446744073709551615.999999999s"],
            ),
        ];
        for (set, doubts) in table {
            check(set, doubts);
        }
    }

    #[test]
    fn limits() {
        check(|s| (s.timeout_per_item, s.run_timeout) = (Some(secs(5)), Some(secs(5))), NO_DOUBT);
        check(
            |s| (s.timeout_per_item, s.run_timeout) = (Some(secs(9)), Some(secs(5))),
            &["timeout_per_item: no effect, because its 9s is above the run_timeout of 5s"],
        );
        check(
            |s| {
                (s.timeout_per_attempt, s.timeout_per_item) = (Some(secs(6)), Some(secs(9)));
                s.run_timeout = Some(secs(5));
            },
            &[
                "timeout_per_attempt: no effect, because its 6s is above the run_timeout of 5s",
                "timeout_per_item: no effect, because its 9s is above the run_timeout of 5s",
            ],
        );
    }

    #[test]
    fn criteria() {
        let table: [(fn(&mut Settings), &[&str]); 16] = [
            (|s| (s.min_successes, s.early_success) = (Some(1), true), NO_DOUBT),
            (|s| (s.min_success_ratio, s.early_success) = (Some(0.5), true), NO_DOUBT),
            (|s| (s.max_failures, s.early_success) = (Some(1), true), NO_DOUBT),
            (
                |s| (s.min_success_ratio, s.min_successes, s.early_success) = (Some(1.0), Some(3), true),
                &["early_success: no effect, because min_success_ratio is 1, so every item must succeed"],
            ),
            (
                |s| (s.max_failures, s.early_success) = (Some(0), true),
                &["early_success: no effect, because max_failures is 0, so every item must succeed"],
            ),
            (
                |s| (s.min_success_ratio, s.min_successes, s.early_success) = (Some(0.0), Some(0), true),
                &["early_success: the run ends at its first success, because no criterion needs more"],
            ),
            (
                |s| (s.max_failures, s.early_success) = (Some(usize::MAX), true),
                &["early_success: the run ends at its first success, because no criterion needs more"],
            ),
            (
                |s| (s.min_success_ratio, s.min_successes, s.early_success) = (Some(0.0), Some(1), true),
                NO_DOUBT,
            ),
            (|s| s.fail_fast = true, NO_DOUBT),
            (|s| (s.fail_fast, s.min_success_ratio, s.max_failures) = (true, Some(1.0), Some(0)), NO_DOUBT),
            (
                |s| (s.fail_fast, s.min_success_ratio, s.max_failures) = (true, Some(0.95), Some(7)),
                &["min_success_ratio, max_failures: no effect, because fail_fast ends the run at the first \
                   failure"],
            ),
            (
                |s| (s.fail_fast, s.min_success_ratio) = (true, Some(0.0)),
                &["min_success_ratio: no effect, because fail_fast ends the run at the first failure"],
            ),
            (|s| (s.fail_fast, s.early_success, s.min_success_ratio) = (true, true, Some(0.5)), NO_DOUBT),
            (
                |s| (s.min_success_ratio, s.max_failures) = (Some(1.0), Some(5)),
                &["max_failures: one failure fails the run, despite the max_failures of 5, because \
                   min_success_ratio is 1"],
            ),
            (
                |s| (s.min_success_ratio, s.max_failures) = (Some(0.95), Some(0)),
                &["min_success_ratio: no effect, because max_failures is 0"],
            ),
            (|s| (s.min_success_ratio, s.max_failures) = (Some(0.0), Some(0)), NO_DOUBT),
        ];
        for (set, doubts) in table {
            check(set, doubts);
        }
    }
}
