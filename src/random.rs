//! Random numbers for names, without a crate for them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns 64 random bits, for a name that no other process is to have by chance.
///
/// The standard library gives out random numbers only as the keys of its hash maps: two keys of 64 bits from the operating
/// system for each thread. The counter distinguishes the numbers of one thread.
pub(crate) fn random() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(NUMBERS.fetch_add(1, Ordering::Relaxed))
}
