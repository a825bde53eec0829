//! The two runtimes: of the calling thread, and of two worker threads with a core each.
//!
//! Each thread is pinned to its core. Otherwise, some machines keep two busy threads on one core, which makes the figures
//! meaningless.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use core_affinity::CoreId;
use tokio::runtime::{Builder, Runtime};

use super::clock::{Cost, Stopwatch};

const WORKERS: usize = 2;

/// Read once, because a pinned thread sees only its own core.
static CORES: LazyLock<Vec<CoreId>> =
    LazyLock::new(|| core_affinity::get_core_ids().expect("the cores of this machine"));

/// Pins the calling thread to a core. If there are fewer cores, threads share one.
fn pin_to(core: usize) {
    let core = CORES[core % CORES.len()];
    assert!(core_affinity::set_for_current(core), "a thread cannot be pinned to {core:?}");
}

/// A runtime of the calling thread, which is pinned to core 0.
pub(crate) fn current_thread() -> Runtime {
    current_thread_on(0)
}

/// A runtime of the calling thread, which is pinned to a core.
pub(crate) fn current_thread_on(core: usize) -> Runtime {
    pin_to(core);
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A runtime of two worker threads, each pinned to its core.
pub(crate) fn two_workers() -> Runtime {
    assert!(CORES.len() >= WORKERS, "{WORKERS} cores are needed, there are {}", CORES.len());
    let next = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .on_thread_start(move || pin_to(next.fetch_add(1, Ordering::Relaxed)))
        .build()
        .expect("a runtime")
}

/// Runs a future on the calling thread, and returns the cost for that thread.
pub(crate) fn timed<T>(runtime: &Runtime, future: impl Future<Output = T>) -> (T, Cost) {
    runtime.block_on(async {
        let watch = Stopwatch::of_thread();
        let output = future.await;
        (output, watch.stop())
    })
}

/// Runs a future on a worker thread, like the handler of a service, and returns the cost for the process. `block_on` itself
/// does not run it on a worker thread.
pub(crate) fn timed_on_worker<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> (T, Cost) {
    let task = runtime.spawn(async move {
        let watch = Stopwatch::of_process();
        let output = future.await;
        (output, watch.stop())
    });
    runtime.block_on(task).expect("no contender panics")
}
