//! The cost of a run per item, compared with the common alternatives. `cargo bench -p benches --bench peers`
//!
//! All contenders do the same work in turn in one process, and then in the next. The figures are medians: of the wall
//! clock, and of the CPU time of the one thread or of the whole process. Only ratios within one run are meaningful, because
//! the speed of the machine varies. Arguments select other cells than the usual ones, as in `cargo bench -p benches --bench peers --
//! w0 w4 --concurrency 64 --rounds 5 --contender full`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may"
)]

mod cell;
mod contenders;
#[path = "../frame/mod.rs"]
mod frame;
mod http;
mod processes;
mod targets;
mod workload;

use std::num::NonZeroUsize;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use cell::{Cell, Cores, Figures, Measurement};
use frame::Table;
use workload::Workload;

/// The cost of a run per item, compared with the common alternatives.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these workloads
    workloads: Vec<Workload>,
    /// Only on this number of cores
    #[arg(long)]
    cores: Option<Cores>,
    /// Other numbers of items, as in 10000,100000; also for workloads that are left out on two cores
    #[arg(long, value_delimiter = ',')]
    items: Vec<u64>,
    /// Other concurrencies, as in 8,64
    #[arg(long, value_delimiter = ',')]
    concurrency: Vec<NonZeroUsize>,
    /// Another number of rounds
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// Only contenders with this in their names, and the baseline
    #[arg(long)]
    contender: Vec<String>,
    /// Measures the share of this process, and prints it for the process that started it
    #[arg(long, hide = true)]
    process: Option<usize>,
    /// The flag that `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The cells of one table: the numbers of items and the concurrencies.
type Sizes = (u64, Vec<usize>);

/// The sizes that can be measured in a few minutes.
fn usual(cores: Cores, workload: Workload) -> Vec<Sizes> {
    use Workload::{Computes, Fails, Fetches, Ready, Sleeps, Yields};
    let all = || vec![8, 64, 1024];
    match (cores, workload) {
        (Cores::One, Ready | Yields) => {
            vec![(10_000, vec![64]), (100_000, all()), (1_000_000, vec![64])]
        }
        (Cores::One, Sleeps) => vec![(10_000, vec![64]), (100_000, vec![1024])],
        (Cores::One, Fails) => vec![(100_000, vec![64])],
        (Cores::One, Fetches) => vec![(4_000, vec![64])],
        (Cores::One, Computes) => vec![(10_000, vec![64])],
        (Cores::Two, Ready) => vec![(100_000, all())],
        (Cores::Two, Yields) => vec![(100_000, vec![8, 64, 1024, 4096])],
        (Cores::Two, Computes) => vec![(100_000, vec![64])],
        // These wait more than they work, and the second core runs the server.
        (Cores::Two, Sleeps | Fails | Fetches) => vec![],
    }
}

/// Returns the number of rounds: the fewer, the longer one takes.
fn usual_rounds(workload: Workload, items: u64) -> usize {
    match workload {
        Workload::Ready | Workload::Yields if items < 1_000_000 => 21,
        Workload::Computes => 21,
        Workload::Fetches => 11,
        Workload::Ready | Workload::Yields | Workload::Sleeps | Workload::Fails => 5,
    }
}

impl Arguments {
    fn sizes(&self, cores: Cores, workload: Workload) -> Vec<Sizes> {
        let mut sizes = usual(cores, workload);
        if !self.items.is_empty() {
            sizes = self.items.iter().map(|items| (*items, vec![64])).collect();
        }
        if !self.concurrency.is_empty() {
            sizes.iter_mut().for_each(|(_, concurrency)| {
                *concurrency = self.concurrency.iter().map(|c| c.get()).collect();
            });
        }
        sizes
    }

    fn picks(&self, contender: &str, cores: Cores) -> bool {
        self.contender.is_empty()
            || contender == cores.baseline()
            || self.contender.iter().any(|part| contender.contains(part))
    }

    /// Returns the measurements to make.
    fn measurements(&self) -> Vec<Measurement> {
        let mut measurements = Vec::new();
        for cores in picked(self.cores.as_slice()) {
            for workload in picked(&self.workloads) {
                for (items, concurrencies) in self.sizes(cores, workload) {
                    let rounds = self.rounds.map_or_else(|| usual_rounds(workload, items), NonZeroUsize::get);
                    measurements.extend(concurrencies.into_iter().map(|concurrency| {
                        let mut contenders = workload.contenders();
                        contenders.retain(|contender| {
                            contender.runs_on(cores) && self.picks(contender.name, cores)
                        });
                        Measurement::new(Cell { cores, workload, items, concurrency }, rounds, contenders)
                    }));
                }
            }
        }
        measurements
    }
}

/// Returns these values, or all if there are none.
fn picked<V: ValueEnum + Copy>(values: &[V]) -> Vec<V> {
    if values.is_empty() { V::value_variants().to_vec() } else { values.to_vec() }
}

/// Prints the figures for the same items at different concurrencies.
fn print(figures: &[Figures]) {
    let Some(Figures { cell: Cell { cores, workload, items, .. }, rounds, .. }) = figures.first() else {
        return;
    };
    println!("{workload}; {cores}, {items} items, {rounds} rounds");
    println!(
        "ns of wall-clock time per item, ns of CPU time per item, each with its ratio to {}",
        cores.baseline()
    );
    println!("{}", table(figures));
}

/// A row for each contender, and four columns for each cell.
fn table(figures: &[Figures]) -> Table {
    let header = figures.iter().flat_map(|figures| {
        [format!("{} at once", figures.cell.concurrency), "ratio".into(), "CPU".into(), "ratio".into()]
    });
    let mut table = Table::new([String::new()].into_iter().chain(header));
    for (contender, _) in figures.iter().take(1).flat_map(|figures| &figures.costs) {
        let columns = figures.iter().filter_map(|figures| {
            let (cost, baseline) = (figures.cost(contender)?, figures.cost(figures.cell.cores.baseline())?);
            let (wall, cpu) = (cost.wall / baseline.wall, cost.cpu / baseline.cpu);
            Some([
                format!("{:.1}", cost.wall),
                format!("{wall:.2}"),
                format!("{:.1}", cost.cpu),
                format!("{cpu:.2}"),
            ])
        });
        table.row([contender.to_string()].into_iter().chain(columns.flatten()));
    }
    table
}

fn main() {
    let arguments = Arguments::parse();
    let mut measurements = arguments.measurements();
    if let Some(process) = arguments.process {
        return processes::measure(&measurements, process);
    }
    let started = Instant::now();
    processes::collect(&mut measurements);
    let figures: Vec<Figures> = measurements.iter().map(Measurement::figures).collect();
    for figures in figures.chunk_by(|one, next| one.cell.is_beside(&next.cell)) {
        print(figures);
    }
    if let Some(targets) = targets::judge(&figures) {
        println!("{targets}");
    }
    println!("{} s in all", started.elapsed().as_secs());
}
