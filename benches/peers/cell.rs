//! One cell of the comparison: the same items at the same concurrency, for every contender.

use std::fmt;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::contenders::{Contender, Run};
use crate::frame::{Cost, current_thread, interleaved, timed, timed_on_worker, two_workers};
use crate::workload::Workload;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cores {
    #[value(help = "a current-thread runtime")]
    One,
    #[value(help = "a runtime with two workers, each on its core")]
    Two,
}

impl Cores {
    pub(crate) fn runtime(self) -> Runtime {
        match self {
            Self::One => current_thread(),
            Self::Two => two_workers(),
        }
    }

    /// Whom the others are compared with: what people use there.
    pub(crate) fn baseline(self) -> &'static str {
        match self {
            Self::One => "buffer_unordered",
            Self::Two => "spawn recipe",
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one thread",
            Self::Two => "two workers",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) cores: Cores,
    pub(crate) workload: Workload,
    pub(crate) items: u64,
    pub(crate) concurrency: usize,
}

/// The medians of what an item cost each contender.
pub(crate) struct Figures {
    pub(crate) cell: Cell,
    pub(crate) costs: Vec<(&'static str, Cost)>,
}

impl Cell {
    pub(crate) fn measure(self, runtime: &Runtime, rounds: usize, contenders: &[Contender]) -> Figures {
        let medians = interleaved(rounds, contenders, |contender| self.run(runtime, contender));
        let names = contenders.iter().map(|contender| contender.name);
        Figures { cell: self, costs: names.zip(medians).collect() }
    }

    fn run(self, runtime: &Runtime, contender: &Contender) -> Cost {
        let (output, cost) = match (&contender.run, self.cores) {
            (Run::Local(run), _) => timed(runtime, run(self.items, self.concurrency)),
            (Run::Send(run), Cores::One) => timed(runtime, run(self.items, self.concurrency)),
            (Run::Send(run), Cores::Two) => timed_on_worker(runtime, run(self.items, self.concurrency)),
        };
        output.check(contender.name, self.items);
        cost / self.items
    }
}

impl Figures {
    pub(crate) fn cost(&self, contender: &str) -> Option<Cost> {
        self.costs.iter().find(|(name, _)| *name == contender).map(|(_, cost)| *cost)
    }
}
