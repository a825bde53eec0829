//! Rules 44 and 46: a runtime that shuts down cancels its runs, and a run that no longer exists is not reported as running.

use std::future::pending;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, FailureReason, ItemOutcome, Limiter, MapTaskError, MapTaskResult,
    Progress, Summary,
};
use futures::{FutureExt, StreamExt};
use futures_executor::block_on;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{advance, sleep};

use crate::support::{HOUR, at_once, check_account, lenient, millis, secs, task, workers};

type Failed<T> = MapTaskError<T, String>;

fn assert_cancelled<T>(error: &Failed<T>) {
    assert!(matches!(error.reason(), FailureReason::Cancelled), "{:?}", error.reason());
    check_account(error.partial());
}

fn counts(summary: &Summary) -> [usize; 4] {
    let Summary { successes, failures, cancelled, not_started, .. } = *summary;
    [successes, failures, cancelled, not_started]
}

/// Waits until this many items have begun.
fn wait_for(begun: &mpsc::Receiver<u32>, count: usize) {
    assert_eq!(begun.iter().take(count).count(), count);
}

/// Checks the progress of a run that no longer exists: nothing runs, and nothing changes any more.
fn assert_closed(progress: &Progress, later: &Progress) {
    assert_eq!((progress.running, progress.waiting_for_retry, progress.eta), (0, 0, Some(secs(0))));
    assert_eq!(progress, later);
}

/// The sink of a blocking run is in the middle of a call when the runtime shuts down. Items that had not begun were
/// pulled from the source and reported as panicked.
#[test]
fn rule_44_a_shutdown_causes_no_failures_in_a_blocking_run() {
    for parallel in [false, true] {
        let runtime = workers(2);
        let (pulled, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (alive, is_dropped) = mpsc::channel::<()>();
        let (pulls, failures) = (Arc::clone(&pulled), Arc::clone(&failed));
        let source = (0..1_000).inspect(move |_| {
            let _alive = &alive;
            pulls.fetch_add(1, SeqCst);
        });
        let task = at_once(2).min_success_ratio(0.0).build().unwrap();
        let run = task.over(source.filter(|_| true)).map_blocking(Ok::<_, String>);
        let (say, has_settled) = mpsc::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let mut settled = 0;
        let sink = move |outcome: ItemOutcome<i32, String>| {
            settled += 1;
            failures.fetch_add(usize::from(outcome.result.is_err()), SeqCst);
            if settled == 1 {
                say.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap_err();
            }
            async {}
        };
        let run = if parallel {
            runtime.spawn(run.parallel().for_each(sink))
        } else {
            runtime.spawn(run.for_each(sink))
        };
        has_settled.recv().unwrap();
        runtime.shutdown_background();
        let before = pulled.load(SeqCst);
        drop(let_go);
        // Either the run detected it, or it was dropped before it could.
        match block_on(run) {
            Ok(ended) => {
                let error = ended.unwrap_err();
                assert!(matches!(error.reason(), FailureReason::Cancelled), "{error}");
                let Summary { total, .. } = *error.summary();
                assert_eq!(counts(error.summary()).iter().sum::<usize>(), total);
            }
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
        is_dropped.recv().unwrap_err();
        assert_eq!(failed.load(SeqCst), 0, "parallel: {parallel}");
        assert!(pulled.load(SeqCst) <= before + 4, "{} pulled after {before}", pulled.load(SeqCst));
    }
}

/// A thread that outlives the runtime polls the run.
fn outlive<T: Send + 'static>(
    runtime: Runtime,
    run: impl Future<Output = T> + Send + 'static,
    until: impl FnOnce(),
    then: impl FnOnce(),
) -> T {
    let handle = runtime.handle().clone();
    let awaiting = thread::spawn(move || handle.block_on(run));
    until();
    runtime.shutdown_background();
    then();
    awaiting.join().expect("nothing panics")
}

#[test]
fn rule_44_a_blocking_function_that_cannot_begin_is_cancelled() {
    for parallel in [false, true] {
        let (say, has_begun) = mpsc::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let limiter = Limiter::new(1);
        let task = at_once(1).limiter(&limiter).build().unwrap();
        let run = task.over(0..9).map_blocking(move |n: u32| {
            say.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap_err();
            Ok::<_, String>(n)
        });
        let run = async move { if parallel { run.parallel().await } else { run.await } };
        let error = outlive(workers(1), run, || has_begun.recv().unwrap(), || drop(let_go)).unwrap_err();
        assert_cancelled(&error);
        // The workers of a run on several cores are gone, and so are the results of the function.
        let expected = if parallel { [0, 0, 1, 8] } else { [1, 0, 1, 7] };
        assert_eq!(counts(error.summary()), expected, "parallel: {parallel}");
        while limiter.in_use() > 0 {
            thread::yield_now();
        }
    }
}

/// Tokio panics if a timer is polled after its runtime is gone.
#[test]
fn rule_44_a_timer_without_its_runtime_cancels_the_run() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Timer {
        Attempt,
        Item,
        Run,
        Retry,
        RetryArmedLater,
    }

    for timer in [Timer::Attempt, Timer::Item, Timer::Run, Timer::Retry, Timer::RetryArmedLater] {
        let builder = lenient().concurrency(2).retries(1).retry_delay(HOUR).max_retry_delay(HOUR);
        let builder = match timer {
            Timer::Attempt => builder.timeout_per_attempt(HOUR),
            Timer::Item => builder.timeout_per_item(2 * HOUR),
            Timer::Run => builder.run_timeout(2 * HOUR),
            Timer::Retry | Timer::RetryArmedLater => builder,
        };
        let (say, has_begun) = mpsc::channel();
        let (let_go, gate) = oneshot::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(Some(gate)));
        let run = builder.build().unwrap().over(0..9).map(move |n: u32| {
            say.send(()).unwrap();
            let gate = gate.lock().unwrap().take();
            async move {
                match (timer, gate) {
                    (Timer::Retry, Some(_)) => return Err("again".to_owned()),
                    (Timer::RetryArmedLater, Some(gate)) => {
                        gate.await.unwrap_err();
                        return Err("again".to_owned());
                    }
                    (Timer::Retry | Timer::RetryArmedLater, None) if n < 3 => {}
                    _ => pending().await,
                }
                Ok(n)
            }
        });
        // A poll of the run may end before every item that can begin has begun.
        let begin = match timer {
            Timer::Retry => 5,
            Timer::RetryArmedLater => 4,
            _ => 2,
        };
        let all_begun = || (0..begin).for_each(|_| has_begun.recv().unwrap());
        let error = outlive(workers(1), run, all_begun, || drop(let_go)).unwrap_err();
        assert_cancelled(&error);
        let expected: &[_] = match timer {
            Timer::Retry => &[[2, 0, 3, 4]],
            // The timer may find its runtime gone before the next item takes the permit.
            Timer::RetryArmedLater => &[[2, 0, 3, 4], [2, 0, 2, 5]],
            _ => &[[0, 0, 2, 7]],
        };
        assert!(expected.contains(&counts(error.summary())), "{timer:?}: {}", error.summary());
    }
}

#[test]
fn rule_44_a_grace_ends_with_the_runtime() {
    let (say, has_begun) = mpsc::channel();
    let stop = tokio_util::sync::CancellationToken::new();
    let task = at_once(2).cancel_grace(HOUR).build().unwrap();
    let run = task
        .over(0..9)
        .map_with_context(move |cx, n: u32| {
            let say = say.clone();
            async move {
                say.send(()).unwrap();
                cx.cancellation_token().cancelled().await;
                say.send(()).unwrap();
                if n == 0 { Ok(n) } else { pending::<Result<_, String>>().await }
            }
        })
        .cancellation_token(stop.clone());
    let until = || {
        (0..2).for_each(|_| has_begun.recv().unwrap());
        stop.cancel();
        (0..2).for_each(|_| has_begun.recv().unwrap());
    };
    let error = outlive(workers(1), run, until, || {}).unwrap_err();
    assert_cancelled(&error);
    assert_eq!(counts(error.summary()), [1, 0, 1, 7]);
}

#[test]
fn rule_44_a_run_begun_after_the_shutdown_is_cancelled() {
    let runtime = workers(1);
    let handle = runtime.handle().clone();
    drop(runtime);
    let call = |n| async move { Ok::<_, String>(n) };
    let parallel = handle.block_on(task().over(0..9).map(call).parallel()).unwrap_err();
    assert_cancelled(&parallel);
    assert_eq!(counts(parallel.summary()), [0, 0, 0, 9]);
    let blocking = handle.block_on(task().over(0..9).map_blocking(Ok::<_, String>)).unwrap_err();
    assert_cancelled(&blocking);
    assert_eq!(counts(blocking.summary())[..2], [0, 0]);
    let _entered = handle.enter();
    let error = block_on(task().over(0..9).map(call).spawn()).unwrap_err();
    assert_cancelled(&error);
    assert_eq!(counts(error.summary()), [0, 0, 0, 9]);
    let mut stream = task().over(0..9).map(call).stream();
    let error = block_on(stream.next()).unwrap().unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled));
    assert_eq!(counts(error.summary()), [0, 0, 0, 9]);
    assert!(block_on(stream.next()).is_none());
}

#[test]
fn rule_44_a_run_that_never_began_has_the_promised_total() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let call = |n| async move { Ok::<_, String>(n) };
    let known = task().over(0..20).map(call).spawn();
    let unknown =
        at_once(1).name("odd").build().unwrap().over((0..20).filter(|n| n % 2 == 1)).map(call).spawn();
    let mut stream = Box::pin(task().over(0..20).map(call).stream());
    assert_eq!((known.progress().total, unknown.progress().total), (Some(20), None));
    assert_eq!((stream.progress().total, known.watch().borrow().total), (Some(20), Some(20)));
    // From its first poll on the run has a task, and the task has no runtime.
    assert!(stream.next().now_or_never().is_none());
    drop(runtime);

    assert_closed(&known.progress(), &known.progress());
    assert_eq!(known.progress().total, Some(20));
    let error = block_on(known).unwrap_err();
    assert_cancelled(&error);
    assert_eq!((counts(error.summary()), error.partial().results.len()), ([0, 0, 0, 20], 20));
    assert!(error.to_string().ends_with(": cancelled after 0 of 20 items"), "{error}");
    let error = block_on(unknown).unwrap_err();
    assert_cancelled(&error);
    assert_eq!(error.to_string(), "odd: cancelled after 0 of 0 items");
    let error = block_on(stream.next()).unwrap().unwrap_err();
    assert_eq!((error.summary().total, error.summary().not_started), (20, 20));
    assert_eq!(stream.summary(), Some(error.summary()));
}

/// Item 2 fails, item 4 waits for its retry, and two of the others never end.
async fn settle_most(n: u32, attempt: u32, all_begun: mpsc::Sender<u32>) -> Result<u32, String> {
    match n {
        2 => Err("no".to_owned()),
        4 if attempt == 1 => Err("again".to_owned()),
        10.. => {
            all_begun.send(n).unwrap();
            pending().await
        }
        _ => Ok(n),
    }
}

fn settling(retries: u32) -> AsyncMapTask {
    lenient().concurrency(2).retries(retries).retry_delay(HOUR).max_retry_delay(HOUR).build().unwrap()
}

/// Starts a run in which the last two items never end.
macro_rules! start {
    ($end:ident, $parallel:expr) => {{
        let runtime = workers(2);
        let (say, begun) = mpsc::channel();
        let run = settling(1)
            .over((0..20).filter(|_| true))
            .map_with_context(move |cx, n| settle_most(n, cx.attempt(), say.clone()))
            .retry_if(|error| error == "again");
        let awaited = {
            let _entered = runtime.enter();
            if $parallel { run.parallel().$end() } else { run.$end() }
        };
        (runtime, begun, awaited)
    }};
}

#[test]
fn rule_44_settled_items_reach_the_handle() {
    for parallel in [false, true] {
        let (runtime, begun, handle) = start!(spawn, parallel);
        wait_for(&begun, 2);
        let mut watch = handle.watch();
        drop(runtime);
        let error = block_on(handle).unwrap_err();
        assert_cancelled(&error);
        assert_eq!((counts(error.summary()), error.summary().retries), ([8, 1, 3, 0], 0));
        let settled: Vec<_> = error.partial().successful_results().copied().collect();
        assert_eq!(settled, [0, 1, 3, 5, 6, 7, 8, 9]);
        let (first, failed) = error.first_failure().unwrap();
        assert_eq!((first, failed.to_string().as_str()), (2, "failed after 1 attempt: no"));
        // The last report agrees with the account.
        while block_on(watch.changed()).is_ok() {
            watch.borrow_and_update();
        }
        let last = watch.borrow();
        assert_eq!((last.total, last.successes, last.failures), (Some(12), 8, 1));
        assert_eq!((last.running, last.waiting_for_retry, last.elapsed), (0, 0, error.summary().elapsed));
    }
}

#[test]
fn rule_44_settled_items_reach_the_stream() {
    for parallel in [false, true] {
        // No run waits for a consumer: as many outcomes as may be held.
        let runtime = workers(2);
        let (say, begun) = mpsc::channel();
        let run = at_once(4).min_success_ratio(0.0).build().unwrap().over(0..20_u32).map(move |n| {
            let say = say.clone();
            async move {
                say.send(n).unwrap();
                if n == 0 || n == 9 { pending().await } else { Err::<u32, _>(n.to_string()) }
            }
        });
        let run = run.ordered();
        let mut stream = if parallel { Box::pin(run.parallel().stream()) } else { Box::pin(run.stream()) };
        {
            let _entered = runtime.enter();
            assert!(stream.next().now_or_never().is_none());
        }
        // The head never ends, so that its followers are held until there are too many.
        wait_for(&begun, 5);
        drop(runtime);
        let begun = 5 + begun.try_iter().count();
        let mut given = Vec::new();
        let error = loop {
            match block_on(stream.next()).unwrap() {
                Ok(outcome) => given.push(outcome.index),
                Err(error) => break error,
            }
        };
        assert!(block_on(stream.next()).is_none());
        assert!(matches!(error.reason(), FailureReason::Cancelled));
        assert_eq!(stream.summary(), Some(error.summary()));
        let [successes, failures, cancelled, not_started] = counts(error.summary());
        assert_eq!(
            (successes, failures, failures + cancelled, not_started),
            (0, given.len(), begun, 20 - begun)
        );
        assert!(given.iter().all(|index| *index != 0) && given.is_sorted(), "{given:?}");
        assert_closed(&stream.progress(), &stream.progress());
    }
}

/// The first cause that stopped a run is its reason, even if the runtime shuts down before the run ends.
#[test]
fn rule_25_a_shutdown_during_the_grace_is_not_the_reason() {
    let run = |builder: AsyncMapTaskBuilder, parallel: bool| {
        let runtime = workers(2);
        let (say, told) = mpsc::channel();
        let task = builder.concurrency(2).cancel_grace(HOUR).build().unwrap();
        let run = task.over(0..9).map_with_context(move |cx, n| {
            let say = say.clone();
            async move {
                if n == 1 {
                    cx.cancellation_token().cancelled().await;
                    say.send(()).unwrap();
                    pending::<()>().await;
                }
                if n == 3 { Err("no".to_owned()) } else { Ok(n) }
            }
        });
        let entered = runtime.enter();
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        drop(entered);
        told.recv().unwrap();
        drop(runtime);
        block_on(handle)
    };
    for parallel in [false, true] {
        let error = run(AsyncMapTask::builder().fail_fast(true), parallel).unwrap_err();
        assert!(matches!(error.reason(), FailureReason::FailFast { index: 3 }), "{error}");
        check_account(error.partial());
        let early = AsyncMapTask::builder().min_success_ratio(0.0).min_successes(2).early_success(true);
        let result: MapTaskResult<i32, String> = run(early, parallel).unwrap();
        assert_eq!((result.successes(), result.cancelled()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_46_a_panicked_source_ends_the_progress() {
    for parallel in [false, true] {
        let source = (0..100_u32).inspect(|n| {
            if *n == 8 {
                resume_unwind(Box::new("source"));
            }
        });
        let task =
            lenient().concurrency(4).retries(1).retry_delay(HOUR).max_retry_delay(HOUR).build().unwrap();
        let run = task.over(source).map(|n| async move {
            match n {
                0 => Err("again"),
                6.. => pending().await,
                _ => {
                    sleep(millis(10)).await;
                    Ok(n)
                }
            }
        });
        let mut handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        let mut watch = handle.watch();
        assert_eq!(handle.progress().total, Some(100), "before the first poll");
        let panic = AssertUnwindSafe(&mut handle).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"source"));
        let progress = handle.progress();
        advance(HOUR).await;
        assert_closed(&progress, &handle.progress());
        assert_eq!((progress.successes, progress.elapsed), (4, millis(10)), "parallel: {parallel}");
        while watch.changed().await.is_ok() {
            watch.borrow_and_update();
        }
        assert_eq!(*watch.borrow(), progress);
    }
}

#[test]
fn rule_46_a_shutdown_ends_the_progress() {
    for parallel in [false, true] {
        let (runtime, begun, handle) = start!(spawn, parallel);
        wait_for(&begun, 2);
        // In one task the driver reports at the end of its poll.
        let before = loop {
            let progress = handle.progress();
            if progress.running == 2 {
                break progress;
            }
            thread::yield_now();
        };
        assert_eq!(before.waiting_for_retry, 1);
        drop(runtime);
        let after = handle.progress();
        thread::yield_now();
        assert_closed(&after, &handle.progress());
        assert_eq!((after.successes, after.failures), (before.successes, before.failures));
    }
}
