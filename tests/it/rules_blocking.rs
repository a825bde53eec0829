//! Rule 15: a blocking function cannot be stopped, so it keeps its permits until it returns.

use std::sync::Arc;

use async_map_task::{
    AsyncMapTaskBuilder, ItemError, Limiter, MapHandle, MapTaskError, MapTaskResult, TimeoutScope,
};
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::advance;

use crate::support::{Gauge, at_once, check_account, lenient, let_others_run, millis, secs, timed_out};

/// A function that blocks its thread until it is released, and reports when it begins.
struct Blocker {
    begun: mpsc::UnboundedReceiver<u64>,
    /// A latch for each item.
    gates: Arc<[Semaphore; 8]>,
    running: Gauge,
}

type Handle = MapHandle<u64, &'static str>;
type Outcome = Result<MapTaskResult<u64, &'static str>, MapTaskError<u64, &'static str>>;

impl Blocker {
    /// Starts a run over the items 0 to 7. A blocked thread stops a paused clock, so time advances only when a test
    /// advances it.
    fn start(builder: AsyncMapTaskBuilder, items: u64, parallel: bool) -> (Self, Handle) {
        let (tell, begun) = mpsc::unbounded_channel();
        let gates = Arc::new([(); 8].map(|()| Semaphore::new(0)));
        let running = Gauge::default();
        let (opened, gauge) = (Arc::clone(&gates), running.clone());
        let run = builder.build().unwrap().over(0..items).map_blocking(move |n| {
            let _alive = gauge.enter();
            tell.send(n).unwrap();
            let gate = opened[n as usize].acquire();
            futures_executor::block_on(gate).unwrap().forget();
            Ok(n)
        });
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        (Self { begun, gates, running }, handle)
    }

    /// Waits until this many more have begun, and returns them.
    async fn begun(&mut self, count: usize) -> Vec<u64> {
        let mut begun = Vec::new();
        for _ in 0..count {
            begun.push(self.begun.recv().await.unwrap());
        }
        begun.sort_unstable();
        begun
    }

    fn let_go(&self, n: usize) {
        self.gates[n].add_permits(1);
    }

    /// Returns `true` if nothing more begins, no matter how often the run is polled.
    async fn is_quiet(&mut self) -> bool {
        let_others_run().await;
        self.begun.try_recv().is_err()
    }

    /// Waits until this many functions run.
    async fn wait_for_running(&self, count: usize) {
        while self.running.now() != count {
            yield_now().await;
        }
        let_others_run().await;
    }
}

/// A runtime waits for its blocked threads, so a failing test must release them.
impl Drop for Blocker {
    fn drop(&mut self) {
        self.gates.iter().for_each(|gate| gate.add_permits(100));
    }
}

/// Waits for the end of a run, which must not wait for its functions.
async fn ended(mut handle: Handle) -> Outcome {
    for _ in 0..1_000 {
        if let Some(outcome) = (&mut handle).now_or_never() {
            return outcome;
        }
        yield_now().await;
    }
    panic!("the run waits for a function that cannot be stopped")
}

#[tokio::test(start_paused = true)]
async fn rule_15_a_timed_out_function_keeps_its_permits() {
    for parallel in [false, true] {
        let limiter = Limiter::new(5);
        let task = lenient().concurrency(2).limiter(&limiter).timeout_per_attempt(secs(1));
        let (mut blocker, handle) = Blocker::start(task, 5, parallel);
        assert_eq!(blocker.begun(2).await, [0, 1]);
        assert!(blocker.is_quiet().await);
        advance(millis(1_001)).await;
        assert!(blocker.is_quiet().await, "both have settled, and both still run");
        let progress = handle.progress();
        assert_eq!((progress.failures, progress.running, limiter.in_use()), (2, 0, 2), "{parallel}");
        blocker.let_go(1);
        assert_eq!(blocker.begun(1).await, [2]);
        assert!(blocker.is_quiet().await);
        assert_eq!((handle.progress().running, limiter.in_use()), (1, 2), "{parallel}");
        // The late item has settled; the result of its function is dropped.
        (2..5).for_each(|n| blocker.let_go(n));
        blocker.let_go(0);
        let result = handle.await.unwrap();
        check_account(&result);
        assert_eq!(result.results, [None, None, Some(2), Some(3), Some(4)]);
        assert_eq!(result.errors[&0], timed_out(secs(1), TimeoutScope::Attempt, 1));
        assert_eq!((blocker.running.peak(), result.summary.timeouts), (2, 2), "{parallel}");
        blocker.wait_for_running(0).await;
        assert_eq!(limiter.in_use(), 0, "{parallel}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_the_retry_of_a_running_function_needs_a_permit() {
    for parallel in [false, true] {
        let task = lenient().concurrency(1).retries(1).retry_delay(secs(1)).timeout_per_attempt(secs(1));
        let (mut blocker, handle) = Blocker::start(task, 1, parallel);
        assert_eq!(blocker.begun(1).await, [0]);
        for _ in 0..5 {
            advance(millis(1_001)).await;
            assert!(blocker.is_quiet().await, "{parallel}: the first attempt still runs");
        }
        assert_eq!(handle.progress().waiting_for_retry, 1);
        blocker.let_go(0);
        assert_eq!(blocker.begun(1).await, [0]);
        blocker.let_go(0);
        let result = handle.await.unwrap();
        assert_eq!((result.results[0], result.summary.retries), (Some(0), 1), "{parallel}");
        assert_eq!(blocker.running.peak(), 1, "{parallel}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_only_the_limiter_waits_for_a_running_function() {
    for parallel in [false, true] {
        for cancels in [false, true] {
            let limiter = Limiter::new(2);
            let task = lenient().concurrency(2).limiter(&limiter).timeout_per_item(secs(1));
            let (mut blocker, handle) = Blocker::start(task, 2, parallel);
            assert_eq!(blocker.begun(2).await, [0, 1]);
            if cancels {
                handle.cancel();
                let partial = ended(handle).await.unwrap_err().into_partial();
                assert_eq!(partial.cancelled(), 2);
            } else {
                advance(millis(1_001)).await;
                let result = ended(handle).await.unwrap();
                assert_eq!(result.errors[&1], timed_out(secs(1), TimeoutScope::Item, 1));
            }
            assert_eq!((blocker.running.now(), limiter.in_use()), (2, 2), "{parallel}, {cancels}");
            blocker.let_go(0);
            blocker.wait_for_running(1).await;
            blocker.let_go(1);
            while limiter.in_use() > 0 {
                yield_now().await;
            }
            assert_eq!(blocker.running.now(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_a_function_can_succeed_within_the_grace() {
    for parallel in [false, true] {
        let task = lenient().concurrency(1).timeout_per_attempt(secs(1)).cancel_grace(secs(5));
        let (mut blocker, handle) = Blocker::start(task, 1, parallel);
        blocker.begun(1).await;
        advance(secs(3)).await;
        let_others_run().await;
        assert_eq!(handle.progress().running, 1);
        blocker.let_go(0);
        assert_eq!(handle.await.unwrap().results, [Some(0)], "{parallel}");
    }
}

#[tokio::test]
async fn rule_02_the_bound_holds_for_blocking_functions() {
    for parallel in [false, true] {
        let (mut blocker, handle) = Blocker::start(at_once(3), 8, parallel);
        assert_eq!(blocker.begun(3).await, [0, 1, 2]);
        for n in 0..8 {
            assert!(blocker.is_quiet().await, "{parallel}: {n} are done");
            blocker.let_go(n);
            if n < 5 {
                assert_eq!(blocker.begun(1).await, [n as u64 + 3], "{parallel}");
            }
        }
        assert_eq!(handle.await.unwrap().successes(), 8);
        assert_eq!(blocker.running.peak(), 3, "{parallel}");
    }
}

#[test]
fn rule_15_a_queued_function_is_cancelled_with_its_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build();
    runtime.unwrap().block_on(async {
        let limiter = Limiter::new(4);
        let (mut blocker, handle) = Blocker::start(lenient().limiter(&limiter), 4, false);
        assert_eq!(blocker.begun(1).await, [0]);
        let_others_run().await;
        assert_eq!((handle.progress().running, limiter.in_use()), (4, 4));
        handle.cancel();
        assert_eq!(ended(handle).await.unwrap_err().partial().cancelled(), 4);
        assert_eq!(limiter.in_use(), 1, "only what really runs holds a permit");
        blocker.let_go(0);
        blocker.wait_for_running(0).await;
        assert_eq!(blocker.running.ever(), 1);
        while limiter.in_use() > 0 {
            yield_now().await;
        }
    });
}

#[tokio::test]
async fn rule_16_a_panic_of_a_blocking_function_fails_its_item() {
    for parallel in [false, true] {
        let run = lenient().build().unwrap().over(0..4).map_blocking(|n| {
            assert_ne!(n, 2, "bad");
            Ok::<_, &str>(n)
        });
        let result = if parallel { run.parallel().await } else { run.await }.unwrap();
        assert_eq!((result.successes(), result.summary.panics), (3, 1));
        assert!(matches!(&result.errors[&2], ItemError::Panicked { message, .. } if message.contains("bad")));
    }
}
