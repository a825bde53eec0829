//! Numbers and durations as people read them.

/// Returns a whole number with separators: `1,000,000`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with three digits that matter, or with all digits of its whole part.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => number(value.round() as u64),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => without_zeros(format!("{value:.1}")),
        value => without_zeros(format!("{value:.2}")),
    }
}

/// Returns a number in a few signs, for the end of an axis: `2.5M`.
pub(super) fn compact(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{}M", short(value / 1e6)),
        value if value >= 9_950.0 => format!("{}k", short(value / 1e3)),
        value => short(value),
    }
}

/// Returns a fraction in percent: `12%`.
pub(super) fn percent(fraction: f64) -> String {
    match 100.0 * fraction {
        percent if percent >= 10.0 || percent == 0.0 => format!("{percent:.0}%"),
        percent if percent < 0.1 => "under 0.1%".to_owned(),
        percent => format!("{}%", without_zeros(format!("{percent:.1}"))),
    }
}

/// Returns a duration in seconds with its unit: `12.5 ms`, `3 min 20 s`.
pub(super) fn duration(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    // A number that is rounded up to the next unit is shown in that unit.
    if seconds >= 119.5 {
        let whole = seconds.round() as u64;
        let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
        return match (hours, seconds) {
            (0, 0) => format!("{minutes} min"),
            (0, _) => format!("{minutes} min {seconds} s"),
            _ if minutes == 0 => format!("{hours} h"),
            _ => format!("{hours} h {minutes} min"),
        };
    }
    if seconds <= 0.0 {
        return "0 s".to_owned();
    }
    let unit = UNITS.into_iter().find(|(unit, _)| seconds / unit >= 0.9995);
    let (unit, name) = unit.unwrap_or((1e-9, "ns"));
    format!("{} {name}", short(seconds / unit))
}

/// Returns a value of 1, 2 or 5 times a power of ten that is not less than this one: the distance of two marks.
pub(super) fn step(value: f64) -> f64 {
    round_up(value, &[1.0, 2.0, 5.0, 10.0])
}

/// Returns a round value that is not less than this one, and not much more: the top of an axis.
pub(super) fn top(value: f64) -> f64 {
    round_up(value, &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0])
}

/// Returns the largest of these values, and at least zero.
pub(super) fn most_of(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Returns the label of an item, or its index.
pub(super) fn name_of(label: Option<&str>, index: usize) -> String {
    label.map_or_else(|| format!("item {index}"), str::to_owned)
}

fn round_up(value: f64, steps: &[f64]) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let mut steps = steps.iter().map(|step| step * power);
    // The tolerance lets 0.3 seconds, which is no exact number, be 3 times 0.1.
    steps.find(|step| *step >= value * (1.0 - 1e-9)).unwrap_or(value)
}

fn without_zeros(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let texts = [0.0, 0.5, 1.25, 12.34, 99.96, 123.4, 1_234.5].map(short);
        assert_eq!(texts, ["0", "0.5", "1.25", "12.3", "100", "123", "1,235"]);
        let texts = [2.5, 9_000.0, 85_426.0, 999_900.0, 2_500_000.0].map(compact);
        assert_eq!(texts, ["2.5", "9,000", "85.4k", "1M", "2.5M"]);
        let texts = [0.0, 0.000_1, 0.012_34, 0.5, 1.0].map(percent);
        assert_eq!(texts, ["0%", "under 0.1%", "1.2%", "50%", "100%"]);
        assert_eq!([0.0, 0.3, 7.0, 10.0, 11.0].map(step).map(short), ["1", "0.5", "10", "10", "20"]);
        assert_eq!([0.0, 0.27, 7.0, 10.0, 11.0].map(top).map(short), ["1", "0.3", "8", "10", "12"]);
    }

    #[test]
    fn durations_have_the_unit_that_makes_them_short() {
        let texts = [0.0, 5e-9, 1.5e-6, 0.000_999_9, 0.0125, 0.999_9, 1.0, 59.6, 119.0].map(duration);
        assert_eq!(texts, ["0 s", "5 ns", "1.5 µs", "1 ms", "12.5 ms", "1 s", "1 s", "59.6 s", "119 s"]);
        let texts = [120.0, 200.2, 3_600.0, 3_725.0, 90_000.0].map(duration);
        assert_eq!(texts, ["2 min", "3 min 20 s", "1 h", "1 h 2 min", "25 h"]);
    }
}
