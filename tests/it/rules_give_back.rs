//! Rule 35: items that were pulled and did not settle are given back to the caller.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::{
    AsyncMapTask, Event, FailureReason, ItemState, LeftOver, MapTaskResult, RunError, Summary,
};
use futures::StreamExt;
use proptest::prelude::*;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::{Gauge, HOUR, at_once, millis, retrying, secs};

/// The index, the item and the number of attempts of an item that was given back.
type Left<I> = (usize, I, u32);

fn left<I>(LeftOver { index, item, attempts, .. }: LeftOver<I>) -> Left<I> {
    (index, item, attempts)
}

#[tokio::test(start_paused = true)]
async fn rule_35_items_come_back_in_order_with_their_attempts() {
    // Item 0 succeeds, 1 fails, 2 waits for its retry, 3 runs its second attempt, 4 runs its first one, 5 was pulled and is
    // too heavy to start, and the others were not pulled.
    let mut back = Vec::new();
    let (cancel, pulled) = (CancellationToken::new(), &Cell::new(0));
    let stop = &cancel;
    let error = retrying(6)
        .build()
        .unwrap()
        .over((0..10_u32).inspect(|_| pulled.set(pulled.get() + 1)))
        .map_with_context(|cx, n| async move {
            match (n, cx.attempt()) {
                (0, _) => Ok(()),
                (2, 1) => {
                    sleep(millis(1_500)).await;
                    Err("again")
                }
                (3, 1) => Err("again"),
                (4, _) => {
                    sleep(secs(2)).await;
                    stop.cancel();
                    pending().await
                }
                (1, _) => Err("for good"),
                _ => pending().await,
            }
        })
        .retry_if(|error| *error == "again")
        .weight(|n| if *n == 5 { 6 } else { 1 })
        .cancellation_token(cancel.clone())
        .give_back(|item| back.push(left(item)))
        .await
        .unwrap_err();
    assert_eq!(back, [(2, 2, 1), (3, 3, 2), (4, 4, 1), (5, 5, 0)]);
    assert_eq!((pulled.get(), error.summary().not_started), (6, 5));
    use ItemState::{Cancelled, NotStarted};
    let states: Vec<_> = back.iter().map(|(index, ..)| error.partial().state(*index)).collect();
    assert_eq!(states, [Cancelled, Cancelled, Cancelled, NotStarted]);
}

#[tokio::test(start_paused = true)]
async fn rule_35_a_whole_run_gives_nothing_back() {
    let calls = Cell::new(0);
    let task = at_once(2).retries(1).retry_delay(secs(1)).allow_failures().build().unwrap();
    let result = task
        .over(0..20)
        .map(|n| ready(if n % 3 == 0 { Err("no") } else { Ok(n) }))
        .give_back(|_| calls.set(calls.get() + 1))
        .await
        .unwrap();
    assert_eq!((result.successes(), result.failures(), calls.get()), (13, 7, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_35_no_attempt_is_alive_and_the_end_is_not_reported() {
    for parallel in [false, true] {
        let (gauge, order) = (Gauge::default(), Arc::new(Mutex::new(Vec::new())));
        let (alive, given, finished) = (gauge.clone(), Arc::clone(&order), Arc::clone(&order));
        let run = at_once(3)
            .run_timeout(secs(1))
            .build()
            .unwrap()
            .over(0..9_usize)
            .map(move |_| {
                let alive = alive.enter();
                async move {
                    pending::<()>().await;
                    drop(alive);
                    Ok::<_, String>(())
                }
            })
            .observe(move |event: &Event<'_>| {
                if let Event::RunFinished { .. } = event {
                    finished.lock().unwrap().push(usize::MAX);
                }
            })
            .give_back(move |left| {
                assert_eq!(gauge.now(), 0, "an attempt is alive");
                given.lock().unwrap().push(left.index);
            });
        let ended = if parallel { run.parallel().await } else { run.await };
        assert!(matches!(ended.unwrap_err().reason(), FailureReason::TimedOut { .. }));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, usize::MAX], "{parallel}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_35_an_item_of_map_once_comes_back() {
    let mut back = Vec::new();
    let task = at_once(2).run_timeout(secs(1)).build().unwrap();
    let run = task.over(["a", "b", "c"]).map_once(|_| pending::<Result<(), String>>());
    run.give_back(|item| back.push(left(item))).await.unwrap_err();
    assert_eq!(back, [(0, "a", 1), (1, "b", 1)]);
}

#[tokio::test]
async fn rule_35_a_blocking_item_comes_back_while_its_function_runs() {
    let (end, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
    let (asked, token) = (Arc::clone(&end), stop.clone());
    let mut back = Vec::new();
    let run = at_once(1).build().unwrap().over([7, 8]).map_blocking(move |_| {
        token.cancel();
        while !asked.load(SeqCst) {
            std::thread::yield_now();
        }
        Ok::<_, String>(())
    });
    let error = run.cancellation_token(stop).give_back(|item| back.push(left(item))).await.unwrap_err();
    assert_eq!((back, error.is_cancelled()), (vec![(0, 7, 1)], true));
    end.store(true, SeqCst);
}

#[tokio::test(start_paused = true)]
async fn rule_35_outcomes_that_a_failed_sink_did_not_take_have_settled() {
    let (mut back, taken) = (Vec::new(), &Cell::new(0));
    let error = at_once(4)
        .build()
        .unwrap()
        .over(0..8)
        .map(|n| async move {
            if n == 3 {
                sleep(HOUR).await;
            }
            Ok::<_, String>(n)
        })
        .give_back(|item| back.push(left(item)))
        .try_for_each(|_| async move {
            taken.set(taken.get() + 1);
            sleep(secs(1)).await;
            Err::<(), _>("full")
        })
        .await
        .unwrap_err();
    let Summary { successes, cancelled, .. } = *error.summary();
    assert_eq!((taken.get(), cancelled, back), (1, 1, vec![(3, 3, 1)]));
    assert!(successes > 1, "{successes} settled, one was taken");
}

#[tokio::test(start_paused = true)]
async fn rule_35_a_dropped_run_gives_nothing_back() {
    let calls = Arc::new(AtomicUsize::new(0));
    for parallel in [false, true] {
        let calls = Arc::clone(&calls);
        let run = at_once(2).build().unwrap().over(0..4).map(|_| pending::<Result<(), String>>()).give_back(
            move |_| {
                calls.fetch_add(1, SeqCst);
            },
        );
        let waited = if parallel {
            tokio::time::timeout(secs(1), run.parallel()).await.map(drop)
        } else {
            tokio::time::timeout(secs(1), run).await.map(drop)
        };
        waited.unwrap_err();
    }
    assert_eq!(calls.load(SeqCst), 0);
}

/// An item that was given back comes back with a handle, too, regardless of the order of the options.
#[tokio::test(start_paused = true)]
async fn rule_35_the_order_of_the_options_does_not_matter() {
    let task = at_once(3).build().unwrap();
    let map = |n: u32| async move { if n == 2 { Err("no") } else { pending().await } };
    for first in [true, false] {
        let back = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&back);
        let push = move |item| given.lock().unwrap().push(left(item));
        let handle = if first {
            task.over(0..9).map(map).give_back(push).retry_if(|_| false).label(u32::to_string).spawn()
        } else {
            task.over(0..9).map(map).retry_if(|_| false).label(u32::to_string).give_back(push).spawn()
        };
        let error = handle.await.unwrap_err();
        let _: &MapTaskResult<(), _> = error.partial();
        assert_eq!(*back.lock().unwrap(), [(0, 0, 1), (1, 1, 1)]);
    }
}

/// The behaviour of an item: the number of failing attempts, the time of each, a flag for a panic of the last one, and its
/// weight.
#[derive(Debug, Clone)]
struct Plan {
    failures: u32,
    millis: u64,
    panics: bool,
    weight: u32,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0..3_u32, 0..40_u64, prop::bool::weighted(0.1), 1..3_u32)
        .prop_map(|(failures, millis, panics, weight)| Plan { failures, millis, panics, weight });
    prop::collection::vec(plan, 0..24)
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
enum End {
    Awaited,
    Spawned,
    ForEach,
    TryForEach,
    Stream,
}

/// The cause that stops a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cause {
    Cancelled,
    Drained,
    TimedOut,
    Failures,
}

/// The number of random runs. `DRAINS=100000` is the full count.
fn cases() -> u32 {
    std::env::var("DRAINS").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000)
}

/// The account of a run, and the states of its items if it keeps them.
type Account = (Summary, Option<MapTaskResult<usize, &'static str>>);

fn of_summary(ended: Result<Summary, RunError>) -> Account {
    (ended.unwrap_or_else(|error| error.summary().clone()), None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Items that settled, that were given back, and that are still in the source, are all items.
    #[test]
    fn rule_35_no_item_is_lost(
        plans in plans(),
        concurrency in 2..6_usize,
        end in prop::sample::select(vec![End::Awaited, End::Spawned, End::ForEach, End::TryForEach, End::Stream]),
        cause in prop::sample::select(vec![Cause::Cancelled, Cause::Drained, Cause::TimedOut, Cause::Failures]),
        after in 0..120_u64,
        grace in prop::bool::ANY,
        ratio in 0..=10_u32,
        sink_fails_at in 0..24_usize,
        parallel in prop::bool::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut task = AsyncMapTask::builder()
                .concurrency(concurrency)
                .retries(1)
                .retry_delay(millis(15))
                .cancel_grace(if grace { millis(20) } else { millis(0) })
                .min_success_ratio(if cause == Cause::Failures { f64::from(ratio) / 10.0 } else { 0.0 });
            if cause == Cause::TimedOut {
                task = task.run_timeout(millis(after + 20));
            }
            let (cancel, drain) = (CancellationToken::new(), CancellationToken::new());
            let (pulled, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
            let (count, given) = (Arc::clone(&pulled), Arc::clone(&back));
            let begun = Arc::new(Mutex::new(vec![0; plans.len()]));
            let begins = Arc::clone(&begun);
            let source = plans.clone().into_iter().enumerate().inspect(move |_| {
                count.fetch_add(1, SeqCst);
            });
            let run = task
                .build()
                .unwrap()
                .over(source)
                .map_with_context(move |cx, (index, plan): (usize, Plan)| {
                    begins.lock().unwrap()[index] = cx.attempt();
                    async move {
                        sleep(millis(plan.millis)).await;
                        assert!(!plan.panics, "as planned");
                        if cx.attempt() <= plan.failures { Err("not yet") } else { Ok(index) }
                    }
                })
                .weight(|(_, plan)| plan.weight)
                .cancellation_token(cancel.clone())
                .drain_token(drain.clone())
                .give_back(move |item| given.lock().unwrap().push(left(item)));
            macro_rules! end {
                ($run:expr) => {{
                    let seen = RefCell::new(0);
                    let run = $run;
                    match end {
                        End::Awaited => {
                            let result = run.await.unwrap_or_else(|error| error.into_partial());
                            (result.summary.clone(), Some(result))
                        }
                        End::Spawned => {
                            let result = run.spawn().await.unwrap_or_else(|error| error.into_partial());
                            (result.summary.clone(), Some(result))
                        }
                        End::ForEach => of_summary(run.for_each(|_| sleep(millis(3))).await),
                        End::TryForEach => {
                            let take = |_| {
                                let fails = seen.replace_with(|seen| *seen + 1) == sink_fails_at;
                                async move { if fails { Err("full") } else { Ok(()) } }
                            };
                            of_summary(run.try_for_each(take).await)
                        }
                        End::Stream => {
                            let mut stream = run.stream();
                            let mut failed = None;
                            while let Some(outcome) = stream.next().await {
                                failed = outcome.err();
                            }
                            of_summary(failed.map_or_else(|| Ok(stream.summary().unwrap().clone()), Err))
                        }
                    }
                }};
            }
            let run = async { if parallel { end!(run.parallel()) } else { end!(run) } };
            let request = async {
                sleep(millis(after)).await;
                match cause {
                    Cause::Cancelled => cancel.cancel(),
                    Cause::Drained => drain.cancel(),
                    Cause::TimedOut | Cause::Failures => {}
                }
            };
            let ((summary, result), ()): (Account, ()) = tokio::join!(run, request);
            let (back, begun, pulled) = (back.lock().unwrap(), begun.lock().unwrap(), pulled.load(SeqCst));
            assert_eq!(summary.successes + summary.failures + back.len(), pulled, "{summary}: {back:?}");
            assert!(back.is_sorted_by(|(one, ..), (next, ..)| one < next), "{back:?}");
            for (index, (of_source, _), attempts) in back.iter() {
                assert_eq!((index, *attempts), (of_source, begun[*index]));
                let state = if *attempts > 0 { ItemState::Cancelled } else { ItemState::NotStarted };
                assert!(result.as_ref().is_none_or(|result| result.state(*index) == state), "{back:?}");
            }
            if let Some(result) = result {
                let unfinished = result.unfinished().filter(|index| *index < pulled);
                assert!(unfinished.eq(back.iter().map(|(index, ..)| *index)), "{back:?}");
            }
        });
    }
}
