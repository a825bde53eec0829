//! Durations as text, read as `MapTaskConfig` reads them.

use std::time::Duration;

/// Reads a duration span by span, `1m` and then `30s`. Returns `None` unless the text is such a list and each span has a unit.
///
/// `humantime` panics at a sum that is a little above the longest duration, and some of its versions accept a 0 without a
/// unit. So it gets one span at a time.
///
/// `sum_of_spans` in `src/map_task_config.rs` does the same. A macro can neither use the crate that exports it nor export a
/// function to it; the test below compares the two.
pub(crate) fn parse(mut text: &str) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use async_map_task::MapTaskConfig;
    use serde::Deserialize;
    use serde::de::value::{Error, MapDeserializer};

    #[test]
    fn a_duration_is_the_one_that_a_configuration_reads() {
        let table = [
            ("200ms", Some(Duration::from_millis(200))),
            ("1m 30s", Some(Duration::from_secs(90))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("2h", Some(Duration::from_secs(7_200))),
            ("0s", Some(Duration::ZERO)),
            ("1 s", Some(Duration::from_secs(1))),
            (" 1s ", Some(Duration::from_secs(1))),
            ("7ns", Some(Duration::from_nanos(7))),
            ("18446744073709551615s", Some(Duration::from_secs(u64::MAX))),
            ("18446744073709551615s 1s", None),
            ("18446744073709551615s 999999999ns 1ns", None),
            ("18446744073709551616s", None),
            ("0", None),
            ("30", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("soon", None),
            ("1s 30", None),
            ("1 fortnight", None),
        ];
        for (text, duration) in table {
            assert_eq!(parse(text), duration, "{text:?}");
            let fields = MapDeserializer::<_, Error>::new([("retry_delay", text)].into_iter());
            assert_eq!(MapTaskConfig::deserialize(fields).is_ok(), duration.is_some(), "{text:?}");
        }
    }
}
