//! The engine against a plain simulation of the rules, over random runs under a paused clock.
//!
//! `MODEL_CASES=1000000 cargo test --release --test it model` tries a million. The default is 10,000 awaited runs and 5,000
//! plans of each further kind.

mod plan;
pub(crate) mod real;
pub(crate) mod script;
mod seen;
mod simulation;

use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use self::plan::Plan;
use self::seen::{Seen, SeenOfPlans};

use crate::support::cases;

/// The result of one item.
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

/// The reason for which the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Succeeded,
    FailFast { index: usize },
    TooManyFailures { failures: usize, allowed: usize },
    Cancelled,
    TimedOut,
    Source,
    Sink,
    Config,
}

/// Milliseconds since the start of the run.
type Millis = u64;

/// The compared observations. Two runs that agree in them agree in every rule of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    ended: Ended,
    end: Millis,
    /// The time at which the caller received the end of the run. It is later if the outcomes wait for a consumer.
    closed: Millis,
    /// The number of items or, if the total is not known, of the items that have started.
    total: usize,
    /// The result of each item, and the number of its attempts.
    items: Vec<(Status, u32)>,
    /// Every attempt in the order of their starts: index, number, time.
    starts: Vec<(usize, u32, Millis)>,
    /// Every settled item in the order of settling, with its time.
    settled: Vec<(usize, Millis)>,
    /// Every item with an outcome that was given to a sink or a consumer, in this order, with its time.
    given: Vec<(usize, Millis)>,
    /// The progress of the run at each request.
    looks: Vec<Look>,
    peak: usize,
    retries: usize,
    timeouts: usize,
    panics: usize,
    first_failure: Option<usize>,
}

/// The progress that a handle reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    at: Millis,
    successes: usize,
    failures: usize,
    running: usize,
    waiting: usize,
    retries: usize,
}

impl Observed {
    /// Nothing has happened to any item.
    fn new(items: usize) -> Self {
        Self {
            ended: Ended::Succeeded,
            end: 0,
            closed: 0,
            total: 0,
            items: vec![(Status::NotStarted, 0); items],
            starts: Vec::new(),
            settled: Vec::new(),
            given: Vec::new(),
            looks: Vec::new(),
            peak: 0,
            retries: 0,
            timeouts: 0,
            panics: 0,
            first_failure: None,
        }
    }
}

/// The order of attempts that ended at one instant. The rules do not define it, so the simulation takes it from the real
/// run.
#[derive(Debug, Default)]
struct TieBreak {
    /// The attempts in the order in which they ended.
    ends: Vec<(usize, u32)>,
    /// The attempts that ended as timed out.
    timed_out: Vec<(usize, u32)>,
    /// The attempts that ended, and after which their items were to be retried.
    retried: Vec<(usize, u32)>,
    /// The items that were given up while they waited for a retry, and the number of attempts that had ended before.
    given_up: Vec<(usize, usize)>,
    /// All attempts that have begun.
    begun: Vec<(usize, u32)>,
    /// The items that were reported as started, including those that were stopped before their function was called.
    announced: Vec<usize>,
}

fn agrees(plan: &Plan) -> Result<Vec<Observed>, String> {
    let (real, ties) = real::run(plan);
    let simulated = simulation::run(plan, &ties);
    let differ: Vec<_> = (0..real.len()).filter(|run| real[*run] != simulated[*run]).collect();
    if differ.is_empty() {
        Ok(real)
    } else {
        Err(format!("\nruns {differ:?}\nthe engine did  {real:?}\nthe rules say   {simulated:?}"))
    }
}

/// Tries random plans, and counts the events in them. Returns the number of plans.
fn try_plans(
    default: u32,
    plans: impl Strategy<Value = Plan>,
    mut count: impl FnMut(&Plan, &[Observed]),
) -> u32 {
    let cases = cases("MODEL_CASES", default);
    let count = std::cell::RefCell::new(&mut count);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let outcome = TestRunner::new(config).run(&plans, |plan| {
        let observed = agrees(&plan).map_err(TestCaseError::fail)?;
        (*count.borrow_mut())(&plan, &observed);
        Ok(())
    });
    match outcome {
        Ok(()) => cases,
        Err(TestError::Fail(reason, plan)) => panic!("{reason}\nthe plan is     {plan:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn model_agrees_with_the_engine() {
    let mut seen = Seen::default();
    let cases = try_plans(10_000, script::case().prop_map(Plan::from), |plan, observed| {
        seen.count(&plan.runs[0].case, &observed[0]);
    });
    eprintln!("{cases} cases agreed: {seen:?}");
    seen.assert_nothing_was_left_out(cases);
}

#[test]
fn model_agrees_with_every_end_of_a_run() {
    let mut seen = SeenOfPlans::default();
    let cases = try_plans(5_000, plan::plan(false), |plan, observed| seen.count(plan, observed));
    eprintln!("{cases} plans agreed: {seen:?}");
    seen.assert_nothing_was_left_out(cases, false);
}

#[test]
fn model_agrees_with_every_parallel_end_of_a_run() {
    let mut seen = SeenOfPlans::default();
    let cases = try_plans(5_000, plan::plan(true), |plan, observed| seen.count(plan, observed));
    eprintln!("{cases} plans agreed on tasks of their own: {seen:?}");
    seen.assert_nothing_was_left_out(cases, true);
}

fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap()
}
