//! Random numbers for names, where no crate is worth it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

/// 64 random bits, in a name that nobody else should have by chance.
///
/// The keys of the standard library's hash maps are the random numbers that it gives out: two keys of 64 bits from the
/// operating system for each thread. The counter tells the numbers of one thread apart.
pub(crate) fn random() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(NUMBERS.fetch_add(1, Ordering::Relaxed))
}
