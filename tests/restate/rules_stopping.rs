//! Rule 3: a stopped run or item leaves nothing running in the engine, regardless of the cause of the stop.

use std::cell::Cell;
use std::time::Duration;

use async_map_task::{AsyncMapTask, FailureReason};
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::join;
use tokio_util::sync::CancellationToken;

use crate::support::{Place, builder, drop_after, is_stopped, lenient, until};
use crate::work::{Event, Item, output};

/// Enough time for the handlers to begin. No result depends on it.
const LIMIT: Duration = Duration::from_millis(700);

#[tokio::test]
async fn restate_rule_3_an_attempt_that_times_out_is_cancelled() {
    let place = Place::new("timeout-per-attempt").await;
    let task = lenient(8).timeout_per_attempt(LIMIT).build().unwrap();
    let run = task.over(place.deaf(8)).map_with_context(|cx, item| place.work.call(cx, item));
    let result = run.await.unwrap();
    assert_eq!(result.summary.timeouts, 8);
    assert!(place.nothing_goes_on().await > 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_each_attempt_that_times_out_is_cancelled() {
    let place = Place::new("timeout-per-attempt-retried").await;
    let task = lenient(4).timeout_per_attempt(LIMIT).retries(2).retry_delay(Duration::from_millis(1));
    let task = task.build().unwrap();
    let run = task.over(place.deaf(4)).map_with_context(|cx, item| place.work.call(cx, item));
    let result = run.await.unwrap();
    assert_eq!(result.summary.timeouts, 12);
    assert!(place.nothing_goes_on().await > 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_an_attempt_that_times_out_has_its_grace_to_end_in_the_engine() {
    let place = Place::new("timeout-grace").await;
    let task = lenient(8).timeout_per_attempt(LIMIT).cancel_grace(Duration::from_secs(60)).build().unwrap();
    let run = task.over(place.heeding(8)).map_with_context(|cx, item| place.work.call(cx, item));
    let result = run.await.unwrap();
    assert_eq!(result.summary.timeouts, 8);
    // They were not ended by settling.
    assert_eq!(place.server.in_flight(&place.run_id).await, Vec::<Value>::new());
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_an_item_that_times_out_is_cancelled() {
    let place = Place::new("timeout-per-item").await;
    let task = lenient(8).timeout_per_item(LIMIT).retries(2).build().unwrap();
    let run = task.over(place.deaf(16)).map_with_context(|cx, item| place.work.call(cx, item));
    let result = run.await.unwrap();
    assert_eq!(result.summary.timeouts, 16);
    assert!(place.nothing_goes_on().await > 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_run_that_times_out_is_cancelled() {
    let place = Place::new("run-timeout").await;
    let task = lenient(8).run_timeout(LIMIT).build().unwrap();
    let run = task.over(place.deaf(16)).map_with_context(|cx, item| place.work.call(cx, item));
    let error = run.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TimedOut { .. }), "{error}");
    assert_eq!((error.summary().cancelled, error.summary().not_started), (8, 8));
    assert!(place.nothing_goes_on().await > 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_failure_that_is_fatal_cancels_the_others() {
    let place = Place::new("fail-fast").await;
    let task = AsyncMapTask::builder().concurrency(16).fail_fast(true).build().unwrap();
    let mut items = place.some_at_the_gate(20, &[3]);
    items[3].fails = 1;
    let run = task.over(items).map_with_context(|cx, item| place.work.call(cx, item));
    let (ended, ()) = join!(run, async {
        place.begun(16).await;
        place.open_the_gate();
    });
    let error = ended.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::FailFast { index: 3 }), "{error}");
    assert_eq!(place.nothing_goes_on().await, 15);
    assert_eq!(place.kept().await, ["3.1"]);
}

#[tokio::test]
async fn restate_rule_3_a_verdict_cancels_the_others() {
    let place = Place::new("verdict").await;
    let task = AsyncMapTask::builder().concurrency(20).min_success_ratio(0.95).build().unwrap();
    let mut items = place.some_at_the_gate(20, &[3, 7, 9]);
    (items[3].fails, items[7].fails) = (1, 1);
    items[9].gate = None;
    let answered = Cell::new(0);
    let run = task.over(items).map_with_context(|cx, item| {
        let call = place.work.call(cx, item);
        call.inspect(|_| answered.set(answered.get() + 1))
    });
    let (ended, ()) = join!(run, async {
        place.begun(20).await;
        until("the one that does not wait has its output", || answered.get() == 1).await;
        place.open_the_gate();
    });
    let error = ended.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 2, allowed: 1 }), "{error}");
    assert_eq!(error.partial().results[9], Some(output(9)));
    assert_eq!(place.nothing_goes_on().await, 17);
    assert_eq!(place.kept().await, ["3.1", "7.1", "9.1"]);
}

#[tokio::test]
async fn restate_rule_3_an_early_success_cancels_the_others() {
    let place = Place::new("early-success").await;
    let task = AsyncMapTask::builder().concurrency(16).min_successes(2).early_success(true).build().unwrap();
    let items = place.some_at_the_gate(16, &[0, 5]);
    let run = task.over(items).map_with_context(|cx, item| place.work.call(cx, item));
    let (ended, ()) = join!(run, async {
        place.begun(16).await;
        place.open_the_gate();
    });
    let result = ended.unwrap();
    assert_eq!((result.successes(), result.cancelled()), (2, 14));
    assert_eq!(place.nothing_goes_on().await, 14);
    assert_eq!(place.kept().await, ["0.1", "5.1"]);
}

#[tokio::test]
async fn restate_rule_3_a_token_cancels_the_run() {
    let place = Place::new("token").await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let token = CancellationToken::new();
    let run = task.over(place.deaf(20)).map_with_context(|cx, item| place.work.call(cx, item));
    let run = run.cancellation_token(token.clone());
    let (ended, ()) = join!(run, async {
        place.begun(16).await;
        token.cancel();
    });
    assert!(matches!(ended.unwrap_err().reason(), FailureReason::Cancelled));
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_token_that_is_cancelled_before_sends_nothing() {
    let place = Place::new("token-before").await;
    let token = CancellationToken::new();
    token.cancel();
    let task = AsyncMapTask::builder().concurrency(16).cancel_grace(Duration::from_secs(60)).build().unwrap();
    let run = task.over(place.deaf(20)).map_with_context(|cx, item| place.work.call(cx, item));
    let error = run.cancellation_token(token).await.unwrap_err();
    assert_eq!(error.summary().not_started, 20);
    assert_eq!(place.nothing_goes_on().await, 0);
    assert_eq!(place.count(Event::Began), 0);
}

#[tokio::test]
async fn restate_rule_3_a_handle_cancels_the_run() {
    let place = Place::new("handle").await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let work = place.work.clone();
    let run = task.over(place.deaf(20)).map_with_context(move |cx, item| work.call(cx, item));
    let handle = run.spawn();
    place.begun(16).await;
    handle.cancel();
    assert!(matches!(handle.await.unwrap_err().reason(), FailureReason::Cancelled));
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_run_that_is_dropped_is_cancelled() {
    let place = Place::new("dropped").await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let run = task.over(place.deaf(20)).map_with_context(|cx, item| place.work.call(cx, item));
    place.drop_when_begun(16, run.into_future()).await;
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restate_rule_3_a_spawned_run_that_is_dropped_is_cancelled() {
    let place = Place::new("dropped-parallel").await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let work = place.work.clone();
    let run = task.over(place.deaf(20)).map_with_context(move |cx, item| work.call(cx, item)).parallel();
    place.drop_when_begun(16, run.into_future()).await;
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restate_rule_3_a_stream_that_is_dropped_is_cancelled() {
    let place = Place::new("dropped-stream").await;
    let task = AsyncMapTask::builder().concurrency(16).build().unwrap();
    let work = place.work.clone();
    let run = task.over(place.deaf(20)).map_with_context(move |cx, item| work.call(cx, item));
    let mut stream = run.stream();
    place.drop_when_begun(16, async { stream.next().await }).await;
    drop(stream);
    assert_eq!(place.nothing_goes_on().await, 16);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_run_that_is_dropped_after_its_first_poll_leaves_nothing() {
    let place = Place::new("first-poll").await;
    let task = AsyncMapTask::builder().concurrency(50).build().unwrap();
    let run = task.over(place.heeding(50)).map_with_context(|cx, item| place.work.call(cx, item));
    drop_after(Duration::ZERO, run.into_future()).await;
    place.nothing_goes_on().await;
    assert_eq!(place.count(Event::Began), 0);
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_run_that_is_dropped_at_any_instant_leaves_nothing() {
    let place = Place::new("any-instant").await;
    let task = AsyncMapTask::builder().concurrency(64).build().unwrap();
    // From before the first request is sent until long after the last handler has begun.
    for round in 0..24 {
        let work = place.work.clone().run_id(format!("{}.{round}", place.run_id));
        let run = task.over(place.heeding(64)).map_with_context(|cx, item| work.call(cx, item));
        drop_after(Duration::from_millis(2 * round), run.into_future()).await;
    }
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_call_with_a_grace_ends_when_its_invocation_has() {
    let place = Place::new("grace").await;
    let task = AsyncMapTask::builder().concurrency(16).cancel_grace(Duration::from_secs(60)).build().unwrap();
    let token = CancellationToken::new();
    let run = task.over(place.heeding(16)).map_with_context(|cx, item| place.work.call(cx, item));
    let run = run.cancellation_token(token.clone());
    let (ended, ()) = join!(run, async {
        place.begun(16).await;
        token.cancel();
    });
    // They were not ended by settling.
    assert_eq!(place.server.in_flight(&place.run_id).await, Vec::<Value>::new());
    let error = ended.unwrap_err();
    assert_eq!((error.summary().failures, error.summary().cancelled), (16, 0), "{error}");
    assert!(error.partial().errors.values().all(is_stopped), "{error}");
    place.nothing_goes_on().await;
    assert_eq!(place.kept().await, [""; 0]);
}

#[tokio::test]
async fn restate_rule_3_a_handler_that_ends_within_the_grace_has_an_output() {
    let patient = |server: &crate::server::Server| {
        let builder = builder(server).admin(server.admin());
        builder.kill_after(Duration::MAX).build().unwrap()
    };
    let place = Place::with("grace-output", patient).await;
    let task = AsyncMapTask::builder().concurrency(4).cancel_grace(Duration::from_secs(60)).build().unwrap();
    let token = CancellationToken::new();
    let items: Vec<Item> = place.some_at_the_gate(4, &[0, 1, 2, 3]);
    let run = task.over(items).map_with_context(|cx, item| place.work.call(cx, item));
    let run = run.cancellation_token(token.clone());
    let (ended, ()) = join!(run, async {
        place.begun(4).await;
        token.cancel();
        place.open_the_gate();
    });
    let error = ended.unwrap_err();
    assert_eq!(error.partial().results, (0..4).map(|index| Some(output(index))).collect::<Vec<_>>());
    assert_eq!(place.nothing_goes_on().await, 0);
    assert_eq!(place.kept().await, ["0.1", "1.1", "2.1", "3.1"]);
}
