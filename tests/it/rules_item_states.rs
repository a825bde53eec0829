//! Rule 34: the state of each item at the end of a run.

use std::future::pending;

use async_map_task::{AsyncMapTask, ItemState, MapTaskResult};
use proptest::prelude::*;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::support::{at_once, cases, millis, paused, secs};

/// Checks that the states of all items agree with the counts. Returns the states.
pub(crate) fn states<T, E>(result: &MapTaskResult<T, E>) -> Vec<ItemState> {
    let states: Vec<_> = (0..result.total()).map(|index| result.state(index)).collect();
    let count = |state| states.iter().filter(|other| **other == state).count();
    assert_eq!(
        [ItemState::Succeeded, ItemState::Failed, ItemState::Cancelled, ItemState::NotStarted].map(count),
        [result.successes(), result.failures(), result.cancelled(), result.not_started()],
        "{states:?}: {}",
        result.summary
    );
    let unfinished = states.iter().enumerate().filter_map(|(index, state)| {
        matches!(state, ItemState::Cancelled | ItemState::NotStarted).then_some(index)
    });
    assert!(result.unfinished().eq(unfinished));
    states
}

#[tokio::test(start_paused = true)]
async fn rule_34_each_item_has_a_state() {
    use ItemState::{Cancelled, Failed, NotStarted, Succeeded};
    let error = at_once(2)
        .fail_fast(true)
        .build()
        .unwrap()
        .over(0..5)
        .map(|n| async move {
            match n {
                0 => Ok(n),
                1 => pending().await,
                _ => Err("no"),
            }
        })
        .await
        .unwrap_err();
    let partial = error.partial();
    assert_eq!(states(partial), [Succeeded, Cancelled, Failed, NotStarted, NotStarted]);
    assert_eq!(partial.state(5), NotStarted, "there is no such item");
    assert_eq!(partial.unfinished().collect::<Vec<_>>(), [1, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn rule_34_a_pulled_item_without_a_permit_has_not_started() {
    let token = CancellationToken::new();
    let stop = &token;
    let error = at_once(4)
        .build()
        .unwrap()
        .over([3, 1, 4, 1])
        .map(|weight| async move {
            if weight == 1 {
                yield_now().await;
                stop.cancel();
            }
            pending::<Result<(), ()>>().await
        })
        .weight(|weight| *weight)
        .cancellation_token(token.clone())
        .await
        .unwrap_err();
    use ItemState::{Cancelled, NotStarted};
    assert_eq!(states(error.partial()), [Cancelled, Cancelled, NotStarted, NotStarted]);
}

#[tokio::test(start_paused = true)]
async fn rule_34_an_item_that_waits_for_its_retry_was_cancelled() {
    let task = at_once(1)
        .retries(1)
        .retry_delay(secs(9))
        .retry_jitter(0.0)
        .run_timeout(secs(5))
        .cancel_grace(secs(1));
    let error = task
        .build()
        .unwrap()
        .over([0, 1])
        .map(|n| async move { if n == 0 { Err("again") } else { pending().await } })
        .await
        .unwrap_err();
    let _: &MapTaskResult<(), &str> = error.partial();
    // The retry would come after the time limit of the run, so the item has failed.
    assert_eq!(states(error.partial())[0], ItemState::Failed);
}

/// The behaviour of an item: the number of failing attempts, the time of each, and its end.
#[derive(Debug, Clone)]
struct Plan {
    failures: u32,
    millis: u64,
    panics: bool,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0..3_u32, 0..40_u64, prop::bool::weighted(0.1)).prop_map(|(failures, millis, panics)| Plan {
        failures,
        millis,
        panics,
    });
    prop::collection::vec(plan, 0..24)
}

proptest! {
    // `STATES=25000` makes 100,000 of them.
    #![proptest_config(ProptestConfig { cases: cases("STATES", 500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rule_34_states_agree_with_the_counts(
        plans in plans(),
        concurrency in 1..6_usize,
        end in 0..4_usize,
        after in 0..120_u64,
        ratio in 0..=10_u32,
        parallel in any::<bool>(),
    ) {
        paused().block_on(async {
            let mut task = AsyncMapTask::builder()
                .concurrency(concurrency)
                .retries(2)
                .retry_delay(millis(15))
                .min_success_ratio(f64::from(ratio) / 10.0);
            if end == 3 {
                task = task.run_timeout(millis(after + 1));
            }
            let (cancel, drain) = (CancellationToken::new(), CancellationToken::new());
            let run = task
                .build()
                .unwrap()
                .over(plans)
                .map_with_context(|cx, plan: Plan| async move {
                    tokio::time::sleep(millis(plan.millis)).await;
                    assert!(!plan.panics, "as planned");
                    if cx.attempt() <= plan.failures { Err("not yet") } else { Ok(cx.index()) }
                })
                .cancellation_token(cancel.clone())
                .drain_token(drain.clone());
            let run = async {
                let ended = if parallel { run.parallel().await } else { run.await };
                ended.unwrap_or_else(|error| error.into_partial())
            };
            let request = async {
                tokio::time::sleep(millis(after)).await;
                match end {
                    0 => cancel.cancel(),
                    1 => drain.cancel(),
                    _ => {}
                }
            };
            let (result, ()) = tokio::join!(run, request);
            states(&result);
        });
    }
}
