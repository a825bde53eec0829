//! Rule 13: the end of an attempt that has reached its limit, with a grace and without one.

use std::cell::RefCell;
use std::future::pending;

use async_map_task::{ItemError, TimeoutScope};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::{Log, after, failed, lenient, secs, timed_out};

/// Records the time at which it is dropped.
struct NotesItsDrop(Log<&'static str>);

impl Drop for NotesItsDrop {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

/// One item with a limit of 10 s and a retry, which continues for some time after its token is cancelled.
async fn overdue(
    grace: u64,
    goes_on: Option<u64>,
    ends_with: Result<u32, &'static str>,
) -> (Vec<(u64, &'static str)>, Result<u32, ItemError<&'static str>>) {
    let log = Log::open();
    let task = lenient().retries(1).timeout_per_attempt(secs(10)).cancel_grace(secs(grace)).build().unwrap();
    let run = task.over([()]).map_with_context(|cx, ()| {
        let log = log.clone();
        async move {
            if cx.attempt() == 2 {
                log.note("retried");
                return Err("second");
            }
            let _noted = NotesItsDrop(log.clone());
            cx.cancellation_token().cancelled().await;
            log.note("told");
            match goes_on {
                Some(seconds) => sleep(secs(seconds)).await,
                None => pending().await,
            }
            ends_with
        }
    });
    let mut result = run.await.unwrap();
    let outcome = result.results[0].take().ok_or_else(|| result.errors.remove(&0).unwrap());
    (log.timed(), outcome)
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_timed_out_attempt_is_dropped_immediately() {
    let (log, outcome) = overdue(0, Some(0), Ok(1)).await;
    assert_eq!(log, [(10_000, "dropped"), (11_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_grace_delays_the_drop() {
    let (log, outcome) = overdue(3, None, Ok(1)).await;
    assert_eq!(log, [(10_000, "told"), (13_000, "dropped"), (14_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));
    let (log, _) = overdue(3, Some(4), Ok(1)).await;
    assert_eq!(log, [(10_000, "told"), (13_000, "dropped"), (14_000, "retried")]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_ok_within_the_grace_is_a_success() {
    for goes_on in 0..3 {
        let (log, outcome) = overdue(3, Some(goes_on), Ok(7)).await;
        assert_eq!(log, [(10_000, "told"), (10_000 + goes_on * 1_000, "dropped")]);
        assert_eq!(outcome, Ok(7));
    }
    // At the last moment of the grace, too, a finished result beats a timeout.
    assert_eq!(overdue(3, Some(3), Ok(7)).await.1, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_error_within_the_grace_is_a_timeout() {
    // It ends at 11 s, and its retry follows a second later.
    let (log, outcome) = overdue(3, Some(1), Err("told to end")).await;
    assert_eq!(log, [(10_000, "told"), (11_000, "dropped"), (12_000, "retried")]);
    assert_eq!(outcome, Err(failed("second", 2)));

    for scope in [TimeoutScope::Attempt, TimeoutScope::Item] {
        let builder = lenient().cancel_grace(secs(3));
        let builder = match scope {
            TimeoutScope::Attempt => builder.timeout_per_attempt(secs(10)),
            TimeoutScope::Item => builder.timeout_per_item(secs(10)).retries(3),
        };
        let run = builder.build().unwrap();
        let run = run.over([()]).map_with_context(|cx, ()| async move {
            cx.cancellation_token().cancelled().await;
            Err::<(), _>("told to end")
        });
        let result = run.await.unwrap();
        assert_eq!(result.errors[&0], timed_out(secs(10), scope, 1));
        assert_eq!((result.summary.timeouts, result.summary.elapsed), (1, secs(10)));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_13_an_attempt_keeps_its_permit_in_its_grace() {
    let log = Log::open();
    let task = lenient().concurrency(1).timeout_per_attempt(secs(10)).cancel_grace(secs(3)).build().unwrap();
    let run = task.over(0..2).map_with_context(|cx, n| {
        log.note(n);
        async move { if cx.index() == 0 { pending().await } else { Ok::<_, String>(()) } }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, 0), (13_000, 1)]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_only_a_dropped_attempt_has_its_token_cancelled() {
    let tokens = RefCell::new(Vec::new());
    let task =
        lenient().concurrency(1).look_ahead(1).retries(1).timeout_per_attempt(secs(10)).build().unwrap();
    let run = task.over(0..4).map_with_context(|cx, n| {
        tokens.borrow_mut().push(cx.cancellation_token().clone());
        async move {
            match (n, cx.attempt()) {
                (0, _) => Ok(()),
                (1, 1) => Err("again"),
                (2, 1) => pending().await,
                (3, _) => panic!("as it happens"),
                _ => after(secs(9), Ok(())).await,
            }
        }
    });
    run.await.unwrap();
    let cancelled: Vec<_> = tokens.borrow().iter().map(CancellationToken::is_cancelled).collect();
    assert_eq!(cancelled, [false, false, false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_retry_has_a_token_of_its_own() {
    let task = lenient().retries(1).timeout_per_attempt(secs(10)).cancel_grace(secs(1)).build().unwrap();
    let kept = RefCell::new(Vec::new());
    let run = task.over([()]).map_with_context(|cx, ()| {
        // The context outlives the first attempt.
        kept.borrow_mut().push(cx.clone());
        async move {
            if cx.attempt() == 1 {
                pending::<()>().await;
            }
            assert!(!cx.cancellation_token().is_cancelled());
            Ok::<_, &str>(())
        }
    });
    assert_eq!(run.await.unwrap().successes(), 1);
    assert!(kept.borrow()[0].cancellation_token().is_cancelled());
}
