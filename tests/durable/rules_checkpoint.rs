//! Rule 8 of durable runs: an item continues from the last saved state.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::store::{Checksummed, MemoryStore, Store, StoreError};
use async_map_task::{AsyncMapTask, BoxError, Cache, ItemContext, Recovery};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rigged::{Call, Rigged, Step};
use crate::support::{End, HOUR, Plan, at_once, ended_by_store, in_time, lenient, millis, secs};

/// The state that each attempt found, in that order: the number, the attempt, and the state.
type Found = Arc<Mutex<Vec<(u64, u32, Option<u64>)>>>;

/// Counts up to ten in its checkpoint, a second each, and fails at the given steps: each attempt gets that much
/// further.
fn counting(task: &AsyncMapTask, store: &Rigged, found: &Found, steps: u64) -> Plan {
    let found = Arc::clone(found);
    Plan::new(task, store, move |cx: ItemContext, n| {
        let found = Arc::clone(&found);
        async move {
            let checkpoint = cx.checkpoint();
            let state = checkpoint.load().await.map_err(|_| "cannot load")?;
            found.lock().unwrap().push((n, cx.attempt(), state));
            let from: u64 = state.unwrap_or_default();
            for step in from..10 {
                if step == from + steps {
                    return Err("far enough");
                }
                sleep(secs(1)).await;
                checkpoint.save(&(step + 1)).await.map_err(|_| "cannot save")?;
            }
            Ok(n)
        }
    })
}

fn take(found: &Found) -> Vec<(u64, u32, Option<u64>)> {
    std::mem::take(&mut *found.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn durable_rule_8_later_attempts_and_runs_load_the_last_state() {
    for end in End::all() {
        let (store, found) = (Rigged::willing(), Found::default());
        let task = lenient(1).retries(1).build().unwrap();
        for expected in [
            vec![(7, 1, None), (7, 2, Some(3))],
            vec![(7, 1, Some(6)), (7, 2, Some(9))],
            // It has succeeded: there is no state any more, and nothing runs.
            vec![],
        ] {
            let report = counting(&task, &store, &found, 3).recover("r").run([7], end).await;
            assert_eq!((take(&found), report.reason), (expected, None), "{end:?}");
        }
        let info = store.run("r").await.unwrap().unwrap();
        assert_eq!((info.succeeded, info.failed), (1, 0), "{end:?}");
    }
}

/// Every end of an attempt or a run: an error, a panic, a timeout, a cancelled or a dropped run.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_the_state_survives_every_end_of_an_attempt() {
    for end in End::all() {
        for how in ["panic", "timeout", "cancel", "drop", "lease"] {
            let (store, found, token) = (Rigged::willing(), Found::default(), CancellationToken::new());
            let builder =
                if how == "timeout" { lenient(1).timeout_per_attempt(millis(4_500)) } else { lenient(1) };
            let task = builder.build().unwrap();
            let recovery = || Recovery::run("r").lease(secs(20));
            if how == "panic" {
                let panics = Plan::new(&task, &store, |cx, _| async move {
                    cx.checkpoint().save(&4_u64).await.unwrap();
                    panic!("at its worst")
                });
                panics.recover("r").run([7], end).await;
            } else {
                let plan = counting(&task, &store, &found, 10).recover(recovery()).token(&token);
                let run = tokio::spawn(plan.run([7], end));
                sleep(millis(4_400)).await;
                match how {
                    "cancel" => token.cancel(),
                    // A spawned run continues when its handle is dropped, so it is stopped as well.
                    "drop" => {
                        run.abort();
                        token.cancel();
                    }
                    _ => {}
                }
                if how == "lease" {
                    store.rig(|call| if call == Call::RenewRun { Step::Fail } else { Step::Go });
                    token.cancel();
                }
                let _ = run.await;
                sleep(millis(1)).await;
            }
            store.rig(|_| Step::Go);
            take(&found);
            let task = lenient(1).build().unwrap();
            let report = counting(&task, &store, &found, 10).recover(recovery()).run([7], end).await;
            assert_eq!(take(&found), [(7, 1, Some(4))], "{end:?}, {how}");
            assert_eq!(report.summary.successes, 1, "{end:?}, {how}");
        }
    }
}

/// Attempts and runs in between that save nothing lose nothing.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_an_attempt_without_a_save_keeps_the_state() {
    for end in End::all() {
        let (store, found) = (Rigged::willing(), Found::default());
        let task = lenient(1).retries(2).build().unwrap();
        counting(&task, &store, &found, 2).recover("r").run([7], end).await;
        // It saves nothing, and the next two do not even load.
        counting(&task, &store, &found, 0).recover("r").run([7], end).await;
        let blind = Plan::new(&task, &store, |_, _| async { Err("no") });
        blind.clone().recover("r").run([7], end).await;
        blind.recover("r").run([7], end).await;
        take(&found);
        counting(&task, &store, &found, 10).recover("r").run([7], end).await;
        assert_eq!(take(&found), [(7, 1, Some(6))], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_changed_item_has_no_state() {
    for end in End::all() {
        let (store, found) = (Rigged::willing(), Found::default());
        let task = lenient(8).build().unwrap();
        // Equal items are different ones, because of their index.
        counting(&task, &store, &found, 3).recover("r").run([1, 2, 2, 4], end).await;
        counting(&task, &store, &found, 2).recover("other").run([1, 2, 2, 4], end).await;
        take(&found);
        counting(&task, &store, &found, 1).recover("r").run([1, 22, 2, 4], end).await;
        let mut states = take(&found);
        states.sort_unstable();
        assert_eq!(states, [(1, 1, Some(3)), (2, 1, Some(3)), (4, 1, Some(3)), (22, 1, None)], "{end:?}");
        // An item that was changed back also starts anew: its state was replaced.
        counting(&task, &store, &found, 1).recover("r").run([1, 2, 2], end).await;
        let mut states = take(&found);
        states.sort_unstable();
        assert_eq!(states, [(1, 1, Some(4)), (2, 1, None), (2, 1, Some(4))], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_success_deletes_the_state() {
    for end in End::all() {
        let (store, found) = (Rigged::willing(), Found::default());
        let task = lenient(2).build().unwrap();
        counting(&task, &store, &found, 10).recover("r").run([7, 8], end).await;
        assert_eq!(store.count(Call::SaveCheckpoint), 20);
        let records = store.successes("r", 0, 9).await.unwrap();
        for record in &records {
            let left = store.checkpoint("r", record.index, &record.item_hash).await.unwrap();
            assert_eq!(left, None, "{end:?}");
        }
        assert_eq!(records.len(), 2, "{end:?}");
        // An item that had succeeded, was changed, and then changed back, finds no state.
        take(&found);
        counting(&task, &store, &found, 0).recover("r").run([9, 9], end).await;
        counting(&task, &store, &found, 0).recover("other").run([7, 8], end).await;
        assert!(take(&found).iter().all(|(_, _, state)| state.is_none()), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_checkpoint_without_recover_is_an_error() {
    let store = MemoryStore::new();
    let task = at_once(1).build().unwrap();
    let saw = |cx: ItemContext, n: u64| async move {
        let checkpoint = cx.checkpoint();
        let loaded = checkpoint.load::<u64>().await.unwrap_err();
        let saved = checkpoint.save(&n).await.unwrap_err();
        assert!(matches!((&loaded, &saved), (StoreError::NotKept, StoreError::NotKept)));
        Ok::<_, BoxError>(format!("{loaded}"))
    };
    let plain = task.over([7]).map_with_context(saw).await.unwrap();
    assert_eq!(plain.results, [Some("a checkpoint requires a run with recover()".to_owned())]);
    let cached = task.over([7]).map_with_context(saw).cache(&store, Cache::version("1")).await.unwrap();
    assert_eq!(cached.results, plain.results);
}

/// A holder that has lost its run does not change the state that its successor has saved.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_lost_lease_prevents_saves() {
    let store = Rigged::willing();
    let memory = store.memory.clone();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let task = at_once(1).build().unwrap();
    let run = task.over([7_u64]).map_with_context(move |cx, n| {
        let (memory, count) = (memory.clone(), Arc::clone(&count));
        async move {
            cx.checkpoint().save(&"mine".to_owned()).await.unwrap();
            memory.forget("r").await.unwrap();
            memory.open_run("r", "test", "thief", HOUR).await.unwrap();
            let late = cx.checkpoint().save(&"mine".to_owned()).await.unwrap_err();
            assert!(matches!(late, StoreError::LeaseLost { .. }), "{late}");
            count.fetch_add(1, SeqCst);
            sleep(HOUR).await;
            Ok::<_, String>(n)
        }
    });
    let (partial, why) = ended_by_store(in_time(run.recover(&store, "r")).await);
    assert!(why.contains("no longer held"), "{why}");
    assert_eq!((refused.load(SeqCst), partial.cancelled()), (1, 1));
}

/// A save that is dropped in the middle leaves the new state or the one before.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_a_dropped_save_is_atomic() {
    for (step, expected) in [(Step::Hang, 1), (Step::Answer(Arc::new(Semaphore::new(0))), 2)] {
        let store = Rigged::willing();
        let task = lenient(1).build().unwrap();
        let rigged = store.clone();
        let run = task.over([7_u64]).map_with_context(move |cx, n| {
            let (rigged, step) = (rigged.clone(), step.clone());
            async move {
                cx.checkpoint().save(&1).await?;
                rigged.rig(move |call| if call == Call::SaveCheckpoint { step.clone() } else { Step::Go });
                let dropped = timeout(secs(1), cx.checkpoint().save(&2)).await;
                assert!(dropped.is_err());
                Err::<u64, BoxError>(format!("not {n}").into())
            }
        });
        in_time(run.recover(&store, "r")).await.unwrap();
        store.rig(|_| Step::Go);
        let run =
            task.over([7_u64]).map_with_context(|cx, _| async move { cx.checkpoint().load::<u64>().await });
        let result = in_time(run.recover(&store, "r")).await.unwrap();
        assert_eq!(result.results, [Some(Some(expected))]);
    }
}

/// `load` returns the error of a state that cannot be loaded; the item fails only if the function does.
#[tokio::test(start_paused = true)]
async fn durable_rule_8_load_fails_on_an_unreadable_state() {
    let store = Rigged::willing();
    let task = lenient(1).build().unwrap();
    let saved = Plan::new(&task, &store, |cx, _| async move {
        cx.checkpoint().save(&"a text".to_owned()).await.map_err(|_| "cannot save")?;
        Err("no")
    });
    saved.recover("r").run([7], End::all().next().unwrap()).await;
    let load = || {
        let run = task.over([7_u64]).map_with_context(|cx, _| async move {
            let text = cx.checkpoint().load::<String>().await.map_err(|error| error.to_string());
            let number = cx.checkpoint().load::<u64>().await.map_err(|error| error.to_string());
            Err::<(), _>(format!("{text:?} {number:?}"))
        });
        in_time(run.recover(&store, "r")).map(|ended| ended.unwrap().errors[&0].to_string())
    };
    let told = load().await;
    assert!(told.contains("Ok(Some(\"a text\"))") && told.contains("the state of item 0"), "{told}");

    let item_hash = "2-49cbfd83f1bf713f80d2d397dac98d4b3cf7d7ce1fea05dfdd912693f2290a22";
    let Checksummed { checksum, .. } = store.checkpoint("r", 0, item_hash).await.unwrap().unwrap();
    let damaged = Checksummed { json: "\"another\"".to_owned(), checksum };
    store.open_run("r", "test", "vandal", HOUR).await.unwrap();
    store.save_checkpoint("r", "vandal", 0, item_hash, &damaged).await.unwrap();
    store.close_run("r", "vandal", &async_map_task::store::RunStatus::Running).await.unwrap();
    let told = load().await;
    assert!(told.contains("the store is damaged") && !told.contains("another"), "{told}");
}
