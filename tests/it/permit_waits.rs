//! The start of an attempt says how long it was ready and could not start.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, ItemContext, KeyedLimiter, Limiter};
use futures::{StreamExt, stream};
use tokio::time::sleep;

use crate::support::{after, at_once, lenient, millis, retrying, secs};

/// The index, the attempt and the seconds of the wait, for each start.
type Waits = Arc<Mutex<Vec<(usize, u32, u64)>>>;

/// Notes the waits of all attempts. Waits of a fraction of a second are a mistake.
fn noting(builder: AsyncMapTaskBuilder) -> (AsyncMapTask, Waits) {
    let waits = Waits::default();
    let notes = Arc::clone(&waits);
    let note = move |event: &Event<'_>| {
        if let Event::AttemptStarted { index, attempt, waited, .. } = *event {
            // Tokio's timers are late by up to a millisecond.
            let late = waited.subsec_millis();
            assert!(late < 5, "item {index} has waited for {waited:?}");
            notes.lock().unwrap().push((index, attempt, waited.as_secs()));
        }
    };
    (builder.observer(note).build().unwrap(), waits)
}

fn sorted(waits: &Waits) -> Vec<(usize, u32, u64)> {
    let mut waits = std::mem::take(&mut *waits.lock().unwrap());
    waits.sort_unstable();
    waits
}

/// Runs items that take these seconds, in the driver and in parallel, and returns the waits, which are the same.
async fn waits_of(builder: AsyncMapTaskBuilder, times: &[u64]) -> Vec<u64> {
    let (task, waits) = noting(builder);
    let work = |n: u64| after(secs(n), Ok::<_, &str>(n));
    let run = || task.over(times.to_vec()).map(work);
    run().await.unwrap();
    let found = sorted(&waits);
    run().parallel().await.unwrap();
    assert_eq!(sorted(&waits), found, "in parallel");
    found.into_iter().map(|(_, _, seconds)| seconds).collect()
}

#[tokio::test(start_paused = true)]
async fn an_item_that_was_not_pulled_does_not_wait() {
    assert_eq!(waits_of(at_once(2), &[5; 20]).await, [0; 20]);
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_waits_for_a_limiter() {
    // One runs at a time. The next one has been pulled, because the run itself has room for two.
    let limiter = Limiter::new(1);
    assert_eq!(waits_of(at_once(2).limiter(&limiter), &[3, 2, 1, 4, 1]).await, [0, 3, 2, 1, 4]);
    // Another holder of the permit.
    let permit = limiter.acquire().await.unwrap();
    let (task, waits) = noting(at_once(2).limiter(&limiter));
    let run = task.over([1_u64; 2]).map(|n| after(secs(n), Ok::<_, &str>(n))).spawn();
    sleep(secs(7)).await;
    drop(permit);
    run.await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 7), (1, 1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_waits_for_a_rate_and_a_hold() {
    let every_second = Limiter::builder().rate(1, secs(1)).build().unwrap();
    let (task, waits) = noting(at_once(4).limiter(&every_second));
    task.over(0..4).map(|n| async move { Ok::<_, &str>(n) }).await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 1)]);

    // Item 0 holds all others back for 6 s when it ends.
    let (task, waits) = noting(lenient().concurrency(1));
    let call = |n: u64| async move { if n == 0 { Err(6) } else { Ok(after(secs(n), n).await) } };
    task.over([0, 1, 1]).map(call).hold_back(|seconds| Some(secs(*seconds))).await.unwrap();
    assert_eq!(sorted(&waits)[..2], [(0, 1, 0), (1, 1, 6)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_its_key() {
    let keys = KeyedLimiter::<u64>::new(1);
    let (task, waits) = noting(at_once(4));
    let run = |keys: &KeyedLimiter<u64>| {
        task.over([1_u64, 1, 2, 1]).map(|n| after(secs(2), Ok::<_, &str>(n))).limit_per(|n| *n, keys)
    };
    let expected = [(0, 1, 0), (1, 1, 2), (2, 1, 0), (3, 1, 4)];
    run(&keys).await.unwrap();
    assert_eq!(sorted(&waits), expected);
    run(&keys).parallel().await.unwrap();
    assert_eq!(sorted(&waits), expected, "in parallel");
    // There is room for one key at a time.
    let keys = KeyedLimiter::builder().permits(1).max_keys(1).build().unwrap();
    run(&keys).await.unwrap();
    let found = sorted(&waits);
    let second_key = found.iter().find(|(index, ..)| *index == 2).unwrap();
    assert!(second_key.2 >= 2, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_its_weight() {
    let (task, waits) = noting(at_once(4));
    let run = task.over([3_u64, 2, 1]).map(|n| after(secs(n), Ok::<_, &str>(n)));
    run.weight(|n| u32::try_from(*n).unwrap()).await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 0), (1, 1, 3), (2, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_from_the_end_of_its_delay() {
    for (delay, waited) in [(secs(1), 4), (Duration::ZERO, 5), (secs(10), 0)] {
        let (task, waits) = noting(retrying(1).retry_delay(delay));
        // Item 0 fails at once. Then item 1 has the only permit for 5 s.
        let call = |cx: ItemContext, n: u64| async move {
            if n == 0 && cx.attempt() == 1 { Err("once") } else { Ok(after(secs(n), n).await) }
        };
        task.over([0, 5]).map_with_context(call).await.unwrap();
        assert_eq!(sorted(&waits), [(0, 1, 0), (0, 2, waited), (1, 1, 0)], "{delay:?}");
    }
}

/// The items that join a call were not held up by it.
#[tokio::test(start_paused = true)]
async fn a_call_waits_and_what_joins_it_does_not() {
    let every_second = Limiter::builder().rate(1, secs(3)).build().unwrap();
    let (task, waits) = noting(at_once(2).limiter(&every_second));
    let call = |batch: Vec<u64>| async move { Ok(batch.into_iter().map(Ok::<_, &str>).collect()) };
    task.over([1; 4]).map_batches(2, call).await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 0), (1, 1, 0), (2, 1, 3), (3, 1, 0)]);

    // The retries of both items are due a second after the first call, and share the next one.
    let every_third_second = Limiter::builder().rate(1, secs(3)).build().unwrap();
    let (task, waits) = noting(retrying(2).limiter(&every_third_second));
    let calls = AtomicUsize::new(0);
    let run = task.over([1, 2]).map_batches(2, |batch: Vec<u64>| {
        let is_first = calls.fetch_add(1, Relaxed) == 0;
        async move { Ok(batch.into_iter().map(|n| if is_first { Err("once") } else { Ok(n) }).collect()) }
    });
    run.await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 0), (0, 2, 2), (1, 1, 0), (1, 2, 2)]);
}

/// An attempt that was taken back keeps the time since when it waits.
#[tokio::test(start_paused = true)]
async fn a_pause_does_not_end_a_wait() {
    let limiter = Limiter::new(1);
    let (task, waits) = noting(at_once(2).limiter(&limiter));
    let run = task.over([10_u64, 1]).map(|n| after(secs(n), Ok::<_, &str>(n))).spawn();
    sleep(secs(2)).await;
    run.pause();
    sleep(secs(4)).await;
    run.resume();
    run.await.unwrap();
    assert_eq!(sorted(&waits), [(0, 1, 0), (1, 1, 10)]);
}

#[tokio::test(start_paused = true)]
async fn waits_of_a_stream_end_with_its_permits_too() {
    // The consumer takes an outcome every 3 s: nothing is pulled meanwhile, so nothing waits.
    let (task, waits) = noting(at_once(1));
    let mut outcomes =
        Box::pin(task.over_stream(stream::iter(0..4)).map(|n| after(millis(1), Ok::<_, &str>(n))).stream());
    while let Some(outcome) = outcomes.next().await {
        outcome.unwrap().result.unwrap();
        sleep(secs(3)).await;
    }
    assert!(sorted(&waits).iter().all(|(_, _, seconds)| *seconds == 0));
}
