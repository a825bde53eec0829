//! A hash of the indices of items, and of rows.

use std::hash::Hasher;

/// Spreads indices.
#[derive(Debug, Default)]
pub(super) struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    #[inline]
    fn write_usize(&mut self, index: usize) {
        self.0 = hash(index);
    }

    #[inline]
    fn write_u32(&mut self, row: u32) {
        self.0 = hash(row as usize);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Returns a hash of an index, whose low bits depend on all of its bits: it is multiplied with the golden ratio (Knuth, The
/// Art of Computer Programming, volume 3, section 6.4), and the high bits are moved down.
#[inline]
pub(super) fn hash(index: usize) -> u64 {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).swap_bytes()
}
