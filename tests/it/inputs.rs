//! The inputs of a run: every kind of map function, of option and of source, compiled and run.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, BoxError, Event, FailureReason, ItemContext, ItemError, MapTaskError, MapTaskResult,
};
use futures::stream;
use futures::stream::Stream;
use tokio_util::sync::CancellationToken;

use crate::support::{count_to, double, task};

fn is_send<T: Send>(value: T) -> T {
    value
}

// The map function.

#[tokio::test]
async fn a_map_function_may_borrow_local_data() {
    let prefix = String::from("item ");
    let calls = AtomicUsize::new(0);
    let result = task()
        .run([1, 2, 3], |n| {
            calls.fetch_add(1, Ordering::Relaxed);
            let prefix = &prefix;
            async move { Ok::<_, String>(format!("{prefix}{n}")) }
        })
        .await
        .unwrap();
    assert_eq!(result.into_successful_results(), ["item 1", "item 2", "item 3"]);
    assert_eq!(calls.into_inner(), 3);
    assert_eq!(prefix, "item ", "it was only borrowed");
}

#[tokio::test]
async fn items_may_be_borrowed_from_a_local_list() {
    let names = vec![String::from("ada"), String::from("grace")];
    let result = task()
        .run(&names, |name| async move {
            tokio::task::yield_now().await;
            Ok::<_, String>(name.as_str())
        })
        .await
        .unwrap();
    assert_eq!(result.results, [Some("ada"), Some("grace")]);
    assert_eq!(names.len(), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn a_map_function_need_not_be_send() {
    let sum = Rc::new(Cell::new(0));
    let result = task()
        .run(1..=4, |n| {
            let sum = Rc::clone(&sum);
            async move {
                tokio::task::yield_now().await;
                sum.set(sum.get() + n);
                Ok::<_, Rc<str>>(Rc::new(n))
            }
        })
        .await
        .unwrap();
    assert_eq!(sum.get(), 10);
    assert_eq!(result.successes(), 4);
    assert_eq!(Rc::strong_count(&sum), 1, "the run has let go of everything");
}

#[tokio::test]
async fn a_map_function_need_not_be_sync() {
    let calls = Cell::new(0);
    let numbered = tokio::spawn(async move {
        let run = task().run(["a", "b", "c"], move |name| {
            calls.set(calls.get() + 1);
            let call = calls.get();
            async move {
                tokio::task::yield_now().await;
                Ok::<_, String>(format!("{name}{call}"))
            }
        });
        is_send(run).await.unwrap().into_successful_results()
    });
    assert_eq!(numbered.await.unwrap(), ["a1", "b2", "c3"]);
}

#[tokio::test]
async fn hooks_need_not_be_sync() {
    let (asked, seen) = (Cell::new(0), Cell::new(0));
    let run = AsyncMapTask::builder()
        .retries(1)
        .retry_delay(Duration::ZERO)
        .max_failures(1)
        .build()
        .unwrap()
        .run([1], |_| async { Err::<(), _>("no") })
        .retry_if(move |error| {
            asked.set(asked.get() + 1);
            asked.get() == 1 && *error == "no"
        })
        .observe(move |_: &Event<'_>| seen.set(seen.get() + 1));
    let result = tokio::spawn(run).await.unwrap().unwrap();
    assert_eq!((result.failures(), result.summary.retries), (1, 1));
}

#[tokio::test]
async fn a_plain_async_fn_is_a_map_function() {
    async fn length(cx: ItemContext, name: &str) -> Result<usize, String> {
        Ok(name.len() + cx.index())
    }

    let doubled = task().run(1..=3, double).await.unwrap();
    assert_eq!(doubled.results, [Some(2), Some(4), Some(6)]);
    let doubled = task().over([5]).map_once(double).await.unwrap();
    assert_eq!(doubled.results, [Some(10)]);
    let lengths = task().over(["ada", "grace"]).map_with_context(length).await.unwrap();
    assert_eq!(lengths.results, [Some(3), Some(6)]);
}

#[tokio::test]
async fn an_async_closure_is_a_map_function() {
    let factor = 3;
    let result = task().run(1..=3, async |n| Ok::<_, String>(n * factor)).await.unwrap();
    assert_eq!(result.results, [Some(3), Some(6), Some(9)]);
}

#[tokio::test]
async fn a_function_pointer_to_boxed_futures_is_a_map_function() {
    type Outcome = Result<MapTaskResult<u32, String>, MapTaskError<u32, String>>;
    type Boxed = Pin<Box<dyn Future<Output = Result<u32, String>> + Send>>;
    let functions: [fn(u32) -> Boxed; 2] = [|n| Box::pin(async move { Ok(n) }), |n| Box::pin(double(n))];
    let mut totals = Vec::new();
    for f in functions {
        let run: Pin<Box<dyn Future<Output = Outcome> + Send>> = Box::pin(task().run([1, 2], f));
        totals.push(run.await.unwrap().successful_results().sum::<u32>());
    }
    assert_eq!(totals, [3, 6]);
}

// The options.

#[tokio::test]
async fn retry_if_needs_no_annotation() {
    let task =
        AsyncMapTask::builder().retries(3).retry_delay(Duration::ZERO).max_failures(2).build().unwrap();
    let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::NotFound];
    let result = task
        .run(kinds, |kind| async move { Err::<(), _>(io::Error::from(kind)) })
        .retry_if(|e| e.kind() == io::ErrorKind::TimedOut)
        .await
        .unwrap();
    let attempts: Vec<_> = result.errors.values().map(ItemError::attempts).collect();
    assert_eq!(attempts, [4, 1]);

    let result = task
        .run(["busy", "gone"], |word| async move { Err::<(), _>(word.to_owned()) })
        .retry_after(|e| e.starts_with('b').then_some(Duration::ZERO))
        .retry_if(|e| e.starts_with('b'))
        .await
        .unwrap();
    assert_eq!(result.summary.retries, 3);
}

/// Sets one option of a run, by its name.
macro_rules! with_option {
    ($run:ident, $seen:ident, $token:ident, retry_if) => {
        $run.retry_if(|e| e.len() == 2)
    };
    ($run:ident, $seen:ident, $token:ident, retry_after) => {
        $run.retry_after(|e| (*e == "no").then_some(Duration::ZERO))
    };
    ($run:ident, $seen:ident, $token:ident, observe) => {
        $run.observe(|_: &Event<'_>| $seen.set($seen.get() + 1))
    };
    ($run:ident, $seen:ident, $token:ident, cancellation_token) => {
        $run.cancellation_token($token.clone())
    };
}

#[tokio::test]
async fn options_come_in_any_order() {
    let task = AsyncMapTask::builder().retries(2).max_failures(1).build().unwrap();
    let seen = Cell::new(0);
    macro_rules! runs_with {
        ($($option:ident)+) => {{
            seen.set(0);
            let token = CancellationToken::new();
            let run = task.run(["no", "never"], |word| async move { Err::<(), _>(word) });
            $(let run = with_option!(run, seen, token, $option);)+
            let error = run.await.unwrap_err();
            let attempts: Vec<_> = error.partial().errors.values().map(ItemError::attempts).collect();
            assert_eq!(attempts, [3, 1], "retry_if and retry_after are heard");
            // The run began and ended, two items began and settled, four attempts began and failed.
            assert_eq!(seen.get(), 2 + 2 * 2 + 4 * 2, "the observer is heard");

            let run = task.run(["no"], |word| async move { Err::<(), _>(word) });
            $(let run = with_option!(run, seen, token, $option);)+
            token.cancel();
            let error = run.await.unwrap_err();
            assert!(matches!(error.reason(), FailureReason::Cancelled), "the token is heard");
        }};
    }

    runs_with!(retry_if retry_after observe cancellation_token);
    runs_with!(retry_after observe cancellation_token retry_if);
    runs_with!(observe cancellation_token retry_if retry_after);
    runs_with!(cancellation_token retry_if retry_after observe);
    runs_with!(cancellation_token observe retry_after retry_if);
    runs_with!(observe retry_after retry_if cancellation_token);
    runs_with!(retry_after retry_if cancellation_token observe);
    runs_with!(retry_if cancellation_token observe retry_after);
    runs_with!(retry_if observe retry_after cancellation_token);
    runs_with!(cancellation_token retry_after retry_if observe);
}

#[tokio::test]
async fn every_option_of_the_builder_comes_in_any_order() {
    let forward = AsyncMapTask::builder()
        .name("resize")
        .concurrency(64)
        .retries(3)
        .retry_delay(Duration::from_millis(200))
        .max_retry_delay(Duration::from_secs(30))
        .retry_multiplier(2.0)
        .retry_jitter(0.5)
        .timeout_per_attempt(Duration::from_secs(5))
        .timeout_per_item(Duration::from_secs(30))
        .run_timeout(Duration::from_secs(600))
        .min_success_ratio(0.95)
        .min_successes(10)
        .max_failures(100)
        .early_success(true)
        .fail_fast(true)
        .cancel_grace(Duration::from_secs(2))
        .build()
        .unwrap();
    let backward = AsyncMapTask::builder()
        .cancel_grace(Duration::from_secs(2))
        .fail_fast(true)
        .early_success(true)
        .max_failures(100)
        .min_successes(10)
        .min_success_ratio(0.95)
        .run_timeout(Duration::from_secs(600))
        .timeout_per_item(Duration::from_secs(30))
        .timeout_per_attempt(Duration::from_secs(5))
        .retry_jitter(0.5)
        .retry_multiplier(2.0)
        .max_retry_delay(Duration::from_secs(30))
        .retry_delay(Duration::from_millis(200))
        .retries(3)
        .concurrency(64)
        .name("resize")
        .build()
        .unwrap();
    assert_eq!(format!("{forward:?}"), format!("{backward:?}"));
    let successes = forward.run(0..100, double).await.unwrap().successes();
    assert!(
        (95..=100).contains(&successes),
        "95 are enough, and others may end within the grace: {successes}"
    );
}

// The sources.

#[tokio::test]
async fn streams_need_not_be_unpin() {
    let results = task().over_stream(count_to(3)).map(double).await.unwrap();
    assert_eq!(results.results, [Some(0), Some(2), Some(4)]);

    let tried = stream::unfold(0, |n| async move {
        tokio::task::yield_now().await;
        let item = if n == 2 { Err(io::Error::other("torn page")) } else { Ok(n) };
        Some((item, n + 1))
    });
    let error = task().over_try_stream(tried).map(double).await.unwrap_err();
    let FailureReason::Source(source) = error.reason() else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "torn page");
    assert_eq!(error.summary().total, 2);
}

#[tokio::test]
async fn the_error_of_a_source_is_anything_that_boxes() {
    async fn reason<X: Into<BoxError>>(error: X) -> String {
        let source = stream::iter([Ok(1), Err(error)]);
        task().over_try_stream(source).map(double).await.unwrap_err().source().unwrap().to_string()
    }
    assert_eq!(reason("a word").await, "a word");
    assert_eq!(reason(String::from("a text")).await, "a text");
    assert_eq!(reason(io::Error::other("an error")).await, "an error");
    assert_eq!(reason(anyhow::anyhow!("any error")).await, "any error");
    assert_eq!(reason(BoxError::from("a box")).await, "a box");
}

#[tokio::test]
async fn a_source_may_borrow_and_a_stream_may_be_local() {
    let numbers = [1, 2, 3];
    let counted = Rc::new(Cell::new(0));
    let source = stream::iter(&numbers).then_count(&counted);
    let result = task().over_stream(source).map(|n| double(*n)).await.unwrap();
    assert_eq!(result.results, [Some(2), Some(4), Some(6)]);
    assert_eq!(counted.get(), 3);
}

trait ThenCount: Stream + Sized {
    fn then_count<'a>(self, counter: &'a Rc<Cell<u32>>) -> impl Stream<Item = Self::Item> + 'a
    where
        Self: 'a,
    {
        futures::StreamExt::map(self, move |item| {
            counter.set(counter.get() + 1);
            item
        })
    }
}

impl<S: Stream> ThenCount for S {}

#[tokio::test]
async fn a_stream_runs_inside_spawn() {
    let doubled = tokio::spawn(async { task().over_stream(count_to(3)).map(double).await });
    assert_eq!(doubled.await.unwrap().unwrap().results, [Some(0), Some(2), Some(4)]);
    let tried = stream::iter([Ok::<_, io::Error>(1), Ok(2)]);
    let doubled = tokio::spawn(task().over_try_stream(tried).map(double));
    assert_eq!(doubled.await.unwrap().unwrap().results, [Some(2), Some(4)]);
}
