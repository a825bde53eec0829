//! Rule 36: the successes of an earlier result are kept, and the rest runs.

use std::cell::RefCell;
use std::future::{pending, ready};

use async_map_task::{FailureReason, ItemState, MapTaskResult, Origin};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::support::{at_once, lenient, one_by_one, task};

/// A result of ten items, of which 3, 4 and 9 have failed.
async fn earlier() -> MapTaskResult<u32, &'static str> {
    let fails = |n: &u32| matches!(n, 3 | 4 | 9);
    let task = lenient().build().unwrap();
    task.run(0..10, |n| ready(if fails(&n) { Err("down") } else { Ok(n) })).await.unwrap()
}

/// The outputs of the second run are 100 more.
fn again(n: u32) -> impl Future<Output = Result<u32, &'static str>> {
    ready(Ok(100 + n))
}

const BOTH: [u32; 10] = [0, 1, 2, 103, 104, 5, 6, 7, 8, 109];

#[tokio::test(start_paused = true)]
async fn rule_36_only_the_rest_runs() {
    for parallel in [false, true] {
        let run = at_once(2).build().unwrap().over(0..10).map(again).redo(earlier().await);
        let result = if parallel { run.parallel().await } else { run.await }.unwrap();
        assert_eq!((result.summary.carried, result.successes()), (7, 10));
        assert_eq!(result.into_successful_results(), BOTH);
    }
    let handle = task().over(0..10).map(again).redo(earlier().await).spawn();
    let progress = handle.watch();
    assert_eq!(handle.await.unwrap().into_successful_results(), BOTH);
    let progress = progress.borrow().clone();
    assert_eq!((progress.carried, progress.settled(), progress.total), (7, 10, Some(10)));
}

#[tokio::test(start_paused = true)]
async fn rule_36_the_outcome_names_its_origin() {
    let outcomes = RefCell::new(Vec::new());
    let run = one_by_one().build().unwrap().over(0..10).map(again).label(|n| format!("no. {n}"));
    let push = |outcome: async_map_task::ItemOutcome<u32, _>| {
        let ran = outcome.origin == Origin::Ran;
        assert_eq!(
            (outcome.attempts, outcome.label),
            (u32::from(ran), Some(format!("no. {}", outcome.index)))
        );
        outcomes.borrow_mut().push((outcome.result.unwrap(), outcome.origin));
        ready(())
    };
    let summary = run.redo(earlier().await).ordered().for_each(push).await.unwrap();
    let origin = |n| if n < 100 { Origin::Carried } else { Origin::Ran };
    assert_eq!(outcomes.take(), BOTH.map(|n| (n, origin(n))));
    assert_eq!(summary.carried, 7);
    assert!(summary.to_string().ends_with("7 carried over"), "{summary}");
}

#[tokio::test(start_paused = true)]
async fn rule_36_a_run_that_stops_keeps_all_earlier_outputs() {
    use ItemState::{Cancelled, NotStarted, Succeeded};
    // Item 3 never ends, and no item after it is pulled.
    for by_handle in [false, true] {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let run = one_by_one()
            .build()
            .unwrap()
            .over(0..10)
            .map(move |_| {
                token.cancel();
                pending()
            })
            .cancellation_token(stop)
            .redo(earlier().await);
        let error = if by_handle { run.spawn().await } else { run.await }.unwrap_err();
        assert!(error.is_cancelled());
        let result = error.into_partial();
        let states: Vec<_> = (0..10).map(|index| result.state(index)).collect();
        let [s, c, n] = [Succeeded, Cancelled, NotStarted];
        assert_eq!(states, [s, s, s, c, n, s, s, s, s, n], "{}", result.summary);
        assert_eq!((result.summary.carried, result.successes()), (7, 7));
        // It can be redone again.
        let result = task().over(0..10).map(again).redo(result).await.unwrap();
        assert_eq!(result.into_successful_results(), BOTH);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_36_another_number_of_items_is_refused() {
    let called = |_: u32| -> std::future::Ready<Result<u32, &'static str>> { panic!("nothing starts") };
    for total in [0, 9, 11] {
        let error = task().over(0..total).map(called).redo(earlier().await).await.unwrap_err();
        let FailureReason::Config(reason) = error.reason() else { panic!("{error}") };
        assert_eq!(
            reason.to_string(),
            format!("redo must be used with the same 10 items, got {total} items")
        );
        // Nothing of the earlier result is lost: it can be redone with the right items.
        let partial = error.into_partial();
        assert_eq!((partial.total(), partial.successes(), partial.not_started()), (10, 7, 3), "{total}");
        let result = task().over(0..10).map(again).redo(partial).await.unwrap();
        assert_eq!(result.into_successful_results(), BOTH);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_36_a_stream_may_only_be_longer() {
    // The length of this stream is not known before its end.
    let items = |total: u32| stream::iter(0..total).filter(|_| ready(true));
    let longer = task().over_stream(items(12)).map(again).redo(earlier().await).await.unwrap();
    assert_eq!(longer.into_successful_results(), [&BOTH[..], &[110, 111]].concat());
    let error = task().over_stream(items(6)).map(again).redo(earlier().await).await.unwrap_err();
    let FailureReason::Config(reason) = error.reason() else { panic!("{error}") };
    assert_eq!((reason.field(), reason.found()), ("redo", "6 items"));
    let result = error.into_partial();
    assert_eq!((result.successes(), result.total()), (9, 10), "{}", result.summary);
    let result = task().over(0..10).map(again).redo(result).await.unwrap();
    assert_eq!(result.into_successful_results(), BOTH);
}

/// A run that was stopped in the middle of a source of unknown length has pulled some of its items.
#[tokio::test(start_paused = true)]
async fn rule_36_a_total_that_was_not_known_may_be_larger() {
    let interrupted = async || {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let run = one_by_one().build().unwrap().over_stream(stream::iter(0..10).filter(|_| ready(true)));
        let run = run.map(move |n| {
            if n == 3 {
                token.cancel();
            }
            ready(Ok::<_, &str>(n))
        });
        run.cancellation_token(stop).await.unwrap_err().into_partial()
    };
    assert_eq!((interrupted().await.total(), interrupted().await.successes()), (4, 4));
    let result = task().over(0..10).map(again).redo(interrupted().await).await.unwrap();
    assert_eq!((result.summary.carried, result.total()), (4, 10));
    let items = stream::iter(0..10).filter(|_| ready(true));
    let result = task().over_stream(items).with_total(10).map(again).redo(interrupted().await).await.unwrap();
    assert_eq!((result.summary.carried, result.total()), (4, 10));
    // A wrong number keeps this.
    let error = task().over(0..3).map(again).redo(interrupted().await).await.unwrap_err();
    let text = "redo must be used with the same items, at least 4, got 3 items";
    assert_eq!(error.reason().to_string(), text);
    let result = task().over(0..10).map(again).redo(error.into_partial()).await.unwrap();
    assert_eq!((result.summary.carried, result.total()), (4, 10));
}

/// The carried successes count for the criteria, as all successes do.
#[tokio::test(start_paused = true)]
async fn rule_36_carried_successes_count() {
    let fails = |_| ready(Err::<u32, _>("down again"));
    let task = at_once(1).min_success_ratio(0.7).build().unwrap();
    let result = task.over(0..10).map(fails).redo(earlier().await).await.unwrap();
    assert_eq!((result.successes(), result.failures()), (7, 3));
    let task = at_once(1).min_success_ratio(0.8).build().unwrap();
    let error = task.over(0..10).map(fails).redo(earlier().await).await.unwrap_err();
    assert_eq!((error.summary().carried, error.summary().failures), (7, 3));
    let task = at_once(1).min_successes(2).early_success(true).build().unwrap();
    let result = task.over(0..10).map(fails).redo(earlier().await).await.unwrap();
    assert_eq!(result.into_successful_results(), [0, 1, 2, 5, 6, 7, 8]);
}
