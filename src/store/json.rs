//! Outputs as JSON and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::error::BoxError;

pub(crate) fn encode<T: Serialize>(output: &T) -> Result<String, BoxError> {
    serde_json::to_string(output).map_err(|error| failure("an output cannot be made JSON", error))
}

pub(crate) fn decode<T: DeserializeOwned>(json: &str) -> Result<T, BoxError> {
    serde_json::from_str(json).map_err(|error| failure("what was kept is not an output of this type", error))
}

fn failure(what: &str, error: serde_json::Error) -> BoxError {
    StoreError::Json { what: what.to_owned(), error: error.into() }.into()
}
