//! The time that it takes to stop a run. `cargo bench -p benches --bench stopping`, less than a minute
//!
//! The maximum number of items run, and all of them wait, for ever or in a long sleep. Then the run is stopped: its token
//! is cancelled, an item fails, or the run is dropped. The figure is the time from there to the drop of the last running
//! item. There is no grace, because it would be time that is given to the items.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark may")]

mod frame;

use std::fmt;
use std::future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_map_task::AsyncMapTask;
use futures::future::FutureExt;
use futures::poll;
use futures::stream::{self, StreamExt};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::frame::{Table, median};

const ROUNDS: usize = 51;
const RUNNING: [usize; 3] = [64, 1_024, MOST];

/// The number of items that run in the cells with a target, in milliseconds.
const MOST: usize = 16_384;
const MUST: f64 = 20.0;
const WANT: f64 = 5.0;

/// Longer than the benchmark.
const LONG: Duration = Duration::from_secs(3_600);

/// The place in which the items are polled.
#[derive(Clone, Copy)]
enum Place {
    OneTask,
    TwoWorkers,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneTask => "in one task",
            Self::TwoWorkers => "parallel on two workers",
        })
    }
}

/// The way in which the items wait.
#[derive(Clone, Copy)]
enum Waiting {
    ForEver,
    Asleep,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ForEver => "pending for ever",
            Self::Asleep => "asleep",
        })
    }
}

/// The cause of the stop.
#[derive(Clone, Copy)]
enum Cause {
    Cancel,
    Failure,
    Drop,
    /// Drops a peer instead of a run: a `buffer_unordered`, or a `JoinSet`.
    DropOfPeer,
}

impl Cause {
    fn is_ours(self) -> bool {
        !matches!(self, Self::DropOfPeer)
    }
}

const CAUSES: [Cause; 4] = [Cause::Cancel, Cause::Failure, Cause::Drop, Cause::DropOfPeer];

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancel => "cancel",
            Self::Failure => "failure",
            Self::Drop => "drop",
            Self::DropOfPeer => "drop of a peer",
        })
    }
}

/// One run that is stopped, as shared by all its items.
struct Scene {
    waiting: Waiting,
    /// The number of items that run when it is stopped.
    concurrency: usize,
    token: CancellationToken,
    /// Makes the first item fail.
    failure: Notify,
    running: AtomicUsize,
    stopped: OnceLock<Instant>,
    /// The time at which the last running item was dropped, and the notification of it.
    cleared: OnceLock<Instant>,
    is_clear: Notify,
}

impl Scene {
    fn new(waiting: Waiting, concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting,
            concurrency,
            token: CancellationToken::new(),
            failure: Notify::new(),
            running: AtomicUsize::new(0),
            stopped: OnceLock::new(),
            cleared: OnceLock::new(),
            is_clear: Notify::new(),
        })
    }

    /// Records the time of the stop, from which the latency is measured.
    fn stop(&self) {
        self.stopped.set(Instant::now()).expect("a run is stopped once");
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// A running item.
struct Running(Arc<Scene>);

impl Running {
    fn begin(scene: &Arc<Scene>) -> Self {
        scene.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(scene))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.cleared.set(Instant::now()).expect("nothing starts after the last drop");
            self.0.is_clear.notify_one();
        }
    }
}

async fn item(n: usize, scene: Arc<Scene>) -> Result<(), &'static str> {
    let _running = Running::begin(&scene);
    if n == 0 {
        scene.failure.notified().await;
        scene.stop();
        return Err("told to fail");
    }
    match scene.waiting {
        Waiting::ForEver => future::pending().await,
        Waiting::Asleep => sleep(LONG).await,
    }
    Ok(())
}

/// A task with time limits, so that each worker has a timer.
fn task(concurrency: usize) -> AsyncMapTask {
    AsyncMapTask::builder()
        .name("bench")
        .concurrency(concurrency)
        .timeout_per_attempt(LONG)
        .timeout_per_item(LONG)
        .run_timeout(LONG)
        .fail_fast(true)
        .build()
        .expect("the configuration is valid")
}

/// Stops a run once all of its items run. Returns the milliseconds until the last of them was dropped.
async fn stop(run: impl Future, cause: Cause, scene: Arc<Scene>) -> f64 {
    let mut run = Box::pin(run);
    while scene.running() < scene.concurrency {
        assert!(poll!(run.as_mut()).is_pending(), "the run has not ended");
        yield_now().await;
    }
    assert_eq!(scene.running(), scene.concurrency, "as many run as may");
    match cause {
        Cause::Cancel => {
            scene.stop();
            scene.token.cancel();
            run.await;
        }
        Cause::Failure => {
            scene.failure.notify_one();
            run.await;
        }
        Cause::Drop | Cause::DropOfPeer => {
            scene.stop();
            drop(run);
        }
    }
    scene.is_clear.notified().await;
    assert_eq!(scene.running(), 0, "no item is left");
    let (stopped, cleared) = (scene.stopped.get(), scene.cleared.get());
    let latency = cleared.zip(stopped).map(|(cleared, stopped)| cleared.duration_since(*stopped));
    latency.expect("the run was stopped, and cleared").as_secs_f64() * 1e3
}

/// One task for each item, in a set that aborts them when it is dropped.
async fn join_set(scene: Arc<Scene>) {
    let mut set: JoinSet<_> = (0..scene.concurrency).map(|n| item(n, Arc::clone(&scene))).collect();
    while set.join_next().await.is_some() {}
}

fn measure(runtime: &Runtime, place: Place, waiting: Waiting, concurrency: usize, cause: Cause) -> f64 {
    let scene = Scene::new(waiting, concurrency);
    let items = 0..2 * concurrency;
    let function = {
        let scene = Arc::clone(&scene);
        move |n| item(n, Arc::clone(&scene))
    };
    let on_worker = |stopped| runtime.block_on(runtime.spawn(stopped)).expect("nothing panics");
    match (place, cause) {
        (Place::OneTask, Cause::DropOfPeer) => {
            let peer = stream::iter(items).map(function).buffer_unordered(concurrency).collect::<Vec<_>>();
            runtime.block_on(stop(peer, cause, scene))
        }
        (Place::TwoWorkers, Cause::DropOfPeer) => {
            on_worker(stop(join_set(Arc::clone(&scene)), cause, scene).boxed())
        }
        (place, cause) => {
            let token = scene.token.clone();
            let run = task(concurrency).over(items).map(function).cancellation_token(token);
            match place {
                Place::OneTask => runtime.block_on(stop(run, cause, scene)),
                Place::TwoWorkers => on_worker(stop(run.parallel(), cause, scene).boxed()),
            }
        }
    }
}

/// The median and the maximum of all rounds.
struct Latency {
    median: f64,
    worst: f64,
}

impl Latency {
    fn of(mut measure: impl FnMut() -> f64) -> Self {
        measure(); // It warms up.
        let rounds: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
        Self { worst: rounds.iter().copied().fold(0.0, f64::max), median: median(rounds) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} {:>8.3}", self.median, self.worst)
    }
}

fn main() {
    let (current_thread, two_workers) = (frame::current_thread(), frame::two_workers());
    let header = ["".to_owned(), "running".to_owned()];
    let mut table = Table::new(header.into_iter().chain(CAUSES.map(|cause| cause.to_string())));
    // For each cause, in the cells with a target.
    let mut slowest = [0.0_f64; CAUSES.len()];
    for (place, runtime) in [(Place::OneTask, &current_thread), (Place::TwoWorkers, &two_workers)] {
        for waiting in [Waiting::ForEver, Waiting::Asleep] {
            for running in RUNNING {
                let latencies =
                    CAUSES.map(|cause| Latency::of(|| measure(runtime, place, waiting, running, cause)));
                let name = [format!("{place}, {waiting}"), running.to_string()];
                table.row(name.into_iter().chain(latencies.iter().map(Latency::to_string)));
                if running == MOST {
                    for (slowest, latency) in slowest.iter_mut().zip(latencies) {
                        *slowest = slowest.max(latency.median);
                    }
                }
            }
        }
    }
    println!(
        "from the cause to the drop of the last running item: median and worst of {ROUNDS} rounds, ms\n\n{table}"
    );
    let mut targets =
        Table::new([format!("slowest median at {MOST}"), "ms".into(), "must".into(), "want".into()]);
    for (cause, slowest) in CAUSES.into_iter().zip(slowest).filter(|(cause, _)| cause.is_ours()) {
        let verdict = |target: f64| format!("{target} {}", if slowest <= target { "held" } else { "missed" });
        targets.row([cause.to_string(), format!("{slowest:.3}"), verdict(MUST), verdict(WANT)]);
    }
    println!("{targets}");
}
