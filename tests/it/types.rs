//! The promises of the types, compiled and run.

use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::io;
use std::pin::pin;
use std::rc::Rc;

use async_map_task::plan::{Parallel, ParallelPlan, SpawnPlan, StreamPlan};
use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, BoxError, ConfigError, FailureReason, ItemContext, ItemError, MapRun,
    MapTaskError, MapTaskResult, Summary,
};
use futures::StreamExt;

use crate::support::{count_to, double, task};

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
async fn a_run_is_always_unpin_and_debug() {
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
    assert_eq!(format!("{run:?}"), "MapRun { state: ready, .. }");
    assert!(futures::poll!(&mut run).is_pending());
    assert_eq!(format!("{run:?}"), "MapRun { state: running, .. }");
    assert_eq!((&mut run).await.unwrap().successes(), 2);
    assert_eq!(format!("{run:?}"), "MapRun { state: over, .. }");

    let run = assert_run(task().over_stream(count_to(3)).map(double));
    assert_eq!(run.await.unwrap().successes(), 3);
    let over = task().over_stream(count_to(3));
    assert!(format!("{over:?}").starts_with("Over {"), "{over:?}");
}

#[test]
fn errors_are_send_sync_and_static() {
    fn error<X: Error + Send + Sync + 'static>() {}
    fn sound<X: Send + Sync + Unpin + 'static>() {}

    /// A result that is only `Send` and `Sync`.
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
async fn any_error_type_is_allowed() {
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
fn an_item_error_of_a_text_is_an_error() {
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

/// A generic function needs the ordinary bounds of its types, and none of the module `plan`.
#[tokio::test]
async fn a_generic_function_needs_ordinary_bounds() {
    async fn over<I, F, Fut, T, E>(items: I, f: F) -> Result<Vec<T>, MapTaskError<T, E>>
    where
        I: IntoIterator<Item: Clone>,
        F: Fn(I::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let on_one_core = task().over(items).map(f).retry_if(|_| false);
        on_one_core.await.map(MapTaskResult::into_successful_results)
    }

    async fn on_all_cores<I, F, Fut, T, E>(items: I, f: F) -> Result<Vec<T>, MapTaskError<T, E>>
    where
        I: IntoIterator<Item: Clone + Send + 'static, IntoIter: Send + 'static>,
        F: Fn(I::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let run = task().run(items, f).parallel();
        run.spawn().await.map(MapTaskResult::into_successful_results)
    }

    assert_eq!(over(["1", "2"], async |text| text.parse::<u8>()).await.unwrap(), [1, 2]);
    assert_eq!(on_all_cores(vec![1, 2], double).await.unwrap(), [2, 4]);
}

#[tokio::test]
async fn a_function_can_start_the_run_of_its_caller() {
    async fn spawned<R: SpawnPlan>(run: MapRun<R>) -> Option<usize> {
        run.spawn().await.ok().map(|result| result.successes())
    }

    async fn on_all_cores<R: ParallelPlan>(run: MapRun<R>) -> Option<usize>
    where
        Parallel<R>: SpawnPlan,
    {
        spawned(run.parallel()).await
    }

    async fn count<R: StreamPlan>(run: MapRun<R>) -> usize {
        run.stream().count().await
    }

    let run = || task().over(0..3).map(double);
    assert_eq!(spawned(run()).await, Some(3));
    assert_eq!(on_all_cores(run()).await, Some(3));
    assert_eq!(count(run()).await, 3);
}

/// The type of an output may be known only from the result of the run.
#[tokio::test]
async fn outputs_are_inferred_from_the_result() {
    let numbers: Vec<u32> =
        task().run(["1", "2"], |text| async move { text.parse() }).await.unwrap().into_successful_results();
    assert_eq!(numbers, [1, 2]);
    let none: Vec<u32> = task().over(Vec::new()).map(double).await.unwrap().into_successful_results();
    assert!(none.is_empty());
    let lists: Result<MapTaskResult<Vec<u32>, String>, _> =
        task().run([2, 3], |n| async move { (0..n).map(Ok).collect() }).await;
    assert_eq!(lists.unwrap().into_successful_results(), [vec![0, 1], vec![0, 1, 2]]);
    let never: Result<MapTaskResult<u32, String>, _> =
        task().over(0..0).map(|_| async { unreachable!("there are no items") }).await;
    assert_eq!(never.unwrap().total(), 0);
}
