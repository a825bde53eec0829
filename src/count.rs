//! Numbers with their nouns, as messages show them.

use std::fmt::{Display, Formatter, Result};

/// A number with its noun, in the singular for 1: "0 items", "1 item", "4 retries".
pub(crate) struct Count<N>(pub(crate) N, pub(crate) &'static str);

impl<N: Copy + Display + From<u8> + PartialEq> Display for Count<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self(number, noun) = *self;
        if number == N::from(1) {
            return write!(f, "{number} {noun}");
        }
        // No noun of a message ends with a vowel and `y`, such as `day`.
        match noun.strip_suffix('y') {
            Some(stem) => write!(f, "{number} {stem}ies"),
            None => write!(f, "{number} {noun}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_1_is_singular() {
        let items = [0, 1, 2, 1_000_000].map(|number: usize| Count(number, "item").to_string());
        assert_eq!(items, ["0 items", "1 item", "2 items", "1000000 items"]);
        assert_eq!([1, 4].map(|number: u32| Count(number, "retry").to_string()), ["1 retry", "4 retries"]);
        assert_eq!(Count(1_u64, "byte").to_string(), "1 byte");
    }
}
