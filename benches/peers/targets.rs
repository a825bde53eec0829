//! The targets, and the check of the figures against them.

use std::fmt;

use crate::cell::{Cores, Figures};
use crate::frame::{Cost, Table};
use crate::workload::Workload;

use Clock::{Cpu, Wall};
use Cores::{One, Two};
use Workload::{Computes, Fetches, Ready, Sleeps, Yields};

/// A target for the ratio of the costs of two contenders on one workload.
struct Target {
    workload: Workload,
    cores: Cores,
    /// Only at this concurrency, or at any.
    at_once: Option<usize>,
    clock: Clock,
    ours: &'static str,
    peer: &'static str,
    aim: Aim,
    /// The bound that fails the benchmark.
    must: f64,
    want: f64,
}

#[derive(Clone, Copy)]
enum Clock {
    Wall,
    Cpu,
}

#[derive(Clone, Copy)]
enum Aim {
    /// Our cost is at most this many times the cost of the peer.
    AtMost,
    /// The cost of the peer is at least this many times our cost.
    Cheaper,
}

/// With one thread, CPU time is the steadier clock. With two, only the wall clock shows that both work.
const TARGETS: [Target; 17] = [
    at_most(Ready, Cpu, "ours, full", "buffer_unordered", 0.9, 0.7),
    at_most(Yields, Cpu, "ours, full", "buffer_unordered", 1.15, 1.0),
    at_most(Sleeps, Cpu, "ours, full", "buffer_unordered", 1.15, 1.0),
    at_most(Fetches, Cpu, "ours, full", "buffer_unordered", 1.15, 1.0),
    at_most(Fetches, Wall, "ours, full", "buffer_unordered", 1.15, 1.0),
    at_most(Ready, Cpu, "ours, elapsed", "buffer_unordered", 2.0, 1.5),
    at_most(Yields, Cpu, "ours, elapsed", "buffer_unordered", 1.6, 1.3),
    at_most(Ready, Cpu, "ours, for_each", "for_each_concurrent", 1.0, 0.7),
    at_most(Yields, Cpu, "ours, for_each", "for_each_concurrent", 1.15, 1.0),
    at_most(Yields, Cpu, "ours, stream", "buffer_unordered", 1.3, 1.15).at_once(1024),
    // Awaited in a task of a runtime with two worker threads, as in a service.
    at_most(Yields, Wall, "ours, full", "buffer_unordered", 1.0, 0.8).on(Two),
    cheaper(Ready, One, Cpu, "ours, full", "JoinSet + Semaphore", 15.0, 25.0),
    cheaper(Yields, One, Cpu, "ours, full", "JoinSet + Semaphore", 5.0, 7.0),
    cheaper(Ready, Two, Wall, "ours, parallel", "spawn recipe", 8.0, 17.0),
    cheaper(Yields, Two, Wall, "ours, parallel", "spawn recipe", 3.0, 5.0),
    cheaper(Computes, Two, Wall, "ours, parallel", "spawn recipe", 1.4, 1.6),
    // Two cores cannot be faster than a factor of 2.0, which also bounds the ratio above.
    cheaper(Computes, Two, Wall, "ours, parallel", "sequential", 1.6, 1.85),
];

const fn at_most(
    workload: Workload,
    clock: Clock,
    ours: &'static str,
    peer: &'static str,
    must: f64,
    want: f64,
) -> Target {
    Target { workload, cores: One, at_once: None, clock, ours, peer, aim: Aim::AtMost, must, want }
}

const fn cheaper(
    workload: Workload,
    cores: Cores,
    clock: Clock,
    ours: &'static str,
    peer: &'static str,
    must: f64,
    want: f64,
) -> Target {
    Target { workload, cores, at_once: None, clock, ours, peer, aim: Aim::Cheaper, must, want }
}

impl Clock {
    fn read(self, cost: Cost) -> f64 {
        match self {
            Self::Wall => cost.wall,
            Self::Cpu => cost.cpu,
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wall => "wall",
            Self::Cpu => "CPU",
        })
    }
}

impl Target {
    const fn on(self, cores: Cores) -> Self {
        Self { cores, ..self }
    }

    const fn at_once(self, concurrency: usize) -> Self {
        Self { at_once: Some(concurrency), ..self }
    }

    /// Returns the worst ratio and its figures. `None` if it was not measured.
    fn worst<'a>(&self, figures: &'a [Figures]) -> Option<(f64, &'a Figures)> {
        let judged = figures.iter().filter(|figures| self.judges(figures));
        let ratios = judged.filter_map(|figures| Some((self.ratio(figures)?, figures)));
        ratios.reduce(|worst, other| if self.holds(other.0, worst.0) { worst } else { other })
    }

    /// With fewer items, the start of a run counts for more than the items do. If these sleep, the wake-up of a processor
    /// does. Neither holds for a request.
    fn judges(&self, figures: &Figures) -> bool {
        let cell = &figures.cell;
        let enough = cell.workload == Fetches || cell.items >= 100_000;
        let is_its_concurrency = self.at_once.is_none_or(|concurrency| concurrency == cell.concurrency);
        enough && is_its_concurrency && cell.workload == self.workload && cell.cores == self.cores
    }

    fn ratio(&self, figures: &Figures) -> Option<f64> {
        let ours = self.clock.read(figures.cost(self.ours)?);
        let peer = self.clock.read(figures.cost(self.peer)?);
        Some(match self.aim {
            Aim::AtMost => ours / peer,
            Aim::Cheaper => peer / ours,
        })
    }

    fn holds(&self, ratio: f64, bound: f64) -> bool {
        match self.aim {
            Aim::AtMost => ratio <= bound,
            Aim::Cheaper => ratio >= bound,
        }
    }

    fn what(&self) -> String {
        let Self { workload, cores, clock, ours, peer, .. } = self;
        let workload = workload.name();
        let (above, below) = match self.aim {
            Aim::AtMost => (ours, peer),
            Aim::Cheaper => (peer, ours),
        };
        format!("{workload}, {cores}, {clock}: {above} / {below}")
    }

    fn verdict(&self, ratio: f64, bound: f64) -> String {
        let sign = match self.aim {
            Aim::AtMost => "<=",
            Aim::Cheaper => ">=",
        };
        let verdict = if self.holds(ratio, bound) { "held" } else { "missed" };
        format!("{sign} {bound:.2} {verdict:>6}")
    }
}

/// Returns a row for each target that the figures cover. `None` if they cover none.
pub(crate) fn judge(figures: &[Figures]) -> Option<Table> {
    let judged = TARGETS.iter().filter_map(|target| Some((target, target.worst(figures)?)));
    let mut judged = judged.peekable();
    judged.peek()?;
    let mut table = Table::new(["targets", "worst ratio", "at once", "items", "must", "want"]);
    for (target, (ratio, Figures { cell, .. })) in judged {
        table.row([
            target.what(),
            format!("{ratio:.2}"),
            cell.concurrency.to_string(),
            cell.items.to_string(),
            target.verdict(ratio, target.must),
            target.verdict(ratio, target.want),
        ]);
    }
    Some(table)
}
