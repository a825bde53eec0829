//! The engine against a plain simulation of the rules, over random runs under a paused clock.
//!
//! `MODEL_CASES=1000000 cargo test --release --test it model` tries a million; the default is 10,000.

pub(crate) mod real;
pub(crate) mod script;
mod simulation;

use std::time::Duration;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use self::script::Case;

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Succeeded,
    Failed,
    TimedOutAttempt,
    TimedOutItem,
    Panicked,
    Cancelled,
    NotStarted,
}

/// Why the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Succeeded,
    FailFast { index: usize },
    TooManyFailures { failures: usize, allowed: usize },
    Cancelled,
    TimedOut,
    Source,
}

/// Milliseconds since the start of the run.
type Millis = u64;

/// Everything that is compared. Two runs that agree in this agree in every rule that the model knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    ended: Ended,
    end: Millis,
    /// What became of each item, and how many attempts it had.
    items: Vec<(Status, u32)>,
    /// Every attempt in the order of their starts: index, number, time.
    starts: Vec<(usize, u32, Millis)>,
    /// Every settled item in the order of settling, with its time.
    settled: Vec<(usize, Millis)>,
    peak: usize,
    retries: usize,
    timeouts: usize,
    panics: usize,
    first_failure: Option<usize>,
}

/// Which of several things that happened to attempts at one instant happened first: the one thing that
/// the rules leave open and that the simulation takes from the real run.
#[derive(Debug, Default)]
struct TieBreak {
    /// The attempts in the order in which they ended.
    ends: Vec<(usize, u32)>,
    /// Those that ended as timed out.
    timed_out: Vec<(usize, u32)>,
}

fn agrees(case: &Case) -> Result<Observed, String> {
    let (real, ties) = real::run(case);
    let simulated = simulation::run(case, &ties);
    if real == simulated {
        Ok(real)
    } else {
        Err(format!("\nthe engine did  {real:?}\nthe rules say   {simulated:?}"))
    }
}

#[test]
fn model_agrees_with_the_engine() {
    let cases = std::env::var("MODEL_CASES").ok().map_or(10_000, |cases| cases.parse().unwrap());
    let mut seen = Seen::default();
    let counted = std::cell::RefCell::new(&mut seen);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let outcome = TestRunner::new(config).run(&script::case(), |case| {
        let observed = agrees(&case).map_err(TestCaseError::fail)?;
        counted.borrow_mut().count(&case, &observed);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}\nthe case is     {case:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    eprintln!("{cases} cases agreed: {seen:?}");
    seen.assert_nothing_was_left_out(cases);
}

/// How often each thing that matters has happened, so that a model that tries nothing is found out.
#[derive(Debug, Default)]
struct Seen {
    succeeded: u32,
    fail_fast: u32,
    too_many_failures: u32,
    cancelled: u32,
    timed_out: u32,
    source_errors: u32,
    early_successes: u32,
    retries: usize,
    timed_out_attempts: usize,
    timed_out_items: usize,
    panics: usize,
    cancelled_items: usize,
    saved_in_grace: usize,
    full_waiting_rooms: usize,
}

impl Seen {
    fn count(&mut self, case: &Case, observed: &Observed) {
        let of = |status| observed.items.iter().filter(|(s, _)| *s == status).count();
        match observed.ended {
            Ended::Succeeded => self.succeeded += 1,
            Ended::FailFast { .. } => self.fail_fast += 1,
            Ended::TooManyFailures { .. } => self.too_many_failures += 1,
            Ended::Cancelled => self.cancelled += 1,
            Ended::TimedOut => self.timed_out += 1,
            Ended::Source => self.source_errors += 1,
        }
        let left = of(Status::Cancelled) + of(Status::NotStarted);
        self.early_successes += u32::from(observed.ended == Ended::Succeeded && left > 0);
        self.retries += observed.retries;
        self.timed_out_attempts += of(Status::TimedOutAttempt);
        self.timed_out_items += of(Status::TimedOutItem);
        self.panics += observed.panics;
        self.cancelled_items += of(Status::Cancelled);
        self.saved_in_grace += usize::from(case.grace.is_some_and(|grace| {
            observed.settled.iter().any(|(_, at)| *at > observed.end.saturating_sub(grace) && left > 0)
        }));
        self.full_waiting_rooms += usize::from(observed.retries > case.concurrency);
    }

    fn assert_nothing_was_left_out(&self, cases: u32) {
        let Self {
            succeeded,
            fail_fast,
            too_many_failures,
            cancelled,
            timed_out,
            source_errors,
            early_successes,
            ..
        } = *self;
        let ends =
            [succeeded, fail_fast, too_many_failures, cancelled, timed_out, source_errors, early_successes];
        for end in ends {
            assert!(end * 200 >= cases, "an end was tried in fewer than one of 200 cases: {self:?}");
        }
        let happenings = [
            self.retries,
            self.timed_out_attempts,
            self.timed_out_items,
            self.panics,
            self.cancelled_items,
            self.saved_in_grace,
            self.full_waiting_rooms,
        ];
        for happened in happenings {
            assert!(happened * 50 >= cases as usize, "something has hardly happened: {self:?}");
        }
    }
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap()
}
