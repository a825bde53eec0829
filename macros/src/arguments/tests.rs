//! The arguments are the settings of the main crate, with the same values and the same errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, MapTaskConfig};
use serde::Deserialize;
use serde::de::value::{Error, MapDeserializer};

use super::*;

/// The setters that take a value of the program, and `build`.
const WITHOUT_ARGUMENT: [&str; 4] = ["build", "limiter", "observer", "retry_budget"];

/// The setters without a value. `MapTaskConfig` does not have them, because they are short forms.
const SHORT_FORMS: [&str; 2] = ["allow_failures", "unbounded_concurrency"];

/// The names of the methods in files of the main crate that take `self` and return it.
pub(crate) fn setters_in(files: &[&str]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut names = Vec::new();
    for file in files {
        let text = fs::read_to_string(source.join(file)).unwrap();
        for (start, _) in text.match_indices("pub fn ") {
            let signature = text[start..].split('{').next().unwrap();
            let name = signature["pub fn ".len()..].split(['(', '<']).next().unwrap();
            if ["self,", "self)"].iter().any(|receiver| signature.contains(receiver))
                && !signature.contains("&self")
            {
                names.push(name.to_owned());
            }
        }
    }
    names
}

fn sorted<N: Into<String>>(names: impl IntoIterator<Item = N>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// The settings among the arguments.
fn settings() -> BTreeSet<String> {
    sorted(names().into_iter().filter(|name| *name != CRATE))
}

#[test]
fn every_setter_of_the_builder_is_an_argument() {
    let files = ["builder.rs", "builder/concurrency.rs", "builder/criteria.rs", "builder/retries.rs"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/builder");
    assert_eq!(fs::read_dir(folder).unwrap().count() + 1, files.len(), "files of the builder");
    let mut setters = sorted(setters_in(&files));
    for name in WITHOUT_ARGUMENT {
        assert!(setters.remove(name), "{name} is a method of the builder");
    }
    assert_eq!(settings(), setters);
}

#[test]
fn every_field_of_the_configuration_is_an_argument() {
    let unknown = MapDeserializer::<_, Error>::new([("?", "")].into_iter());
    let error = MapTaskConfig::deserialize(unknown).unwrap_err().to_string();
    let list = error.split_once("expected one of ").unwrap().1;
    let mut fields = sorted(list.split(", ").map(|field| field.trim_matches('`')));
    assert!(fields.contains("retries"), "{error}");
    fields.extend(SHORT_FORMS.map(str::to_owned));
    assert_eq!(settings(), fields);
}

/// The messages of all mistakes.
fn mistakes(arguments: &str) -> Vec<String> {
    match Arguments::parse(arguments.parse().unwrap(), "f") {
        Ok(_) => Vec::new(),
        Err(error) => error.into_iter().map(|mistake| mistake.to_string()).collect(),
    }
}

type Set = fn(AsyncMapTaskBuilder) -> AsyncMapTaskBuilder;

#[test]
fn the_same_values_are_refused_as_by_build_in_the_same_words() {
    const SECOND: Duration = Duration::from_secs(1);
    const HUGE: Duration = Duration::new(u64::MAX, 999_999_999);
    let table: [(&str, Set); 60] = [
        ("", |b| b),
        (r#"name = "resize""#, |b| b.name("resize")),
        (r#"name = """#, |b| b.name("")),
        ("concurrency = 0", |b| b.concurrency(0)),
        ("concurrency = 1", |b| b.concurrency(1)),
        ("concurrency = 0x10", |b| b.concurrency(16)),
        ("concurrency = 1_000usize", |b| b.concurrency(1_000)),
        ("concurrency = 18446744073709551615", |b| b.concurrency(usize::MAX)),
        ("unbounded_concurrency", |b| b.unbounded_concurrency()),
        ("unbounded_concurrency = false, concurrency = 2", |b| b.concurrency(2)),
        ("look_ahead = 0", |b| b.look_ahead(0)),
        ("look_ahead = 1", |b| b.look_ahead(1)),
        ("retries = 0", |b| b.retries(0)),
        ("retries = 4294967295", |b| b.retries(u32::MAX)),
        (r#"retry_delay = "0s""#, |b| b.retry_delay(Duration::ZERO)),
        (r#"max_retry_delay = "0s""#, |b| b.max_retry_delay(Duration::ZERO)),
        (r#"retry_delay = "2s", max_retry_delay = "1s""#, |b| {
            b.retry_delay(2 * SECOND).max_retry_delay(SECOND)
        }),
        ("retry_multiplier = 1", |b| b.retry_multiplier(1.0)),
        ("retry_multiplier = 0.9999999999999999", |b| b.retry_multiplier(1.0_f64.next_down())),
        ("retry_multiplier = 0", |b| b.retry_multiplier(0.0)),
        ("retry_multiplier = -2.0", |b| b.retry_multiplier(-2.0)),
        ("retry_multiplier = 1e308", |b| b.retry_multiplier(1e308)),
        ("retry_multiplier = 1e999", |b| b.retry_multiplier(f64::INFINITY)),
        ("retry_jitter = 0", |b| b.retry_jitter(0.0)),
        ("retry_jitter = 1.0f64", |b| b.retry_jitter(1.0)),
        ("retry_jitter = 1.5", |b| b.retry_jitter(1.5)),
        ("retry_jitter = -0.5", |b| b.retry_jitter(-0.5)),
        ("retry_timeouts", |b| b.retry_timeouts(true)),
        ("retry_timeouts = false", |b| b.retry_timeouts(false)),
        (r#"timeout_per_attempt = "0s""#, |b| b.timeout_per_attempt(Duration::ZERO)),
        (r#"timeout_per_attempt = "1ns""#, |b| b.timeout_per_attempt(Duration::from_nanos(1))),
        (r#"timeout_per_item = "0ms""#, |b| b.timeout_per_item(Duration::ZERO)),
        (r#"timeout_per_item = "1m 30s""#, |b| b.timeout_per_item(90 * SECOND)),
        (r#"run_timeout = "0h""#, |b| b.run_timeout(Duration::ZERO)),
        (r#"run_timeout = "18446744073709551615s 999999999ns""#, |b| b.run_timeout(HUGE)),
        (r#"timeout_per_attempt = "1s", timeout_per_item = "1s""#, |b| {
            b.timeout_per_attempt(SECOND).timeout_per_item(SECOND)
        }),
        (r#"timeout_per_attempt = "1s 1ns", timeout_per_item = "1s""#, |b| {
            b.timeout_per_attempt(SECOND + Duration::from_nanos(1)).timeout_per_item(SECOND)
        }),
        (r#"timeout_per_item = "9s", run_timeout = "1s""#, |b| {
            b.timeout_per_item(9 * SECOND).run_timeout(SECOND)
        }),
        (r#"timeout_per_attempt = "1s", timeout_per_item = "0s""#, |b| {
            b.timeout_per_attempt(SECOND).timeout_per_item(Duration::ZERO)
        }),
        (r#"cancel_grace = "90s", run_timeout = "1500ms""#, |b| {
            b.cancel_grace(90 * SECOND).run_timeout(Duration::from_millis(1500))
        }),
        (r#"run_timeout = "1s", cancel_grace = "1s""#, |b| b.cancel_grace(SECOND).run_timeout(SECOND)),
        (r#"cancel_grace = "0s""#, |b| b.cancel_grace(Duration::ZERO)),
        ("min_success_ratio = 0.95", |b| b.min_success_ratio(0.95)),
        ("min_success_ratio = 0", |b| b.min_success_ratio(0.0)),
        ("min_success_ratio = -0.0", |b| b.min_success_ratio(-0.0)),
        ("min_success_ratio = 1", |b| b.min_success_ratio(1.0)),
        ("min_success_ratio = 1.0000000000000002", |b| b.min_success_ratio(1.0_f64.next_up())),
        ("min_success_ratio = 95", |b| b.min_success_ratio(95.0)),
        ("min_success_ratio = -0.1", |b| b.min_success_ratio(-0.1)),
        ("allow_failures", |b| b.allow_failures()),
        ("allow_failures = false, min_success_ratio = 0.5", |b| b.min_success_ratio(0.5)),
        ("min_successes = 0", |b| b.min_successes(0)),
        ("max_failures = 0", |b| b.max_failures(0)),
        ("early_success", |b| b.early_success(true)),
        ("early_success = false", |b| b.early_success(false)),
        ("early_success, allow_failures = false, fail_fast", |b| b.early_success(true).fail_fast(true)),
        ("early_success, allow_failures", |b| b.early_success(true).allow_failures()),
        ("early_success = true, min_successes = 1", |b| b.early_success(true).min_successes(1)),
        ("max_failures = 3, early_success", |b| b.early_success(true).max_failures(3)),
        ("fail_fast, accept_partial = true", |b| b.fail_fast(true).accept_partial(true)),
    ];
    let mut refused = 0;
    for (arguments, set) in table {
        let built = set(AsyncMapTask::builder()).build();
        let expected: Vec<String> = built.err().map(|error| error.to_string()).into_iter().collect();
        assert_eq!(mistakes(arguments), expected, "{arguments}");
        refused += expected.len();
    }
    assert_eq!(refused, 19, "refused values in the table");
}

#[test]
fn values_of_another_kind_are_refused_in_the_words_of_the_configuration() {
    let table = [
        ("retries", "5000000000", "5000000000"),
        ("retries", "-1", "-1"),
        ("retries", "1.5", "1.5"),
        ("concurrency", "-1", "-1"),
        ("max_failures", "1.5", "1.5"),
        ("min_successes", r#""many""#, "many"),
        ("look_ahead", "true", "true"),
        ("retry_delay", "5", "5"),
        ("retry_delay", r#""5""#, "5"),
        ("retry_delay", r#""0""#, "0"),
        ("run_timeout", r#""soon""#, "soon"),
        ("retry_jitter", r#""half""#, "half"),
        ("retry_multiplier", "true", "true"),
        ("fail_fast", "1", "1"),
        ("early_success", r#""yes""#, "yes"),
    ];
    for (name, literal, text) in table {
        let found = mistakes(&format!("{name} = {literal}"));
        let pair = MapDeserializer::<_, Error>::new([(name, text)].into_iter());
        let of_configuration = MapTaskConfig::deserialize(pair).unwrap_err().to_string();
        let (expected, _) = of_configuration.split_once(", got ").unwrap();
        // The configuration also has a word for no bound, which is an argument of its own here.
        let expected = expected.trim_end_matches(r#", or "unbounded""#);
        assert_eq!(found, [format!("{expected}, got {literal}")]);
    }
}

#[test]
fn mistakes_of_the_form() {
    let table = [
        ("retries = 2, retries = 2", "`retries` is given twice"),
        ("crate = a, crate = a", "`crate` is given twice"),
        ("crate = 1", "`crate` needs a path: `crate = my_crate::async_map_task`"),
        ("retries", "`retries` needs a value: `retries = 2`"),
        ("retries(2)", "`retries` needs a value: `retries = 2`"),
        ("timeout_per_item =", r#"`timeout_per_item` needs a value: `timeout_per_item = "30s"`"#),
        ("name = f", "name must be a literal, text, got f"),
        (
            "concurrency = 8 + 1",
            "concurrency must be a literal, a whole number from 1 to 18446744073709551615, got 8 + 1",
        ),
        ("concurrency = 8u8", "concurrency must be a whole number from 1 to 18446744073709551615, got 8u8"),
        ("retry_jitter = 0.5f32", "retry_jitter must be a number between 0 and 1, got 0.5f32"),
        (
            "concurrency = 2, unbounded_concurrency",
            "`unbounded_concurrency` and `concurrency` set the same thing: give one of them",
        ),
        (
            "allow_failures, min_success_ratio = 0.0",
            "`allow_failures` and `min_success_ratio` set the same thing: give one of them",
        ),
        (
            "max_failures = 1.5, early_success",
            "max_failures must be a whole number from 0 to 18446744073709551615, got 1.5",
        ),
        ("2", "expected the name of a setting"),
    ];
    for (arguments, message) in table {
        assert_eq!(mistakes(arguments), [message], "{arguments}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let found = mistakes(r#"concurrency = 0, retries = -1, retrys = 2, retry_jitter = 2, fail_fast"#);
    let begins =
        ["retries must be", "unknown argument `retrys`", "concurrency must be", "retry_jitter must be"];
    assert_eq!(found.len(), begins.len(), "{found:?}");
    assert!(found.iter().zip(begins).all(|(mistake, begin)| mistake.starts_with(begin)), "{found:?}");
}

#[test]
fn an_option_of_another_place_is_explained() {
    let [limiter] = mistakes("limiter = api").try_into().unwrap();
    assert!(limiter.contains("`f::task().to_builder().limiter(..).build()`"), "{limiter}");
    let [retry_if] = mistakes("retry_if = is_transient").try_into().unwrap();
    assert!(retry_if.contains("`f::over(items).map(f)`"), "{retry_if}");
}

#[test]
fn the_documentation_has_a_row_for_each_argument() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/map_task.md")).unwrap();
    let of_settings = page.lines().filter_map(|line| line.strip_prefix("| [`")?.split_once("`]("));
    let rows = of_settings.map(|(name, link)| {
        assert!(link.starts_with(&format!("crate::AsyncMapTaskBuilder::{name})")), "{link}");
        name
    });
    assert_eq!(rows.chain([CRATE]).collect::<Vec<_>>(), names());
    assert!(page.contains("\n| `crate` | "));
}
