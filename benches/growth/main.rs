//! The growth of the cost per item: from a thousand items to ten million, and from a concurrency of one to 16,384.
//! `cargo bench -p benches --bench growth`, about two minutes
//!
//! All contenders do the same work, interleaved in one process, each time on a fresh current-thread runtime. The figure is
//! the median of the CPU time. The figures are printed and stored with their plots in `benches/results`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark may")]

#[path = "../frame/mod.rs"]
mod frame;
mod plot;
mod workload;

use std::error::Error;
use std::fs;
use std::future;
use std::path::Path;
use std::pin::Pin;

use futures::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;

use self::frame::Table;
use self::plot::{Line, Panel, Plot, with_commas};
use self::workload::{Queued, queue, ready, yields};

/// The concurrency while the number of items grows, and the number of items while the concurrency grows. Each place
/// processes at least sixty items.
const FIXED: Size = Size { items: 1_000_000, concurrency: 64 };

const ITEMS: [u64; 9] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
const CONCURRENCY: [usize; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

const HEAD: &str = "\
# How the cost of an item grows

Written by `cargo bench -p benches --bench growth`: median CPU time per item in ns on a current-thread runtime (in brackets, the
ratio to `buffer_unordered`). \"full\" is a run with retries, limits, cancellation and criteria all set.
";

#[derive(Clone, Copy)]
struct Size {
    items: u64,
    concurrency: usize,
}

impl Size {
    /// Small sizes are cheap and vary much.
    fn rounds(self) -> usize {
        (5_000_000 / self.items as usize).clamp(5, 101)
    }

    fn queue(self) -> impl Fn(u64) -> Queued {
        queue(self.items, self.concurrency)
    }
}

/// A contender. It adds up `double(0) + double(1) + ...`, so that it cannot leave an item out.
struct Contender {
    name: &'static str,
    /// For each of the [`WORKLOADS`].
    run: [fn(Size) -> Sum; 3],
}

type Sum = Pin<Box<dyn Future<Output = u64>>>;

const WORKLOADS: [&str; 3] =
    ["items that are ready at once", "items that yield once", "items that keep every permit taken"];

const CONTENDERS: [Contender; 3] = [
    Contender {
        name: "buffer_unordered",
        run: [
            |size| Box::pin(buffer_unordered(size, ready)),
            |size| Box::pin(buffer_unordered(size, yields)),
            |size| Box::pin(buffer_unordered(size, size.queue())),
        ],
    },
    Contender {
        name: "full, awaited",
        run: [
            |size| Box::pin(awaited(size, ready)),
            |size| Box::pin(awaited(size, yields)),
            |size| Box::pin(awaited(size, size.queue())),
        ],
    },
    Contender {
        name: "full, for_each",
        run: [
            |size| Box::pin(for_each(size, ready)),
            |size| Box::pin(for_each(size, yields)),
            |size| Box::pin(for_each(size, size.queue())),
        ],
    },
];

async fn buffer_unordered<F: Future<Output = Result<u64, u32>>>(size: Size, f: impl Fn(u64) -> F) -> u64 {
    let results: Vec<_> =
        stream::iter(0..size.items).map(f).buffer_unordered(size.concurrency).collect().await;
    results.into_iter().map(|result| result.expect("no item fails")).sum()
}

async fn awaited<F: Future<Output = Result<u64, u32>>>(size: Size, f: impl Fn(u64) -> F) -> u64 {
    let run = frame::full(size.concurrency).over(0..size.items).map(f);
    let run = run.retry_if(|error| *error != 0).cancellation_token(CancellationToken::new());
    run.await.expect("no item fails").successful_results().sum()
}

async fn for_each<F: Future<Output = Result<u64, u32>>>(size: Size, f: impl Fn(u64) -> F) -> u64 {
    let run = frame::full(size.concurrency).over(0..size.items).map(f);
    let run = run.retry_if(|error| *error != 0).cancellation_token(CancellationToken::new());
    let mut sum = 0;
    let done = run.for_each(|outcome| {
        sum += outcome.result.expect("no item fails");
        future::ready(())
    });
    done.await.expect("no item fails");
    sum
}

/// Returns the median cost of an item in nanoseconds, for each contender.
fn measure(size: Size, workload: usize) -> Vec<f64> {
    let costs = frame::interleaved(size.rounds(), &CONTENDERS, |contender| {
        let runtime = frame::current_thread();
        let (sum, cost) = frame::timed(&runtime, contender.run[workload](size));
        assert_eq!(sum, size.items * (size.items - 1), "{} lost an item", contender.name);
        cost / size.items
    });
    costs.into_iter().map(|cost| cost.cpu).collect()
}

/// Measures all contenders with all workloads, at one size after another. `x` returns the number that grows.
fn panels(sizes: &[Size], x: fn(Size) -> usize) -> Vec<Panel> {
    let panel = |(workload, title)| {
        let mut lines = CONTENDERS.map(|contender| Line { name: contender.name, points: Vec::new() });
        for &size in sizes {
            for (line, nanos) in lines.iter_mut().zip(measure(size, workload)) {
                line.points.push((x(size), nanos));
            }
        }
        Panel { title, lines: lines.into() }
    };
    WORKLOADS.into_iter().enumerate().map(panel).collect()
}

/// A table for each panel, with the ratio to the first contender.
fn tables(plot: &Plot) -> String {
    let table = |panel: &Panel| {
        let names = panel.lines.iter().map(|line| line.name);
        let mut table = Table::new([plot.x_axis].into_iter().chain(names));
        for (row, &(x, baseline)) in panel.lines[0].points.iter().enumerate() {
            let nanos = panel.lines.iter().map(|line| line.points[row].1);
            let cells = nanos.map(|nanos| format!("{nanos:.1} ({:.2})", nanos / baseline));
            table.row([with_commas(x)].into_iter().chain(cells));
        }
        format!("\n{}, {}:\n\n```text\n{table}```\n", plot.title, panel.title)
    };
    plot.panels.iter().map(table).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let by_items = ITEMS.map(|items| Size { items, ..FIXED });
    let by_items = Plot {
        title: format!("Cost of an item, {} running at once", FIXED.concurrency),
        x_axis: "items",
        x_base: 10,
        panels: panels(&by_items, |size| size.items as usize),
    };
    let by_concurrency = CONCURRENCY.map(|concurrency| Size { concurrency, ..FIXED });
    let by_concurrency = Plot {
        title: format!("Cost of an item, {} in all", with_commas(FIXED.items as usize)),
        x_axis: "items running at once",
        x_base: 16,
        panels: panels(&by_concurrency, |size| size.concurrency),
    };
    let report = format!("{HEAD}{}{}", tables(&by_items), tables(&by_concurrency));
    print!("{report}");
    let results = Path::new(RESULTS);
    fs::create_dir_all(results)?;
    fs::write(results.join("growth.md"), report)?;
    by_items.draw(&results.join("growth_items.svg"))?;
    by_concurrency.draw(&results.join("growth_concurrency.svg"))
}
