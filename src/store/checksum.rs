//! The hashes that identify items, and the checksums that detect damaged values.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::canonical::{Canonical, Lists};
use super::{Checksummed, StoreError};

/// The number of hexadecimal digits of a checksum.
const CHECKSUM_DIGITS: usize = 16;

/// The prefix of each hash: the number of its format. Format 1 had no prefix. It was the SHA-256 of the JSON, and was equal
/// for some items that differ. A hash of one format is never equal to a hash of another.
const HASH_FORMAT: &str = "2-";

/// Returns the number of the format and the SHA-256 of an item's canonical form, in hexadecimal digits.
pub(crate) fn item_hash(item: &impl Serialize) -> Result<String, StoreError> {
    match Canonical::of(item, Lists::AsTheyAre) {
        Ok(form) => Ok(hexadecimal(HASH_FORMAT, Sha256::digest(form.bytes).iter())),
        Err(error) => {
            Err(StoreError::Json { what: "the item cannot be serialized".to_owned(), error: error.into() })
        }
    }
}

/// Returns `true` if a hash has the format of [`item_hash`].
pub(crate) fn has_this_format(item_hash: &str) -> bool {
    item_hash.starts_with(HASH_FORMAT)
}

impl Checksummed {
    /// Adds the checksum of the value and its place. A value that was written for another place does not pass
    /// [`verify`](Self::verify).
    pub(crate) fn new(json: String, belongs_to: &[&str]) -> Self {
        let checksum = checksum(&json, belongs_to);
        Self { json, checksum }
    }

    /// Returns the value if its checksum is the one for this place.
    pub(crate) fn verify(&self, belongs_to: &[&str]) -> Result<&str, StoreError> {
        let expected = checksum(&self.json, belongs_to);
        if self.checksum != expected {
            return Err(StoreError::Corrupt(format!(
                "the checksum of {} must be `{expected}`, got `{}`",
                belongs_to.join(" "),
                self.checksum,
            )));
        }
        Ok(&self.json)
    }
}

/// Hashes the length of each part before the part, so that moving bytes from one part to the next changes the checksum.
fn checksum(json: &str, belongs_to: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in belongs_to.iter().copied().chain([json]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hexadecimal("", hash.finalize().iter().take(CHECKSUM_DIGITS / 2))
}

/// Writes the digits without a formatter, which takes longer than the hash.
fn hexadecimal<'a>(prefix: &str, bytes: impl ExactSizeIterator<Item = &'a u8>) -> String {
    let mut text = String::with_capacity(prefix.len() + 2 * bytes.len());
    text.push_str(prefix);
    let halves = bytes.flat_map(|byte| [byte >> 4, byte & 0xf]);
    text.extend(halves.filter_map(|half| char::from_digit(half.into(), 16)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checksummed value is accepted unchanged and in its own place only.
    #[test]
    fn a_value_verifies_only_in_its_own_place() {
        let checksummed = Checksummed::new("{\"a\": 1}".to_owned(), &["run", "7", "ab"]);
        assert_eq!(checksummed.checksum.len(), CHECKSUM_DIGITS);
        assert_eq!(checksummed.verify(&["run", "7", "ab"]).unwrap(), "{\"a\": 1}");

        let with = |json: &str, checksum: &str| Checksummed { json: json.into(), checksum: checksum.into() };
        let refused: &[(Checksummed, &[&str])] = &[
            (checksummed.clone(), &["run", "8", "ab"]),
            (checksummed.clone(), &["run", "7"]),
            (checksummed.clone(), &["run7", "", "ab"]),
            (checksummed.clone(), &["run", "7a", "b"]),
            (checksummed.clone(), &[]),
            (with("{\"a\": 2}", &checksummed.checksum), &["run", "7", "ab"]),
            (with("{\"a\":1}", &checksummed.checksum), &["run", "7", "ab"]),
            (with("{\"a\": 1}", ""), &["run", "7", "ab"]),
            (with("{\"a\": 1}", "0000000000000000"), &["run", "7", "ab"]),
        ];
        for (checksummed, belongs_to) in refused {
            let error = checksummed.verify(belongs_to).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)), "{checksummed:?} for {belongs_to:?}: {error}");
        }
    }

    /// Later versions read the values that this version writes. So these digits must never change.
    #[test]
    fn hashes_and_checksums_never_change() {
        assert_eq!(
            item_hash(&"abc").unwrap(),
            "2-e94dfbfaf6a4858db1000239c15e04f583694e196e0811743b02a5c451ae6ba3",
            "the format, and the SHA-256 of the bytes `t`, 1, 3, `abc`"
        );
        let table: &[(&str, &[&str], &str)] =
            &[("null", &[], "8e53a1afaf1a7a48"), ("1", &["run", "0"], "8a2952423736a1c1")];
        for (json, belongs_to, checksum) in table {
            assert_eq!(Checksummed::new((*json).to_owned(), belongs_to).checksum, *checksum, "{json}");
        }
    }

    #[test]
    fn an_item_that_refuses_to_be_serialized_is_an_error() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not today"))
            }
        }
        let error = item_hash(&[Refuses]).unwrap_err();
        assert_eq!(error.to_string(), "the item cannot be serialized: not today");
    }
}
