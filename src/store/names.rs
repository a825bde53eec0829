//! The limit of the length of names that are keys in a store.

use super::{CacheKey, StoreError};

/// The maximum number of bytes of a name that is given to a [`Store`](super::Store). Names are a run id, the name of
/// a task, a version, the hash of an item, and a holder. Longer names are refused with
/// [`StoreError::NameTooLong`](super::StoreError::NameTooLong). PostgreSQL cannot index longer ones.
pub const MAX_NAME_BYTES: usize = 512;

/// Refuses a run if one of its names is too long.
pub(crate) fn check_run(run_id: &str, task: &str, holder: &str) -> Result<(), StoreError> {
    check("the run id", run_id)?;
    check("the name of the task", task)?;
    check("the name of the holder", holder)
}

/// Refuses a key of the cache if one of its names is too long.
pub(crate) fn check_key(key: &CacheKey) -> Result<(), StoreError> {
    check("the name of the task", &key.task)?;
    check("the version", &key.version)?;
    check("the hash of the item", &key.item_hash)
}

/// Refuses a claim if one of its names is too long.
pub(crate) fn check_claim(key: &CacheKey, holder: &str) -> Result<(), StoreError> {
    check_key(key)?;
    check("the name of the holder", holder)
}

fn check(what: &'static str, name: &str) -> Result<(), StoreError> {
    if name.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    Err(StoreError::NameTooLong { what, found: name.len(), allowed: MAX_NAME_BYTES })
}
