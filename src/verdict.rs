//! The success criteria in exact integers: numbers in, a decision out.

use crate::decimal::Decimal;

/// A success ratio, from 0 to 1, as the decimal that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio(Decimal);

impl Ratio {
    /// The ratio that requires every item.
    pub(crate) const ONE: Self = Self(Decimal::ONE);

    /// Returns `None` unless `ratio` is within 0 and 1.
    pub(crate) fn new(ratio: f64) -> Option<Self> {
        Decimal::within(ratio, 1.0).map(Self)
    }

    /// Returns the least number of successes `k` with `k / total >= ratio`.
    pub(crate) fn required(self, total: usize) -> usize {
        // A ratio is at most 1, so this fits if `total` does.
        usize::try_from(self.0.ceiling_of(total as u64)).unwrap_or(total)
    }
}

/// The criteria for the success of a run. Every criterion that is set must hold. If none is set, all items must succeed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Criteria {
    pub(crate) min_success_ratio: Option<Ratio>,
    pub(crate) min_successes: Option<usize>,
    pub(crate) max_failures: Option<usize>,
    pub(crate) early_success: bool,
    pub(crate) fail_fast: bool,
}

/// More failures than the criteria allow, or fewer successes than they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) failures: usize,
    pub(crate) allowed: usize,
}

impl Criteria {
    /// Returns `true` if any criterion is set, so that the default ratio does not apply.
    pub(crate) fn is_any_set(&self) -> bool {
        self.min_success_ratio.is_some() || self.min_successes.is_some() || self.max_failures.is_some()
    }

    /// Returns the exceeded criteria if one more failure ends the run. Called when an item has failed, with the number of
    /// failures so far. Without a known total, only `max_failures` can decide before the end.
    pub(crate) fn after_failure(&self, failures: usize, total: Option<usize>) -> Option<Exceeded> {
        let allowed = match total {
            Some(total) => self.allowed(total),
            None => self.max_failures?,
        };
        (failures > allowed).then_some(Exceeded { failures, allowed })
    }

    /// Returns `true` if no later failure can revoke the success. Called when an item has succeeded.
    #[inline]
    pub(crate) fn enough(&self, successes: usize, total: Option<usize>) -> bool {
        self.early_success && self.needed(total).is_some_and(|needed| successes >= needed)
    }

    /// Returns how many successes make the run's success certain, or `None` if no number does before its end.
    fn needed(&self, total: Option<usize>) -> Option<usize> {
        match total {
            Some(total) => {
                let by_failures = self.max_failures.map_or(0, |most| total.saturating_sub(most));
                Some(self.required(total).max(by_failures))
            }
            None if self.min_success_ratio.is_none() && self.max_failures.is_none() => self.min_successes,
            None => None,
        }
    }

    /// Judges a run in which every item has settled.
    pub(crate) fn at_end(&self, successes: usize, failures: usize) -> Result<(), Exceeded> {
        let total = successes + failures;
        let allowed = self.allowed(total);
        if successes >= self.required(total) && failures <= allowed {
            Ok(())
        } else {
            Err(Exceeded { failures, allowed })
        }
    }

    /// Returns the least number of successes among `total` items. It is above `total` if `min_successes` is.
    pub(crate) fn required(&self, total: usize) -> usize {
        let by_ratio = self.ratio().map_or(0, |ratio| ratio.required(total));
        by_ratio.max(self.min_successes.unwrap_or(0))
    }

    /// Returns the most failures that are allowed among `total` items.
    fn allowed(&self, total: usize) -> usize {
        let by_successes = total.saturating_sub(self.required(total));
        by_successes.min(self.max_failures.unwrap_or(usize::MAX))
    }

    /// Returns the ratio that counts, if any: the one that was set, or all items if no criterion was set.
    fn ratio(&self) -> Option<Ratio> {
        let none_set = self.min_successes.is_none() && self.max_failures.is_none();
        self.min_success_ratio.or(none_set.then_some(Ratio::ONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criteria(
        min_success_ratio: Option<f64>,
        min_successes: Option<usize>,
        max_failures: Option<usize>,
    ) -> Criteria {
        let min_success_ratio = min_success_ratio.map(|ratio| Ratio::new(ratio).unwrap());
        Criteria { min_success_ratio, min_successes, max_failures, early_success: true, fail_fast: false }
    }

    #[test]
    fn a_ratio_is_the_decimal_that_was_written() {
        for (ratio, total, required) in [
            (0.07, 100, 7),
            (0.29, 100, 29),
            (0.57, 100, 57),
            (0.99, 100, 99),
            (0.1, 10, 1),
            (0.6, 10, 6),
            (0.95, 200, 190),
            (0.951, 200, 191),
            (0.5, 3, 2),
            (1.0, 7, 7),
            (1.0, usize::MAX, usize::MAX),
            (0.0, 7, 0),
            (-0.0, 7, 0),
            (0.3, 0, 0),
            (1e-17, 1, 1),
            (1e-19, usize::MAX, 2),
            (1e-20, usize::MAX, 1),
            (1.5e-19, usize::MAX, 3),
            (f64::MIN_POSITIVE, usize::MAX, 1),
            (5e-324, 1, 1),
            (0.999_999_999_999_999_9, usize::MAX, 18_446_744_073_709_549_771),
        ] {
            assert_eq!(Ratio::new(ratio).unwrap().required(total), required, "{ratio} of {total}");
        }
    }

    #[test]
    fn a_ratio_is_within_0_and_1() {
        for bad in [-0.1, 1.000_000_1, f64::NAN, f64::INFINITY, -1e-300] {
            assert_eq!(Ratio::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_failure_too_many() {
        for (criteria, total, allowed) in [
            (criteria(None, None, None), Some(10), 0),
            (criteria(Some(0.8), None, None), Some(10), 2),
            (criteria(None, Some(7), None), Some(10), 3),
            (criteria(None, Some(12), None), Some(10), 0),
            (criteria(None, None, Some(4)), Some(10), 4),
            (criteria(None, None, Some(4)), None, 4),
            (criteria(Some(0.5), Some(6), Some(9)), Some(10), 4),
            (criteria(Some(0.5), Some(2), Some(3)), Some(10), 3),
            (criteria(Some(0.5), Some(2), Some(3)), None, 3),
        ] {
            assert_eq!(criteria.after_failure(allowed, total), None, "{criteria:?} of {total:?}");
            let exceeded = Exceeded { failures: allowed + 1, allowed };
            assert_eq!(criteria.after_failure(allowed + 1, total), Some(exceeded), "{criteria:?}");
        }
        for criteria in [criteria(None, None, None), criteria(Some(1.0), Some(5), None)] {
            assert_eq!(criteria.after_failure(1_000, None), None, "not known yet: {criteria:?}");
        }
    }

    #[test]
    fn the_success_that_is_enough() {
        for (criteria, total, needed) in [
            (criteria(None, None, None), Some(10), 10),
            (criteria(Some(0.8), None, None), Some(10), 8),
            (criteria(None, Some(3), None), Some(10), 3),
            (criteria(None, Some(3), None), None, 3),
            (criteria(None, None, Some(4)), Some(10), 6),
            (criteria(Some(0.8), None, Some(4)), Some(10), 8),
            (criteria(Some(0.2), Some(3), Some(9)), Some(10), 3),
        ] {
            assert!(!criteria.enough(needed - 1, total), "{criteria:?} of {total:?}");
            assert!(criteria.enough(needed, total), "{criteria:?} of {total:?}");
            assert!(!Criteria { early_success: false, ..criteria }.enough(needed, total));
        }
        for never in [
            criteria(None, None, None),
            criteria(Some(0.1), None, None),
            criteria(Some(0.1), Some(1), None),
            criteria(None, None, Some(4)),
            criteria(None, Some(1), Some(4)),
        ] {
            assert!(!never.enough(1_000, None), "not known yet: {never:?}");
        }
    }

    #[test]
    fn the_judgement_at_the_end() {
        let fails = |failures, allowed| Err(Exceeded { failures, allowed });
        for (criteria, successes, failures, judgement) in [
            (criteria(None, None, None), 0, 0, Ok(())),
            (criteria(None, None, None), 9, 1, fails(1, 0)),
            (criteria(Some(0.9), None, None), 9, 1, Ok(())),
            (criteria(Some(0.9), None, None), 8, 2, fails(2, 1)),
            (criteria(Some(0.0), None, None), 0, 9, Ok(())),
            (criteria(None, Some(1), None), 0, 0, fails(0, 0)),
            (criteria(None, Some(3), None), 3, 50, Ok(())),
            (criteria(None, Some(3), None), 2, 50, fails(50, 49)),
            (criteria(None, None, Some(2)), 0, 2, Ok(())),
            (criteria(None, None, Some(2)), 90, 3, fails(3, 2)),
            (criteria(Some(0.1), None, Some(2)), 90, 3, fails(3, 2)),
            (criteria(Some(0.1), Some(91), None), 90, 3, fails(3, 2)),
        ] {
            assert_eq!(criteria.at_end(successes, failures), judgement, "{criteria:?}");
        }
    }
}
