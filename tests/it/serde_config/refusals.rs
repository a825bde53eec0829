//! The errors of a configuration: the field, the value, the allowed values, and the position.

use async_map_task::{AsyncMapTask, MapTaskConfig};

use super::{KNOWN_FIELDS, from_both, from_environment, from_json, from_pairs, from_toml};
use crate::support::{Set, millis};

const ALLOWED_DURATION: &str = r#"text with a unit, such as "200ms", "5s" or "1m 30s""#;

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let retries = "a whole number from 0 to 4294967295";
    let count = format!("a whole number from 0 to {}", usize::MAX);
    let concurrency = format!(r#"a whole number from 1 to {}, or "unbounded""#, usize::MAX);
    let window = format!("a whole number from 1 to {}", usize::MAX);
    let multiplier = "a finite number of at least 1";
    let part = "a number between 0 and 1";
    let flag = "true or false";
    let table: [(&str, &str, &str); 45] = [
        ("name", "64", "text"),
        ("name", "0.5", "text"),
        ("name", "true", "text"),
        ("concurrency", r#""many""#, &concurrency),
        ("concurrency", r#""""#, &concurrency),
        ("concurrency", "-1", &concurrency),
        ("concurrency", "4.0", &concurrency),
        ("concurrency", r#""99999999999999999999""#, &concurrency),
        ("concurrency", "true", &concurrency),
        ("look_ahead", "-1", &window),
        ("look_ahead", r#""unbounded""#, &window),
        ("retries", "-3", retries),
        ("retries", r#""-3""#, retries),
        ("retries", "2.5", retries),
        ("retries", "4294967296", retries),
        ("retries", r#"" 3""#, retries),
        ("retries", r#""three""#, retries),
        ("retry_delay", "200", ALLOWED_DURATION),
        ("retry_delay", "0", ALLOWED_DURATION),
        ("retry_delay", r#""0""#, ALLOWED_DURATION),
        ("retry_delay", r#""1m 30""#, ALLOWED_DURATION),
        ("retry_delay", r#""1m, 30s""#, ALLOWED_DURATION),
        ("retry_delay", r#""200""#, ALLOWED_DURATION),
        ("max_retry_delay", "0.5", ALLOWED_DURATION),
        ("timeout_per_attempt", r#""5 parsecs""#, ALLOWED_DURATION),
        ("timeout_per_attempt", r#""""#, ALLOWED_DURATION),
        ("timeout_per_item", r#""-5s""#, ALLOWED_DURATION),
        ("run_timeout", "true", ALLOWED_DURATION),
        ("run_timeout", r#""99999999999999999999s""#, ALLOWED_DURATION),
        ("run_timeout", r#""18446744073709551615s 1000ms""#, ALLOWED_DURATION),
        ("cancel_grace", r#""9999999999999999999years""#, ALLOWED_DURATION),
        ("retry_multiplier", r#""double""#, multiplier),
        ("retry_multiplier", "true", multiplier),
        ("retry_jitter", r#""50%""#, part),
        ("min_success_ratio", r#""0,95""#, part),
        ("min_success_ratio", "[0.95]", part),
        ("min_successes", "-1", &count),
        ("min_successes", r#""18446744073709551616""#, &count),
        ("max_failures", "1e300", &count),
        ("max_failures", "[]", &count),
        ("early_success", "1", flag),
        ("early_success", r#""yes""#, flag),
        ("early_success", r#""True""#, flag),
        ("fail_fast", "0.0", flag),
        ("fail_fast", r#""""#, flag),
    ];
    for (field, value, allowed) in table {
        let found = if value.starts_with('[') { "a list" } else { value };
        for refused in from_both(field, value) {
            assert_eq!(refused.unwrap_err(), format!("{field} must be {allowed}, got {found}"));
        }
    }
    let only_json = [
        ("retries", "18446744073709551615", "18446744073709551615", retries),
        ("max_failures", "18446744073709551616", "1.8446744073709552e19", &count),
        ("retries", "[1, [2], {}]", "a list", retries),
        ("retries", r#"{ "up": { "to": [3] } }"#, "a map", retries),
        ("name", r#"{ "first": "re", "last": "size" }"#, "a map", "text"),
    ];
    for (field, value, found, allowed) in only_json {
        let refused = from_json(&format!(r#"{{ "{field}": {value}, "fail_fast": true }}"#));
        assert_eq!(refused.unwrap_err(), format!("{field} must be {allowed}, got {found}"));
    }
    let only_toml = [
        ("run_timeout", "00:10:00", "00:10:00", ALLOWED_DURATION),
        ("name", "1979-05-27", "1979-05-27", "text"),
        ("retries", "{ up = { to = [3] } }", "a map", retries),
    ];
    for (field, value, found, allowed) in only_toml {
        let refused = from_toml(&format!("{field} = {value}\nfail_fast = true"));
        assert_eq!(refused.unwrap_err(), format!("{field} must be {allowed}, got {found}"));
    }
    let wide = [
        (from_pairs([("retries", u128::MAX)]), "340282366920938463463374607431768211455"),
        (from_pairs([("retries", i128::MIN)]), "-170141183460469231731687303715884105728"),
        (from_pairs([("retries", 0.5_f32)]), "0.5"),
        (from_pairs([("retries", f64::NAN)]), "NaN"),
        (from_pairs([("retries", '?')]), "\"?\""),
        (from_pairs([("retries", b"3".as_slice())]), "bytes"),
    ];
    for (refused, found) in wide {
        assert_eq!(refused.unwrap_err(), format!("retries must be {retries}, got {found}"));
    }
}

#[test]
fn an_unknown_or_repeated_field_is_named() {
    let unknown = |field| format!("unknown field `{field}`, expected one of {KNOWN_FIELDS}");
    for field in ["concurency", "CONCURRENCY", "retry-delay", "limiter", ""] {
        let quoted = format!("{field:?} = 4");
        assert_eq!(from_toml(&quoted).unwrap_err(), unknown(field));
        assert_eq!(from_json(&format!("{{ {field:?}: null }}")).unwrap_err(), unknown(field));
        assert_eq!(from_environment([(field, "4")]).unwrap_err(), unknown(field));
    }
    let twice = "duplicate field `retries`";
    assert_eq!(from_json(r#"{ "retries": 1, "fail_fast": true, "retries": 1 }"#).unwrap_err(), twice);
    assert_eq!(from_json(r#"{ "retries": null, "retries": 1 }"#).unwrap_err(), twice);
    assert_eq!(from_environment([("retries", "1"), ("retries", "2")]).unwrap_err(), twice);
    assert_eq!(from_toml("retries = 1\nretries = 2").unwrap_err(), "duplicate key");
    for no_map in ["[]", "3", "\"retries\"", "null"] {
        let error = from_json(no_map).unwrap_err();
        assert!(error.ends_with(", expected a map of task settings"), "{error}");
    }
}

#[test]
fn an_error_has_the_position_of_the_format() {
    let toml = |text| toml::from_str::<MapTaskConfig>(text).unwrap_err().to_string();
    let json = |text| serde_json::from_str::<MapTaskConfig>(text).unwrap_err().to_string();
    let place = "TOML parse error at line 2, column 13\n  |\n2 | fail_fast = 1\n  |             ^\n";
    let message = "fail_fast must be true or false, got 1";
    assert_eq!(toml("retries = 3\nfail_fast = 1\nname = 'x'").trim_end(), format!("{place}{message}"));
    assert!(toml("retries = 3\nfailfast = true").starts_with(
        "TOML parse error at line 2, column 1\n  |\n2 | failfast = true\n  | ^^^^^^^^\nunknown field `failfast`, "
    ));
    assert_eq!(json("{\n  \"fail_fast\": 1,\n  \"retries\": 3\n}"), format!("{message} at line 2 column 16"));
}

#[test]
fn a_value_out_of_range_has_the_builders_error() {
    let table: [(&str, Set); 15] = [
        ("concurrency = 0", |b| b.concurrency(0)),
        ("look_ahead = 0", |b| b.look_ahead(0)),
        ("retry_multiplier = 0.5", |b| b.retry_multiplier(0.5)),
        ("retry_multiplier = inf", |b| b.retry_multiplier(f64::INFINITY)),
        ("retry_multiplier = '1e999'", |b| b.retry_multiplier(f64::INFINITY)),
        ("retry_jitter = -0.5", |b| b.retry_jitter(-0.5)),
        ("retry_jitter = nan", |b| b.retry_jitter(f64::NAN)),
        ("min_success_ratio = 95", |b| b.min_success_ratio(95.0)),
        ("min_success_ratio = '95'", |b| b.min_success_ratio(95.0)),
        ("timeout_per_attempt = '0s'", |b| b.timeout_per_attempt(millis(0))),
        ("timeout_per_item = '0s'", |b| b.timeout_per_item(millis(0))),
        ("run_timeout = '0ms'", |b| b.run_timeout(millis(0))),
        ("run_timeout = '1s'\ncancel_grace = '2s'", |b| {
            b.run_timeout(millis(1_000)).cancel_grace(millis(2_000))
        }),
        ("early_success = true", |b| b.early_success(true)),
        ("timeout_per_item = '1s'\ntimeout_per_attempt = '2s'", |b| {
            b.timeout_per_item(millis(1_000)).timeout_per_attempt(millis(2_000))
        }),
    ];
    for (text, set) in table {
        let error = AsyncMapTask::try_from(from_toml(text).unwrap()).unwrap_err();
        assert_eq!(error, set(AsyncMapTask::builder()).build().unwrap_err(), "{text}");
    }
}
