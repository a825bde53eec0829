//! Rule 4 of durable runs: an ended run is given back, immediately or as soon as possible.

use std::future::{IntoFuture, pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use async_map_task::Recovery;
use async_map_task::store::{DEFAULT_LEASE, MemoryStore, RunStatus, SqliteStore, Store};
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::folder::Folder;
use crate::rigged::{Call, Rigged, Step};
use crate::support::{Calls, End, NEVER, Plan, Terminal, at_once, in_time, millis, secs, thrice};
use crate::warnings::Warnings;

/// Starts a run in which only the first item ends.
fn stuck(store: &Rigged) -> Plan {
    let call = |_, n| async move { if n == 0 { Ok(n) } else { pending().await } };
    Plan::new(&at_once(2).build().unwrap(), store, call).recover("r")
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_dropped_run_can_be_resumed_immediately() {
    // A spawned run continues when its handle is dropped.
    for end in End::all().filter(|end| end.terminal != Terminal::Spawn) {
        // Its last writes take a second, and so does giving it back.
        for slow in [Call::Commit, Call::CloseRun] {
            let latch = Arc::new(Semaphore::new(0));
            let store = Rigged::on(slow, Step::After(Arc::clone(&latch)));
            assert!(timeout(secs(9), stuck(&store).run(0..4, end)).await.is_err());
            let later = tokio::spawn(async move {
                sleep(secs(1)).await;
                latch.add_permits(100);
            });
            let (calls, begun) = (Calls::default(), Instant::now());
            let task = at_once(2).build().unwrap();
            let again = thrice(&task, &store, &calls, NEVER).recover("r").run(0..4, end).await;
            assert_eq!(again.reason, None, "{end:?}, {slow:?}");
            assert_eq!(again.summary.recovered, 1, "{end:?}, {slow:?}: it was written first");
            assert!(begun.elapsed() < secs(3), "{end:?}, {slow:?}: after {:?}", begun.elapsed());
            later.await.unwrap();
        }
    }
}

#[tokio::test]
async fn durable_rule_4_a_dropped_run_can_be_resumed_from_a_file() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    let task = at_once(4).build().unwrap();
    for _ in 0..20 {
        let run = task.over(0..100_u64).map(|n| async move {
            sleep(millis(n)).await;
            Ok::<_, String>(n)
        });
        assert!(timeout(millis(10), run.recover(&store, "r")).await.is_err());
    }
    let run = task.over(0..100_u64).map(|n| async move { Ok::<_, String>(n) });
    assert_eq!(run.recover(&store, "r").await.unwrap().successes(), 100);
}

/// A run in progress is refused immediately, because it is not about to be given back.
#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_running_run_is_refused_immediately() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    let end = End::all().next().unwrap();
    let first = tokio::spawn(stuck(&store).run(0..4, end));
    sleep(secs(1)).await;
    let begun = Instant::now();
    let task = at_once(2).build().unwrap();
    let second = thrice(&task, &store, &calls, NEVER).recover("r").run(0..4, end).await;
    assert!(second.reason.unwrap().contains("Held"));
    assert!(begun.elapsed() <= millis(100), "{:?}", begun.elapsed());
    assert_eq!(calls.take(), Vec::<u64>::new());
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_run_is_released_when_the_disk_has_room() {
    for end in End::all() {
        let (warnings, _listening) = Warnings::listen();
        let (store, calls) = (Rigged::on(Call::CloseRun, Step::Fail), Calls::default());
        let task = at_once(2).build().unwrap();
        let plan = thrice(&task, &store, &calls, NEVER);
        let begun = Instant::now();
        let first = plan.clone().recover("r").run(0..9, end).await;
        assert_eq!((first.reason, begun.elapsed()), (None, secs(0)), "{end:?}: its end does not wait");
        assert_eq!(warnings.count("failed to release the run, will retry"), 1, "{end:?}");
        sleep(secs(10)).await;
        assert!(store.run("r").await.unwrap().unwrap().lease.is_some(), "{end:?}: the disk is full");
        // A second run gets an error with the reason.
        let refused = plan.clone().recover("r").run(0..9, end).await;
        assert!(refused.reason.unwrap().contains("disk full"), "{end:?}");

        store.rig(|_| Step::Go);
        sleep(secs(1)).await;
        let run = store.run("r").await.unwrap().unwrap();
        assert_eq!((run.status, run.lease), (RunStatus::Succeeded, None), "{end:?}");
        let next = plan.recover("r").run(0..9, end).await;
        assert_eq!((next.reason, next.summary.recovered), (None, 9), "{end:?}");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{end:?}");
    }
}

/// Another run needs the id before the store is called once more, and gives it back first.
#[tokio::test(start_paused = true)]
async fn durable_rule_4_the_next_run_releases_the_lease_itself() {
    let (warnings, _listening) = Warnings::listen();
    let (store, calls) = (Rigged::on(Call::CloseRun, Step::Fail), Calls::default());
    let end = End::all().next().unwrap();
    let plan = thrice(&at_once(2).build().unwrap(), &store, &calls, NEVER).recover("r");
    assert_eq!(plan.clone().run(0..9, end).await.reason, None);
    store.rig(|_| Step::Go);
    let begun = Instant::now();
    let next = plan.run(0..9, end).await;
    assert_eq!((next.reason, next.summary.recovered, begun.elapsed()), (None, 9, secs(0)));
    assert_eq!(warnings.count("failed to release the run"), 1);
}

#[tokio::test(start_paused = true)]
async fn durable_rule_4_a_release_is_retried_until_the_lease_ends() {
    let (warnings, _listening) = Warnings::listen();
    let (store, calls) = (Rigged::on(Call::CloseRun, Step::Fail), Calls::default());
    let end = End::all().next().unwrap();
    thrice(&at_once(2).build().unwrap(), &store, &calls, NEVER).recover("r").run(0..9, end).await;
    sleep(DEFAULT_LEASE + secs(1)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    warnings.count("failed to release the run");
}

/// Tasks make the writes of a run, so that nothing of the store is held while the run is not polled.
#[tokio::test]
async fn durable_rule_3_writes_go_on_while_the_run_is_not_polled() {
    let latch = Arc::new(Semaphore::new(0));
    let step = Step::After(Arc::clone(&latch));
    let store =
        Rigged::new(
            move |call| {
                if matches!(call, Call::PutCached | Call::Commit) { step.clone() } else { Step::Go }
            },
        );
    let task = at_once(4).build().unwrap();
    let run = task.over(0..4_u64).map(|n| async move { Ok::<_, String>(n) });
    let run = run.cache(&store, async_map_task::Cache::version("1")).recover(&store, Recovery::run("r"));
    let mut run = Box::pin(run.into_future());
    let both_have_begun = || store.count(Call::PutCached) >= 4 && store.count(Call::Commit) == 1;
    in_time(poll_fn(|cx| {
        assert!(run.as_mut().poll(cx).is_pending());
        if both_have_begun() { Poll::Ready(()) } else { Poll::Pending }
    }))
    .await;
    latch.add_permits(100);
    // From here on the run is not polled.
    let begun = std::time::Instant::now();
    while store.durable().len() < 4 || store.memory.evict("test", None).await.unwrap() < 4 {
        assert!(begun.elapsed() < secs(20), "they are not written");
        tokio::task::yield_now().await;
    }
    assert_eq!(run.await.unwrap().successes(), 4);
}

/// The runtime drops the task of a stream a moment after the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_rule_4_a_dropped_stream_releases_its_run() {
    let store = MemoryStore::new();
    let task = at_once(2).build().unwrap();
    for round in 0..200 {
        let mut stream = task
            .over(0..9_u64)
            .map(|n| async move { if n == 0 { Ok::<_, String>(n) } else { pending().await } })
            .recover(&store, "r")
            .stream();
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        let run = task.over(0..1_u64).map(|n| async move { Ok::<_, String>(n) });
        run.recover(&store, "r").await.unwrap_or_else(|error| panic!("round {round}: {:?}", error.reason()));
    }
}
