//! The messages of errors, and the partial results in them.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, FailureReason, ItemError, MapTaskError, Summary, TimeoutScope,
};
use futures::stream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::{SECOND, count_to};

fn resize() -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().name("resize")
}

async fn odd_fails(n: u32) -> Result<u32, &'static str> {
    if n % 2 == 1 { Err("odd") } else { Ok(n) }
}

#[tokio::test(start_paused = true)]
async fn the_documented_message() {
    // The length is not known, so the ratio is judged at the end, over all 100.
    let error = resize()
        .concurrency(64)
        .retries(3)
        .retry_jitter(0.0)
        .min_success_ratio(0.95)
        .build()
        .unwrap()
        .over_stream(count_to(100))
        .map(|n| async move { if n % 15 == 3 { Err("connection refused") } else { Ok(n) } })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 7 of 100 items failed, 5 allowed; item 3 failed first, after 4 attempts: connection refused"
    );
    assert_eq!(error.summary().retries, 21);
}

#[tokio::test]
async fn too_many_failures() {
    let error = resize().concurrency(1).build().unwrap().run(0..10, odd_fails).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 1 of 10 items failed, 0 allowed; item 1 failed first, after 1 attempt: odd"
    );
    assert_eq!(error.reason().to_string(), "1 item failed, 0 allowed");
    let error =
        resize().concurrency(1).max_failures(2).build().unwrap().run(0..10, odd_fails).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 3 of 10 items failed, 2 allowed; item 1 failed first, after 1 attempt: odd"
    );
    // An endless source is stopped too, and the total is the number of items that were pulled from it.
    let endless = resize().concurrency(1).max_failures(2).build().unwrap().over_stream(count_to(u32::MAX));
    let error = endless.map(odd_fails).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 3 of 6 items failed, 2 allowed; item 1 failed first, after 1 attempt: odd"
    );
}

#[tokio::test]
async fn fewer_items_than_successes_required() {
    let error = resize().min_successes(10).build().unwrap().run([0, 2], odd_fails).await.unwrap_err();
    assert_eq!(error.to_string(), "resize: 2 of 2 items succeeded, 10 required");
    assert!(error.first_failure().is_none());
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 0, allowed: 0 }));
    let error = resize().min_successes(1).build().unwrap().run([], odd_fails).await.unwrap_err();
    assert_eq!(error.to_string(), "resize: 0 of 0 items succeeded, 1 required");
    let error =
        resize().min_successes(10).concurrency(1).build().unwrap().run([0, 1], odd_fails).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 1 of 2 items succeeded, 10 required; item 1 failed first, after 1 attempt: odd"
    );
}

#[tokio::test]
async fn fail_fast() {
    let task = resize().concurrency(1).fail_fast(true).min_success_ratio(0.0).build().unwrap();
    let error = task.run(0..10, odd_fails).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::FailFast { index: 1 }));
    assert_eq!(
        error.to_string(),
        "resize: 1 of 10 items failed, fail_fast is set; item 1 failed first, after 1 attempt: odd"
    );
    assert_eq!(error.reason().to_string(), "item 1 failed and fail_fast is set");
    assert!(error.source().is_none());
}

#[tokio::test]
async fn cancelled() {
    let task = resize().concurrency(1).min_success_ratio(0.0).build().unwrap();
    let token = CancellationToken::new();
    token.cancel();
    let error = task.run(0..10, odd_fails).cancellation_token(token).await.unwrap_err();
    assert_eq!(error.to_string(), "resize: cancelled after 0 of 10 items");

    let token = CancellationToken::new();
    let stop = &token;
    let run = task.run(0..10, |n| async move {
        if n == 3 {
            stop.cancel();
        }
        odd_fails(n).await
    });
    let error = run.cancellation_token(token.clone()).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled));
    assert_eq!(
        error.to_string(),
        "resize: cancelled after 4 of 10 items; item 1 failed first, after 1 attempt: odd"
    );
    assert!(error.source().is_none());
}

#[tokio::test(start_paused = true)]
async fn timed_out() {
    let task = resize().concurrency(2).run_timeout(SECOND * 3 / 2).min_success_ratio(0.0).build().unwrap();
    let run = task.run(0..10, |n| async move {
        sleep(SECOND).await;
        odd_fails(n).await
    });
    let error = run.await.unwrap_err();
    assert!(
        matches!(error.reason(), FailureReason::TimedOut { limit } if *limit == Duration::from_millis(1500))
    );
    assert_eq!(
        error.to_string(),
        "resize: timed out at the run_timeout of 1.5s after 2 of 10 items; \
         item 1 failed first, after 1 attempt: odd"
    );
    assert_eq!(error.summary().cancelled, 2);
    assert!(error.source().is_none());
}

#[tokio::test]
async fn the_source_failed() {
    let task = resize().concurrency(1).min_success_ratio(0.0).build().unwrap();
    let torn = || stream::iter([Ok(0), Ok(1), Err(io::Error::other("torn page")), Ok(2)]);
    let error = task.over_try_stream(torn()).map(odd_fails).await.unwrap_err();
    // The source of the error is the cause, so the message does not repeat it.
    assert_eq!(error.to_string(), "resize: the source failed after 2 items");
    assert_eq!(error.source().unwrap().to_string(), "torn page");
    assert!(error.source().unwrap().is::<io::Error>());
    assert_eq!(error.reason().to_string(), "the source failed: torn page");
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert!(chain.ends_with("after 2 items: torn page"), "{chain}");
    let error =
        task.over_try_stream(stream::iter([Err::<u32, _>("at once")])).map(odd_fails).await.unwrap_err();
    assert_eq!(error.to_string(), "resize: the source failed after 0 items");
    // The position in the source, and not the number of items that have settled.
    let busy = resize().concurrency(9).build().unwrap();
    let pending = |_| std::future::pending::<Result<u32, String>>();
    let error = busy.over_try_stream(torn()).map(pending).await.unwrap_err();
    assert_eq!(error.to_string(), "resize: the source failed after 2 items");
}

#[tokio::test]
async fn the_task_does_not_fit_the_run() {
    let task = resize().retries(2).min_success_ratio(0.0).build().unwrap();
    let error = task.over(0..10).map_once(odd_fails).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: retries must be 0 with map_once, because its items cannot be retried, got 2"
    );
    let FailureReason::Config(config) = error.reason() else { panic!("{error:?}") };
    assert_eq!((config.field(), config.found()), ("retries", "2"));
    assert_eq!((error.summary().total, error.summary().not_started), (10, 10));
    assert!(error.source().is_none());
}

#[test]
fn messages_of_item_errors() {
    let (limit, attempts) = (Duration::from_millis(2500), 4);
    let table = [
        (ItemError::Failed { error: "refused", attempts: 1 }, "failed after 1 attempt: refused"),
        (ItemError::Failed { error: "refused", attempts: 2 }, "failed after 2 attempts: refused"),
        (
            ItemError::TimedOut { limit, scope: TimeoutScope::Attempt, attempts },
            "failed after 4 attempts: timed out at the timeout_per_attempt of 2.5s",
        ),
        (
            ItemError::TimedOut { limit, scope: TimeoutScope::Item, attempts: 1 },
            "failed after 1 attempt: timed out at the timeout_per_item of 2.5s",
        ),
        (
            ItemError::Panicked { message: "index out of bounds".into(), attempts: 1 },
            "failed after 1 attempt: panicked: index out of bounds",
        ),
    ];
    for (error, expected) in table {
        assert_eq!(error.to_string(), expected);
        assert!(error.source().is_none(), "its text is in the message already");
        assert_eq!(error, error.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn the_message_ends_with_the_first_failure() {
    let task = resize().timeout_per_attempt(5 * SECOND).build().unwrap();
    let error = task.run([1], |_| std::future::pending::<Result<(), String>>()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "resize: 1 of 1 item failed, 0 allowed; \
         item 0 failed first, after 1 attempt: timed out at the timeout_per_attempt of 5s"
    );
    let task = resize().timeout_per_item(5 * SECOND).retries(1).retry_jitter(0.0).build().unwrap();
    let run = task.over([1]).map_with_context(|cx, _| async move {
        if cx.attempt() == 1 { Err::<(), _>("busy") } else { std::future::pending().await }
    });
    assert_eq!(
        run.await.unwrap_err().to_string(),
        "resize: 1 of 1 item failed, 0 allowed; \
         item 0 failed first, after 2 attempts: timed out at the timeout_per_item of 5s"
    );
    let run = resize()
        .build()
        .unwrap()
        .run([7], |n| async move { if n == 7 { panic!("bad number {n}") } else { Err::<(), _>("no") } });
    assert_eq!(
        run.await.unwrap_err().to_string(),
        "resize: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt: panicked: bad number 7"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_one_that_settled_first() {
    let task = resize().max_failures(2).build().unwrap();
    let error = task
        .run([3, 2, 1], |seconds| async move {
            sleep(SECOND * seconds).await;
            Err::<(), _>(format!("after {seconds} s"))
        })
        .await
        .unwrap_err();
    let (index, first) = error.first_failure().unwrap();
    assert_eq!(index, 2, "not the lowest index, but the earliest");
    assert_eq!(*first, ItemError::Failed { error: "after 1 s".to_owned(), attempts: 1 });
    assert!(error.to_string().ends_with("item 2 failed first, after 1 attempt: after 1 s"));
    assert_eq!(error.partial().errors.len(), 3);

    // An attempt that failed and is retried has not settled.
    let task = resize().max_failures(1).retries(1).build().unwrap();
    let run = task.run([0, 1], |n| async move {
        sleep(SECOND * n).await;
        if n == 0 { Err::<(), _>("transient") } else { Err("final") }
    });
    let error =
        run.retry_if(|error| *error == "transient").retry_after(|_| Some(5 * SECOND)).await.unwrap_err();
    assert_eq!(error.first_failure().unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_has_the_partial_result() {
    let task = resize().concurrency(3).max_failures(0).build().unwrap();
    let run = || {
        task.run(0..10, |n| async move {
            match n {
                0 => sleep(3 * SECOND).await,
                4 => return Err("four"),
                _ => sleep(SECOND).await,
            }
            Ok(format!("item {n}"))
        })
    };
    let error = run().await.unwrap_err();
    let (ones, none) = (Some("item 1".to_owned()), None::<String>);
    let mut expected = vec![none; 10];
    expected[1].clone_from(&ones);
    expected[2] = Some("item 2".to_owned());
    assert_eq!(error.partial().results, expected);
    assert_eq!(error.partial().errors.keys().copied().collect::<Vec<_>>(), [4]);
    assert_eq!(*error.summary(), error.partial().summary);
    let Summary { total, successes, failures, cancelled, not_started, .. } = *error.summary();
    assert_eq!([total, successes, failures, cancelled, not_started], [10, 2, 1, 2, 5]);
    let partial = error.into_partial();
    assert_eq!(partial.results, expected);
    assert_eq!(partial.into_successful_results(), ["item 1", "item 2"]);
}

#[test]
fn a_summary_is_one_line() {
    let mut summary = Summary::default();
    assert_eq!(
        summary.to_string(),
        "0 items in 0.000ns: 0 succeeded, 0 failed, 0 cancelled, 0 not started; 0 retries, 0 timeouts, 0 panics"
    );
    assert_eq!(summary.success_ratio().to_bits(), 1.0_f64.to_bits());
    (summary.total, summary.successes, summary.failures) = (100, 91, 7);
    (summary.cancelled, summary.not_started) = (1, 1);
    (summary.retries, summary.timeouts, summary.panics) = (21, 3, 2);
    summary.elapsed = Duration::from_micros(12_345_678);
    assert_eq!(
        summary.to_string(),
        "100 items in 12.346s: 91 succeeded, 7 failed, 1 cancelled, 1 not started; \
         21 retries, 3 timeouts, 2 panics"
    );
    assert!((summary.success_ratio() - 0.91).abs() < 1e-12);
    assert_eq!(summary, summary.clone());
}

#[tokio::test]
async fn debug_of_an_error_omits_the_results() {
    /// A result without `Debug`.
    struct Opaque;

    let task = resize().concurrency(1).build().unwrap();
    let run = task.run(0..3, |n| async move { if n == 1 { Err("odd") } else { Ok(Opaque) } });
    let Err(error) = run.await else { panic!("item 1 failed") };
    let shown = format!("{error:?}");
    assert!(shown.starts_with(r#"MapTaskError { name: "resize", reason: TooManyFailures "#), "{shown}");
    assert!(shown.contains(r#"first_failure: Some((1, Failed { error: "odd", attempts: 1 }))"#), "{shown}");
    assert!(shown.contains("summary: Summary { total: 3, successes: 1, failures: 1, "), "{shown}");

    /// An error that has only `Debug`: `unwrap` on the result of its run still compiles.
    #[derive(Debug)]
    struct Mute;

    let error = task.run([1], |_| async { Err::<(), _>(Mute) }).await.unwrap_err();
    assert!(format!("{error:?}").contains("error: Mute"));
}

#[tokio::test]
async fn the_error_of_a_run_converts_into_a_boxed_error() {
    /// A text that is not an error type.
    #[derive(Debug)]
    struct Text(&'static str);

    impl fmt::Display for Text {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    let run = resize().build().unwrap().run([1], |_| async { Err::<(), _>(Text("no space left")) });
    let boxed: Box<dyn Error + Send + Sync> = run.await.unwrap_err().into();
    assert!(boxed.to_string().ends_with("after 1 attempt: no space left"));
    assert!(boxed.is::<MapTaskError<(), Text>>());
}

#[tokio::test]
async fn the_message_has_the_causes() {
    let task = AsyncMapTask::builder().name("read").build().unwrap();
    let run = task.run([1], |_| async { Err::<(), _>(anyhow::anyhow!("refused").context("no answer")) });
    let error = run.await.unwrap_err();
    assert!(error.to_string().ends_with("after 1 attempt: no answer: refused"), "{error}");
    assert!(format!("{error:#}").ends_with("after 1 attempt: no answer: refused"), "{error:#}");
    let (_, first) = error.first_failure().unwrap();
    assert_eq!(first.to_string(), "failed after 1 attempt: no answer: refused");
}

#[tokio::test(start_paused = true)]
async fn a_count_of_one_is_singular() {
    let work = |n: u32| async move {
        match n {
            1 => Err("odd"),
            2 => std::future::pending().await,
            _ => Ok(n),
        }
    };
    let lenient = || resize().concurrency(1).min_success_ratio(0.0);
    let message = async |builder: AsyncMapTaskBuilder, item: u32| {
        builder.build().unwrap().run([item], work).await.unwrap_err().to_string()
    };
    let first = "item 0 failed first, after 1 attempt: odd";
    assert_eq!(message(resize(), 1).await, format!("resize: 1 of 1 item failed, 0 allowed; {first}"));
    assert_eq!(
        message(resize().fail_fast(true), 1).await,
        format!("resize: 1 of 1 item failed, fail_fast is set; {first}")
    );
    assert_eq!(message(lenient().min_successes(2), 0).await, "resize: 1 of 1 item succeeded, 2 required");
    let limited = lenient().run_timeout(SECOND);
    assert_eq!(message(limited, 2).await, "resize: timed out at the run_timeout of 1s after 0 of 1 item");

    let mut summary = Summary::default();
    (summary.total, summary.retries, summary.timeouts, summary.panics) = (1, 1, 1, 1);
    assert!(summary.to_string().starts_with("1 item in "), "{summary}");
    assert!(summary.to_string().ends_with("1 retry, 1 timeout, 1 panic"), "{summary}");

    let items = futures::stream::iter([Ok(0), Err("torn page")]);
    let source = lenient().build().unwrap().over_try_stream(items).map(work).await.unwrap_err();
    assert_eq!(source.to_string(), "resize: the source failed after 1 item");
    let sink = lenient().build().unwrap().run([0], work).try_for_each(|_| async { Err("disk full") });
    assert_eq!(sink.await.unwrap_err().to_string(), "resize: the sink failed after 1 item");
}
