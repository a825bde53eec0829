//! What must compile, compiled; and run, because a thing that compiles may still do nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, BoxError, ConfigError, Event, FailureReason, ItemContext, ItemError,
    MapTaskError, MapTaskResult, Summary, TimeoutScope,
};
use axum::extract::State;
use axum::routing::get;
use futures::stream::{self, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn double(n: u32) -> Result<u32, String> {
    tokio::task::yield_now().await;
    Ok(n * 2)
}

fn task() -> AsyncMapTask {
    AsyncMapTask::default()
}

/// A stream that is not `Unpin` and does not know its length.
fn count_to(end: u32) -> impl Stream<Item = u32> {
    stream::unfold(0, move |n| async move {
        tokio::task::yield_now().await;
        (n < end).then_some((n, n + 1))
    })
}

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
async fn a_map_function_that_is_send_but_not_sync_runs_inside_spawn() {
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
async fn hooks_that_are_send_but_not_sync_run_inside_spawn() {
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

// Where a run is awaited.

#[tokio::test]
async fn a_run_is_awaited_inside_spawn() {
    let doubled = tokio::spawn(async { task().run(vec![1, 2, 3], double).await });
    assert_eq!(doubled.await.unwrap().unwrap().results, [Some(2), Some(4), Some(6)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_a_task_of_its_own_on_many_threads() {
    let runs: Vec<_> = (0..8).map(|n| tokio::spawn(task().run(n..n + 4, double))).collect();
    for (n, run) in (0..).zip(runs) {
        let expected: Vec<u32> = (n..n + 4).map(|n| n * 2).collect();
        assert_eq!(run.await.unwrap().unwrap().into_successful_results(), expected);
    }
}

#[tokio::test]
async fn borrowed_items_with_static_data_run_inside_spawn() {
    static NAMES: [&str; 3] = ["ada", "grace", "edsger"];

    async fn length(name: &str) -> Result<usize, String> {
        tokio::task::yield_now().await;
        Ok(name.len())
    }

    let by_value = tokio::spawn(async { task().run(NAMES, |name| async move { length(name).await }).await });
    assert_eq!(by_value.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let by_function = tokio::spawn(async { task().run(NAMES, length).await });
    assert_eq!(by_function.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let by_reference = tokio::spawn(async {
        task().run(&NAMES, |name| async move { length(name).await }).retry_if(|error| error.is_empty()).await
    });
    assert_eq!(by_reference.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
    let mapped = tokio::spawn(async {
        task().run(NAMES.iter().map(|name| name.trim()), |name| async move { length(name).await }).await
    });
    assert_eq!(mapped.await.unwrap().unwrap().results, [Some(3), Some(5), Some(6)]);
}

#[tokio::test]
async fn items_borrowed_within_a_spawned_task_run_inside_it() {
    let lengths = tokio::spawn(async {
        let names = [String::from("ada"), String::from("grace")];
        let extra = 1;
        let result = task()
            .run(names.iter(), |name| {
                let extra = &extra;
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, String>(name.len() + extra)
                }
            })
            .await
            .unwrap();
        result.into_successful_results()
    });
    assert_eq!(lengths.await.unwrap(), [4, 6]);
}

#[tokio::test]
async fn a_run_is_awaited_inside_an_axum_handler() {
    async fn total(State(task): State<AsyncMapTask>) -> Result<String, String> {
        let words = vec![String::from("snow"), String::from("rain"), String::from("wind")];
        let result = task
            .over(&words)
            .map(|word| async move {
                tokio::task::yield_now().await;
                u32::try_from(word.len())
            })
            .retry_if(|_| false)
            .await
            .map_err(|error| error.to_string())?;
        Ok(format!("{} letters in {} words", result.successful_results().sum::<u32>(), result.successes()))
    }

    async fn fails(State(task): State<AsyncMapTask>) -> Result<String, String> {
        let run = task.run(0..3, |n| async move { if n == 1 { Err("no route") } else { Ok(n) } });
        run.await.map(|_| String::new()).map_err(|error| error.to_string())
    }

    let task = AsyncMapTask::builder().name("count").concurrency(1).build().unwrap();
    let app = axum::Router::new().route("/total", get(total)).route("/fails", get(fails)).with_state(task);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    for (path, expected) in [
        ("/total", "12 letters in 3 words"),
        ("/fails", "count: 1 of 3 items failed, 0 allowed; item 1 failed first, after 1 attempt: no route"),
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, expected);
    }
    server.abort();
}

#[tokio::test]
async fn a_task_lives_in_a_static() {
    static TASK: LazyLock<AsyncMapTask> = LazyLock::new(|| {
        AsyncMapTask::builder().name("shared").concurrency(2).build().expect("the settings are allowed")
    });

    let both = [tokio::spawn(TASK.run([1, 2], double)), tokio::spawn(TASK.run([3], double))];
    let mut results = Vec::new();
    for run in both {
        results.extend(run.await.unwrap().unwrap().into_successful_results());
    }
    assert_eq!(results, [2, 4, 6]);
}

#[tokio::test]
async fn a_run_outlives_its_task() {
    let run = {
        let task = AsyncMapTask::builder().concurrency(1).build().unwrap();
        task.run([1, 2], double)
    };
    assert_eq!(run.await.unwrap().results, [Some(2), Some(4)]);
}

#[tokio::test]
async fn runs_nest() {
    let outer = AsyncMapTask::builder().name("rows").concurrency(2).build().unwrap();
    let inner = AsyncMapTask::builder().name("cells").concurrency(2).build().unwrap();
    let rows = vec![vec![1, 2], vec![], vec![3, 4, 5]];
    let sums = outer
        .run(rows, |row| {
            let inner = &inner;
            async move {
                let doubled = inner.run(row, double).await?;
                Ok::<_, MapTaskError<u32, String>>(doubled.successful_results().sum::<u32>())
            }
        })
        .await
        .unwrap();
    assert_eq!(sums.results, [Some(6), Some(0), Some(24)]);

    let task = outer.clone();
    let error = outer
        .run([1, 2], |n| {
            let task = &task;
            async move { task.run([n], |n| async move { Err::<(), _>(format!("bad {n}")) }).await }
        })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "rows: 1 of 2 items failed, 0 allowed; item 0 failed first, after 1 attempt: \
         rows: 1 of 1 items failed, 0 allowed; item 0 failed first, after 1 attempt: bad 1"
    );
}

#[tokio::test]
async fn two_runs_are_joined() {
    let task = task();
    let (numbers, words) =
        tokio::join!(task.run([1, 2], double), task.run(["a"], |word| async move { Ok::<_, ()>(word) }));
    assert_eq!(numbers.unwrap().results, [Some(2), Some(4)]);
    assert_eq!(words.unwrap().results, [Some("a")]);

    let (more, none) = tokio::try_join!(task.run([4], double), task.run([], double)).unwrap();
    assert_eq!((more.total(), none.total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_is_awaited_by_reference_in_a_loop_of_select() {
    let mut run = task().run(1..=3, |n| async move {
        tokio::time::sleep(Duration::from_secs(n)).await;
        Ok::<_, String>(n)
    });
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut count = 0;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut run => break result.unwrap(),
            _ = ticks.tick() => count += 1,
        }
    };
    assert_eq!(result.results, [Some(1), Some(2), Some(3)]);
    assert_eq!(count, 3);
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

/// Gives a run one option, by its name.
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
            // The run began and ended, two items began and settled, four attempts failed.
            assert_eq!(seen.get(), 2 + 2 * 2 + 4, "the observer is heard");

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

// The types.

#[tokio::test]
async fn a_task_is_one_type_that_is_shared_freely() {
    fn shared<T: Clone + Send + Sync + Unpin + Debug + Default + 'static>(_: &T) {}

    let task: AsyncMapTask = task();
    shared(&task);
    let twin = task.clone();
    assert_eq!(twin.run([1], double).await.unwrap().results, [Some(2)]);
    assert_eq!(size_of::<AsyncMapTask>(), size_of::<usize>(), "a clone is one reference count");
    fn reusable<T: Clone + Debug + Send + 'static>(_: &T) {}
    let builder: AsyncMapTaskBuilder = AsyncMapTask::builder().concurrency(2);
    reusable(&builder);
    assert!(builder.clone().build().is_ok() && builder.concurrency(0).build().is_err());
}

#[tokio::test]
async fn a_run_is_unpin_and_debug_whatever_it_holds() {
    fn assert_run<R: Future + Unpin + Debug>(run: R) -> R {
        run
    }

    /// Neither `Debug` nor `Clone` nor `Unpin`.
    struct Opaque(u32, std::marker::PhantomPinned);

    let opaque = |n| Opaque(n, std::marker::PhantomPinned);
    let run = assert_run(task().over((0..2).map(opaque)).map_once(|opaque| async move {
        let opaque = pin!(opaque);
        tokio::task::yield_now().await;
        Ok::<_, String>(Rc::new(opaque.0))
    }));
    let mut run = run;
    assert_eq!(format!("{run:?}"), r#"MapRun { state: "ready", .. }"#);
    assert!(futures::poll!(&mut run).is_pending());
    assert_eq!(format!("{run:?}"), r#"MapRun { state: "running", .. }"#);
    assert_eq!((&mut run).await.unwrap().successes(), 2);
    assert_eq!(format!("{run:?}"), r#"MapRun { state: "over", .. }"#);

    let run = assert_run(task().over_stream(count_to(3)).map(double));
    assert_eq!(run.await.unwrap().successes(), 3);
    let over = task().over_stream(count_to(3));
    assert!(format!("{over:?}").starts_with("Over {"), "{over:?}");
}

#[test]
fn errors_are_send_sync_and_static() {
    fn error<X: Error + Send + Sync + 'static>() {}
    fn sound<X: Send + Sync + Unpin + 'static>() {}

    /// A result that is nothing but `Send` and `Sync`.
    struct Opaque;

    error::<MapTaskError<Opaque, String>>();
    error::<MapTaskError<Opaque, anyhow::Error>>();
    error::<MapTaskError<Opaque, io::Error>>();
    error::<MapTaskError<Opaque, BoxError>>();
    error::<ItemError<String>>();
    error::<ItemError<anyhow::Error>>();
    error::<ConfigError>();
    error::<async_map_task::LengthMismatch>();
    sound::<FailureReason>();
    sound::<MapTaskError<Opaque, ()>>();
    sound::<MapTaskResult<Opaque, ()>>();
    sound::<Summary>();
    sound::<ItemContext>();
    assert!(
        size_of::<MapTaskError<[u64; 100], [u64; 100]>>() == size_of::<usize>(),
        "a run's error is as small as a box"
    );
}

#[tokio::test]
async fn question_mark_goes_into_anyhow() {
    async fn with_text() -> anyhow::Result<usize> {
        let task = AsyncMapTask::builder().name("texts").concurrency(1).build()?;
        let good = task.run([1, 2], double).await?;
        let bad = task.run(["a", "b"], |word| async move { Err::<(), _>(format!("bad {word}")) }).await?;
        Ok(good.total() + bad.total())
    }
    async fn with_any() -> anyhow::Result<()> {
        task()
            .run([1], |_| async {
                anyhow::bail!("any");
                #[expect(unreachable_code, reason = "its type")]
                Ok(())
            })
            .await?;
        Ok(())
    }
    async fn with_box() -> Result<(), BoxError> {
        task().run([1], |_| async { Err::<(), BoxError>("boxed".into()) }).await?;
        Ok(())
    }

    let error = with_text().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "texts: 1 of 2 items failed, 0 allowed; item 0 failed first, after 1 attempt: bad a"
    );
    let run_error = error.downcast::<MapTaskError<(), String>>().unwrap();
    assert_eq!(run_error.into_partial().not_started(), 1);
    assert!(with_any().await.unwrap_err().to_string().ends_with("after 1 attempt: any"));
    assert!(with_box().await.unwrap_err().to_string().ends_with("after 1 attempt: boxed"));
}

#[tokio::test]
async fn an_error_type_may_be_anything() {
    #[derive(PartialEq)]
    struct Opaque(u8);

    let tolerant = AsyncMapTask::builder().max_failures(1).build().unwrap();
    let text = tolerant.run([1], |_| async { Err::<(), String>("text".into()) }).await.unwrap();
    assert_eq!(text.errors[&0].to_string(), "failed after 1 attempt: text");
    let any = tolerant.run([1], |_| async { Err::<(), _>(anyhow::anyhow!("any")) }).await.unwrap();
    assert_eq!(any.errors[&0].to_string(), "failed after 1 attempt: any");
    let unit = tolerant.run([1], |_| async { Err::<(), ()>(()) }).await.unwrap();
    assert!(matches!(unit.errors[&0], ItemError::Failed { error: (), attempts: 1 }));
    let error = task().run([1], |_| async { Err::<(), ()>(()) }).await.unwrap_err();
    assert!(matches!(error.first_failure(), Some((0, ItemError::Failed { error: (), attempts: 1 }))));
    let opaque = tolerant.run([1], |_| async { Err::<(), _>(Opaque(7)) }).await;
    let errors = opaque.ok().unwrap().errors;
    assert!(matches!(&errors[&0], ItemError::Failed { error, .. } if *error == Opaque(7)));
    let local = tolerant.run([1], |_| async { Err::<(), Rc<str>>("local".into()) }).await.unwrap();
    assert_eq!(local.errors[&0].to_string(), "failed after 1 attempt: local");
    let never = task().run([1], |n| async move { Ok::<_, std::convert::Infallible>(n) }).await.unwrap();
    assert_eq!(never.results, [Some(1)]);
}

#[test]
fn an_item_error_is_an_error_for_every_text() {
    fn error<E: Display + Debug>() -> impl Fn(&ItemError<E>) -> String {
        |error| (error as &dyn Error).to_string()
    }

    #[derive(Debug)]
    struct Borrowed<'a>(&'a str);
    impl fmt::Display for Borrowed<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    let text = String::from("local text");
    let local = ItemError::Failed { error: Borrowed(&text), attempts: 2 };
    assert_eq!(local.to_string(), "failed after 2 attempts: local text");
    let owned = ItemError::Failed { error: String::from("owned"), attempts: 1 };
    assert_eq!(error::<String>()(&owned), "failed after 1 attempt: owned");
}

// The snippets of the contract.

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
async fn the_snippets_of_what_comes_back() {
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
