//! The cost of running the items over Restate. `cargo bench -p benches --bench restate --features restate`, a minute
//!
//! The same function is mapped in process, and by a handler behind the real server: one that does nothing, and one that
//! takes 50 ms. `again` is a second run with the same id, which runs nothing: the engine returns all outcomes.
//! `tests/all.sh` installs the server.
//!
//! Coordinator, server and worker are three processes on the cores of this machine. Their CPU times and the idle time show
//! the bottleneck: the CPU, the function, or else the latency of a call. Most of that latency is the server's own work and
//! three waits for the disk: the server writes to its log three times for each call, one after another, and many concurrent
//! calls share them. No thread is pinned to a core, because the two child processes would inherit that.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "a benchmark may, and the server of the tests can do more than is needed here"
)]

mod frame;
#[path = "../tests/restate/guarded.rs"]
mod guarded;
#[path = "../tests/restate/ports.rs"]
mod ports;
#[path = "../tests/restate/server.rs"]
mod server;
#[path = "../tests/restate/work.rs"]
mod work;
#[path = "../tests/restate/worker.rs"]
mod worker;

use std::convert::Infallible;
use std::fmt::Debug;
use std::iter::repeat_n;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use std::{env, fmt, fs};

use async_map_task::restate::Restate;
use async_map_task::{MapTaskError, MapTaskResult};
use restate_sdk::prelude::*;
use rustix::process::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use self::frame::{Cost, Table, bare, median, timed_on_worker};
use self::guarded::Guarded;
use self::server::Server;

const ROUNDS: usize = 5;

/// One function at one concurrency. The number of items is such that a run over Restate takes about a second.
#[derive(Debug, Clone, Copy)]
struct Cell {
    millis: u64,
    concurrency: usize,
    items: usize,
}

const CELLS: [Cell; 6] = [
    Cell { millis: 0, concurrency: 1, items: 100 },
    Cell { millis: 0, concurrency: 50, items: 1_000 },
    Cell { millis: 0, concurrency: 200, items: 2_000 },
    Cell { millis: 50, concurrency: 1, items: 20 },
    Cell { millis: 50, concurrency: 50, items: 500 },
    Cell { millis: 50, concurrency: 200, items: 2_000 },
];

/// The function that does nothing ends too soon in process, so there it is mapped over this many items.
const ITEMS_OF_NOTHING: usize = 100_000;

/// A share of at least this counts as all.
const ALL: f64 = 0.85;

/// The argument that makes this program a worker. The port follows it.
const WORKER: &str = "be-a-worker";

/// Longer than a busy machine takes to start a worker.
const LONGEST: Duration = Duration::from_secs(30);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.millis {
            0 => f.write_str("nothing")?,
            millis => write!(f, "{millis} ms")?,
        }
        write!(f, ", {} at once", self.concurrency)
    }
}

/// The function. It returns the number of the execution, which reveals one that was not needed.
async fn execute(millis: u64) -> Result<u64, Infallible> {
    static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
    if millis > 0 {
        sleep(Duration::from_millis(millis)).await;
    }
    Ok(EXECUTIONS.fetch_add(1, Ordering::Relaxed))
}

struct Bench;

#[service]
impl Bench {
    #[handler]
    async fn execute(&self, _ctx: Context<'_>, millis: u64) -> HandlerResult<u64> {
        Ok(execute(millis).await?)
    }
}

/// Serves as a worker until it is killed.
async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    HttpServer::new(Endpoint::builder().bind(Bench).build()).serve(listener).await;
}

/// Starts a worker, and waits until it listens.
async fn start_worker(port: u16) -> Guarded {
    let mut program = Command::new(env::current_exe().expect("the path of this program"));
    let worker = Guarded::start(program.args([WORKER, &port.to_string()]));
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(began.elapsed() < LONGEST, "the worker does not listen; see its output above");
        sleep(Duration::from_millis(5)).await;
    }
    worker
}

/// The cost of an item in milliseconds: wall clock, CPU time of each process, and time of idle cores.
#[derive(Debug, Clone, Copy)]
struct Spent {
    wall: f64,
    coordinator: f64,
    server: f64,
    worker: f64,
    idle: f64,
}

impl Spent {
    fn medians(rounds: impl Iterator<Item = Self> + Clone) -> Self {
        let of = |figure: fn(Self) -> f64| median(rounds.clone().map(figure));
        Self {
            wall: of(|spent| spent.wall),
            coordinator: of(|spent| spent.coordinator),
            server: of(|spent| spent.server),
            worker: of(|spent| spent.worker),
            idle: of(|spent| spent.idle),
        }
    }

    fn per_second(&self) -> f64 {
        1e3 / self.wall
    }
}

/// Returns the sum of some numbers of a Linux file that counts CPU time, in milliseconds.
fn cpu_time(path: &str, numbers: Range<usize>) -> f64 {
    /// The unit of these files, on every current Linux.
    const MILLIS_A_TICK: f64 = 10.0;
    let text = fs::read_to_string(path).expect("this is Linux, and the process lives");
    // The name of a program may contain anything. It ends with the last parenthesis.
    let line = text.lines().next().and_then(|line| line.rsplit(')').next()).expect("a line");
    let ticks: Vec<i64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    ticks[numbers].iter().sum::<i64>() as f64 * MILLIS_A_TICK
}

/// The processes that the runs need. This process is the coordinator.
struct Place {
    runtime: Runtime,
    engine: Restate,
    server: Server,
    worker: Guarded,
}

impl Place {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (server, worker) = runtime.block_on(async {
            let server = Server::start().await;
            let port = ports::free();
            let worker = start_worker(port).await;
            server.register(port).await;
            (server, worker)
        });
        let engine = Restate::builder(server.ingress()).admin(server.admin()).build();
        Self { runtime, engine: engine.expect("the configuration is valid"), server, worker }
    }

    /// Returns the CPU time of the server, that of the worker, and the time of idle cores, so far.
    fn others(&self) -> [f64; 3] {
        let process = |pid: Pid| cpu_time(&format!("/proc/{}/stat", pid.as_raw_nonzero()), 10..12);
        let server = self.server.process.lock().unwrap().as_ref().unwrap().pid;
        [process(server), process(self.worker.pid), cpu_time("/proc/stat", 3..5)]
    }

    /// Runs to the end, and checks the outputs.
    fn run<E: Debug + Send + 'static>(
        &self,
        items: usize,
        run: impl Future<Output = Result<MapTaskResult<u64, E>, MapTaskError<u64, E>>> + Send + 'static,
    ) -> (Vec<Option<u64>>, Spent) {
        let before = self.others();
        let (result, cost) = timed_on_worker(&self.runtime, run);
        let after = self.others();
        let results = result.expect("no item fails").results;
        assert_eq!(results.len(), items);
        let Cost { wall, cpu } = cost / (1_000_000 * items as u64);
        let [server, worker, idle] = [0, 1, 2].map(|which| (after[which] - before[which]) / items as f64);
        (results, Spent { wall, coordinator: cpu, server, worker, idle })
    }

    /// Measures a run in process, one over Restate, and the latter again.
    fn measure(&self, cell: Cell, run_id: &str) -> [Spent; 3] {
        let task = bare(cell.concurrency);
        let items = if cell.millis == 0 { ITEMS_OF_NOTHING } else { cell.items };
        let (_, here) = self.run(items, task.over(repeat_n(cell.millis, items)).map(execute));
        let over = || {
            let handler = self.engine.handler::<u64>("Bench", "execute").run_id(run_id);
            let run = task.over(repeat_n(cell.millis, cell.items));
            let run = run.map_with_context(move |cx, millis| handler.call(cx, millis));
            self.run(cell.items, run)
        };
        let ((outputs, over_engine), (outputs_again, again)) = (over(), over());
        assert!(outputs == outputs_again, "an item has run again");
        [here, over_engine, again]
    }
}

/// Returns the row of a cell.
fn row(cell: Cell, [here, over, again]: &[Spent; 3]) -> [String; 8] {
    [
        cell.to_string(),
        format!("{:.0}", here.per_second()),
        format!("{:.0}", over.per_second()),
        format!("{:.0}", again.per_second()),
        format!("{:.1}", (over.wall - here.wall) * cell.concurrency as f64),
        format!("{:.2}", over.coordinator),
        format!("{:.2}", over.server),
        format!("{:.2}", over.worker),
    ]
}

/// Returns the bottleneck of the rate over Restate, and the shares of the cores.
fn bound(cell: Cell, [here, over, _]: &[Spent; 3], cores: f64) -> String {
    let [coordinator, server, worker, idle] =
        [over.coordinator, over.server, over.worker, over.idle].map(|time| time / over.wall);
    let ours = coordinator + server + worker;
    let others = (cores - ours - idle).max(0.0);
    let bound = if over.per_second() >= ALL * here.per_second() {
        "the function"
    } else if idle > (1.0 - ALL) * cores {
        "the length of a call"
    } else if ours > others {
        "the CPU"
    } else {
        "other programs, so measure again"
    };
    format!(
        "{cell}: {bound}; of {cores} cores the server uses {server:.1}, the worker {worker:.1}, the coordinator {coordinator:.1}, other programs {others:.1}; {idle:.1} are idle"
    )
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, WORKER, port] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return Runtime::new().expect("a runtime").block_on(serve(port.parse().expect("a port")));
    }
    let place = Place::new();
    let mut rounds = CELLS.map(|_| Vec::new());
    for round in 0..=ROUNDS {
        for (cell, rounds) in CELLS.into_iter().zip(&mut rounds) {
            let spent = place.measure(cell, &format!("{round}, {cell}").replace(' ', "-"));
            // The first round warms up.
            if round > 0 {
                rounds.push(spent);
            }
        }
    }
    let mut table = Table::new([
        "",
        "items/s here",
        "on Restate",
        "again",
        "more ms per item",
        "CPU ms: coordinator",
        "server",
        "worker",
    ]);
    let cores = available_parallelism().map_or(1, usize::from) as f64;
    let mut bounds = String::new();
    for (cell, rounds) in CELLS.into_iter().zip(&rounds) {
        let spent =
            [0, 1, 2].map(|which| Spent::medians(rounds.iter().map(|round: &[Spent; 3]| round[which])));
        table.row(row(cell, &spent));
        bounds = format!("{bounds}{}\n", bound(cell, &spent, cores));
    }
    println!("medians of {ROUNDS} rounds\n\n{table}\nBottlenecks:\n{bounds}");
}
