//! Rule 18: the ratio is the decimal that was written, in exact arithmetic.

use std::collections::BTreeSet;

use async_map_task::FailureReason;

use crate::support::{Hinted, Total, one_by_one, run, script, too_many};

/// The decimal text as `digits / 10^scale`.
fn decimal(text: &str) -> (u128, u32) {
    let (number, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = i32::try_from(fraction.len()).unwrap() - exponent.parse::<i32>().unwrap();
    (format!("{whole}{fraction}").parse().unwrap(), u32::try_from(scale).unwrap())
}

/// Returns the least `k` with `k / total >= ratio`, computed in integers.
fn least(text: &str, total: usize) -> usize {
    let (digits, scale) = decimal(text);
    (0..=total).find(|k| *k as u128 * 10_u128.pow(scale) >= digits * total as u128).unwrap()
}

fn decimals() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    all.extend((0..=9).map(|tenths| format!("0.{tenths}")));
    all.extend((0..=99).map(|hundredths| format!("0.{hundredths:02}")));
    all.extend((0..=999).step_by(7).map(|thousandths| format!("0.{thousandths:03}")));
    all.extend((1..=9_999).step_by(331).map(|parts| format!("0.{parts:04}")));
    let special = "0 1 1.0 1e-17 5e-17 0.999999999999 0.000000000001 0.3333333333333333 0.6666666666666666 \
                   0.1234567890123456 9.999e-1 1e-1 0.9999999999999999";
    all.extend(special.split_whitespace().map(str::to_owned));
    all
}

#[tokio::test(start_paused = true)]
async fn rule_18_the_ratio_is_the_decimal_that_was_written() {
    let table = decimals();
    assert!(table.len() >= 200, "{} decimals", table.len());
    for text in &table {
        let ratio: f64 = text.parse().unwrap();
        for total in [1, 3, 7, 10, 30, 100] {
            let required = least(text, total);
            // All items fail, so the run ends at the first failure beyond the allowed ones.
            let outcome = run(one_by_one().min_success_ratio(ratio), Total::Known, &vec![false; total]).await;
            if required == 0 {
                assert_eq!(outcome.expect("none is required").failures(), total, "{text} of {total}");
                continue;
            }
            let allowed = total - required;
            assert_eq!(too_many(outcome), (allowed + 1, allowed, allowed + 1), "{text} of {total}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_the_required_number_is_exact() {
    let known = [
        ("0.07", 100, 7),
        ("0.29", 100, 29),
        ("0.57", 100, 57),
        ("0.58", 100, 58),
        ("0.99", 100, 99),
        ("0.1", 10, 1),
        ("0.6", 10, 6),
        ("0.7", 10, 7),
        ("0.3", 10, 3),
        ("0.35", 20, 7),
        ("0.55", 20, 11),
        ("0.14", 50, 7),
        ("1e-17", 100, 1),
        ("1e-300", 100, 1),
        ("5e-324", 1, 1),
        ("0.999999999999", 100, 100),
        ("0.95", 7, 7),
        ("0.5", 7, 4),
        ("0.05", 7, 1),
        ("1", 5, 5),
        ("0", 5, 0),
    ];
    for (text, total, required) in known {
        if !text.contains("e-3") {
            assert_eq!(least(text, total), required, "{text} of {total}");
        }
        let builder = || one_by_one().min_success_ratio(text.parse().unwrap());
        for hint in [Total::Known, Total::Unknown] {
            let just = run(builder(), hint, &script(required, total - required)).await;
            assert_eq!(just.unwrap().successes(), required, "{text} of {total}, {hint:?}");
            if required > 0 {
                let (failures, allowed, _) =
                    too_many(run(builder(), hint, &script(required - 1, total - required + 1)).await);
                assert_eq!(
                    (failures, allowed),
                    (total - required + 1, total - required),
                    "{text} of {total}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_large_totals_are_exact() {
    // Not all items run: the first failure beyond the allowed ones ends the run.
    let cases: [(f64, u64, usize); 8] = [
        (0.999_999_999_999, 1_000_000_000_000, 1),
        (0.999_999_999_999, 999_999_999_999, 0),
        (0.999_999_999_999, 3_000_000_000_000, 3),
        (0.999_999_999_999_999, 1_000_000_000_000_000, 1),
        (0.999_999_999_999_999, 9_007_199_254_740_993, 9),
        (0.999_999_999_999_999_9, 1_000_000_000_000_000_001, 100),
        (1.0, u64::MAX, 0),
        (0.999_999_999_999_999_9, u64::MAX, 1_844),
    ];
    for (ratio, total, allowed) in cases {
        let task = one_by_one().min_success_ratio(ratio).build().unwrap();
        let items = Hinted { items: 0..total, hint: (total as usize, Some(total as usize)) };
        let error = task.run(items, |_| async { Err::<(), _>("no") }).await.unwrap_err();
        let FailureReason::TooManyFailures { failures, allowed: found } = *error.reason() else { panic!() };
        assert_eq!((failures, found), (allowed + 1, allowed), "{ratio} of {total}");
        assert_eq!(error.summary().not_started, total as usize - failures);
    }
}
