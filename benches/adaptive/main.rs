//! The rule of `Limiter::builder().adaptive(..)` and its rivals, on simulated servers, as a Markdown table:
//! `cargo bench -p benches --bench adaptive >benches/results/adaptive.md`.

mod simulation;

use simulation::rivals::{Aimd, Failsafe, Gradient2, Steps, Vegas};
use simulation::{Fixed, Limits, Ours, Scenario, Score, run, scenario};

const SEEDS: u64 = 6;

type MakeRule = fn(&Scenario, u64) -> Box<dyn Limits>;

const RULES: [(&str, MakeRule); 9] = [
    ("**adaptive**", |scenario, _| Box::new(Ours::new(scenario.start, scenario.most))),
    ("AIMD", |scenario, _| Box::new(Aimd::new(scenario.start, scenario.most))),
    ("Vegas", |scenario, seed| Box::new(Vegas::new(scenario.start, scenario.most, seed))),
    ("Gradient2", |scenario, _| Box::new(Gradient2::new(scenario.start, scenario.most))),
    ("failsafe-go", |scenario, _| Box::new(Failsafe::new(scenario.start, scenario.most))),
    ("steps", |scenario, _| Box::new(Steps::new(scenario.start, scenario.most))),
    ("fixed 8", |_, _| Box::new(Fixed(8))),
    ("fixed 32", |_, _| Box::new(Fixed(32))),
    ("fixed 128", |_, _| Box::new(Fixed(128))),
];

#[allow(clippy::print_stdout, reason = "the table is the output of this program")]
fn main() {
    // `cargo test` runs benchmarks too, and measures nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("| scenario | rule | throughput | median | refused | recovered | Jain |");
    println!("|---|---|---|---|---|---|---|");
    for scenario in scenario::all() {
        for (name, rule) in RULES {
            let scores: Vec<_> = (1..=SEEDS).map(|seed| run(&scenario, &rule, seed)).collect();
            println!("{}", row(&scenario, name, &Score::mean(&scores)));
        }
    }
}

fn row(scenario: &Scenario, rule: &str, score: &Score) -> String {
    let Score { throughput, median, refused, recovery, fairness } = *score;
    let recovery = match recovery {
        _ if scenario.changes.is_empty() => String::new(),
        Some(seconds) => format!("{seconds:.0} s"),
        None => "no".to_owned(),
    };
    let fairness = if scenario.clients > 1 { format!("{fairness:.2}") } else { String::new() };
    let name = scenario.name;
    let (throughput, refused) = (throughput * 100.0, refused * 100.0);
    format!("| {name} | {rule} | {throughput:.1}% | {median:.2} | {refused:.2}% | {recovery} | {fairness} |")
}
