//! The kinds of values, and how each is read from its literal.

use std::time::Duration;

use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::Lit;

use crate::duration;

/// What a setter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// A `usize` from 1.
    Bound,
    /// A `usize` from 0.
    Count,
    /// A `u32`.
    Retries,
    /// An `f64` from 0 to 1.
    Fraction,
    /// A finite `f64` from 1.
    Multiplier,
    /// A `Duration`, written as text.
    Duration,
    /// A `bool`. The name alone means `true`.
    Flag,
    /// Nothing: the setter has no argument. It is called unless the value is `false`.
    Switch,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Count(usize),
    Retries(u32),
    Number(f64),
    Duration(Duration),
    Flag(bool),
    Switch(bool),
}

impl Kind {
    /// Returns the value of a name that stands alone, if this kind has one.
    pub(crate) fn alone(self) -> Option<Value> {
        match self {
            Self::Flag => Some(Value::Flag(true)),
            Self::Switch => Some(Value::Switch(true)),
            _ => None,
        }
    }

    /// Reads a literal. Returns `None` if it is of another kind; its range is checked later.
    pub(crate) fn read(self, literal: &Lit) -> Option<Value> {
        match (self, literal) {
            (Self::Text, Lit::Str(text)) => Some(Value::Text(text.value())),
            (Self::Bound | Self::Count, Lit::Int(number)) if has_type(number.suffix(), "usize") => {
                number.base10_parse().ok().map(Value::Count)
            }
            (Self::Retries, Lit::Int(number)) if has_type(number.suffix(), "u32") => {
                number.base10_parse().ok().map(Value::Retries)
            }
            (Self::Fraction | Self::Multiplier, Lit::Int(number)) if has_type(number.suffix(), "f64") => {
                number.base10_parse().ok().map(Value::Number)
            }
            (Self::Fraction | Self::Multiplier, Lit::Float(number)) if has_type(number.suffix(), "f64") => {
                number.base10_parse().ok().map(Value::Number)
            }
            (Self::Duration, Lit::Str(text)) => duration::parse(&text.value()).map(Value::Duration),
            (Self::Flag, Lit::Bool(flag)) => Some(Value::Flag(flag.value)),
            (Self::Switch, Lit::Bool(flag)) => Some(Value::Switch(flag.value)),
            _ => None,
        }
    }

    /// Describes the values that are allowed, in the words of `MapTaskConfig`.
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Bound => format!("a whole number from 1 to {}", usize::MAX),
            Self::Count => format!("a whole number from 0 to {}", usize::MAX),
            Self::Retries => format!("a whole number from 0 to {}", u32::MAX),
            Self::Fraction => "a number between 0 and 1".to_owned(),
            Self::Multiplier => "a finite number of at least 1".to_owned(),
            Self::Duration => r#"text with a unit, such as "200ms", "5s" or "1m 30s""#.to_owned(),
            Self::Flag | Self::Switch => "true or false".to_owned(),
        }
    }

    /// An example of a value, as it is written.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Text => r#""resize""#,
            Self::Bound | Self::Count => "8",
            Self::Retries | Self::Multiplier => "2",
            Self::Fraction => "0.5",
            Self::Duration => r#""30s""#,
            Self::Flag | Self::Switch => "true",
        }
    }
}

/// Returns `true` if a number has no suffix, or that of its type.
fn has_type(suffix: &str, name: &str) -> bool {
    suffix.is_empty() || suffix == name
}

impl Value {
    /// Returns the argument of the setter, or `None` if the setter is not called. The tokens are at the place of the value.
    pub(crate) fn argument(&self, span: Span) -> Option<TokenStream> {
        let mut literal = match self {
            Self::Switch(on) => return on.then(TokenStream::new),
            Self::Flag(on) => return Some(on.to_token_stream()),
            Self::Duration(duration) => {
                let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
                return Some(quote!(::core::time::Duration::new(#seconds, #nanoseconds)));
            }
            Self::Text(text) => Literal::string(text),
            Self::Count(number) => Literal::usize_suffixed(*number),
            Self::Retries(number) => Literal::u32_suffixed(*number),
            Self::Number(number) => Literal::f64_suffixed(*number),
        };
        // Marked as generated: lints for literals compare this one with the source, which may have another form.
        literal.set_span(Span::call_site().located_at(span));
        Some(literal.to_token_stream())
    }
}
