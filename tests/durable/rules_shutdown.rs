//! Rule 44, for durable runs: the task of the store is dropped with its runtime. That is not a failure of the store.

use std::sync::mpsc;
use std::thread;

use async_map_task::{AsyncMapTask, FailureReason};
use futures::StreamExt;
use futures_executor::block_on;

use crate::rigged::{Call, Rigged, Step};
use crate::support::workers;

/// A run with three successes that never become durable. The channel receives a message for each attempt.
macro_rules! hanging {
    () => {{
        let store = Rigged::on(Call::Commit, Step::Hang);
        let (say, ended) = mpsc::channel();
        let task = AsyncMapTask::builder().name("hanging").build().unwrap();
        let run = task.over(0..3_u32).map(move |n| {
            say.send(n).unwrap();
            async move { Ok::<_, String>(n) }
        });
        (run.recover(&store, "r"), ended, store)
    }};
}

/// Waits until the store hangs.
fn wait_for(store: &Rigged, ended: &mpsc::Receiver<u32>) {
    assert_eq!(ended.iter().take(3).count(), 3);
    while store.count(Call::Commit) == 0 {
        thread::yield_now();
    }
}

#[test]
fn rule_44_a_durable_run_keeps_outputs_after_a_shutdown() {
    let runtime = workers(2);
    let (run, ended, store) = hanging!();
    let handle = runtime.handle().clone();
    let awaiting = thread::spawn(move || handle.block_on(run));
    wait_for(&store, &ended);
    runtime.shutdown_background();
    let error = awaiting.join().unwrap().unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled), "{error}");
    assert_eq!(error.partial().results, [Some(0), Some(1), Some(2)]);
    assert_eq!((error.summary().successes, error.summary().cancelled), (3, 0));
}

#[test]
fn rule_44_a_shutdown_gives_durable_outputs_only_to_the_handle() {
    let runtime = workers(2);
    let (run, ended, store) = hanging!();
    let entered = runtime.enter();
    let handle = run.spawn();
    wait_for(&store, &ended);
    drop(entered);
    drop(runtime);
    let error = block_on(handle).unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled), "{error}");
    assert_eq!(error.partial().results, [Some(0), Some(1), Some(2)]);
    assert_eq!((error.summary().successes, error.summary().cancelled), (3, 0));

    let runtime = workers(2);
    let (run, ended, store) = hanging!();
    let mut stream = Box::pin(run.stream());
    let handle = runtime.handle().clone();
    let awaiting = thread::spawn(move || {
        let _entered = handle.enter();
        block_on(async { (stream.next().await, stream.next().await.is_none()) })
    });
    wait_for(&store, &ended);
    drop(runtime);
    let (only, is_over) = awaiting.join().unwrap();
    let error = only.unwrap().unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled) && is_over, "{error}");
    assert_eq!(
        (error.summary().successes, error.summary().cancelled),
        (0, 3),
        "it gives them when it is recovered"
    );
}
