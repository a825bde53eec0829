//! Outputs and states as JSON and back. A value is written only if reading it gives an equal value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::canonical::{Canonical, Lists};
use crate::error::BoxError;

/// The number of levels of lists and maps that `serde_json` reads by default.
const DEFAULT_LEVELS: usize = 127;

/// The maximum number of levels of lists and maps in an output or a state. Reading is recursive, so a limit is necessary.
const MAX_LEVELS: usize = 256;

/// The number of characters of an output that an error shows.
const SHOWN: usize = 100;

/// Encodes an output as JSON, and checks that it can be read back unchanged.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(index: usize, output: &T) -> Result<String, BoxError> {
    let encoded = to_text(output).and_then(|text| check_round_trip(output, &text).map(|()| text));
    encoded
        .map_err(|error| failure(format!("item {index}: the output cannot be stored as JSON"), error).into())
}

/// Decodes a stored output.
pub(crate) fn decode<T: DeserializeOwned>(index: usize, json: &str) -> Result<T, BoxError> {
    let decoded = from_text(json);
    decoded.map_err(|error| {
        failure(format!("item {index}: the stored output does not have this type"), error).into()
    })
}

/// Encodes the state of an item as JSON, and checks that it can be read back unchanged.
pub(crate) fn encode_state<S: Serialize + DeserializeOwned>(
    index: usize,
    state: &S,
) -> Result<String, StoreError> {
    let encoded = to_text(state).and_then(|text| check_round_trip(state, &text).map(|()| text));
    encoded.map_err(|error| failure(format!("the state of item {index} cannot be stored as JSON"), error))
}

/// Decodes a saved state.
pub(crate) fn decode_state<S: DeserializeOwned>(index: usize, json: &str) -> Result<S, StoreError> {
    from_text(json).map_err(|error| failure(format!("the state of item {index} cannot be read"), error))
}

fn to_text(value: &(impl Serialize + ?Sized)) -> Result<String, BoxError> {
    Ok(serde_json::to_string(value)?)
}

fn from_text<T: DeserializeOwned>(json: &str) -> Result<T, BoxError> {
    let error = match serde_json::from_str(json) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let levels = nesting(json);
    if levels <= DEFAULT_LEVELS {
        return Err(error.into());
    }
    if levels > MAX_LEVELS {
        return Err(too_deep(levels));
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.disable_recursion_limit();
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Returns the number of levels of lists and maps in a JSON text.
fn nesting(json: &str) -> usize {
    let (mut open, mut most, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                open += 1;
                most = most.max(open);
            }
            b']' | b'}' if !is_text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn too_deep(levels: usize) -> BoxError {
    format!("it must be nested at most {MAX_LEVELS} levels deep, got {levels}").into()
}

/// Reads the text of a value once, and compares the result with the value.
fn check_round_trip<T: Serialize + DeserializeOwned>(value: &T, json: &str) -> Result<(), BoxError> {
    let went = Canonical::of(value, Lists::AsTheyAre)?;
    let back: T = match from_text(json) {
        Ok(back) => back,
        Err(error) => return Err(went.loss.map_or(error, BoxError::from)),
    };
    if went.bytes == Canonical::of(&back, Lists::AsTheyAre)?.bytes {
        return Ok(());
    }
    // A set that is read back may give its elements in another order.
    let sorted = |value: &T| Canonical::of(value, Lists::Sorted).map(|form| form.bytes);
    if sorted(value)? == sorted(&back)? {
        return Ok(());
    }
    let differs =
        || format!("{} is read back as {}", shown(json), shown(&to_text(&back).unwrap_or_default()));
    Err(went.loss.unwrap_or_else(differs).into())
}

/// Returns the beginning of a JSON text, for an error.
fn shown(json: &str) -> String {
    match json.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}...`", json.split_at(end).0),
        None => format!("`{json}`"),
    }
}

fn failure(what: String, error: BoxError) -> StoreError {
    StoreError::Json { what, error }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        /// A stored text is damaged, or of another version of the program.
        #[test]
        fn any_text_is_an_output_or_an_error_that_names_the_item(text in any::<String>()) {
            if let Err(error) = decode::<Vec<u32>>(7, &text) {
                prop_assert!(error.to_string().starts_with("item 7: "), "{}", error);
            }
        }

        #[test]
        fn nested_text_of_any_depth_is_read_or_refused(levels in 1..2_000_usize, is_closed in any::<bool>()) {
            let end = if is_closed { "]".repeat(levels) } else { String::new() };
            let read = decode::<Value>(0, &("[".repeat(levels) + &end));
            prop_assert_eq!(read.is_ok(), is_closed && levels <= MAX_LEVELS);
        }

        #[test]
        fn what_was_encoded_is_decoded(text in any::<String>(), number in any::<f64>(), list in any::<Vec<i64>>()) {
            let output = (text, number, list);
            match encode(0, &output) {
                Ok(json) => {
                    let (text, number, list): (String, f64, Vec<i64>) = decode(0, &json).unwrap();
                    prop_assert_eq!((&text, &list), (&output.0, &output.2));
                    prop_assert_eq!(number.to_bits(), output.1.to_bits());
                }
                Err(_) => prop_assert!(!number.is_finite()),
            }
        }
    }
}
