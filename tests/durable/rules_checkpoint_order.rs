//! Rule 8 of durable runs: states are saved in the order of the calls, even if an attempt does not poll its call.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_map_task::store::{PostgresStore, Store, StoreError};
use async_map_task::{AsyncMapTask, BoxError, Checkpoint};
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use crate::cluster;
use crate::rigged::{Call, Rigged, Step};
use crate::support::{at_once, in_time, lenient, poll_times, secs};

/// Polls a future once, and drops it or leaves it as it is.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// The first save waits for a permit; everything else is done.
fn first_save_waits(
    store: &Rigged,
    step: impl Fn(Arc<Semaphore>) -> Step + Send + 'static,
) -> Arc<Semaphore> {
    let latch = Arc::new(Semaphore::new(0));
    let (permit, saves) = (Arc::clone(&latch), AtomicUsize::new(0));
    store.rig(move |call| {
        let is_first = call == Call::SaveCheckpoint && saves.fetch_add(1, SeqCst) == 0;
        if is_first { step(Arc::clone(&permit)) } else { Step::Go }
    });
    latch
}

async fn state(store: &Rigged, item: u64) -> Option<String> {
    let runs = store.memory.successes("r", 0, 9).await.unwrap();
    let known = runs.iter().find(|record| record.index == item).map(|record| record.item_hash.clone());
    let hash = known.unwrap_or_else(|| hash_of_seven().to_owned());
    store.memory.checkpoint("r", item, &hash).await.unwrap().map(|state| state.json)
}

/// The hash of the item `7_u64`.
fn hash_of_seven() -> &'static str {
    "2-49cbfd83f1bf713f80d2d397dac98d4b3cf7d7ce1fea05dfdd912693f2290a22"
}

/// A store that has begun to save does not wait for the attempt.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_save_that_is_not_polled_completes() {
    let store = Rigged::willing();
    let latch = first_save_waits(&store, Step::After);
    let rigged = store.clone();
    let task = at_once(1).build().unwrap();
    let run = task.over([7_u64]).map_with_context(move |cx, n| {
        let (rigged, latch) = (rigged.clone(), Arc::clone(&latch));
        async move {
            let checkpoint = cx.checkpoint();
            let mut save = pin!(checkpoint.save(&1_u64));
            assert!(poll_once(save.as_mut()).await.is_pending());
            latch.add_permits(1);
            let made = async {
                while state(&rigged, 0).await.is_none() {
                    sleep(secs(1)).await;
                }
            };
            timeout(secs(60), made).await.map_err(|_| "the save waits for its caller")?;
            save.await.map_err(|_| "not saved")?;
            Ok::<_, &str>(n)
        }
    });
    let result = in_time(run.recover(&store, "r")).await;
    assert_eq!(result.unwrap().results, [Some(7)]);
}

/// The store continues a call that was dropped, like one that has sent the call to a server.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_dropped_save_does_not_overtake_a_later_one() {
    let store = Rigged::willing();
    let latch = first_save_waits(&store, Step::Later);
    let task = lenient(1).build().unwrap();
    let run = task.over([7_u64]).map_with_context(move |cx, _| {
        let latch = Arc::clone(&latch);
        async move {
            let checkpoint = cx.checkpoint();
            // The first has reached the store when it is dropped; the second is not requested any more.
            for abandoned in [1_u64, 2] {
                let _ = timeout(secs(1), checkpoint.save(&abandoned)).await;
            }
            let mut save = pin!(checkpoint.save(&3_u64));
            let mut saved = poll_once(save.as_mut()).await;
            latch.add_permits(1);
            if saved.is_pending() {
                saved = Poll::Ready(save.await);
            }
            sleep(secs(1)).await;
            let loaded = checkpoint.load::<u64>().await?;
            Err::<u64, BoxError>(format!("{saved:?}, then {loaded:?}").into())
        }
    });
    let result = in_time(run.recover(&store, "r")).await.unwrap();
    let told = result.errors[&0].to_string();
    assert!(told.ends_with("Ready(Ok(())), then Some(3)"), "{told}");
    assert_eq!(store.count(Call::SaveCheckpoint), 2, "a save that nobody wants any more is not made");
}

/// A later attempt finds the state that an earlier one has saved, although the earlier one was stopped meanwhile.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_load_waits_for_the_save_before_it() {
    let store = Rigged::willing();
    let latch = first_save_waits(&store, Step::Later);
    let task = lenient(1).retries(1).retry_delay(secs(0)).timeout_per_attempt(secs(5)).build().unwrap();
    let run = task.over([7_u64]).map_with_context(move |cx, _| {
        let latch = Arc::clone(&latch);
        async move {
            let checkpoint = cx.checkpoint();
            if cx.attempt() == 1 {
                checkpoint.save(&1_u64).await?;
            }
            let mut load = pin!(checkpoint.load::<u64>());
            let polled = poll_once(load.as_mut()).await;
            latch.add_permits(1);
            match polled {
                Poll::Ready(loaded) => loaded,
                Poll::Pending => load.await,
            }
        }
    });
    let result = in_time(run.recover(&store, "r")).await.unwrap();
    assert_eq!(result.results, [Some(Some(1))]);
}

/// A success deletes the state, even if its own attempt has left a save in progress.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_success_deletes_a_dropped_save() {
    let store = Rigged::willing();
    let latch = first_save_waits(&store, Step::Later);
    let task = at_once(2).build().unwrap();
    let run = task.over([7_u64, 8]).map_with_context(move |cx, n| {
        let latch = Arc::clone(&latch);
        async move {
            if n == 7 {
                let checkpoint = cx.checkpoint();
                assert!(timeout(secs(1), checkpoint.save(&1_u64)).await.is_err());
            } else {
                // The run continues until the save could have come.
                sleep(secs(5)).await;
                latch.add_permits(1);
                sleep(secs(5)).await;
            }
            Ok::<_, String>(n)
        }
    });
    assert_eq!(in_time(run.recover(&store, "r")).await.unwrap().successes(), 2);
    assert_eq!((state(&store, 0).await, store.count(Call::SaveCheckpoint)), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_checkpoint_of_an_ended_run_is_an_error() {
    let store = Rigged::willing();
    let kept: Arc<Mutex<Option<Checkpoint>>> = Arc::default();
    let task = at_once(1).build().unwrap();
    let run = task.over([7_u64]).map_with_context(|cx, n| {
        *kept.lock().unwrap() = Some(cx.checkpoint());
        async move { Ok::<_, String>(n) }
    });
    in_time(run.recover(&store, "r")).await.unwrap();
    let checkpoint = kept.lock().unwrap().take().unwrap();
    let errors = [checkpoint.save(&1_u64).await.unwrap_err(), checkpoint.load::<u64>().await.unwrap_err()];
    for error in errors {
        assert!(matches!(error, StoreError::LeaseLost { .. }), "{error}");
        assert!(error.to_string().ends_with("the run has ended, or its lease was released"), "{error}");
    }
}

/// Attempts that stop in the middle of a read of PostgreSQL, at each step of it, withhold no connection from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_rule_8_a_load_that_is_not_polled_keeps_no_connection() {
    const ATTEMPTS: usize = 64;
    let store = PostgresStore::connect(&cluster::shared().database().await).await.unwrap();
    let (stopped, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let task = AsyncMapTask::builder().name("stopped").concurrency(ATTEMPTS).build().unwrap();
    let run = task.over(0..ATTEMPTS).map_with_context({
        let (stopped, go_on) = (Arc::clone(&stopped), Arc::clone(&go_on));
        move |cx, n| {
            let (stopped, go_on) = (Arc::clone(&stopped), Arc::clone(&go_on));
            async move {
                let checkpoint = cx.checkpoint();
                let mut load = Box::pin(checkpoint.load::<u64>());
                let woken = Arc::default();
                let loaded = poll_times(load.as_mut(), n % 4 + 1, &woken).await;
                if loaded.is_none() {
                    woken.0.notified().await;
                }
                let mut resumed = pin!(go_on.notified());
                resumed.as_mut().enable();
                stopped.add_permits(1);
                resumed.await;
                match loaded {
                    Some(loaded) => loaded,
                    None => load.await,
                }
            }
        }
    });
    let run = run.recover(&store, "r").spawn();
    let others = async {
        stopped.acquire_many(ATTEMPTS as u32).await.unwrap().forget();
        for _ in 0..10 {
            store.run("r").await.unwrap();
            store.evict("nothing", None).await.unwrap();
        }
    };
    timeout(secs(20), others).await.expect("the attempts keep the connections from all others");
    go_on.notify_waiters();
    assert_eq!(run.await.unwrap().results, vec![Some(None); ATTEMPTS]);
}

/// A test of the helper: `poll_times` polls exactly as often as requested.
#[tokio::test]
async fn poll_times_polls_exactly_so_often() {
    let polls = AtomicUsize::new(0);
    let mut endless = pin!(poll_fn(|cx| {
        polls.fetch_add(1, SeqCst);
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    assert_eq!(poll_times(endless.as_mut(), 3, &Arc::default()).now_or_never(), Some(None));
    assert_eq!(polls.load(SeqCst), 3);
}
