//! A floating-point number as the decimal that was written, for exact integer arithmetic.

/// A decimal of at least 0: exactly `mantissa / 10^scale`.
///
/// A binary float cannot represent 0.07, so `0.07 * 100.0` is a little more than 7 and its ceiling is 8. The shortest
/// decimal that reads back as the same float is the number that the caller wrote. All further steps are integer arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    mantissa: u64,
    scale: u32,
}

/// From this scale on, `mantissa * count < 10^scale` for every 17-digit mantissa and every `u64` count.
const VANISHING_SCALE: u32 = 37;

impl Decimal {
    pub(crate) const ONE: Self = Self { mantissa: 1, scale: 0 };

    /// Returns `None` unless `number` is within 0 and `most`, which is at most 10^16.
    pub(crate) fn within(number: f64, most: f64) -> Option<Self> {
        if !(0.0..=most).contains(&number) {
            return None;
        }
        // The exponent form is `d.ddde-x` with the fewest digits that read back as the same number.
        let text = format!("{:e}", number.abs());
        let (digits, exponent) = text.split_once('e')?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa: u64 = format!("{whole}{fraction}").parse().ok()?;
        let exponent: i32 = exponent.parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()? - exponent;
        match u32::try_from(scale) {
            Ok(scale) => Some(Self { mantissa, scale }),
            Err(_) => {
                let zeros = 10_u64.checked_pow(scale.unsigned_abs())?;
                Some(Self { mantissa: mantissa.checked_mul(zeros)?, scale: 0 })
            }
        }
    }

    /// Returns the greatest integer that is not above this number times `count`.
    pub(crate) fn floor_of(self, count: u64) -> u128 {
        if self.scale >= VANISHING_SCALE { 0 } else { self.product(count) / 10_u128.pow(self.scale) }
    }

    /// Returns the least integer that is not below this number times `count`.
    pub(crate) fn ceiling_of(self, count: u64) -> u128 {
        if self.scale >= VANISHING_SCALE {
            self.product(count).min(1)
        } else {
            self.product(count).div_ceil(10_u128.pow(self.scale))
        }
    }

    fn product(self, count: u64) -> u128 {
        u128::from(self.mantissa) * u128::from(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_the_one_that_was_written() {
        let table = [
            (0.0, 0, 0),
            (-0.0, 0, 0),
            (0.05, 5, 2),
            (0.3, 3, 1),
            (1.0, 1, 0),
            (2.5, 25, 1),
            (10.0, 10, 0),
            (9.999, 9_999, 3),
            (1e-300, 1, 300),
        ];
        for (number, mantissa, scale) in table {
            assert_eq!(Decimal::within(number, 10.0), Some(Decimal { mantissa, scale }), "{number}");
        }
        for number in [-0.1, 10.000_000_000_000_002, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Decimal::within(number, 10.0), None, "{number}");
        }
    }

    #[test]
    fn products_are_exact() {
        let of = |number: f64| Decimal::within(number, 10.0).unwrap();
        // In floats, 0.29 * 100 is below 29 and 0.07 * 100 above 7.
        assert_eq!((of(0.29).floor_of(100), of(0.07).ceiling_of(100)), (29, 7));
        assert_eq!((of(0.3).floor_of(9), of(0.3).ceiling_of(9), of(0.3).floor_of(10)), (2, 3, 3));
        assert_eq!(
            (of(10.0).floor_of(u64::MAX), of(0.0).ceiling_of(u64::MAX)),
            (10 * u128::from(u64::MAX), 0)
        );
        for tiny in [5e-324, 1e-37, 1.234_567_890_123_456_7e-21] {
            assert_eq!((of(tiny).floor_of(u64::MAX), of(tiny).ceiling_of(u64::MAX)), (0, 1), "{tiny}");
        }
    }

    #[test]
    fn the_scale_from_which_a_decimal_vanishes_is_the_least_that_is_right() {
        // The largest product of all, 17 digits of 9 and `u64::MAX`, is below 10^37 and above 10^36.
        let largest = 99_999_999_999_999_999 * u128::from(u64::MAX);
        assert!(largest < 10_u128.pow(VANISHING_SCALE) && largest > 10_u128.pow(VANISHING_SCALE - 1));
        let at_the_edge = |scale| {
            let decimal = Decimal { mantissa: 99_999_999_999_999_999, scale };
            (decimal.floor_of(u64::MAX), decimal.ceiling_of(u64::MAX))
        };
        assert_eq!((at_the_edge(36), at_the_edge(37)), ((1, 2), (0, 1)));
    }
}
