//! Outputs as JSON and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::error::BoxError;

pub(crate) fn encode<T: Serialize>(index: usize, output: &T) -> Result<String, BoxError> {
    let encoded = serde_json::to_string(output);
    encoded.map_err(|error| failure(index, "the output cannot be made JSON", error))
}

pub(crate) fn decode<T: DeserializeOwned>(index: usize, json: &str) -> Result<T, BoxError> {
    let decoded = serde_json::from_str(json);
    decoded.map_err(|error| failure(index, "what was kept is not an output of this type", error))
}

fn failure(index: usize, what: &str, error: serde_json::Error) -> BoxError {
    StoreError::Json { what: what.to_owned(), error: error.into() }.of_item(index).into()
}
