//! The snippets of the documented interface, as they are written there.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io;
use std::time::Duration;

use async_map_task::{AsyncMapTask, Event, FailureReason, ItemError, MapTaskResult, Summary, TimeoutScope};
use futures::stream;
use tokio_util::sync::CancellationToken;

use crate::support::task;

#[tokio::test]
async fn the_snippets_of_a_run() {
    async fn fetch(url: &str) -> Result<usize, FetchError> {
        Ok(url.len())
    }

    let task = task();
    let urls = ["a.example", "bc.example"];
    let result = task.run(urls, |url| async move { fetch(url).await }).await.unwrap();
    assert_eq!(result.results, [Some(9), Some(10)]);

    let token = CancellationToken::new();
    let observer = |_: &Event<'_>| {};
    let f = |url| async move { fetch(url).await };
    let result = task
        .over(urls)
        .map(f)
        .retry_if(|e: &FetchError| e.is_transient())
        .retry_after(|e: &FetchError| e.retry_after())
        .cancellation_token(token)
        .observe(observer)
        .await
        .unwrap();
    assert_eq!(result.results, [Some(9), Some(10)]);

    let result = task.over_stream(stream::iter(urls)).map_once(f).await.unwrap();
    assert_eq!(result.results, [Some(9), Some(10)]);
    let source = stream::iter(urls.map(Ok::<_, io::Error>));
    let result = task.over_try_stream(source).map_with_context(|_, url| fetch(url)).await.unwrap();
    assert_eq!(result.results, [Some(9), Some(10)]);
}

struct FetchError;

impl FetchError {
    fn is_transient(&self) -> bool {
        true
    }

    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchError")
    }
}

#[tokio::test(start_paused = true)]
async fn the_snippets_of_results() {
    let task = AsyncMapTask::builder()
        .max_failures(3)
        .timeout_per_attempt(Duration::from_secs(5))
        .concurrency(1)
        .build()
        .unwrap();
    let f = |n: u32| async move {
        match n {
            0 => Ok(None),
            1 => Ok(Some("one")),
            2 => Err(String::from("two")),
            3 => std::future::pending().await,
            _ => panic!("four"),
        }
    };
    let result = task.run(0..5, f).await.unwrap();
    let results: &Vec<Option<Option<&str>>> = &result.results;
    assert_eq!(*results, [Some(None), Some(Some("one")), None, None, None]);
    let errors: &BTreeMap<usize, ItemError<String>> = &result.errors;
    assert_eq!(errors.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    for (index, error) in errors {
        match error {
            ItemError::Failed { error, attempts } => assert_eq!((*index, &**error, *attempts), (2, "two", 1)),
            ItemError::TimedOut { limit, scope, attempts } => {
                let limit: Duration = *limit;
                assert_eq!((*index, limit, *scope), (3, Duration::from_secs(5), TimeoutScope::Attempt));
                assert_eq!(*attempts, 1);
            }
            ItemError::Panicked { message, attempts } => {
                assert_eq!((*index, &**message, *attempts), (4, "four", 1));
            }
            _ => panic!("a new kind of error"),
        }
    }
    let counts: [usize; 5] =
        [result.successes(), result.failures(), result.cancelled(), result.not_started(), result.total()];
    assert_eq!(counts, [2, 3, 0, 0, 5]);
    let ratio: f64 = result.success_ratio();
    assert!((ratio - 0.4).abs() < 1e-12);
    assert_eq!(result.successful_results().collect::<Vec<_>>(), [&None, &Some("one")]);
    let Summary {
        total,
        successes,
        failures,
        cancelled,
        not_started,
        retries,
        timeouts,
        panics,
        elapsed,
        ..
    } = result.summary;
    assert_eq!([total, successes, failures, cancelled, not_started], [5, 2, 3, 0, 0]);
    assert_eq!([retries, timeouts, panics], [0, 1, 1]);
    assert_eq!(elapsed, Duration::from_secs(5));
    assert!(result.summary.success_ratio() <= ratio);
    let owned: Vec<Option<&str>> = result.into_successful_results();
    assert_eq!(owned, [None, Some("one")]);

    let empty = task.run([], f).await.unwrap();
    assert!((empty.success_ratio() - 1.0).abs() < f64::EPSILON, "an empty input has the ratio 1.0");

    match task.run(2..20, f).await {
        Ok(result) => panic!("{result:?}"),
        Err(error) => {
            let reason: &FailureReason = error.reason();
            assert!(matches!(reason, FailureReason::TooManyFailures { failures: 4, allowed: 3 }));
            let partial: &MapTaskResult<Option<&str>, String> = error.partial();
            assert_eq!((partial.failures(), partial.not_started()), (4, 14));
            let first: Option<(usize, &ItemError<String>)> = error.first_failure();
            assert_eq!(first.unwrap().0, 0);
            let summary: &Summary = error.summary();
            assert_eq!(summary.total, 18);
            let owned: MapTaskResult<Option<&str>, String> = error.into_partial();
            assert_eq!(owned.errors.len(), 4);
        }
    }
}
