//! One cell of the comparison: the same items at the same concurrency, for every contender.

use std::fmt;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::contenders::{Contender, Run};
use crate::frame::{Cost, timed, timed_on_worker, turns};
use crate::workload::Workload;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cores {
    #[value(help = "a current-thread runtime")]
    One,
    #[value(help = "a runtime with two workers, each on its core")]
    Two,
}

impl Cores {
    /// The contender that the others are compared with: the common choice for this number of cores.
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

/// A cell, the contenders that are measured in it, and the results.
pub(crate) struct Measurement {
    cell: Cell,
    rounds: usize,
    contenders: Vec<Contender>,
    costs: Vec<Vec<Cost>>,
}

/// The median cost of an item, for each contender.
pub(crate) struct Figures {
    pub(crate) cell: Cell,
    pub(crate) rounds: usize,
    pub(crate) costs: Vec<(&'static str, Cost)>,
}

impl Measurement {
    pub(crate) fn new(cell: Cell, rounds: usize, contenders: Vec<Contender>) -> Self {
        let costs = vec![Vec::with_capacity(rounds); contenders.len()];
        Self { cell, rounds, contenders, costs }
    }

    pub(crate) fn cell(&self) -> Cell {
        self.cell
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    /// Returns `true` if one of its rounds is due in this one of `all`. They count from 0, and its rounds are spread evenly
    /// over them.
    pub(crate) fn is_due(&self, round: usize, all: usize) -> bool {
        (round + 1) * self.rounds / all > round * self.rounds / all
    }

    /// Runs a part of the work of each contender.
    pub(crate) fn warm_up(&self, runtime: &Runtime) {
        let cell = Cell { items: self.cell.items / 10, ..self.cell };
        for contender in &self.contenders {
            cell.run(runtime, contender);
        }
    }

    /// Returns the cost of an item for each contender, by its number, in this round.
    pub(crate) fn measure(&self, round: usize, runtime: &Runtime) -> impl Iterator<Item = (usize, Cost)> {
        let turns = turns(round, self.contenders.len()).into_iter();
        turns.map(|turn| (turn, self.cell.run(runtime, &self.contenders[turn])))
    }

    pub(crate) fn take(&mut self, contender: usize, cost: Cost) {
        self.costs[contender].push(cost);
    }

    pub(crate) fn figures(&self) -> Figures {
        let medians = self.costs.iter().map(|costs| Cost::median(costs));
        let costs = self.contenders.iter().map(|contender| contender.name).zip(medians).collect();
        Figures { cell: self.cell, rounds: self.rounds, costs }
    }
}

impl Cell {
    /// Returns `true` if both belong to the same table.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        (self.cores, self.workload, self.items) == (other.cores, other.workload, other.items)
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
