//! A task from a configuration: TOML, JSON and the environment have the same meaning as the builder.

mod arbitrary;
mod refusals;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, MapTaskConfig};
use serde::de::value::{Error as PlainError, MapDeserializer};
use serde::de::{IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer};

use crate::support::{Set, millis};

const KNOWN_FIELDS: &str = "`name`, `concurrency`, `look_ahead`, `retries`, `retry_delay`, \
    `max_retry_delay`, `retry_multiplier`, `retry_jitter`, `retry_timeouts`, `timeout_per_attempt`, `timeout_per_item`, `run_timeout`, \
    `min_success_ratio`, `min_successes`, `max_failures`, `early_success`, `fail_fast`, `accept_partial`, `cancel_grace`";

type Parsed = Result<MapTaskConfig, String>;

/// The message without the position in the text, which has its own tests.
fn from_toml(text: &str) -> Parsed {
    toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
}

fn from_json(text: &str) -> Parsed {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        message.split(" at line ").next().unwrap().to_owned()
    })
}

/// Every value is text, as in the environment.
fn from_environment<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Parsed {
    from_pairs(variables)
}

fn from_pairs<'a, V: IntoDeserializer<'a, PlainError>>(
    pairs: impl IntoIterator<Item = (&'a str, V)>,
) -> Parsed {
    let map: MapDeserializer<'_, _, PlainError> = MapDeserializer::new(pairs.into_iter());
    MapTaskConfig::deserialize(map).map_err(|error| error.to_string())
}

/// One field, written in TOML and in JSON. The two agree on the syntax of text, numbers and booleans.
fn from_both(field: &str, value: &str) -> [Parsed; 2] {
    [from_toml(&format!("{field} = {value}")), from_json(&format!(r#"{{ "{field}": {value} }}"#))]
}

/// The debug output of a task has all of its settings.
fn built(config: MapTaskConfig) -> String {
    format!("{:?}", AsyncMapTask::try_from(config).unwrap())
}

fn built_by(set: Set) -> String {
    format!("{:?}", set(AsyncMapTask::builder()).build().unwrap())
}

#[test]
fn each_field_is_its_setter() {
    let table: [(&str, &str, &str, Set); 28] = [
        ("name", r#""resize""#, "resize", |b| b.name("resize")),
        ("name", r#""64""#, "64", |b| b.name("64")),
        ("name", r#""""#, "", |b| b.name("")),
        ("concurrency", "64", "64", |b| b.concurrency(64)),
        ("concurrency", r#""unbounded""#, "unbounded", |b| b.unbounded_concurrency()),
        ("look_ahead", "1000", "1000", |b| b.look_ahead(1_000)),
        ("retries", "3", "3", |b| b.retries(3)),
        ("retries", "4294967295", "4294967295", |b| b.retries(u32::MAX)),
        ("retry_delay", r#""200ms""#, "200ms", |b| b.retry_delay(millis(200))),
        ("retry_delay", r#""0s""#, "0s", |b| b.retry_delay(millis(0))),
        ("max_retry_delay", r#""30s""#, "30s", |b| b.max_retry_delay(millis(30_000))),
        ("retry_multiplier", "3.5", "3.5", |b| b.retry_multiplier(3.5)),
        ("retry_multiplier", "3", "3", |b| b.retry_multiplier(3.0)),
        ("retry_multiplier", "1e300", "1e300", |b| b.retry_multiplier(1e300)),
        ("retry_jitter", "0.25", "0.25", |b| b.retry_jitter(0.25)),
        ("retry_jitter", "0", "0", |b| b.retry_jitter(0.0)),
        ("retry_timeouts", "false", "false", |b| b.retry_timeouts(false)),
        ("timeout_per_attempt", r#""5s""#, "5s", |b| b.timeout_per_attempt(millis(5_000))),
        ("timeout_per_item", r#""1m 30s""#, "1m 30s", |b| b.timeout_per_item(millis(90_000))),
        ("run_timeout", r#""2h""#, "2h", |b| b.run_timeout(millis(7_200_000))),
        ("min_success_ratio", "0.95", "0.95", |b| b.min_success_ratio(0.95)),
        ("min_success_ratio", "1", "1", |b| b.min_success_ratio(1.0)),
        ("min_successes", "10", "10", |b| b.min_successes(10)),
        ("max_failures", "100", "100", |b| b.max_failures(100)),
        ("early_success", "false", "false", |b| b.early_success(false)),
        ("fail_fast", "true", "true", |b| b.fail_fast(true)),
        ("accept_partial", "true", "true", |b| b.accept_partial(true)),
        ("cancel_grace", r#""1500ms""#, "1500ms", |b| b.cancel_grace(millis(1_500))),
    ];
    for (field, value, text, set) in table {
        let expected = built_by(set);
        let [toml, json] = from_both(field, value).map(Result::unwrap);
        // Text stands for a value of any kind in every format.
        let [toml_text, json_text] = from_both(field, &format!("{text:?}")).map(Result::unwrap);
        let environment = from_environment([(field, text)]).unwrap();
        for config in [&json, &toml_text, &json_text, &environment] {
            assert_eq!(*config, toml, "{field} = {value}");
        }
        assert_eq!(built(toml), expected, "{field} = {value}");
    }
    for (field, ..) in table {
        assert!(KNOWN_FIELDS.contains(&format!("`{field}`")));
    }
}

#[test]
fn all_fields_work_in_every_format() {
    let toml = from_toml(
        r#"
        name = "resize"
        concurrency = 64
        look_ahead = 1000
        retries = 3
        retry_delay = "200ms"
        max_retry_delay = "30s"
        retry_multiplier = 3
        retry_jitter = 0.25
        retry_timeouts = false
        timeout_per_attempt = "5s"
        timeout_per_item = "30s"
        run_timeout = "10m"
        min_success_ratio = 0.95
        min_successes = 10
        max_failures = 100
        early_success = true
        fail_fast = true
        accept_partial = true
        cancel_grace = "2s"
        "#,
    );
    let json = from_json(
        r#"{
            "name": "resize", "concurrency": 64, "look_ahead": 1000, "retries": 3,
            "retry_delay": "200ms", "max_retry_delay": "30s", "retry_multiplier": 3.0, "retry_jitter": 0.25,
            "retry_timeouts": false, "accept_partial": true,
            "timeout_per_attempt": "5s", "timeout_per_item": "30s", "run_timeout": "10m",
            "min_success_ratio": 0.95, "min_successes": 10, "max_failures": 100,
            "early_success": true, "fail_fast": true, "cancel_grace": "2s"
        }"#,
    );
    let environment = from_environment([
        ("fail_fast", "true"),
        ("accept_partial", "true"),
        ("retry_timeouts", "false"),
        ("early_success", "true"),
        ("max_failures", "100"),
        ("min_successes", "10"),
        ("min_success_ratio", "0.95"),
        ("cancel_grace", "2s"),
        ("run_timeout", "10m"),
        ("timeout_per_item", "30s"),
        ("timeout_per_attempt", "5s"),
        ("retry_jitter", "0.25"),
        ("retry_multiplier", "3"),
        ("max_retry_delay", "30s"),
        ("retry_delay", "200ms"),
        ("retries", "3"),
        ("look_ahead", "1000"),
        ("concurrency", "64"),
        ("name", "resize"),
    ]);
    let expected = built_by(|builder| {
        builder
            .name("resize")
            .concurrency(64)
            .look_ahead(1_000)
            .retries(3)
            .retry_delay(millis(200))
            .max_retry_delay(millis(30_000))
            .retry_multiplier(3.0)
            .retry_jitter(0.25)
            .retry_timeouts(false)
            .timeout_per_attempt(millis(5_000))
            .timeout_per_item(millis(30_000))
            .run_timeout(millis(600_000))
            .min_success_ratio(0.95)
            .min_successes(10)
            .max_failures(100)
            .early_success(true)
            .fail_fast(true)
            .accept_partial(true)
            .cancel_grace(millis(2_000))
    });
    for config in [toml, json, environment] {
        assert_eq!(built(config.unwrap()), expected);
    }
}

#[test]
fn omitted_fields_have_the_builders_defaults() {
    let nulls = KNOWN_FIELDS.replace('`', "\"").replace(", ", ": null, ");
    for config in [
        from_toml(""),
        from_json("{}"),
        from_json(&format!("{{ {nulls}: null }}")),
        from_environment([]),
        from_pairs([("concurrency", Optional(None)), ("name", Optional(None))]),
        from_pairs([("concurrency", ()), ("name", ())]),
    ] {
        assert_eq!(config.as_ref(), Ok(&MapTaskConfig::default()));
        assert_eq!(built(config.unwrap()), format!("{:?}", AsyncMapTask::default()));
    }
    assert_ne!(from_toml("retries = 0").unwrap(), MapTaskConfig::default(), "set, if to the default");
}

#[test]
fn durations_are_text_with_units() {
    let table = [
        ("1ns", Duration::from_nanos(1)),
        ("250us", Duration::from_micros(250)),
        ("200ms", millis(200)),
        ("1m 30s", millis(90_000)),
        ("1m30s", millis(90_000)),
        (" 2 hours  5min ", millis(7_500_000)),
        ("0s", millis(0)),
        ("0m 0s 3\u{b5}s", Duration::from_micros(3)),
        ("1day", Duration::from_secs(86_400)),
        ("584542046090years", Duration::from_secs(584_542_046_090 * 31_557_600)),
        ("18446744073709551615s 999ms 999999ns", Duration::MAX),
    ];
    for (text, duration) in table {
        let config = from_environment([("retry_delay", text)]).unwrap();
        let expected = AsyncMapTask::builder().retry_delay(duration).build().unwrap();
        assert_eq!(built(config), format!("{expected:?}"), "{text}");
    }
}

#[tokio::test]
async fn a_ratio_is_the_decimal_that_was_written() {
    let [toml, json] = from_both("min_success_ratio", "0.07").map(Result::unwrap);
    let text = from_environment([("min_success_ratio", "0.07")]).unwrap();
    let single = from_pairs([("min_success_ratio", 0.07_f32)]).unwrap();
    let exponent = from_toml("min_success_ratio = 7e-2").unwrap();
    for config in [toml, json, text, single, exponent] {
        let task = AsyncMapTask::try_from(config).unwrap();
        let of_100 =
            |successes| task.run(0..100, move |n| async move { if n < successes { Ok(()) } else { Err(n) } });
        assert_eq!(of_100(7).await.unwrap().successes(), 7);
        assert!(of_100(6).await.is_err());
    }
}

#[test]
fn the_builder_can_override_the_file() {
    let config = from_toml("name = 'from the file'\nretries = 3\nconcurrency = 0").unwrap();
    let builder = AsyncMapTaskBuilder::from(config).name("from code").concurrency(8);
    let expected = built_by(|b| b.name("from code").retries(3).concurrency(8));
    assert_eq!(format!("{:?}", builder.build().unwrap()), expected);
}

#[derive(Debug, Deserialize)]
struct Service {
    port: u16,
    fetch: Option<MapTaskConfig>,
    #[serde(default)]
    store: MapTaskConfig,
    #[serde(default)]
    others: HashMap<String, MapTaskConfig>,
}

#[derive(Debug, Deserialize)]
struct Job {
    folder: String,
    #[serde(flatten)]
    task: MapTaskConfig,
}

#[test]
fn a_configuration_can_be_part_of_a_larger_one() {
    let service: Service =
        toml::from_str("port = 80\n[fetch]\nretries = 3\n[others.scan]\nname = 'scan'").unwrap();
    assert_eq!(service.port, 80);
    assert_eq!(service.fetch, Some(from_toml("retries = 3").unwrap()));
    assert_eq!(service.store, MapTaskConfig::default());
    assert_eq!(service.others["scan"], from_toml("name = 'scan'").unwrap());
    let service: Service = serde_json::from_str(r#"{ "port": 80, "fetch": null }"#).unwrap();
    assert_eq!(service.fetch, None);

    let job: Job =
        serde_json::from_str(r#"{ "folder": "/tmp", "retries": 3, "retry_jitter": "0.1" }"#).unwrap();
    assert_eq!(job.folder, "/tmp");
    assert_eq!(job.task, from_toml("retries = 3\nretry_jitter = 0.1").unwrap());
    let error = toml::from_str::<Job>("folder = '/tmp'\nretries = -3").unwrap_err();
    assert_eq!(error.message(), "retries must be a whole number from 0 to 4294967295, got -3");
}

/// A map deserialised as a value, as `serde_json` gives a number with its feature `arbitrary_precision`.
struct Map([(&'static str, &'static str); 1]);

impl<'de> IntoDeserializer<'de, PlainError> for Map {
    type Deserializer =
        MapDeserializer<'de, std::array::IntoIter<(&'static str, &'static str), 1>, PlainError>;

    fn into_deserializer(self) -> Self::Deserializer {
        MapDeserializer::new(self.0.into_iter())
    }
}

#[test]
fn arbitrary_precision_numbers_are_numbers() {
    let number = |digits| Map([("$serde_json::private::Number", digits)]);
    let config = from_pairs([("concurrency", number("64")), ("min_success_ratio", number("0.07"))]).unwrap();
    assert_eq!(config, from_toml("concurrency = 64\nmin_success_ratio = 0.07").unwrap());
    assert_eq!(from_pairs([("name", number("64"))]).unwrap_err(), "name must be text, got 64");
    let map = Map([("number", "64")]);
    assert_eq!(from_pairs([("name", map)]).unwrap_err(), "name must be text, got a map");
}

/// The output of a format that distinguishes a value that is there from one that is not.
struct Optional(Option<&'static str>);

impl<'de> Deserializer<'de> for Optional {
    type Error = PlainError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlainError> {
        match self.0 {
            Some(text) => visitor.visit_some(text.into_deserializer()),
            None => visitor.visit_none(),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, PlainError> for Optional {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[test]
fn an_optional_value_may_be_absent() {
    let config = from_pairs([("retries", Optional(Some("3"))), ("name", Optional(None))]).unwrap();
    assert_eq!(config, from_toml("retries = 3").unwrap());
    let refused = from_pairs([("retries", Optional(Some("many")))]).unwrap_err();
    assert_eq!(refused, r#"retries must be a whole number from 0 to 4294967295, got "many""#);
}

#[test]
fn every_setter_has_its_field() {
    // Lifting the limit is a value of `concurrency`, accepting all failures one of `min_success_ratio`, and a file cannot
    // contain a limiter, a retry budget or an observer.
    let without_field =
        ["unbounded_concurrency", "allow_failures", "limiter", "retry_budget", "observer", "build"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> =
        fs::read_dir(root.join("builder")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("builder.rs"));
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let setters = code.split("    pub fn ").skip(1).filter_map(|rest| {
        let (name, arguments) = rest.split_once('(')?;
        let (name, _) = name.split_once('<').unwrap_or((name, ""));
        let is_setter = arguments.starts_with("self") || arguments.starts_with("mut self");
        (is_setter && !without_field.contains(&name)).then(|| format!("`{name}`"))
    });
    let setters: BTreeSet<String> = setters.collect();
    let fields: BTreeSet<String> = KNOWN_FIELDS.split(", ").map(str::to_owned).collect();
    assert_eq!(setters, fields);
}
