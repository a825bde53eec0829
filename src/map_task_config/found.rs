//! A value as it was found, in any format.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value as it was found. Everything but text is stored in its written form. So a number keeps its decimal, and a
/// number that came as text is read in the same way.
pub(super) enum Found {
    Nothing,
    Text(String),
    Other(String),
}

impl Found {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(text) | Self::Other(text) => text,
        }
    }

    /// Parses the value as a Rust type. The error describes the allowed values.
    pub(super) fn parse<T: FromStr>(&self, allowed: impl Fn() -> String) -> Result<T, String> {
        self.as_str().parse().map_err(|_| allowed())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoundVisitor)
    }
}

/// Accepts every kind of value, also kinds that no field allows, so that the error can name the field.
struct FoundVisitor;

impl<'de> Visitor<'de> for FoundVisitor {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number or a boolean")
    }

    fn visit_str<E>(self, value: &str) -> Result<Found, E> {
        Ok(Found::Text(value.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
        Ok(Found::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(Found::Other(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Found, E> {
        Ok(Found::Other(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Found, E> {
        Ok(Found::Other(value.to_string()))
    }

    // 0.07 as an `f32` is still 0.07, which a cast would make 0.07000000029802322.
    fn visit_f32<E>(self, value: f32) -> Result<Found, E> {
        Ok(Found::Other(format!("{value:?}")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
        Ok(Found::Other(format!("{value:?}")))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_none<E>(self) -> Result<Found, E> {
        Ok(Found::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        Found::deserialize(deserializer)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Found, E> {
        Ok(Found::Other("bytes".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        while let Some(IgnoredAny) = list.next_element()? {}
        Ok(Found::Other("a list".to_owned()))
    }

    // `serde_json` with its feature `arbitrary_precision` passes a number as a map. The map has one private name,
    // which begins with `$`, and the number's text. `toml` does the same with a date or a time.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::Other("a map".to_owned());
        while let Some(entry) = map.next_entry()? {
            if let (Found::Text(key), Found::Text(text)) = entry {
                if key.starts_with('$') {
                    found = Found::Other(text);
                }
            }
        }
        Ok(found)
    }
}
