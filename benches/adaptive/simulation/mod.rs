//! A simulation of servers and of clients that seek their limit, in virtual time. It is exact, and the same for each seed.

#![allow(dead_code, clippy::indexing_slicing, reason = "a benchmark and a test use different parts of it")]

mod limits;
mod ours;
mod random;
pub(crate) mod rivals;
#[path = "../../../src/limiter/adaptive/round.rs"]
mod round;
#[path = "../../../src/limiter/adaptive/rule.rs"]
mod rule;
pub(crate) mod scenario;
mod score;
mod world;

use std::time::Duration;

pub(crate) use limits::{Fixed, Limits};
pub(crate) use ours::Ours;
pub(crate) use scenario::Scenario;
pub(crate) use score::Score;
use world::World;

/// Runs a scenario with a rule for each client. The rule is made from the scenario and a seed.
pub(crate) fn run(scenario: &Scenario, rule: &dyn Fn(&Scenario, u64) -> Box<dyn Limits>, seed: u64) -> Score {
    let rules = (0..scenario.clients).map(|client| rule(scenario, seed * 100 + client as u64));
    let log = World::new(scenario, rules.collect(), seed).run();
    Score::of(scenario, &log, unloaded(scenario))
}

/// Returns the median duration of an item of an idle server that is as fast as it ever is, in seconds.
fn unloaded(scenario: &Scenario) -> f64 {
    let idle = Scenario {
        workers: |_| u32::MAX,
        items: scenario.items.clone(),
        heaviest: scenario.heaviest,
        length: Duration::from_secs(60),
        ..Scenario::new("unloaded")
    };
    let log = World::new(&idle, vec![Box::new(Fixed(100))], 1).run();
    let mut durations: Vec<f64> = log.iter().map(|entry| entry.duration.as_secs_f64()).collect();
    durations.sort_by(f64::total_cmp);
    durations[durations.len() / 2]
}
