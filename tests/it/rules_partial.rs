//! Rule 37: a run that was told to end, or that reaches its time limit, ends with the finished results.

use std::future::pending;

use async_map_task::{AsyncMapTaskBuilder, Completion, FailureReason, Summary};
use tokio_util::sync::CancellationToken;

use crate::support::{at_once, let_others_run, millis, secs};

fn partial(concurrency: usize) -> AsyncMapTaskBuilder {
    at_once(concurrency).accept_partial(true)
}

/// Two items succeed, and the others wait.
async fn two_of(n: u32) -> Result<u32, &'static str> {
    if n < 2 { Ok(n) } else { pending().await }
}

#[tokio::test(start_paused = true)]
async fn rule_37_a_timeout_ends_with_the_partial_result() {
    let task = partial(4).run_timeout(secs(1)).build().unwrap();
    let result = task.run(0..9, two_of).await.unwrap();
    assert_eq!((result.successes(), result.cancelled(), result.not_started()), (2, 4, 3));
    assert_eq!(result.summary.completion, Completion::TimedOut);
    let strict = task.to_builder().accept_partial(false).build().unwrap();
    let error = strict.run(0..9, two_of).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }));
    assert_eq!(error.summary().completion, Completion::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn rule_37_every_request_to_end_is_accepted() {
    for parallel in [false, true] {
        for request in ["token", "drain_token", "cancel", "drain"] {
            let (token, drain) = (CancellationToken::new(), CancellationToken::new());
            let run = partial(2)
                .build()
                .unwrap()
                .over(0..9_u32)
                .map(|n| async move {
                    tokio::time::sleep(secs(u64::from(n))).await;
                    Ok::<_, String>(n)
                })
                .cancellation_token(token.clone())
                .drain_token(drain.clone());
            let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
            tokio::time::sleep(millis(3_500)).await;
            match request {
                "token" => token.cancel(),
                "drain_token" => drain.cancel(),
                "cancel" => handle.cancel(),
                _ => handle.drain(),
            }
            let result = handle.await.unwrap();
            assert_eq!(result.summary.completion, Completion::Cancelled, "{request}");
            let drained = request.contains("drain");
            assert_eq!((result.cancelled() == 0, result.successes() < 9), (drained, true), "{request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_37_too_few_successes_stay_an_error() {
    let task = |least| partial(4).min_successes(least).run_timeout(secs(1)).build().unwrap();
    assert_eq!(task(2).run(0..9, two_of).await.unwrap().successes(), 2);
    let error = task(3).run(0..9, two_of).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }));
}

#[tokio::test(start_paused = true)]
async fn rule_37_failed_criteria_stay_an_error() {
    let refused = partial(1).build().unwrap().run([1], |_| async { Err::<(), _>("no") }).await.unwrap_err();
    assert_eq!(refused.summary().completion, Completion::Failed);
    assert!(!refused.is_cancelled());
    let at_the_end = partial(1).build().unwrap().over([1, 2].into_iter().filter(|_| true));
    let error = at_the_end.map(|_| async { Err::<(), _>("no") }).await.unwrap_err();
    assert_eq!(error.summary().completion, Completion::Failed);
}

#[test]
fn rule_37_a_shutdown_stays_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let entered = runtime.enter();
    let handle = partial(2).build().unwrap().over(0..9_u32).map(two_of).spawn();
    drop(entered);
    runtime.block_on(let_others_run());
    drop(runtime);
    let error = futures_executor::block_on(handle).unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!((error.summary().completion, error.partial().successes()), (Completion::Cancelled, 2));
}

#[tokio::test(start_paused = true)]
async fn rule_37_the_summary_says_why_a_run_ended() {
    let all = at_once(2).build().unwrap().run(0..2, two_of).await.unwrap();
    assert_eq!(all.summary.completion, Completion::All);
    let early = at_once(4).min_successes(2).early_success(true).build().unwrap().run(0..9, two_of).await;
    assert_eq!(early.unwrap().summary.completion, Completion::EarlySuccess);
    let summary: Summary = partial(4)
        .run_timeout(secs(1))
        .build()
        .unwrap()
        .over(0..9)
        .map(two_of)
        .for_each(|_| async {})
        .await
        .unwrap();
    assert_eq!((summary.completion, summary.successes), (Completion::TimedOut, 2));
}
