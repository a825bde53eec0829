//! The cost of a run in counts, which do not depend on the load of the machine. `cargo bench -p benches --features paused --bench counts`
//!
//! Counts the instructions per item with callgrind, and compares them with a peer that does the same work without any
//! protection. Also measures how far the memory of a long run grows. A figure above its limit fails the benchmark. It needs
//! valgrind, and Linux.
//!
//! The benchmark starts a new process of itself for each figure, so that the process contains only the run in question.
//! Instructions are counted for two lengths of a run, so that the cost of starting a process, a run or a worker cancels
//! out. All runs are on one thread, and the clock stands still: a time slice is bounded in time, and counted instructions
//! are slower, so fewer would fit in. Their CPU time and the work of the kernel are not counted here; `peers` measures
//! them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may"
)]

mod frame;

use std::cell::Cell;
use std::env;
use std::error::Error;
use std::fs;
use std::future;
use std::hint::black_box;
use std::io::ErrorKind;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use async_map_task::{Event, KeyedLimiter, Limiter, RunReport};

use self::frame::{Table, full, full_builder};

/// The lengths of the two runs that are counted.
const FEW: u64 = 10_000;
const MANY: u64 = 30_000;

const CONCURRENCY: [usize; 2] = [64, 1024];

/// The limits: a tenth above the measured figure, so that a fifth more instructions fail and the next compiler does not;
/// and never above the promised figure.
const LIMITS: [Limit; 14] = [
    Limit { ours: "awaited", work: "W0", peer: BUFFER, measured: [0.54, 0.54], promised: Some(0.6) },
    Limit { ours: "awaited", work: "W1", peer: BUFFER, measured: [0.87, 0.84], promised: Some(0.9) },
    Limit { ours: "for_each", work: "W0", peer: FOR_EACH, measured: [1.12, 1.12], promised: None },
    Limit { ours: "for_each", work: "W1", peer: FOR_EACH, measured: [1.19, 1.18], promised: None },
    Limit { ours: "stream", work: "W0", peer: BUFFER, measured: [1.66, 1.48], promised: None },
    Limit { ours: "stream", work: "W1", peer: BUFFER, measured: [1.47, 1.41], promised: None },
    Limit { ours: "parallel", work: "W0", peer: BUFFER, measured: [0.86, 1.09], promised: None },
    Limit { ours: "parallel", work: "W1", peer: BUFFER, measured: [1.96, 2.00], promised: None },
    Limit { ours: "limited", work: "W0", peer: "awaited", measured: [5.26, 5.26], promised: None },
    Limit { ours: "limited", work: "W1", peer: "awaited", measured: [2.66, 2.71], promised: None },
    Limit { ours: "observed", work: "W0", peer: "awaited", measured: [3.43, 3.43], promised: None },
    Limit { ours: "observed", work: "W1", peer: "awaited", measured: [1.90, 1.95], promised: None },
    Limit { ours: "recorded", work: "W0", peer: "observed", measured: [2.04, 2.04], promised: None },
    Limit { ours: "batched", work: "W0", peer: "awaited", measured: [2.37, 2.37], promised: None },
];
const TOLERANCE: f64 = 1.1;

const BUFFER: &str = "buffer_unordered";
const FOR_EACH: &str = "for_each_concurrent";
/// Only for profiling by hand, next to ours.
const FUTURES_BUFFERED: &str = "futures-buffered";

/// The items of the run that the memory is measured with. One byte kept for each would be ten times the limit.
const ITEMS_IN_MEMORY: u64 = 10_000_000;
const MOST_GROWTH_KB: u64 = 1_000;

struct Limit {
    ours: &'static str,
    work: &'static str,
    peer: &'static str,
    /// The ratio of our instructions to those of one peer, for each [`CONCURRENCY`].
    measured: [f64; CONCURRENCY.len()],
    promised: Option<f64>,
}

/// The first arguments of the processes that this one starts, one for each figure.
const COUNTED: &str = "counted";
const GROWING: &str = "growing";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [COUNTED, name, work, items, concurrency] => counted(name, work, items, concurrency),
        [GROWING] => growing(),
        _ => hold_all(),
    };
    if let Err(error) = outcome {
        eprintln!("counts: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Takes all figures, and fails if one is above its limit.
fn hold_all() -> Outcome<()> {
    let mut exceeded = Vec::new();
    let mut table =
        Table::new(["instructions per item", "at once", "ours", "the peer's", "ratio", "allowed"]);
    for Limit { ours, work, peer, measured, promised } in LIMITS {
        for (concurrency, measured) in CONCURRENCY.into_iter().zip(measured) {
            let ours_takes = instructions_per_item(ours, work, concurrency)?;
            let peer_takes = instructions_per_item(peer, work, concurrency)?;
            let ratio = ours_takes / peer_takes;
            let allowed = (measured * TOLERANCE).min(promised.unwrap_or(f64::INFINITY));
            table.row([
                format!("{work}: {ours} / {peer}"),
                concurrency.to_string(),
                format!("{ours_takes:.1}"),
                format!("{peer_takes:.1}"),
                format!("{ratio:.3}"),
                format!("{allowed:.3}"),
            ]);
            if ratio > allowed {
                exceeded.push(format!(
                    "{work}, {concurrency} at once: {ours} takes {ratio:.3} of the instructions of {peer}, at most {allowed:.3} allowed"
                ));
            }
        }
    }
    println!("W0: items that are ready at once. W1: items that yield once.\n\n{table}");
    let growth = growth_kb()?;
    println!(
        "{ITEMS_IN_MEMORY} items in for_each: the memory grows by {growth} kB, at most {MOST_GROWTH_KB} kB allowed"
    );
    if growth > MOST_GROWTH_KB {
        exceeded.push(format!(
            "the memory of for_each grows by {growth} kB, at most {MOST_GROWTH_KB} kB allowed"
        ));
    }
    let ratios = LIMITS.len() * CONCURRENCY.len();
    println!("{ratios} ratios of {} counts, 1 growth; {} above the limit", ratios * 4, exceeded.len());
    if exceeded.is_empty() { Ok(()) } else { Err(exceeded.join("\ncounts: ").into()) }
}

fn instructions_per_item(name: &str, work: &str, concurrency: usize) -> Outcome<f64> {
    let (few, many) =
        (instructions(name, work, FEW, concurrency)?, instructions(name, work, MANY, concurrency)?);
    Ok((many - few) / (MANY - FEW) as f64)
}

/// Returns the instructions of a process that does nothing but this run.
fn instructions(name: &str, work: &str, items: u64, concurrency: usize) -> Outcome<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([COUNTED, name, work, &items.to_string(), &concurrency.to_string()])
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => "valgrind is not installed; it counts the instructions".to_owned(),
            _ => format!("valgrind cannot be started: {error}"),
        })?;
    let told = String::from_utf8_lossy(&output.stderr);
    match told.lines().find_map(|line| line.split_once("Collected : ")) {
        Some((_, count)) if output.status.success() => Ok(count.parse()?),
        _ => Err(format!("{work}: {name} under valgrind: {}\n{told}", output.status).into()),
    }
}

/// The process in which the instructions are counted.
fn counted(name: &str, work: &str, items: &str, concurrency: &str) -> Outcome<()> {
    run(name, work, Size { items: items.parse()?, concurrency: concurrency.parse()? });
    Ok(())
}

fn growth_kb() -> Outcome<u64> {
    let output = Command::new(env::current_exe()?).arg(GROWING).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The process in which the memory is measured: prints how far the peak of a long run is above that of a short one.
fn growing() -> Outcome<()> {
    let peak_after = |items| {
        run("for_each", "W0", Size { items, concurrency: 64 });
        peak_kb()
    };
    let (short, long) = (peak_after(1_000)?, peak_after(ITEMS_IN_MEMORY)?);
    println!("{}", long - short);
    Ok(())
}

/// Returns the peak of the resident memory of this process so far.
fn peak_kb() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    Ok(peak.ok_or("the kernel does not report the peak memory")?.trim().parse()?)
}

#[derive(Clone, Copy)]
struct Size {
    items: u64,
    concurrency: usize,
}

/// Adds up `double(0) + double(1) + ...`, so that no contender can leave an item out.
fn run(name: &str, work: &str, size: Size) {
    macro_rules! sum {
        ($contender:ident) => {
            match work {
                "W0" => Box::pin($contender(size, ready)) as Pin<Box<dyn Future<Output = u64>>>,
                "W1" => Box::pin($contender(size, yields)),
                _ => panic!("there is no work {work}"),
            }
        };
    }
    let sum = match name {
        BUFFER => sum!(buffer_unordered),
        FOR_EACH => sum!(for_each_concurrent),
        FUTURES_BUFFERED => sum!(futures_buffered),
        "awaited" => sum!(awaited),
        "for_each" => sum!(for_each),
        "stream" => sum!(stream),
        "parallel" => sum!(parallel),
        "limited" => sum!(limited),
        "observed" => sum!(observed),
        "recorded" => sum!(recorded),
        "batched" => sum!(batched),
        _ => panic!("there is no contender {name}"),
    };
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    assert_eq!(runtime.block_on(sum), size.items * (size.items - 1), "{name} lost an item");
}

type ItemResult = Result<u64, u32>;

/// The item is ready immediately.
async fn ready(n: u64) -> ItemResult {
    black_box(Ok(n * 2))
}

/// The item yields once.
async fn yields(n: u64) -> ItemResult {
    yield_now().await;
    black_box(Ok(n * 2))
}

async fn buffer_unordered<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let results: Vec<_> =
        stream::iter(0..size.items).map(f).buffer_unordered(size.concurrency).collect().await;
    results.into_iter().map(|result| result.expect("no item fails")).sum()
}

async fn futures_buffered<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let items = stream::iter(0..size.items).map(f);
    let results: Vec<_> =
        futures_buffered::BufferedStreamExt::buffered_unordered(items, size.concurrency).collect().await;
    results.into_iter().map(|result| result.expect("no item fails")).sum()
}

async fn for_each_concurrent<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let sum = Cell::new(0);
    let add = async |n| {
        let double = f(n).await.expect("no item fails");
        sum.set(sum.get() + double);
    };
    stream::iter(0..size.items).for_each_concurrent(size.concurrency, add).await;
    sum.get()
}

/// A run with every protection. It is a macro, because the type of a run cannot be named.
macro_rules! full_run {
    ($size:expr, $f:expr) => {
        full($size.concurrency)
            .over(0..$size.items)
            .map($f)
            .retry_if(|error| *error != 0)
            .cancellation_token(CancellationToken::new())
    };
}

async fn awaited<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let result = full_run!(size, f).await.expect("no item fails");
    result.into_successful_results().into_iter().sum()
}

/// As `awaited`, with a limiter that has a rate, and a key for each item. Neither makes an item wait.
async fn limited<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    const MANY: u32 = 1_000_000_000;
    let rate = Limiter::builder().rate(MANY, Duration::from_secs(1)).burst(MANY).build().expect("a rate");
    let hosts = KeyedLimiter::new(size.concurrency);
    let task = full_builder(size.concurrency).limiter(&rate).build().expect("the configuration is valid");
    let run = task
        .over(0..size.items)
        .map(f)
        .retry_if(|error| *error != 0)
        .cancellation_token(CancellationToken::new())
        .limit_per(|n| n % 16, &hosts);
    run.await.expect("no item fails").into_successful_results().into_iter().sum()
}

/// As `awaited`, with an observer that does nothing.
async fn observed<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let observe = |event: &Event<'_>| {
        black_box(event);
    };
    let result = full_run!(size, f).observe(observe).await.expect("no item fails");
    result.into_successful_results().into_iter().sum()
}

/// As `awaited`, with a report.
async fn recorded<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let report = RunReport::new();
    let result = full_run!(size, f).observe(report.observer()).await.expect("no item fails");
    result.into_successful_results().into_iter().sum()
}

/// As `awaited`, in batches of 96 items. A call awaits its items one after another.
async fn batched<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let f = &f;
    let run = full(size.concurrency)
        .over(0..size.items)
        .map_batches(96, |items: Vec<u64>| async move {
            let mut results = Vec::with_capacity(items.len());
            for n in items {
                results.push(f(n).await);
            }
            Ok(results)
        })
        .retry_if(|error| *error != 0)
        .cancellation_token(CancellationToken::new());
    run.await.expect("no item fails").into_successful_results().into_iter().sum()
}

async fn for_each<Fut: Future<Output = ItemResult>>(size: Size, f: impl Fn(u64) -> Fut) -> u64 {
    let mut sum = 0;
    let run = full_run!(size, f).for_each(|outcome| {
        sum += outcome.result.expect("no item fails");
        future::ready(())
    });
    run.await.expect("no item fails");
    sum
}

async fn stream<Fut>(size: Size, f: impl Fn(u64) -> Fut + Send + 'static) -> u64
where
    Fut: Future<Output = ItemResult> + Send + 'static,
{
    let outcomes = full_run!(size, f).stream();
    let doubles = outcomes.map(|outcome| outcome.expect("no item fails").result.expect("no item fails"));
    doubles.fold(0, async |sum, double| sum + double).await
}

async fn parallel<Fut>(size: Size, f: impl Fn(u64) -> Fut + Send + Sync + 'static) -> u64
where
    Fut: Future<Output = ItemResult> + Send + 'static,
{
    let result = full_run!(size, f).parallel().await.expect("no item fails");
    result.into_successful_results().into_iter().sum()
}
