//! The cost of making a run durable. `cargo bench -p benches --bench durable --features sqlite`, about four minutes
//!
//! Items that do nothing go through a plain run, and through one with `recover`. The store in memory has every cost except
//! the database. SQLite writes to a file on the disk of the build. `again` is a second run with the same id, which runs
//! nothing and returns every outcome. On one thread, the driver and the store task share it; with two worker threads they
//! do not. SQLite has its own thread in both cases.
//!
//! A second table measures each kind of write alone, for several concurrencies: cached outputs, the same with a claim
//! first, checkpoints, and the outcomes of `recover`. With the feature `postgres` and the URL of an empty database in
//! `ASYNC_MAP_TASK_BENCH_POSTGRES`, only this second table is measured, for PostgreSQL.
//!
//! The figures depend on the disk: each commit waits for it. So the time of such a wait is printed below them.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark may")]

mod frame;

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use async_map_task::store::{MemoryStore, SqliteStore, Store, StoreError};
use async_map_task::{AsyncMapTask, Cache, ItemOutcome, Summary};
use tokio::runtime::{Builder, Runtime};

use self::frame::{Cost, Table, interleaved, median, timed_on_worker};

const ITEMS: u64 = 100_000;
const CONCURRENCY: usize = 64;
const ROUNDS: usize = 5;

/// Items per second through `recover` on SQLite.
const TARGET: f64 = 50_000.0;

/// The id of every run.
const RUN: &str = "bench";

/// The number of waits for the disk that the median is taken from.
const WAITS: usize = 200;

/// The end of the run.
#[derive(Debug, Clone, Copy)]
enum End {
    ForEach,
    Awaited,
}

/// The state that is made durable, and the store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Nothing,
    InMemory,
    InMemoryAgain,
    InSqlite,
    InSqliteAgain,
}

const KEPT: [Kept; 5] =
    [Kept::Nothing, Kept::InMemory, Kept::InMemoryAgain, Kept::InSqlite, Kept::InSqliteAgain];

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForEach => "for_each",
            Self::Awaited => "awaited",
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no store",
            Self::InMemory => "MemoryStore",
            Self::InMemoryAgain => "MemoryStore, again",
            Self::InSqlite => "SqliteStore",
            Self::InSqliteAgain => "SqliteStore, again",
        })
    }
}

/// The folder of the databases. It is removed when the benchmark ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("durable-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder on the disk of the build");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn no_op(n: u64) -> Result<u64, Infallible> {
    Ok(black_box(n))
}

async fn take<E>(outcome: ItemOutcome<u64, E>) {
    black_box(outcome);
}

/// Runs all items to the end.
async fn run<S: Store>(end: End, store: Option<S>) -> Summary {
    let task = AsyncMapTask::builder().name("no-op").concurrency(CONCURRENCY).build();
    let run = task.expect("the configuration is valid").over(0..ITEMS).map(no_op);
    match (store, end) {
        (None, End::ForEach) => run.for_each(take).await.expect("no item fails"),
        (None, End::Awaited) => run.await.expect("no item fails").summary,
        (Some(store), End::ForEach) => run.recover(&store, RUN).for_each(take).await.expect("nothing fails"),
        (Some(store), End::Awaited) => run.recover(&store, RUN).await.expect("nothing fails").summary,
    }
}

/// The stores in which the run has already succeeded.
struct Finished {
    memory: MemoryStore,
    sqlite: SqliteStore,
}

impl Finished {
    async fn new(folder: &Folder) -> Self {
        let memory = MemoryStore::new();
        let sqlite = SqliteStore::open(folder.file("finished.db")).await.expect("a new file");
        run(End::ForEach, Some(memory.clone())).await;
        run(End::ForEach, Some(sqlite.clone())).await;
        Self { memory, sqlite }
    }
}

struct Bench<'a> {
    runtime: &'a Runtime,
    folder: &'a Folder,
    finished: &'a Finished,
}

impl Bench<'_> {
    /// Times only the run, and checks that it kept everything.
    fn measure(&self, end: End, kept: Kept) -> Cost {
        let (summary, cost) = match kept {
            Kept::Nothing => self.timed::<MemoryStore>(end, None),
            Kept::InMemory => self.timed(end, Some(MemoryStore::new())),
            Kept::InMemoryAgain => self.timed(end, Some(self.finished.memory.clone())),
            Kept::InSqlite => self.timed_in_new_file(end),
            Kept::InSqliteAgain => self.timed(end, Some(self.finished.sqlite.clone())),
        };
        let recovered =
            if matches!(kept, Kept::InMemoryAgain | Kept::InSqliteAgain) { ITEMS as usize } else { 0 };
        assert_eq!((summary.successes, summary.recovered), (ITEMS as usize, recovered));
        cost
    }

    fn timed<S: Store>(&self, end: End, store: Option<S>) -> (Summary, Cost) {
        timed_on_worker(self.runtime, run(end, store))
    }

    fn timed_in_new_file(&self, end: End) -> (Summary, Cost) {
        let path = self.folder.file("new.db");
        let store = self.runtime.block_on(SqliteStore::open(&path)).expect("a new file");
        let timed = self.timed(end, Some(store.clone()));
        let kept =
            self.runtime.block_on(store.run(RUN)).expect("the file is sound").expect("the run was kept");
        assert_eq!(kept.succeeded, ITEMS);
        drop(store);
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", path.display()));
        }
        timed
    }
}

/// The kind of write that each item makes.
#[derive(Debug, Clone, Copy)]
enum Written {
    Outcome,
    CachedOutput,
    ClaimAndOutput,
    Checkpoint,
}

const WRITTEN: [Written; 4] =
    [Written::Outcome, Written::CachedOutput, Written::ClaimAndOutput, Written::Checkpoint];

/// The number of items, and the concurrency.
const SIZES: [(u64, usize); 3] = [(500, 1), (5_000, 64), (10_000, 1_024)];

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outcome => "outcomes",
            Self::CachedOutput => "cached outputs",
            Self::ClaimAndOutput => "cached outputs, each with a claim",
            Self::Checkpoint => "checkpoints, each with an outcome",
        })
    }
}

/// Runs all items to the end, with a write for each.
async fn write<S: Store>(store: S, written: Written, items: u64, concurrency: usize) -> Summary {
    let task = AsyncMapTask::builder().name("no-op").concurrency(concurrency).build();
    let task = task.expect("the configuration is valid");
    let ended = match written {
        Written::Outcome => task.over(0..items).map(no_op).recover(&store, RUN).for_each(take).await,
        Written::CachedOutput => {
            task.over(0..items).map(no_op).cache(&store, Cache::version("1")).for_each(take).await
        }
        Written::ClaimAndOutput => {
            let cache = Cache::version("1").serialized();
            task.over(0..items).map(no_op).cache(&store, cache).for_each(take).await
        }
        Written::Checkpoint => {
            let run = task.over(0..items).map_with_context(|cx, n| async move {
                cx.checkpoint().save(&n).await?;
                Ok::<_, StoreError>(n)
            });
            run.recover(&store, RUN).for_each(take).await
        }
    };
    ended.expect("nothing fails")
}

/// Measures the writes per second, in a new store each time.
fn writes<S: Store>(runtime: &Runtime, place: &str, new_store: impl Fn() -> S) -> Table {
    let mut table = Table::new(["", "at once", "a second", "µs per item", "CPU"]);
    for (items, concurrency) in SIZES {
        let costs = interleaved(ROUNDS, &WRITTEN, |&written| {
            let store = new_store();
            let (summary, cost) = timed_on_worker(runtime, write(store, written, items, concurrency));
            assert_eq!(summary.successes as u64, items);
            cost
        });
        for (cost, written) in costs.iter().zip(WRITTEN) {
            let each = *cost / items;
            table.row([
                format!("{place}, {written}"),
                concurrency.to_string(),
                format!("{:.0}", 1e9 / each.wall),
                format!("{:.2}", each.wall / 1e3),
                format!("{:.2}", each.cpu / 1e3),
            ]);
        }
    }
    table
}

/// New files in a folder.
fn new_files<'f>(runtime: &'f Runtime, folder: &'f Folder, place: &'f str) -> impl Fn() -> SqliteStore + 'f {
    let number = Cell::new(0);
    move || {
        number.set(number.get() + 1);
        let path = folder.file(&format!("{place}-{}.db", number.get()));
        runtime.block_on(SqliteStore::open(&path)).expect("a new file")
    }
}

/// The tables of the server, emptied.
#[cfg(feature = "postgres")]
fn emptied(runtime: &Runtime, url: &str) -> async_map_task::store::PostgresStore {
    runtime.block_on(async {
        let store = async_map_task::store::PostgresStore::connect(url).await.expect("a server");
        store.forget(RUN).await.expect("the server works");
        store.evict("no-op", None).await.expect("the server works");
        store
    })
}

/// Measures PostgreSQL. Returns `false` if no server is set.
#[cfg(feature = "postgres")]
fn measures_postgres(runtimes: [(&str, &Runtime); 2]) -> bool {
    let Ok(url) = std::env::var("ASYNC_MAP_TASK_BENCH_POSTGRES") else { return false };
    for (place, runtime) in runtimes {
        let table = writes(runtime, place, || emptied(runtime, &url));
        println!("PostgreSQL, medians of {ROUNDS} rounds, each in emptied tables\n\n{table}");
    }
    true
}

/// Returns the time of a disk write in microseconds: the median for this many bytes appended to a file and synced.
fn wait_for_disk(folder: &Folder, bytes: usize) -> f64 {
    let mut file = File::create(folder.file("waits")).expect("a new file");
    let block = vec![0x5a; bytes];
    median((0..WAITS).map(|_| {
        let begun = Instant::now();
        file.write_all(&block).expect("the disk has room");
        file.sync_data().expect("the disk takes it");
        begun.elapsed().as_secs_f64() * 1e6
    }))
}

fn per_second(cost: Cost) -> f64 {
    ITEMS as f64 / (cost.wall / 1e9)
}

/// Adds the rows of one runtime. Returns the items per second on SQLite, for each end.
fn compare(bench: &Bench<'_>, place: &str, table: &mut Table) -> [f64; 2] {
    let ends = [End::ForEach, End::Awaited];
    let contenders: Vec<(End, Kept)> =
        ends.into_iter().flat_map(|end| KEPT.map(|kept| (end, kept))).collect();
    let costs = interleaved(ROUNDS, &contenders, |&(end, kept)| bench.measure(end, kept));
    for (costs, (end, _)) in costs.chunks(KEPT.len()).zip(contenders.iter().step_by(KEPT.len())) {
        for (cost, kept) in costs.iter().zip(KEPT) {
            let (each, bare) = (*cost / ITEMS, costs[0] / ITEMS);
            table.row([
                format!("{place}, {end}, {kept}"),
                format!("{:.0}", per_second(*cost)),
                format!("{:.2}", each.wall / 1e3),
                format!("{:.2}", each.cpu / 1e3),
                format!("{:.2}", (each.wall - bare.wall) / 1e3),
            ]);
        }
    }
    let sqlite = KEPT.iter().position(|kept| *kept == Kept::InSqlite).expect("it is among them");
    [per_second(costs[sqlite]), per_second(costs[KEPT.len() + sqlite])]
}

fn main() {
    let folder = Folder::new();
    let one_thread = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let two_workers = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let runtimes = [("one thread", &one_thread), ("two workers", &two_workers)];
    #[cfg(feature = "postgres")]
    if measures_postgres(runtimes) {
        return;
    }
    let finished = two_workers.block_on(Finished::new(&folder));

    let mut table = Table::new(["", "items/s", "µs per item", "CPU", "more than without a store"]);
    let mut slowest = f64::INFINITY;
    for (place, runtime) in runtimes {
        let bench = Bench { runtime, folder: &folder, finished: &finished };
        slowest = compare(&bench, place, &mut table).into_iter().fold(slowest, f64::min);
    }
    println!("{ITEMS} items that do nothing, {CONCURRENCY} at once, medians of {ROUNDS} rounds\n\n{table}");
    for (place, runtime) in runtimes {
        let table = writes(runtime, place, new_files(runtime, &folder, place));
        println!("SQLite, medians of {ROUNDS} rounds, each in a new file\n\n{table}");
    }
    for bytes in [4 << 10, 256 << 10] {
        let wait = wait_for_disk(&folder, bytes);
        println!("writing and syncing {} KiB takes {wait:.0} µs", bytes >> 10);
    }
    let verdict = if slowest >= TARGET { "held" } else { "missed" };
    println!("slowest on SQLite: {slowest:.0} items/s, target {TARGET:.0}: {verdict}");
}
