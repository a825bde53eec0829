use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert_eq, proptest};

use super::*;

fn window(ratio: f64, min_per_second: u32, length: u64) -> Window {
    Window::new(Decimal::within(ratio, 10.0).unwrap(), min_per_second, length)
}

/// The rule as it is written. It keeps the times of all events.
struct Naive {
    /// The ratio is `thousandths / 1000`.
    thousandths: u64,
    min_per_second: u64,
    length: u64,
    first_attempts: Vec<u64>,
    retries: Vec<u64>,
}

impl Naive {
    fn has_room(&self, now: u64) -> bool {
        let last = |times: &[u64]| times.iter().filter(|at| now - **at < self.length).count() as u64;
        let by_ratio = last(&self.first_attempts) * self.thousandths / 1_000;
        let allowed = by_ratio + self.min_per_second * self.length / 1_000;
        allowed.saturating_sub(last(&self.retries)) >= 1
    }
}

#[test]
fn rule_42_the_ratio_is_exact() {
    for (ratio, numerator, denominator) in [
        (0.05, 1, 20),
        (0.1, 1, 10),
        (0.2, 1, 5),
        (0.3, 3, 10),
        (0.4, 2, 5),
        (0.6, 3, 5),
        (1.0, 1, 1),
        (2.5, 5, 2),
        (10.0, 10, 1),
    ] {
        let mut budget = window(ratio, 0, 10_000);
        let mut granted = 0;
        for first_attempts in 1..=10_000 {
            budget.count_first_attempt(0);
            while budget.grant(0) {
                granted += 1;
            }
            assert_eq!(granted, first_attempts * numerator / denominator, "{ratio} of {first_attempts}");
        }
    }
}

#[test]
fn rule_42_an_event_counts_for_exactly_the_window() {
    let mut budget = window(1.0, 0, 1_000);
    budget.count_first_attempt(5);
    assert!(budget.grant(1_004) && !budget.grant(1_004));
    budget.count_first_attempt(1_005);
    assert_eq!(budget.counts(1_005), (1, 1), "the first one has left, and its retry counts");
    assert!(!budget.grant(2_003));
    assert!(budget.grant(2_004), "the retry has left, and the second attempt counts");
    assert_eq!(budget.counts(3_004), (0, 0));
    assert!(!budget.grant(3_004));
}

#[test]
fn rule_42_the_minimum_is_that_of_whole_windows() {
    for (min_per_second, length, expected) in
        [(10, 10_000, 100), (1, 1_999, 1), (3, 1_500, 4), (0, 60_000, 0)]
    {
        let mut budget = window(0.0, min_per_second, length);
        let granted = (0..1_000).filter(|_| budget.grant(0)).count();
        assert_eq!(granted, expected, "{min_per_second} a second in {length} ms");
    }
    assert!(window(10.0, u32::MAX, 60_000).grant(u64::MAX / 2));
}

#[test]
fn time_does_not_go_back() {
    let mut budget = window(0.0, 1, 1_000);
    assert!(budget.grant(5_000));
    assert_eq!(budget.next_room(), Some(6_000));
    assert!(!budget.grant(0) && !budget.grant(5_999));
    assert_eq!(budget.next_room(), Some(6_000));
    assert_eq!(budget.counts(6_000), (0, 0));
    assert_eq!(budget.next_room(), Some(6_000), "it has room now");
    assert!(budget.grant(6_000));
}

#[test]
fn memory_is_bounded_by_the_window() {
    let mut budget = window(1.0, 0, 1_000);
    for now in 0..100_000 {
        for _ in 0..3 {
            budget.count_first_attempt(now);
            budget.grant(now);
        }
    }
    assert_eq!((budget.entries.len(), budget.counts(99_999)), (1_000, (3_000, 3_000)));
}

#[test]
fn without_a_minimum_there_may_never_be_room() {
    let mut budget = window(0.5, 0, 1_000);
    budget.count_first_attempt(0);
    assert!(!budget.grant(0));
    assert_eq!(budget.next_room(), None);
}

fn steps() -> impl Strategy<Value = Vec<(u64, bool)>> {
    vec((0..400_u64, any::<bool>()), 0..300)
}

proptest! {
    #[test]
    fn rule_42_a_budget_decides_as_the_rule_does(
        thousandths in 0..=10_000_u64,
        min_per_second in 0..4_u32,
        length in 1_000..5_000_u64,
        steps in steps(),
    ) {
        let mut budget = window(thousandths as f64 / 1_000.0, min_per_second, length);
        let (first_attempts, retries) = (Vec::new(), Vec::new());
        let min_per_second = u64::from(min_per_second);
        let mut naive = Naive { thousandths, min_per_second, length, first_attempts, retries };
        let mut now = 0;
        for (wait, is_first) in steps {
            now += wait.saturating_sub(200);
            if is_first {
                budget.count_first_attempt(now);
                naive.first_attempts.push(now);
                continue;
            }
            let granted = budget.grant(now);
            prop_assert_eq!(granted, naive.has_room(now), "at {}", now);
            if granted {
                naive.retries.push(now);
            } else {
                let times = naive.first_attempts.iter().chain(&naive.retries);
                let ends = times.map(|at| at + length).filter(|end| *end > now);
                let next = ends.filter(|end| naive.has_room(*end)).min();
                prop_assert_eq!(budget.next_room(), next, "after {}", now);
            }
        }
    }
}
