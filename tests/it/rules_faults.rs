//! Rule 45: an attempt without a thread to run on is `Faulted`, costs no permit and never runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use async_map_task::{AsyncMapTaskBuilder, Event, FailureKind, FailureReason, ItemError, Limiter};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use crate::support::{at_once, check_account, lenient, millis};

/// Returns a runtime with threads that would need a larger stack than there is address space.
fn without_threads() -> Runtime {
    Builder::new_current_thread().enable_all().thread_stack_size(1 << 46).build().unwrap()
}

/// A runtime that can start threads while the flag is set: a thread's name must not contain a zero byte.
fn with_threads_if(allowed: &Arc<AtomicBool>) -> Runtime {
    let allowed = Arc::clone(allowed);
    let name = move || if allowed.load(SeqCst) { "good".to_owned() } else { "bad\0name".to_owned() };
    Builder::new_current_thread().enable_all().thread_name_fn(name).build().unwrap()
}

fn retrying(retries: u32) -> AsyncMapTaskBuilder {
    lenient().concurrency(3).retries(retries).retry_delay(millis(1))
}

#[test]
fn rule_45_a_faulted_attempt_returns_its_permits() {
    for parallel in [false, true] {
        without_threads().block_on(async {
            // Fewer permits than items: each lost permit would block the run and all others.
            let limiter = Limiter::new(2);
            let task = lenient().concurrency(3).limiter(&limiter).build().unwrap();
            let run = task.over(0..4).map_blocking(Ok::<i32, String>);
            let result = if parallel { run.parallel().await } else { run.await }.unwrap();
            check_account(&result);
            assert_eq!((result.failures(), limiter.in_use()), (4, 0));
            for error in result.errors.values() {
                assert_eq!(
                    (error.kind(), error.kind().as_str(), error.attempts()),
                    (FailureKind::Faulted, "fault", 1)
                );
                assert!(
                    matches!(error, ItemError::Faulted { message, .. } if message.contains("thread")),
                    "{error}"
                );
            }
            let other = task.over(0..4).map(|n| async move { Ok::<_, String>(n) });
            assert_eq!(other.await.unwrap().successes(), 4);
        });
    }
}

#[test]
fn rule_45_a_faulted_attempt_is_a_failure() {
    without_threads().block_on(async {
        let task = at_once(1).name("hash").build().unwrap();
        let error = task.over(0..9).map_blocking(Ok::<i32, String>).await.unwrap_err();
        assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 1, allowed: 0 }));
        let summary = error.summary();
        assert_eq!((summary.failures, summary.panics, summary.timeouts, summary.not_started), (1, 0, 0, 8));
        let text = error.to_string();
        let known = "hash: 1 of 9 items failed, 0 allowed; item 0 failed first, after 1 attempt: ";
        assert!(text.starts_with(known) && text.contains("thread"), "{text}");
    });
}

#[test]
fn rule_10_a_faulted_attempt_is_retried() {
    for parallel in [false, true] {
        without_threads().block_on(async {
            let run = retrying(2).build().unwrap().over(0..4).map_blocking(Ok::<i32, String>);
            let result = if parallel { run.parallel().await } else { run.await }.unwrap();
            assert_eq!((result.failures(), result.summary.retries), (4, 8));
            assert!(result.errors.values().all(|error| error.attempts() == 3), "{:?}", result.errors);
        });
    }
}

#[test]
fn rule_10_the_retry_of_a_faulted_attempt_can_succeed() {
    let allowed = Arc::new(AtomicBool::new(false));
    with_threads_if(&allowed).block_on(async {
        let run = retrying(1).build().unwrap().over(0..4).map_blocking(Ok::<i32, String>);
        let run = run.observe(|event: &Event<'_>| {
            if let Event::AttemptFailed { kind, retry_in, .. } = event {
                assert_eq!((*kind, retry_in.is_some()), (FailureKind::Faulted, true));
                allowed.store(true, SeqCst);
            }
        });
        let result = run.await.unwrap();
        assert_eq!(result.results, [Some(0), Some(1), Some(2), Some(3)]);
        assert!((1..=3).contains(&result.summary.retries), "{}", result.summary);
    });
}

#[test]
fn rule_45_a_function_whose_attempt_was_faulted_never_runs() {
    for parallel in [false, true] {
        let allowed = Arc::new(AtomicBool::new(false));
        with_threads_if(&allowed).block_on(async {
            let (calls, limiter) = (Arc::new(AtomicUsize::new(0)), Limiter::new(2));
            let task = lenient().concurrency(3).limiter(&limiter).build().unwrap();
            let run = || {
                let calls = Arc::clone(&calls);
                task.over(0..4).map_blocking(move |n| {
                    calls.fetch_add(1, SeqCst);
                    Ok::<_, String>(n)
                })
            };
            let result = if parallel { run().parallel().await } else { run().await }.unwrap();
            assert_eq!((result.failures(), limiter.in_use()), (4, 0));
            allowed.store(true, SeqCst);
            // One thread takes the entries of the pool's queue in order.
            spawn_blocking(|| {}).await.unwrap();
            assert_eq!(calls.load(SeqCst), 0);
            let result = if parallel { run().parallel().await } else { run().await }.unwrap();
            assert_eq!((result.successes(), calls.load(SeqCst), limiter.in_use()), (4, 4, 0));
        });
    }
}
