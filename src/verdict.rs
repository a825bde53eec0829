//! The success criteria in exact integers: numbers go in, a decision comes out.

/// A success ratio as the decimal that was written: `mantissa / 10^scale`, exactly.
///
/// A binary float cannot hold 0.07, so `0.07 * 100.0` is a little more than 7 and its ceiling is 8.
/// The shortest decimal that reads back as the same float is the number that the caller wrote;
/// from there on everything is integer arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio {
    mantissa: u64,
    scale: u32,
}

/// From this scale on, `mantissa * total < 10^scale` for every 17-digit mantissa and every `u64` total.
const VANISHING_SCALE: u32 = 37;

impl Ratio {
    /// Every item.
    pub(crate) const ONE: Self = Self { mantissa: 1, scale: 0 };

    /// `None` unless `ratio` is within 0 and 1.
    pub(crate) fn new(ratio: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        // The exponent form is `d.ddde-x` with the fewest digits that read back as the same number.
        let text = format!("{:e}", ratio.abs());
        let (digits, exponent) = text.split_once('e')?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        let exponent: i32 = exponent.parse().ok()?;
        let scale = u32::try_from(fraction.len()).ok()?.checked_add_signed(-exponent)?;
        Some(Self { mantissa, scale })
    }

    /// The least number of successes `k` with `k / total >= ratio`.
    pub(crate) fn required(self, total: usize) -> usize {
        let product = u128::from(self.mantissa) * (total as u128);
        if product == 0 {
            return 0;
        }
        if self.scale >= VANISHING_SCALE {
            return 1;
        }
        let required = product.div_ceil(10_u128.pow(self.scale));
        // A ratio is at most 1, so this fits wherever `total` does.
        usize::try_from(required).unwrap_or(total)
    }
}

/// What a run must reach to succeed. Every criterion that is set must hold; when none is set, all
/// items must succeed.
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
    /// Whether one more failure ends the run: called when an item has failed, with the number of
    /// failures so far. Without a known total only `max_failures` can tell before the end.
    pub(crate) fn after_failure(&self, failures: usize, total: Option<usize>) -> Option<Exceeded> {
        let allowed = match total {
            Some(total) => self.allowed(total),
            None => self.max_failures?,
        };
        (failures > allowed).then_some(Exceeded { failures, allowed })
    }

    /// Whether no later failure could take the success away: called when an item has succeeded.
    #[inline]
    pub(crate) fn enough(&self, successes: usize, total: Option<usize>) -> bool {
        self.early_success && self.needed(total).is_some_and(|needed| successes >= needed)
    }

    /// How many successes make the run's success certain; `None` where no number does before its end.
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

    /// The judgement over a run in which every item has settled.
    pub(crate) fn at_end(&self, successes: usize, failures: usize) -> Result<(), Exceeded> {
        let total = successes + failures;
        let allowed = self.allowed(total);
        if successes >= self.required(total) && failures <= allowed {
            Ok(())
        } else {
            Err(Exceeded { failures, allowed })
        }
    }

    /// The least number of successes among `total` items. It is above `total` where
    /// `min_successes` is.
    pub(crate) fn required(&self, total: usize) -> usize {
        let by_ratio = self.ratio().map_or(0, |ratio| ratio.required(total));
        by_ratio.max(self.min_successes.unwrap_or(0))
    }

    /// The most failures among `total` items.
    fn allowed(&self, total: usize) -> usize {
        let by_successes = total.saturating_sub(self.required(total));
        by_successes.min(self.max_failures.unwrap_or(usize::MAX))
    }

    /// The ratio that counts: the one that was set, or all items where no criterion was set.
    fn ratio(&self) -> Option<Ratio> {
        let none_set = self.min_successes.is_none() && self.max_failures.is_none();
        self.min_success_ratio.or(none_set.then_some(Ratio::ONE))
    }
}
