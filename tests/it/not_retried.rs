//! The reason why a failed item was not tried again: in the result, the outcomes and the events.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, Event, ItemContext, Limiter, NotRetried, RetryBudget,
};
use futures::StreamExt;
use tokio::time::sleep;

use crate::support::{after, cancelled_after, lenient, retrying, secs};

type Reasons = BTreeMap<usize, NotRetried>;

/// Notes the reasons that the events have.
fn noting(builder: AsyncMapTaskBuilder) -> (AsyncMapTask, Arc<Mutex<Reasons>>) {
    let reasons = Arc::<Mutex<Reasons>>::default();
    let notes = Arc::clone(&reasons);
    let note = move |event: &Event<'_>| {
        if let Event::ItemSettled { index, failure, not_retried, .. } = *event {
            assert_eq!(failure.is_some(), not_retried.is_some(), "item {index}");
            notes.lock().unwrap().extend(not_retried.map(|why| (index, why)));
        }
    };
    (builder.observer(note).build().unwrap(), reasons)
}

/// Awaits a run, and compares the reasons of its result with those of its events and with these.
macro_rules! assert_reasons {
    ($builder:expr, |$task:ident| $run:expr, $expected:expr) => {{
        let ($task, noted) = noting($builder);
        let result = $run.await.unwrap();
        let found: Reasons =
            (0..result.total()).filter_map(|index| Some((index, result.not_retried(index)?))).collect();
        assert_eq!(found, BTreeMap::from($expected));
        assert_eq!(found.keys().collect::<Vec<_>>(), result.errors.keys().collect::<Vec<_>>());
        assert_eq!(*noted.lock().unwrap(), found, "the events");
    }};
}

async fn fail(cx: ItemContext, kind: &'static str) -> Result<u32, &'static str> {
    match kind {
        "panics" => panic!("as asked"),
        "hangs" => pending().await,
        "fails once" if cx.attempt() > 1 => Ok(1),
        "succeeds" => Ok(0),
        kind => Err(kind),
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_has_the_reason_for_its_end() {
    use NotRetried::{NoRetriesLeft, NotRetryable};
    let items = ["succeeds", "fails", "refused", "panics", "hangs", "fails once"];
    let timed = || retrying(8).timeout_per_attempt(secs(5));
    assert_reasons!(
        timed(),
        |task| task.over(items).map_with_context(fail).retry_if(|error| *error != "refused"),
        [(1, NoRetriesLeft), (2, NotRetryable), (3, NotRetryable), (4, NoRetriesLeft)]
    );
    assert_reasons!(
        timed().retry_timeouts(false),
        |task| task.over(items).map_with_context(fail).parallel(),
        [(1, NoRetriesLeft), (2, NoRetriesLeft), (3, NotRetryable), (4, NotRetryable)]
    );
    // Without retries, none is left, whatever `retry_if` says of the error.
    assert_reasons!(
        timed().retries(0),
        |task| task.over(items).map_with_context(fail).retry_if(|error| *error != "refused"),
        [(1, NoRetriesLeft), (2, NoRetriesLeft), (3, NoRetriesLeft), (4, NoRetriesLeft), (5, NoRetriesLeft)]
    );
}

#[tokio::test(start_paused = true)]
async fn time_limits_and_budgets_are_reasons() {
    use NotRetried::{RetryBudget as Budget, TimeLimit};
    // The delay of 10 s ends after the limit, and the attempt that hangs exceeds it.
    assert_reasons!(
        retrying(4).retry_delay(secs(10)).timeout_per_item(secs(5)),
        |task| task.over(["fails", "hangs"]).map_with_context(fail),
        [(0, TimeLimit), (1, TimeLimit)]
    );
    // The retry is due in time, and gets no permit.
    let limiter = Limiter::new(1);
    assert_reasons!(
        retrying(2).timeout_per_item(secs(5)).limiter(&limiter),
        |task| task
            .over([0, 1])
            .map(|n| async move { if n == 0 { Err("no") } else { Ok(after(secs(9), n).await) } }),
        [(0, TimeLimit), (1, TimeLimit)]
    );
    let budget = RetryBudget::builder().ratio(0.0).min_per_second(1).window(secs(1)).build().unwrap();
    assert_reasons!(
        retrying(1).retry_budget(&budget),
        |task| task.over(["fails once", "fails", "fails"]).map_with_context(fail),
        [(1, Budget), (2, Budget)]
    );
}

/// Whatever ends the run, an item with retries left is told apart from one that has failed for good.
#[tokio::test(start_paused = true)]
async fn a_run_that_stops_interrupts_and_final_failures_stay_final() {
    use NotRetried::{NoRetriesLeft, NotRetryable, Stopping};
    let slow = |cx: ItemContext, kind: &'static str| async move {
        sleep(secs(10)).await;
        fail(cx, kind).await
    };
    let items = ["fails", "refused", "panics", "succeeds", "fails"];
    let expected = [(0, Stopping), (1, NotRetryable), (2, NotRetryable), (4, Stopping)];
    let partial = || retrying(8).accept_partial(true).cancel_grace(secs(60));
    let is_retryable = |error: &&str| *error != "refused";
    let stopped = || cancelled_after(secs(1));
    assert_reasons!(
        partial(),
        |task| task.over(items).map_with_context(slow).retry_if(is_retryable).drain_token(stopped()),
        expected
    );
    let parallel = |task: &AsyncMapTask| task.over(items).map_with_context(slow).parallel();
    assert_reasons!(
        partial(),
        |task| parallel(&task).retry_if(is_retryable).cancellation_token(stopped()),
        expected
    );
    // Both attempts of the first item are made before the run is drained.
    assert_reasons!(
        partial().retry_delay(Duration::ZERO),
        |task| task.over(["fails"]).map_with_context(slow).drain_token(cancelled_after(secs(15))),
        [(0, NoRetriesLeft)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_batch_have_their_own_reasons() {
    use NotRetried::{NoRetriesLeft, NotRetryable, Stopping};
    let whole = |_: Vec<u32>| async { Err::<Vec<Result<u32, &str>>, _>("down") };
    let single = |batch: Vec<u32>| async move {
        sleep(secs(10)).await;
        Ok(batch.into_iter().map(|n| if n == 7 { Ok(n) } else { Err("bad") }).collect())
    };
    let batches = || lenient().concurrency(1);
    assert_reasons!(
        batches(),
        |task| task.over([1, 2]).map_batches(2, whole),
        [(0, NoRetriesLeft), (1, NoRetriesLeft)]
    );
    assert_reasons!(
        batches(),
        |task| task.over([1, 2]).map_batches(2, whole).split_failed(false),
        [(0, NoRetriesLeft), (1, NoRetriesLeft)]
    );
    assert_reasons!(
        batches().retries(3),
        |task| task.over([1, 2]).map_batches(2, whole).split_failed(false).retry_if(|_| false),
        [(0, NotRetryable), (1, NotRetryable)]
    );
    let short = |_: Vec<u32>| async { Ok::<_, &str>(vec![Ok(1)]) };
    assert_reasons!(
        batches().retries(3),
        |task| task.over([1, 2]).map_batches(2, short),
        [(0, NotRetryable), (1, NotRetryable)]
    );
    assert_reasons!(
        batches().retries(3).accept_partial(true),
        |task| task.over([7, 1]).map_batches(2, single).drain_token(cancelled_after(secs(1))),
        [(1, Stopping)]
    );
}

#[tokio::test(start_paused = true)]
async fn outcomes_have_the_reason() {
    use NotRetried::{NoRetriesLeft, NotRetryable};
    let task = retrying(2).build().unwrap();
    let items = ["succeeds", "fails", "refused"];
    let run = || task.over(items).map_with_context(fail).retry_if(|error| *error != "refused").ordered();
    let expected = [None, Some(NoRetriesLeft), Some(NotRetryable)];
    let mut found = Vec::new();
    let note = |outcome: async_map_task::ItemOutcome<u32, &'static str>| {
        found.push(outcome.not_retried);
        std::future::ready(())
    };
    run().for_each(note).await.unwrap();
    assert_eq!(found, expected);
    let streamed: Vec<_> = run().stream().map(|outcome| outcome.unwrap().not_retried).collect().await;
    assert_eq!(streamed, expected);
    for (why, word, text) in [
        (NoRetriesLeft, "no_retries_left", "no retries left"),
        (NotRetryable, "not_retryable", "not to be retried"),
        (NotRetried::TimeLimit, "time_limit", "no time left for a retry"),
        (NotRetried::RetryBudget, "retry_budget", "the retry budget was spent"),
        (NotRetried::Stopping, "stopping", "the run was stopping"),
    ] {
        assert_eq!((why.as_str(), why.to_string().as_str()), (word, text));
    }
}
