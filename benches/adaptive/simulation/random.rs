//! A seeded source of random numbers, the same on every machine.

use std::f64::consts::TAU;

/// The generator SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number above 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Returns a number from 1 to `most`.
    pub(crate) fn up_to(&mut self, most: u32) -> u32 {
        1 + (self.unit() * f64::from(most)) as u32
    }

    /// Returns a number of the lognormal distribution with this mean and this deviation of its logarithm.
    pub(crate) fn lognormal(&mut self, mean: f64, deviation: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos();
        mean * (deviation * normal - deviation * deviation / 2.0).exp()
    }
}
