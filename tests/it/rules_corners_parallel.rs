//! Corner cases of spawned runs and of limits that change. Each was a bug of the engine.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{AsyncMapTask, Limiter};
use tokio::time::{sleep, timeout};

use crate::support::{Log, at_once, millis, secs, workers};

/// The free permit beside a due retry was used only when the retry ended.
#[tokio::test(start_paused = true)]
async fn rule_06_a_due_retry_makes_room_for_a_new_item() {
    let log = Log::open();
    let notes = log.clone();
    let f = move |cx: async_map_task::ItemContext, n: u64| {
        notes.note((cx.index(), cx.attempt()));
        let fails = n < 2 && cx.attempt() == 1;
        async move {
            if fails {
                return Err(millis(10 + n * 1_000));
            }
            sleep(millis(500)).await;
            Ok(())
        }
    };
    let task = at_once(2).look_ahead(2).retries(1).build().unwrap();
    let run = task.over(0..3).map_with_context(f).retry_after(|wait| Some(*wait)).parallel();
    assert_eq!(run.await.unwrap().successes(), 3);
    let expected = [(0, (0, 1)), (0, (1, 1)), (10, (0, 2)), (10, (2, 1)), (1_010, (1, 2))];
    assert_eq!(log.timed(), expected);
}

/// Two heavy items do not fit beside each other, so one permit of three is free. When the second replaces the first,
/// the third must get the free permit at that moment.
#[tokio::test(start_paused = true)]
async fn rule_02_a_parallel_light_item_starts_beside_a_heavy_one() {
    let log = Log::open();
    let notes = log.clone();
    let task = at_once(3).limiter(&Limiter::new(5)).build().unwrap();
    let run = task.over([2, 2, 1_u32, 1]).map_with_context(move |cx, _| {
        notes.note(cx.index());
        async {
            sleep(millis(500)).await;
            Ok::<_, String>(())
        }
    });
    assert_eq!(run.weight(|weight| *weight).parallel().await.unwrap().successes(), 4);
    assert_eq!(log.timed(), [(0, 0), (500, 1), (500, 2), (1_000, 3)]);
}

/// The worker that ends because of a lowered limit pulled one more item, and only then found no permit for it.
#[tokio::test(start_paused = true)]
async fn rule_01_nothing_is_pulled_while_a_lowered_limit_is_full() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let items = (0..4_u64).inspect(move |_| _ = count.fetch_add(1, SeqCst));
    let run = at_once(2).build().unwrap().over(items).map(|n| async move {
        sleep(millis(100 + n * 400)).await;
        Ok::<_, String>(())
    });
    let handle = run.spawn();
    sleep(millis(50)).await;
    handle.set_concurrency(1);
    sleep(millis(250)).await;
    let progress = handle.progress();
    assert_eq!((progress.successes, progress.running, pulled.load(SeqCst)), (1, 1, 2));
    handle.await.unwrap();
}

/// A worker that received a lowered limit in its own poll ignored it.
#[tokio::test(start_paused = true)]
async fn rule_02_an_item_can_lower_the_limit() {
    for parallel in [false, true] {
        let log = Log::open();
        let (notes, handle) =
            (log.clone(), Arc::new(Mutex::new(None::<async_map_task::MapHandle<(), String>>)));
        let steered = Arc::clone(&handle);
        let run = at_once(4).build().unwrap().over(0..8_u32).map(move |n| {
            notes.note(n);
            let steered = Arc::clone(&steered);
            async move {
                sleep(millis(if n == 0 { 50 } else { 100 })).await;
                if n == 0 {
                    steered.lock().unwrap().as_ref().unwrap().set_concurrency(1);
                }
                Ok(())
            }
        });
        *handle.lock().unwrap() = Some(if parallel { run.parallel().spawn() } else { run.spawn() });
        sleep(secs(1)).await;
        let starts = [(0, 0), (0, 1), (0, 2), (0, 3), (100, 4), (200, 5), (300, 6), (400, 7)];
        assert_eq!(log.timed(), starts);
    }
}

/// An item that blocks its thread until a test releases it.
#[derive(Clone)]
struct Hog(Arc<Mutex<Receiver<()>>>);

impl Hog {
    fn new() -> (Sender<()>, Self) {
        let (end, until) = mpsc::channel();
        (end, Self(Arc::new(Mutex::new(until))))
    }

    /// Returns `true` if the test released it, and `false` if it gave up.
    fn hold_up(&self) -> bool {
        self.0.lock().unwrap().recv_timeout(Duration::from_secs(20)).is_ok()
    }
}

/// A worker with spare permits woke the driver and continued with an item that blocked their thread.
#[test]
fn rule_07_a_blocking_item_keeps_no_spare_permits() {
    let (end, hog) = Hog::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let run = at_once(2).build().unwrap().over([2, 1, 1, 1_u32]).map(move |weight| {
        let (hog, end, nth) = (hog.clone(), end.clone(), begun.fetch_add(1, SeqCst));
        async move {
            match nth {
                0 => sleep(millis(20)).await,
                1 => assert!(hog.hold_up(), "the next item has not begun beside this one"),
                2 => end.send(()).unwrap(),
                _ => {}
            }
            Ok::<_, String>(weight)
        }
    });
    let run = run.weight(|weight| *weight).parallel();
    let result = workers(2).block_on(async { tokio::spawn(run).await.unwrap() });
    assert_eq!(result.unwrap().successes(), 4);
}

/// After its run was dropped, a worker in the middle of a poll continued with the next item. The run kept its permits of a
/// shared limit until the poll ended.
#[test]
fn rule_28_a_run_dropped_during_a_blocking_poll_is_gone() {
    let runtime = workers(2);
    let (end, hog) = Hog::new();
    let (notes, is_hogging) = mpsc::channel();
    let started = Arc::new(AtomicUsize::new(0));
    let limiter = Limiter::new(2);
    let task = at_once(4).limiter(&limiter).build().unwrap();
    let count = Arc::clone(&started);
    let run = task.over(0..1_000).map(move |n| {
        let (hog, notes) = (hog.clone(), notes.clone());
        count.fetch_add(1, SeqCst);
        async move {
            if n == 0 {
                notes.send(()).unwrap();
                assert!(hog.hold_up(), "the test has not come further");
                return Ok(());
            }
            std::future::pending::<Result<(), String>>().await
        }
    });
    runtime.block_on(async {
        let mut run = Box::pin(run.parallel());
        assert!(futures::poll!(&mut run).is_pending());
        is_hogging.recv().unwrap();
        while started.load(SeqCst) < 2 {
            assert!(futures::poll!(&mut run).is_pending());
        }
        drop(run);
        // The second item is dropped. Neither it nor a ticket of the dropped run blocks another run.
        let task = AsyncMapTask::builder().limiter(&limiter).build().unwrap();
        let other = timeout(secs(20), task.run([1], async |n| Ok::<_, String>(n)));
        other.await.expect("the dead run keeps its place").unwrap();
        assert_eq!(started.load(SeqCst), 2);
        end.send(()).unwrap();
        while limiter.in_use() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(started.load(SeqCst), 2, "it went on");
    });
}

/// An item that a worker had taken, but not begun when the run stopped, was counted as started.
#[tokio::test]
async fn rule_27_an_item_starts_when_its_function_is_called() {
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    let source = futures::stream::iter([Ok(2_u32), Ok(1), Err("closed")]);
    let run = at_once(2).build().unwrap().over_try_stream(source).map(move |weight| {
        count.fetch_add(1, SeqCst);
        async move {
            tokio::task::yield_now().await;
            Ok::<_, String>(weight)
        }
    });
    let error = tokio::spawn(run.weight(|weight| *weight).parallel()).await.unwrap().unwrap_err();
    let summary = error.summary();
    assert_eq!(summary.total - summary.not_started + summary.retries, called.load(SeqCst), "{summary}");
}
