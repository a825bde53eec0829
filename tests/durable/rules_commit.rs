//! Rule 2 of durable runs: an outcome counts only when it is durable.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::store::{RunStatus, Store};
use async_map_task::{Cache, Event, Recovery};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, HOUR, NEVER, Plan, Terminal, at_once, in_time, lenient, millis, secs, thrice,
};

/// The maximum number of settled outcomes that are not durable.
const MOST_UNKEPT: usize = 1_024;

fn latch() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// Each commit takes a second. A callback that receives a success checks that its commit has returned.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_an_outcome_is_given_out_when_it_is_durable() {
    for end in End::all() {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let (watched, given) = (store.clone(), Arc::new(AtomicUsize::new(0)));
        let task = lenient(3).build().unwrap();
        let count = Arc::clone(&given);
        let plan = thrice(&task, &store, &Calls::default(), 4).recover("r").watch(move |index| {
            assert!(watched.durable().contains(&(index as u64)), "{index} was given before it was durable");
            count.fetch_add(1, SeqCst);
        });
        let run = tokio::spawn(plan.run(0..40, end));
        let mut commits = 0;
        while !run.is_finished() {
            sleep(secs(1)).await;
            assert_eq!(store.groups().len(), commits, "{end:?}");
            let durable = store.durable().len();
            let (given, expected) = (given.load(SeqCst), if end.gives_outcomes() { durable } else { 0 });
            // With `parallel()`, items need not end in the order in which they are given out.
            let may_be_held = end.ordered && end.parallel && given < expected;
            assert!(given == expected || may_be_held, "{end:?}: {given} of {expected} were given out");
            assert!(!run.is_finished() || durable == 30, "{end:?}: it has ended before all was durable");
            latch.add_permits(1);
            sleep(millis(1)).await;
            commits = store.groups().len();
        }
        assert_eq!(run.await.unwrap().summary.successes, 30, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_2_observers_see_a_success_when_it_is_durable() {
    for is_parallel in [false, true] {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let settled = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&settled);
        let observer = move |event: &Event<'_>| {
            if let Event::ItemSettled { index, failure: None, .. } = event {
                told.lock().unwrap().push(*index as u64);
            }
        };
        let run = at_once(2).build().unwrap().over(0..6).map(|n: u64| async move { Ok::<_, String>(n) });
        let run = run.observe(observer).recover(&store, "r");
        let handle = if is_parallel { run.parallel().spawn() } else { run.spawn() };
        sleep(secs(1)).await;
        let progress = handle.progress();
        assert_eq!((progress.successes, progress.running, settled.lock().unwrap().len()), (0, 0, 0));
        latch.add_permits(1);
        sleep(secs(1)).await;
        let durable = store.durable();
        assert!(!durable.is_empty());
        assert_eq!((handle.progress().successes, &*settled.lock().unwrap()), (durable.len(), &durable));
        latch.add_permits(9);
        assert_eq!(in_time(handle).await.unwrap().successes(), 6);
        assert_eq!(settled.lock().unwrap().len(), 6);
    }
}

/// While nothing becomes durable, items continue until the maximum waits for it; then nothing more starts. All continues
/// once an outcome is durable.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_outcomes_that_are_not_durable_are_bounded() {
    for (concurrency, is_parallel) in [(1, false), (1, true), (64, false), (64, true), (3_000, true)] {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let run = at_once(concurrency).build().unwrap().over(0..9_000).map(move |n: u64| {
            count.fetch_add(1, SeqCst);
            async move { Ok::<_, String>(n) }
        });
        let run = run.recover(&store, "r");
        let handle = if is_parallel { run.parallel().spawn() } else { run.spawn() };
        sleep(secs(1)).await;
        let called = calls.load(SeqCst);
        assert!((MOST_UNKEPT..=MOST_UNKEPT + concurrency).contains(&called), "{called} of {concurrency}");
        latch.add_permits(9_000);
        assert_eq!(in_time(handle).await.unwrap().successes(), 9_000);
        assert!(store.groups().len() <= 9_000 / 50, "{} commits", store.groups().len());
        assert!(store.groups().into_iter().all(|group| group <= MOST_UNKEPT));
    }
}

/// A sink is so slow that the store is idle. Then there is no reason to write items together, and each is durable
/// immediately.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_each_outcome_of_a_slow_sink_is_written_alone() {
    let store = Rigged::willing();
    let task = at_once(1).build().unwrap();
    let run = task.over(1..=3).map(|n: u64| async move { sleep(secs(n)).map(Ok::<_, String>).await });
    let handle = run.recover(&store, "r").spawn();
    for (at, durable) in [(1_001, vec![0]), (2_000, vec![0, 1]), (3_000, vec![0, 1, 2])] {
        sleep(millis(at)).await;
        assert_eq!(store.durable(), durable);
    }
    in_time(handle).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn durable_rule_2_an_endless_source_takes_bounded_memory() {
    let store = Rigged::willing();
    let (pulled, settled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let token = CancellationToken::new();
    let source = stream::iter(0_u64..).inspect(|_| {
        let ahead = pulled.fetch_add(1, SeqCst) - settled.load(SeqCst);
        assert!(ahead <= MOST_UNKEPT + 3 * 8, "{ahead} were pulled and not settled");
    });
    let run = at_once(8).build().unwrap().over_stream(source).map(|n| async move { Ok::<_, String>(n) });
    let run = run.cancellation_token(token.clone()).recover(&store, "r").for_each(|_| {
        if settled.fetch_add(1, SeqCst) == 20_000 {
            token.cancel();
        }
        std::future::ready(())
    });
    let error = in_time(run).await.unwrap_err();
    assert_eq!(error.summary().successes, settled.load(SeqCst));
    assert_eq!(store.durable().len(), settled.load(SeqCst), "what is durable was given");
}

/// The run is dropped with successes in progress: they are written, and the run is given back.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_a_dropped_run_writes_its_successes() {
    // A spawned run continues without its handle.
    for end in End::all().filter(|end| end.terminal != Terminal::Spawn) {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let calls = Calls::default();
        let task = at_once(2).build().unwrap();
        let plan = Plan::new(&task, &store, |_, n| async move {
            sleep(secs(n)).await;
            Ok(3 * n)
        });
        let run = timeout(millis(3_500), plan.recover("r").run(0..9, end));
        assert!(run.await.is_err());
        assert_eq!(store.durable(), Vec::<u64>::new());
        latch.add_permits(99);
        sleep(millis(1)).await;
        assert_eq!(store.durable(), [0, 1, 2], "{end:?}: the fourth takes until the fourth second");
        let info = store.run("r").await.unwrap().unwrap();
        assert_eq!(info.lease, None, "{end:?}");
        assert!(matches!(info.status, RunStatus::Failed { .. }), "{:?}", info.status);
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{end:?}");
        let next = thrice(&task, &store, &calls, NEVER).recover("r").run(0..9, end).await;
        assert_eq!((next.summary.recovered, calls.take()), (3, (3..9).collect()), "{end:?}");
    }
}

/// All successes are durable when a run has ended, regardless of how it stopped. After its time limit, a run waits a second
/// for that.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_a_stopped_run_waits_for_its_commits() {
    for end in End::all() {
        for cause in ["token", "fail_fast", "timeout", "early"] {
            let latch = latch();
            let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
            let token = CancellationToken::new();
            let builder = match cause {
                "fail_fast" => at_once(2).fail_fast(true),
                "timeout" => at_once(2).run_timeout(secs(6)),
                "early" => at_once(2).early_success(true).min_successes(2),
                _ => at_once(2),
            };
            let stop = token.clone();
            let plan = Plan::new(&builder.build().unwrap(), &store, move |_, n| {
                let stop = stop.clone();
                async move {
                    sleep(secs(n)).await;
                    match (n, cause) {
                        (5, "fail_fast") => return Err("no"),
                        (5, "token") => stop.cancel(),
                        (5.., _) => std::future::pending().await,
                        _ => {}
                    }
                    Ok(n)
                }
            });
            let run = tokio::spawn(plan.recover("r").token(&token).run(1..30, end));
            sleep(if cause == "timeout" { millis(6_900) } else { secs(60) }).await;
            assert!(!run.is_finished(), "{end:?}, {cause}: nothing is durable");
            latch.add_permits(99);
            let report = run.await.unwrap();
            assert_eq!(report.reason.is_none(), cause == "early", "{end:?}, {cause}");
            assert_eq!(report.outputs.len(), store.durable().len(), "{end:?}, {cause}");
            assert!(report.outputs.len() >= 3, "{end:?}, {cause}: {}", report.summary);
            let info = store.run("r").await.unwrap().unwrap();
            assert_eq!(info.succeeded as usize, report.outputs.len());
            assert_eq!(matches!(info.status, RunStatus::Succeeded), cause == "early", "{end:?}, {cause}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_2_a_drained_or_paused_run_writes_its_outcomes() {
    for end in End::all().filter(|end| end.terminal == Terminal::Spawn) {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let call = |_, n| async move { Ok(sleep(secs(1)).map(|()| n).await) };
        let plan = Plan::new(&at_once(3).build().unwrap(), &store, call).recover("r");
        let mut handle = plan.cache(Cache::version("1").serialized()).spawn(0..9, end);
        sleep(millis(500)).await;
        handle.pause();
        sleep(secs(9)).await;
        let progress = handle.progress();
        assert_eq!((progress.running, progress.successes, progress.total), (0, 0, Some(9)), "{end:?}");
        latch.add_permits(1);
        sleep(secs(1)).await;
        assert_eq!(handle.progress().successes, store.durable().len(), "{end:?}");
        handle.resume();
        sleep(millis(500)).await;
        handle.drain();
        sleep(secs(60)).await;
        assert!((&mut handle).now_or_never().is_none(), "{end:?}: what it has is not durable");
        assert_eq!(handle.progress().running, 0, "{end:?}");
        latch.add_permits(9);
        let error = in_time(handle).await.unwrap_err();
        assert_eq!((error.summary().successes, error.summary().not_started), (6, 3), "{end:?}");
        assert_eq!(store.durable().len(), 6, "{end:?}");
    }
}

/// One output of three cannot be written. No other may be treated as durable in its place.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_an_output_that_is_not_json_is_not_durable() {
    for is_parallel in [false, true] {
        let latch = latch();
        let store = Rigged::on(Call::Commit, Step::After(Arc::clone(&latch)));
        let given = Arc::new(Mutex::new(Vec::new()));
        let give = Arc::clone(&given);
        let task = at_once(3).cancel_grace(HOUR).build().unwrap();
        let run = task.over(0..3_usize).map(|n| async move {
            sleep(secs([1, 2, 4][n])).await;
            let keys_are_lists = BTreeMap::from([(vec![n], n)]);
            Ok::<BTreeMap<Vec<usize>, usize>, String>(if n == 1 { keys_are_lists } else { BTreeMap::new() })
        });
        let run = run.recover(&store, Recovery::run("r").lease(HOUR));
        let take = move |outcome: async_map_task::ItemOutcome<_, String>| {
            give.lock().unwrap().push(outcome.index as u64);
            std::future::ready(())
        };
        let run = if is_parallel {
            tokio::spawn(in_time(run.parallel().for_each(take)))
        } else {
            tokio::spawn(in_time(run.for_each(take)))
        };
        for _ in 0..4 {
            sleep(secs(5)).await;
            for index in &*given.lock().unwrap() {
                assert!(store.durable().contains(index), "{index} was given before it was durable");
            }
            latch.add_permits(1);
        }
        let error = run.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("the store failed"), "{error}");
        assert_eq!(store.durable(), [0, 2], "both had succeeded");
        assert_eq!(*given.lock().unwrap(), [0, 2], "what is durable is given");
    }
}

/// Large outputs are written in smaller groups, and one that is larger than a group is written alone.
#[tokio::test(start_paused = true)]
async fn durable_rule_2_a_group_is_bounded_in_bytes() {
    let store = Rigged::willing();
    let task = at_once(16).build().unwrap();
    let megabytes = |n: usize| async move { Ok::<_, String>("x".repeat(n << 20)) };
    let result =
        task.over([1, 1, 1, 1, 1, 1, 1, 1, 9, 1, 1]).map(megabytes).recover(&store, "r").await.unwrap();
    assert_eq!(result.successes(), 11);
    let groups = store.groups();
    assert_eq!(groups.iter().sum::<usize>(), 11);
    assert!(groups.iter().all(|outputs| *outputs <= 3), "{groups:?}");
}
