//! Many concurrent callers that compete for one run or key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::store::{Claim, Store, StoreError};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{
    Broken, Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, fail, key, list_cases, open, some,
    succeeded, successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        of_many_holders_that_open_a_run_one_has_it,
        of_many_holders_that_take_a_run_over_one_has_it,
        of_many_claims_one_is_granted,
        a_value_is_computed_once,
        readers_never_find_nothing_while_a_value_is_overwritten,
        nothing_comes_back_of_a_run_forgotten_amid_commits,
    ]
}

const MANY: usize = 64;

/// Runs `MANY` tasks that begin at once, each with a holder of its own, and returns their results.
async fn at_once<S: Store, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: &S,
    task: impl Fn(S, String) -> F,
) -> Vec<T> {
    let start = Arc::new(Barrier::new(MANY));
    let mut tasks = JoinSet::new();
    for number in 0..MANY {
        let (start, task) = (Arc::clone(&start), task(store.clone(), format!("holder {number}")));
        tasks.spawn(async move {
            start.wait().await;
            task.await
        });
    }
    tasks.join_all().await
}

async fn one_opens<S: Store>(store: &S) -> Checked {
    let opened = at_once(store, |store, holder| async move { (open(&store, &holder).await, holder) }).await;
    let winners: Vec<_> =
        opened.iter().filter(|(opened, _)| opened.is_ok()).map(|(_, holder)| holder).collect();
    let [winner] = winners[..] else { fail!("the holders {winners:?} acquired the run, expected one") };
    for (opened, _) in &opened {
        match opened {
            Ok(()) => {}
            Err(StoreError::Held { holder, .. }) => ensure_eq!(holder, winner),
            Err(error) => fail!("found {error}, expected that `{winner}` holds the run"),
        }
    }
    Ok(())
}

async fn of_many_holders_that_open_a_run_one_has_it<S: Store>(store: S) -> Checked {
    one_opens(&store).await?;
    Ok(())
}

async fn of_many_holders_that_take_a_run_over_one_has_it<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "dead", EXPIRED).await?;
    one_opens(&store).await?;
    Ok(())
}

async fn of_many_claims_one_is_granted<S: Store>(store: S) -> Checked {
    for before in ["nobody", "one that died"] {
        let key = key(before);
        if before != "nobody" {
            store.claim(&key, before, EXPIRED, false).await?;
        }
        let claims = at_once(&store, |store, holder| {
            let key = key.clone();
            async move { store.claim(&key, &holder, HOUR, false).await }
        })
        .await;
        let claims = claims.into_iter().collect::<Result<Vec<_>, _>>()?;
        let granted = claims.iter().filter(|claim| **claim == Claim::Granted).count();
        let held = claims.iter().filter(|claim| matches!(claim, Claim::Held { .. })).count();
        ensure_eq!((granted, held), (1, MANY - 1), "after {before}");
    }
    Ok(())
}

/// The caller with the claim computes. No claim is granted after the value was stored.
async fn a_value_is_computed_once<S: Store>(store: S) -> Checked {
    for round in 0..10 {
        let computed = Arc::new(AtomicU32::new(0));
        let key = key(&format!("item {round}"));
        let ended = at_once(&store, |store, holder| {
            let (computed, key) = (Arc::clone(&computed), key.clone());
            async move {
                loop {
                    match store.claim(&key, &holder, HOUR, false).await? {
                        Claim::Granted => {
                            computed.fetch_add(1, Ordering::Relaxed);
                            store.put_cached(&key, &checksummed("1"), None).await?;
                        }
                        Claim::Cached(value) => {
                            ensure_eq!(value, checksummed("1"));
                            return Ok(());
                        }
                        Claim::Held { .. } => tokio::task::yield_now().await,
                    }
                }
            }
        })
        .await;
        ended.into_iter().collect::<Checked>()?;
        ensure_eq!(computed.load(Ordering::Relaxed), 1, "round {round}");
    }
    Ok(())
}

async fn readers_never_find_nothing_while_a_value_is_overwritten<S: Store>(store: S) -> Checked {
    store.put_cached(&key("a"), &checksummed("0"), None).await?;
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        readers.spawn(async move {
            let mut last = 0;
            while last < 50 {
                let value = some(store.cached(&key("a")).await?, "the value, old or new")?;
                let Ok(value) = value.json.parse::<u32>() else {
                    fail!("found {value:?}, expected a number")
                };
                ensure!(value >= last, "found {value} after {last}");
                last = value;
                tokio::task::yield_now().await;
            }
            Checked::Ok(())
        });
    }
    for value in 1..=50 {
        ensure_eq!(store.claim(&key("a"), "a", HOUR, true).await?, Claim::Granted);
        store.put_cached(&key("a"), &checksummed(&value.to_string()), None).await?;
    }
    readers.join_all().await.into_iter().collect::<Checked>()?;
    Ok(())
}

async fn nothing_comes_back_of_a_run_forgotten_amid_commits<S: Store>(store: S) -> Checked {
    for round in 0..5 {
        open(&store, "a").await?;
        let committed = Arc::new(Barrier::new(5));
        let mut tasks = JoinSet::new();
        for number in 0..4_u64 {
            let (store, committed) = (store.clone(), Arc::clone(&committed));
            tasks.spawn(async move {
                // Runs until the run is forgotten.
                for batch in 0.. {
                    let first = 1_000_000 * number + 10 * batch;
                    let records: Vec<_> = (first..first + 10).map(|index| succeeded(index, "1")).collect();
                    match store.commit("nightly", "a", &records).await {
                        Ok(()) => {}
                        Err(StoreError::LeaseLost { .. }) => break,
                        Err(error) => return Err(Broken::from(error)),
                    }
                    if batch == 2 {
                        committed.wait().await;
                    }
                    // A store in memory never waits, and the other tasks must run, too.
                    tokio::task::yield_now().await;
                }
                Ok(())
            });
        }
        tokio::select! {
            biased;
            _leader = committed.wait() => {}
            ended = tasks.join_next() => fail!("a commit failed with {ended:?} before the run was forgotten"),
        }
        ensure!(store.forget("nightly").await?, "the run to forget does not exist");
        tasks.join_all().await.into_iter().collect::<Checked>()?;
        open(&store, "b").await?;
        ensure_eq!(successes(&store, "nightly").await?, [], "round {round}");
        ensure!(store.forget("nightly").await?, "the new run to forget does not exist");
    }
    Ok(())
}
