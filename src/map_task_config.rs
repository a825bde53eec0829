//! The settings of a task from outside the program: a file, a request, the environment.

mod found;

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use crate::builder::AsyncMapTaskBuilder;
use crate::error::ConfigError;
use crate::task::AsyncMapTask;
use found::Found;

/// Generates the configuration from its fields. Each field is written once: its name, which is its setter's, the type
/// that the setter takes, and the function that reads it.
macro_rules! fields {
    (
        $(#[$attribute:meta])*
        pub struct $config:ident { $($field:ident: $type:ty = $read:path,)* }
    ) => {
        $(#[$attribute])*
        pub struct $config { $($field: Option<$type>,)* }

        const NAMES: &[&str] = &[$(stringify!($field)),*];

        const FIELDS: &[Field] = &[$(Field {
            name: stringify!($field),
            set: |config, found| $read(found).map(|value| config.$field = Some(value)),
        }),*];

        /// A limiter or a retry budget cannot be in a file: use `AsyncMapTaskBuilder::from(config).limiter(&limiter).build()`.
        impl From<$config> for AsyncMapTaskBuilder {
            fn from(config: $config) -> Self {
                let builder = AsyncMapTask::builder();
                $(let builder = match config.$field {
                    Some(value) => builder.$field(value),
                    None => builder,
                };)*
                builder
            }
        }
    };
}

fields! {
    /// The settings of an [`AsyncMapTask`] from a file, a request or the environment. Needs the feature `serde`.
    ///
    /// Deserialise it with any format of `serde`, and build the task with [`AsyncMapTask::try_from`]. The fields are
    /// the builder's setters, with the same names, meanings and defaults. All are optional.
    ///
    /// | field | value | default |
    /// |---|---|---|
    /// | [`name`](AsyncMapTaskBuilder::name) | text | the map function's type name; `recover` and `cache` require one |
    /// | [`concurrency`](AsyncMapTaskBuilder::concurrency) | a whole number from 1, or `"unbounded"` | 4 |
    /// | [`look_ahead`](AsyncMapTaskBuilder::look_ahead) | a whole number from 1 | 256, or 16 times the `concurrency` if that is more |
    /// | [`retries`](AsyncMapTaskBuilder::retries) | a whole number | 0 |
    /// | [`retry_delay`](AsyncMapTaskBuilder::retry_delay) | a duration | `"1s"` |
    /// | [`max_retry_delay`](AsyncMapTaskBuilder::max_retry_delay) | a duration | `"60s"` |
    /// | [`retry_multiplier`](AsyncMapTaskBuilder::retry_multiplier) | a finite number from 1 | 2 |
    /// | [`retry_jitter`](AsyncMapTaskBuilder::retry_jitter) | 0 to 1 | 0.5 |
    /// | [`retry_timeouts`](AsyncMapTaskBuilder::retry_timeouts) | `true` or `false` | `true` |
    /// | [`timeout_per_attempt`](AsyncMapTaskBuilder::timeout_per_attempt) | a duration above zero | none |
    /// | [`timeout_per_item`](AsyncMapTaskBuilder::timeout_per_item) | a duration above zero | none |
    /// | [`run_timeout`](AsyncMapTaskBuilder::run_timeout) | a duration above zero | none |
    /// | [`min_success_ratio`](AsyncMapTaskBuilder::min_success_ratio) | 0 to 1 | 1, if no other criterion is set |
    /// | [`min_successes`](AsyncMapTaskBuilder::min_successes) | a whole number | none |
    /// | [`max_failures`](AsyncMapTaskBuilder::max_failures) | a whole number | none |
    /// | [`early_success`](AsyncMapTaskBuilder::early_success) | `true` or `false` | `false` |
    /// | [`fail_fast`](AsyncMapTaskBuilder::fail_fast) | `true` or `false` | `false` |
    /// | [`accept_partial`](AsyncMapTaskBuilder::accept_partial) | `true` or `false` | `false` |
    /// | [`cancel_grace`](AsyncMapTaskBuilder::cancel_grace) | a duration, at most the `run_timeout` | `"0s"` |
    ///
    /// **Durations are text with units**: `"200ms"`, `"1m 30s"`, `"2h"`; `m` is minutes, `M` months. A bare number is
    /// an error, because its unit would be a guess.
    ///
    /// **Numbers and booleans may be text, too**: `64` and `"64"` mean the same, because in the environment every
    /// value is text. A null value (`null` in JSON) is the same as a missing field.
    ///
    /// Two configurations are equal if the same fields are set to the same values.
    ///
    /// # Errors
    ///
    /// Deserialisation fails in these cases, and the format adds the line if it knows one:
    ///
    /// - An unknown field; the error lists the known fields.
    /// - A duplicate field; the error names it.
    /// - A value of the wrong kind; the error names the field, the value and the allowed values.
    ///
    /// ```
    /// # use async_map_task::MapTaskConfig;
    /// let error = toml::from_str::<MapTaskConfig>("retries = 3\ntimeout_per_item = 30").unwrap_err();
    /// assert_eq!(
    ///     error.to_string().trim_end(),
    ///     r#"TOML parse error at line 2, column 20
    ///   |
    /// 2 | timeout_per_item = 30
    ///   |                    ^^
    /// timeout_per_item must be text with a unit, such as "200ms", "5s" or "1m 30s", got 30"#
    /// );
    /// ```
    ///
    /// A value of the right kind and out of its range is an error of [`AsyncMapTask::try_from`]: the same
    /// [`ConfigError`] that [`build`](AsyncMapTaskBuilder::build) returns.
    ///
    /// # Examples
    ///
    /// A file with every field:
    ///
    /// ```
    /// use async_map_task::{AsyncMapTask, MapTaskConfig};
    ///
    /// let config: MapTaskConfig = toml::from_str(
    ///     r#"
    ///     name = "resize"
    ///     concurrency = 64              # "unbounded" lifts the limit
    ///     look_ahead = 1000             # items held beside the running ones
    ///
    ///     retries = 3                   # attempts = 1 + retries
    ///     retry_delay = "200ms"         # 200 ms, 400 ms, 800 ms ...
    ///     max_retry_delay = "30s"
    ///     retry_multiplier = 2.0
    ///     retry_jitter = 0.5            # each delay d becomes uniform in [d/2, 3d/2]
    ///     retry_timeouts = true
    ///
    ///     timeout_per_attempt = "5s"
    ///     timeout_per_item = "1m 30s"   # all attempts and waits of one item
    ///     run_timeout = "10m"
    ///     cancel_grace = "2s"
    ///
    ///     min_success_ratio = 0.95
    ///     min_successes = 10
    ///     max_failures = 100
    ///     early_success = true
    ///     fail_fast = false
    ///     accept_partial = false
    ///     "#,
    /// )?;
    /// let task = AsyncMapTask::try_from(config)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A section of a larger file, with the settings that no file can contain set in code:
    ///
    /// ```
    /// use async_map_task::{AsyncMapTaskBuilder, MapTaskConfig};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Service {
    ///     address: String,
    ///     #[serde(default)]
    ///     fetch: MapTaskConfig,
    /// }
    ///
    /// let service: Service = serde_json::from_str(
    ///     r#"{ "address": "[::]:80", "fetch": { "concurrency": 16, "timeout_per_item": "30s" } }"#,
    /// )?;
    /// let name = format!("fetch for {}", service.address);
    /// let task = AsyncMapTaskBuilder::from(service.fetch).name(name).build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Variables such as `FETCH_CONCURRENCY=16` and `FETCH_TIMEOUT_PER_ITEM=30s`:
    ///
    /// ```
    /// use async_map_task::{AsyncMapTask, MapTaskConfig};
    /// use serde::Deserialize;
    /// use serde::de::value::{Error, MapDeserializer};
    ///
    /// let variables = std::env::vars()
    ///     .filter_map(|(key, value)| Some((key.strip_prefix("FETCH_")?.to_lowercase(), value)));
    /// let config = MapTaskConfig::deserialize(MapDeserializer::<_, Error>::new(variables))?;
    /// let task = AsyncMapTask::try_from(config)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Default)]
    pub struct MapTaskConfig {
        name: String = text,
        concurrency: usize = concurrency,
        look_ahead: usize = window,
        retries: u32 = retries,
        retry_delay: Duration = duration,
        max_retry_delay: Duration = duration,
        retry_multiplier: f64 = multiplier,
        retry_jitter: f64 = part,
        retry_timeouts: bool = flag,
        timeout_per_attempt: Duration = duration,
        timeout_per_item: Duration = duration,
        run_timeout: Duration = duration,
        min_success_ratio: f64 = part,
        min_successes: usize = count,
        max_failures: usize = count,
        early_success: bool = flag,
        fail_fast: bool = flag,
        accept_partial: bool = flag,
        cancel_grace: Duration = duration,
    }
}

impl TryFrom<MapTaskConfig> for AsyncMapTask {
    type Error = ConfigError;

    /// Checks the settings as [`build`](AsyncMapTaskBuilder::build) does, and builds the task.
    fn try_from(config: MapTaskConfig) -> Result<Self, ConfigError> {
        AsyncMapTaskBuilder::from(config).build()
    }
}

// Readers, one for each kind of value. The error describes the allowed values.

fn text(found: &Found) -> Result<String, String> {
    match found {
        Found::Text(text) => Ok(text.clone()),
        _ => Err("text".to_owned()),
    }
}

fn duration(found: &Found) -> Result<Duration, String> {
    sum_of_spans(found.as_str())
        .ok_or_else(|| r#"text with a unit, such as "200ms", "5s" or "1m 30s""#.to_owned())
}

/// Reads a duration span by span, `1m` and then `30s`. `humantime` panics at a sum that is a little above the longest
/// duration, and some of its versions accept a 0 without a unit.
fn sum_of_spans(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    loop {
        let (number, rest) = text.split_at(text.find(char::is_alphabetic)?);
        let (unit, rest) = rest.split_at(rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len()));
        sum = sum.checked_add(humantime::parse_duration(&format!("{number}{unit}")).ok()?)?;
        if rest.trim_start().is_empty() {
            return Some(sum);
        }
        text = rest;
    }
}

fn concurrency(found: &Found) -> Result<usize, String> {
    match found {
        Found::Text(text) if text == "unbounded" => Ok(usize::MAX),
        _ => found.parse(|| format!(r#"a whole number from 1 to {}, or "unbounded""#, usize::MAX)),
    }
}

fn window(found: &Found) -> Result<usize, String> {
    found.parse(|| format!("a whole number from 1 to {}", usize::MAX))
}

fn retries(found: &Found) -> Result<u32, String> {
    found.parse(|| format!("a whole number from 0 to {}", u32::MAX))
}

fn count(found: &Found) -> Result<usize, String> {
    found.parse(|| format!("a whole number from 0 to {}", usize::MAX))
}

fn multiplier(found: &Found) -> Result<f64, String> {
    found.parse(|| "a finite number of at least 1".to_owned())
}

fn part(found: &Found) -> Result<f64, String> {
    found.parse(|| "a number between 0 and 1".to_owned())
}

fn flag(found: &Found) -> Result<bool, String> {
    found.parse(|| "true or false".to_owned())
}

/// A field: its name, and the function that sets it to the value that was found.
struct Field {
    name: &'static str,
    set: fn(&mut MapTaskConfig, &Found) -> Result<(), String>,
}

/// The name before a value. It is deserialised separately, so that a format can point at it in an error.
struct Key(&'static Field);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let field = FIELDS.iter().find(|field| field.name == name);
        field.map(Key).ok_or_else(|| D::Error::unknown_field(&name, NAMES))
    }
}

/// The destination of the value of a field.
struct Place<'a> {
    config: &'a mut MapTaskConfig,
    field: &'static Field,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Field { name, set } = self.field;
        match Found::deserialize(deserializer)? {
            Found::Nothing => Ok(()),
            found => set(self.config, &found)
                .map_err(|allowed| D::Error::custom(ConfigError::new(name, found, allowed))),
        }
    }
}

impl<'de> Deserialize<'de> for MapTaskConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("MapTaskConfig", NAMES, ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = MapTaskConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of task settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MapTaskConfig, A::Error> {
        let mut config = MapTaskConfig::default();
        let mut seen = Vec::with_capacity(FIELDS.len());
        while let Some(Key(field)) = map.next_key()? {
            if seen.contains(&field.name) {
                return Err(A::Error::duplicate_field(field.name));
            }
            seen.push(field.name);
            map.next_value_seed(Place { config: &mut config, field })?;
        }
        Ok(config)
    }
}
