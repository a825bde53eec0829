//! Rule 45: an attempt without a thread to run on is `Faulted`, costs no permit and never runs.

#[cfg(target_os = "linux")]
mod alone;

use async_map_task::{AsyncMapTaskBuilder, FailureKind, FailureReason, ItemError, Limiter};
use tokio::runtime::{Builder, Runtime};

use crate::support::{at_once, check_account, lenient, millis};

/// Returns a runtime with threads that would need a larger stack than there is address space.
fn without_threads() -> Runtime {
    Builder::new_current_thread().enable_all().thread_stack_size(1 << 46).build().unwrap()
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
