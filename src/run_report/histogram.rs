//! A histogram of durations in bounded memory.

/// The buckets of each power of two, as a power of two: 64. So a bucket is at most 1/64 wider than its lower end.
const SUB_BITS: u32 = 6;
const SUBS: u64 = 1 << SUB_BITS;

/// Counts durations in nanoseconds. The position of a value is exact below 64 ns, and to 1.6% above.
#[derive(Debug, Default, Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        self.record_several(value, 1);
    }

    /// Records a value as often as this.
    #[inline]
    pub(super) fn record_several(&mut self, value: u64, times: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += times;
        }
        self.count += times;
        self.sum += u128::from(value) * u128::from(times);
        self.max = self.max.max(value);
    }

    /// Returns a histogram with the values of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let (mut sum, least) = if self.buckets.len() < other.buckets.len() {
            (other.clone(), self)
        } else {
            (self.clone(), other)
        };
        sum.buckets.iter_mut().zip(&least.buckets).for_each(|(count, more)| *count += more);
        sum.count += least.count;
        sum.sum += least.sum;
        sum.max = sum.max.max(least.max);
        sum
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the mean, or zero of no values.
    pub(super) fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Returns the least recorded value that at least this fraction of the values does not exceed, rounded up to the end of
    /// its bucket. It is zero if there are no values.
    pub(super) fn quantile(&self, fraction: f64) -> u64 {
        // The nearest-rank definition.
        let rank = (fraction * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return lower_end(bucket + 1).saturating_sub(1).min(self.max);
            }
        }
        self.max
    }

    /// Returns the buckets that are not empty: the lower end, the end, and the count.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        buckets.map(|(bucket, count)| (lower_end(bucket), lower_end(bucket + 1), *count))
    }
}

/// Below `SUBS` each value has its own bucket. Above, the first bits of the value are the number of the bucket.
fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - SUB_BITS - 1).saturating_sub(value.leading_zeros());
    (u64::from(shift) * SUBS + (value >> shift)) as usize
}

/// Returns the least value of a bucket.
fn lower_end(bucket: usize) -> u64 {
    let shift = (bucket as u64 / SUBS).saturating_sub(1);
    let first_bits = bucket as u64 - shift * SUBS;
    // The end of the last bucket is beyond the largest value.
    u64::try_from(u128::from(first_bits) << shift).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_a_narrow_bucket() {
        let values = (0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power + power / 3, power + (power - 1)]
        });
        for value in values.chain([u64::MAX]) {
            let bucket = bucket_of(value);
            let (from, to) = (lower_end(bucket), lower_end(bucket + 1));
            assert!(from <= value && (value < to || to == u64::MAX), "{value} is not in {from}..{to}");
            assert!(to - from <= (from / SUBS).max(1), "{from}..{to} is too wide");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean(), histogram.max()), (0, 0, 0));
        let mut values: Vec<u64> = (1..=1_000).map(|n| n * n * 1_000).rev().collect();
        values.iter().for_each(|value| histogram.record(*value));
        values.sort_unstable();
        for (fraction, rank) in [(0.0, 1), (0.001, 1), (0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1_000)] {
            let exact = values[rank - 1];
            let found = histogram.quantile(fraction);
            assert!(exact <= found && found <= exact + exact / SUBS, "{fraction}: {found} for {exact}");
        }
        assert_eq!(histogram.mean(), values.iter().sum::<u64>() / 1_000);
        assert_eq!(histogram.buckets().map(|(_, _, count)| count).sum::<u64>(), 1_000);
    }
}
