//! Ctrl-C: the first drains a run, the second cancels it. The signal is real, and goes to the process of the tests.

use std::sync::Arc;

use async_map_task::{Completion, FailureReason};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tracing::level_filters::LevelFilter;

use crate::recorded_trace::listen;
use crate::support::at_once;

/// Everything is in one test, because each run of the process receives the signal.
#[tokio::test]
async fn rule_37_ctrl_c_drains_and_then_cancels() {
    let (memory, _guard) = listen(LevelFilter::INFO);
    // From here on, the signal does not end the process.
    let mut interrupts = signal(SignalKind::interrupt()).unwrap();
    let mut interrupt = async || {
        kill_process(getpid(), Signal::INT).unwrap();
        interrupts.recv().await.unwrap();
        // The run was woken by the same signal.
        for _ in 0..10 {
            yield_now().await;
        }
    };
    for (parallel, accepts) in [(false, true), (true, false)] {
        let (started, goes_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (starts, waits) = (Arc::clone(&started), Arc::clone(&goes_on));
        let run = at_once(3)
            .name("import")
            .accept_partial(accepts)
            .build()
            .unwrap()
            .over(0..100)
            .map(move |n| {
                starts.add_permits(1);
                let waits = Arc::clone(&waits);
                async move {
                    waits.acquire().await.unwrap().forget();
                    Ok::<_, String>(n)
                }
            })
            .cancel_on_ctrl_c();
        let mut handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        started.acquire_many(3).await.unwrap().forget();
        goes_on.add_permits(1);
        started.acquire().await.unwrap().forget();
        // Four have started, one of them has finished. The first Ctrl-C lets one more finish, and starts none.
        interrupt().await;
        goes_on.add_permits(1);
        while handle.progress().successes < 2 {
            yield_now().await;
        }
        interrupt().await;
        let summary = match (&mut handle).await {
            Ok(result) => {
                assert!(accepts);
                result.summary
            }
            Err(error) => {
                assert!(!accepts && matches!(error.reason(), FailureReason::Cancelled));
                error.summary().clone()
            }
        };
        assert_eq!(summary.completion, Completion::Cancelled);
        assert_eq!((summary.successes, summary.cancelled, summary.not_started), (2, 2, 96), "{parallel}");
        assert_eq!(started.available_permits(), 0, "nothing has started after the first");
    }
    let lines = ["Ctrl-C: running items finish", "second Ctrl-C"].map(|line| memory.events(line));
    for told in lines.iter().flatten() {
        assert_eq!(told.fields.get("task"), Some("import"));
    }
    assert!(lines.iter().all(|events| !events.is_empty()));
}
