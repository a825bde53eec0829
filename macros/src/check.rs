//! The checks of `build()`, at the tokens of the values.

use std::time::Duration;

use syn::Error;

use crate::arguments::{Arguments, Setting};
use crate::value::Value;

/// Pairs of arguments that set the same thing.
const SAME: &[(&str, &str)] =
    &[("concurrency", "unbounded_concurrency"), ("min_success_ratio", "allow_failures")];

/// Pairs of durations. The first is at most the second.
const BOUNDS: &[(&str, &str)] =
    &[("timeout_per_attempt", "timeout_per_item"), ("cancel_grace", "run_timeout")];

/// The criteria, of which `early_success` needs one.
const CRITERIA: &[&str] = &["min_success_ratio", "allow_failures", "min_successes", "max_failures"];

/// Returns everything that `build()` refuses, and pairs of arguments that set the same thing. If a setting could not be read,
/// `early_success` is not checked, because that setting may be its criterion.
pub(crate) fn mistakes(arguments: &Arguments, all_read: bool) -> Vec<Error> {
    let out_of_range = arguments.settings.iter().filter_map(range);
    let twice = SAME.iter().filter_map(|(one, other)| same(arguments, one, other));
    let above = BOUNDS.iter().filter_map(|(low, high)| bound(arguments, low, high));
    let without_criterion = Some(arguments).filter(|_| all_read).and_then(early_success);
    out_of_range.chain(twice).chain(above).chain(without_criterion).collect()
}

/// Checks a value alone.
fn range(setting: &Setting) -> Option<Error> {
    let name = setting.name.to_string();
    match (name.as_str(), &setting.value) {
        ("concurrency", Value::Count(0)) => {
            Some(setting.must_be("at least 1 (unbounded_concurrency() removes the limit)", 0))
        }
        ("look_ahead", Value::Count(0)) => Some(setting.must_be("at least 1", 0)),
        ("retry_multiplier", Value::Number(number)) if !number.is_finite() || *number < 1.0 => {
            Some(setting.must_be("a finite number of at least 1", number))
        }
        ("retry_jitter" | "min_success_ratio", Value::Number(number)) if !(0.0..=1.0).contains(number) => {
            Some(setting.must_be("between 0 and 1", number))
        }
        ("timeout_per_attempt" | "timeout_per_item" | "run_timeout", Value::Duration(Duration::ZERO)) => {
            Some(setting.must_be("greater than zero, or not set for no limit", "0s"))
        }
        _ => None,
    }
}

/// Returns `true` if a setting has an effect. A switch that is `false` has none.
fn is_set(setting: &&Setting) -> bool {
    setting.value != Value::Switch(false)
}

fn same(arguments: &Arguments, one: &str, other: &str) -> Option<Error> {
    let find = |name| arguments.find(name).filter(is_set);
    let (_, other_setting) = find(one).zip(find(other))?;
    let message = format!("`{other}` and `{one}` set the same thing: give one of them");
    Some(Error::new(other_setting.name.span(), message))
}

fn bound(arguments: &Arguments, low: &str, high: &str) -> Option<Error> {
    let low = arguments.find(low)?;
    match (&low.value, &arguments.find(high)?.value) {
        // A bound of zero is an error of its own.
        (Value::Duration(found), Value::Duration(most)) if found > most && !most.is_zero() => {
            Some(low.must_be(&format!("at most the {high} of {most:?}"), format_args!("{found:?}")))
        }
        _ => None,
    }
}

fn early_success(arguments: &Arguments) -> Option<Error> {
    let setting = arguments.find("early_success")?;
    let has_criterion = CRITERIA.iter().any(|name| arguments.find(name).filter(is_set).is_some());
    let invalid = setting.value == Value::Flag(true) && !has_criterion;
    invalid.then(|| {
        setting.must_be("false unless min_success_ratio, min_successes or max_failures is set", true)
    })
}
