//! The rule, by tables: ends of attempts, and the limit after them.

use std::time::Duration;

use super::round::Round;
use super::rule::{Cause, End, Rule};

const MILLIS: Duration = Duration::from_millis(1);

/// A server with this many workers, which takes 50 ms for an item. All permits are in use.
struct Server {
    rule: Rule,
    workers: usize,
    now: Duration,
    causes: Vec<Cause>,
}

impl Server {
    fn new(rule: Rule, workers: usize) -> Self {
        Self { rule, workers, now: Duration::ZERO, causes: Vec::new() }
    }

    /// Lets this many attempts end, in rounds of one for each permit.
    fn serve(&mut self, attempts: usize, is_full: bool, is_overload: bool) {
        let mut left = attempts;
        while left > 0 {
            let limit = self.rule.limit();
            let duration =
                50 * MILLIS * u32::try_from(limit).unwrap() / u32::try_from(self.workers.min(limit)).unwrap();
            let (began, now) = (self.now, self.now + duration);
            self.now = now;
            for _ in 0..limit.min(left) {
                self.causes.extend(self.rule.note(&End { now, began, weight: 1, is_full, is_overload }));
                left -= 1;
            }
        }
    }
}

#[test]
fn the_limit_is_that_of_the_server() {
    for (workers, start, allowed) in [
        (1, 4, 1..=3),
        (2, 4, 2..=4),
        (8, 1, 8..=12),
        (32, 4, 32..=40),
        (32, 200, 32..=40),
        (300, 4, 300..=330),
    ] {
        let mut server = Server::new(Rule::new(1, 500, start), workers);
        let mut seen = Vec::new();
        server.serve(workers * 2_000, true, false);
        for _ in 0..100 {
            server.serve(workers, true, false);
            seen.push(server.rule.limit());
        }
        seen.sort_unstable();
        let median = seen[50];
        assert!(allowed.contains(&median), "{workers} workers, from {start}: {median}");
    }
}

#[test]
fn attempts_that_take_no_time_let_it_grow() {
    let mut rule = Rule::new(1, 500, 4);
    for _ in 0..10_000 {
        rule.note(&End { now: MILLIS, began: MILLIS, weight: 1, is_full: true, is_overload: false });
    }
    assert_eq!(rule.limit(), 500);
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut server = Server::new(Rule::new(1, 500, 4), 1_000);
    server.serve(10_000, false, false);
    assert_eq!((server.rule.limit(), server.causes.len()), (4, 0));
}

#[test]
fn the_limit_stays_within_its_range() {
    let mut server = Server::new(Rule::new(3, 20, 4), 1_000);
    server.serve(5_000, true, false);
    assert_eq!(server.rule.limit(), 20);
    server.serve(5_000, true, true);
    assert_eq!(server.rule.limit(), 3);
    let mut server = Server::new(Rule::new(1, 20, 20), 1_000);
    server.serve(5_000, true, true);
    assert_eq!(server.rule.limit(), 1);
}

#[test]
fn few_overloads_are_faults_of_items() {
    let mut server = Server::new(Rule::new(1, 500, 40), 40);
    for _ in 0..200 {
        server.serve(19, false, false);
        server.serve(1, false, true);
    }
    assert!(!server.causes.contains(&Cause::Overload));
    server.serve(20, false, true);
    assert!(server.causes.contains(&Cause::Overload));
}

#[test]
fn an_overload_counts_once_for_all_that_began_before_it() {
    let mut rule = Rule::new(1, 500, 100);
    let end = |began: u32, now: u32| End {
        now: now * MILLIS,
        began: began * MILLIS,
        weight: 1,
        is_full: true,
        is_overload: true,
    };
    let causes: Vec<_> = (0..100).filter_map(|_| rule.note(&end(1, 50))).collect();
    assert_eq!((rule.limit(), causes.as_slice()), (80, &[Cause::Overload][..]));
    let causes = (0..5).filter_map(|_| rule.note(&end(60, 90))).count();
    assert_eq!((rule.limit(), causes), (64, 1));
}

#[test]
fn a_limit_that_was_refused_is_not_tried_again_at_once() {
    let mut server = Server::new(Rule::new(1, 500, 100), 1_000);
    server.serve(5, true, true);
    assert_eq!(server.rule.limit(), 80);
    let mut highest = 0;
    while server.now < 9_000 * MILLIS {
        server.serve(100, true, false);
        highest = highest.max(server.rule.limit());
    }
    assert_eq!(highest, 97);
    while server.now < 15_000 * MILLIS {
        server.serve(100, true, false);
    }
    assert!(server.rule.limit() > 200, "{}", server.rule.limit());
}

#[test]
fn a_measurement_goes_on_while_the_server_is_full() {
    let mut server = Server::new(Rule::new(1, 500, 200), 16);
    while !server.causes.contains(&Cause::Measurement) {
        server.serve(100, true, false);
    }
    let before = server.causes.len();
    server.serve(20_000, true, false);
    // It begins with 100 or more permits. 16 are the first ones with another duration than the queue's.
    assert_eq!(server.causes[before..before + 2], [Cause::Measurement; 2]);
    assert!((14..=25).contains(&server.rule.limit()), "{}", server.rule.limit());
    // With 8 of 16 permits, durations are those without a queue: one measurement is enough.
    server.causes.clear();
    server.serve(50_000, true, false);
    assert!(server.causes.contains(&Cause::Measurement));
    assert!(!server.causes.windows(2).any(|two| two == [Cause::Measurement; 2]));
}

#[test]
fn a_round_counts_permits() {
    let mut rule = Rule::new(1, 500, 100);
    // 2 x 100 permits are 40 attempts of weight 5, and 200 of weight 1.
    let end = |weight| End { now: 50 * MILLIS, began: MILLIS, weight, is_full: true, is_overload: false };
    for _ in 0..39 {
        assert_eq!(rule.note(&end(5)), None);
    }
    assert_eq!(rule.note(&end(5)), Some(Cause::Growth));
    assert_eq!(rule.limit(), 150);
}

#[test]
fn a_new_limit_is_where_the_rule_goes_on() {
    let mut server = Server::new(Rule::new(1, 500, 4), 32);
    server.serve(2_000, true, false);
    server.rule.replace(100, server.now);
    assert_eq!(server.rule.limit(), 100);
    server.serve(20_000, true, false);
    assert!((32..=40).contains(&server.rule.limit()), "{}", server.rule.limit());
}

#[test]
fn a_slower_server_keeps_its_permits() {
    let mut server = Server::new(Rule::new(1, 500, 4), 32);
    server.serve(5_000, true, false);
    // Items take three times as long, with any limit.
    for _ in 0..5_000 {
        let (began, limit) = (server.now, server.rule.limit());
        let factor = f64::from(u32::try_from(limit.max(32)).unwrap()) / 32.0;
        server.now += (150 * MILLIS).mul_f64(factor);
        for _ in 0..limit {
            server.rule.note(&End { now: server.now, began, weight: 1, is_full: true, is_overload: false });
        }
    }
    assert!((25..=40).contains(&server.rule.limit()), "{}", server.rule.limit());
}

#[test]
fn a_round_has_the_mean_of_its_middle_half() {
    let mut round = Round::default();
    for n in 0..23 {
        assert!(round.add(f64::from(n % 4), 1, n % 2 == 0, 10.0).is_none());
    }
    let taken = round.add(1_000.0, 1, true, 10.0).unwrap();
    // 0 to 3 six times each, but for one 3, which is 1,000: six 1 and six 2 are in the middle.
    assert!((taken.duration - 1.5).abs() < 1e-9, "{}", taken.duration);
    assert!((taken.noise - 1.0 / 24_f64.sqrt()).abs() < 1e-9, "{}", taken.noise);
    assert!(taken.was_full);
    assert!(round.add(1.0, 1, false, 10.0).is_none(), "the next round is empty");
}

#[test]
fn a_long_round_keeps_its_last_durations() {
    let mut round = Round::default();
    let add = |round: &mut Round, n: u32| round.add(f64::from(n), 1, false, 10_000.0);
    for n in 1..10_000 {
        assert!(add(&mut round, n).is_none());
    }
    let taken = add(&mut round, 10_000).unwrap();
    // The mean of the last 4,096 numbers up to 10,000.
    assert!((taken.duration - 7_952.5).abs() < 1e-9, "{}", taken.duration);
    assert!(!taken.was_full);
}
