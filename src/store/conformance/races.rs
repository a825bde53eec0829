//! Many concurrent callers that compete for one run or key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::store::{CacheKey, Claim, Store, StoreError};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{
    Broken, Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, fail, key, list_cases, lost, open,
    some, succeeded, successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        of_many_holders_that_open_a_run_one_has_it,
        of_many_holders_that_take_a_run_over_one_has_it,
        of_many_claims_one_is_granted,
        a_value_is_computed_once,
        calls_at_once_have_answers_of_their_own,
        of_many_that_save_only_the_holder_does,
        of_many_that_look_up_none_finds_an_expired_value,
        of_many_claims_each_has_its_holder_and_its_end,
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

/// A store that groups such calls must not mix them up. A third of the callers finds a value and has a run, a third finds a
/// claim and a run of another holder, and a third finds an expired claim.
async fn calls_at_once_have_answers_of_their_own<S: Store>(store: S) -> Checked {
    let value = |holder: &str| checksummed(&format!("{holder:?}"));
    let has_value = |holder: &str| holder.ends_with(['0', '1', '2']);
    let is_claimed = |holder: &str| holder.ends_with(['3', '4', '5']);
    for holder in (0..MANY).map(|number| format!("holder {number}")) {
        let key = key(&holder);
        let other_version = CacheKey { version: "4".to_owned(), ..key.clone() };
        store.put_cached(&other_version, &checksummed("0"), Some(HOUR)).await?;
        if has_value(&holder) {
            store.put_cached(&key, &value(&holder), Some(HOUR)).await?;
            store.open_run(&holder, "resize", &holder, HOUR).await?;
        } else if is_claimed(&holder) {
            store.claim(&key, "another", HOUR, false).await?;
            store.open_run(&holder, "resize", "another", HOUR).await?;
        } else {
            store.claim(&key, "another", EXPIRED, false).await?;
        }
    }
    store.claim(&key("other"), "another", HOUR, false).await?;
    let ended = at_once(&store, |store, holder| async move {
        let (key, found) = (key(&holder), has_value(&holder).then(|| value(&holder)));
        ensure_eq!(store.cached(&key).await?, found);
        match (store.claim(&key, &holder, HOUR, false).await?, found.clone()) {
            (Claim::Cached(cached), Some(found)) => ensure_eq!(cached, found),
            (Claim::Held { remaining }, None) if is_claimed(&holder) => {
                ensure!(remaining <= HOUR && remaining > HOUR / 2, "{remaining:?}");
            }
            (Claim::Granted, None) if !is_claimed(&holder) => {}
            (claim, _) => fail!("`{holder}` found {claim:?}"),
        }
        for state in [checksummed("0"), value(&holder)] {
            match store.save_checkpoint(&holder, &holder, 7, &holder, &state).await {
                Ok(()) if found.is_some() => {}
                saved => lost(saved, &holder, &holder)?,
            }
        }
        ensure_eq!(store.checkpoint(&holder, 7, &holder).await?, found);
        let (expiry, left) = if found.is_some() { (EXPIRED, None) } else { (HOUR, Some(value(&holder))) };
        store.put_cached(&key, &value(&holder), Some(expiry)).await?;
        ensure_eq!(store.cached(&key).await?, left);
        for place in ["the claim after the value", "the same claim again"] {
            ensure_eq!(store.claim(&key, "the next", HOUR, true).await?, Claim::Granted, "{place}");
        }
        Ok(())
    });
    ended.await.into_iter().collect::<Checked>()?;
    let other = store.claim(&key("other"), "the next", HOUR, true).await?;
    ensure!(matches!(other, Claim::Held { .. }), "found {other:?}, expected the claim of another holder");
    Ok(())
}

/// A store that saves several states at once must check the holder of each.
async fn of_many_that_save_only_the_holder_does<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let index = |caller: &str| caller.trim_start_matches("holder ").parse::<u64>().unwrap_or(u64::MAX);
    let ended = at_once(&store, |store, caller| async move {
        let index = index(&caller);
        let holder = if index % 2 == 0 { "a" } else { "b" };
        let saved = store.save_checkpoint("nightly", holder, index, "hash", &checksummed(&caller)).await;
        if holder == "a" { Ok(saved?) } else { lost(saved, "nightly", "b") }
    });
    ended.await.into_iter().collect::<Checked>()?;
    for caller in (0..MANY).map(|number| format!("holder {number}")) {
        let index = index(&caller);
        let expected = (index % 2 == 0).then(|| checksummed(&caller));
        ensure_eq!(store.checkpoint("nightly", index, "hash").await?, expected, "item {index}");
    }
    Ok(())
}

async fn of_many_that_look_up_none_finds_an_expired_value<S: Store>(store: S) -> Checked {
    store.put_cached(&key("kept"), &checksummed("1"), None).await?;
    store.put_cached(&key("new"), &checksummed("2"), Some(HOUR)).await?;
    // The last one: a store may delete an expired value when the next one is stored.
    store.put_cached(&key("old"), &checksummed("3"), Some(EXPIRED)).await?;
    let ended = at_once(&store, |store, _| async move {
        ensure_eq!(store.cached(&key("old")).await?, None);
        ensure_eq!(store.cached(&key("kept")).await?, Some(checksummed("1")));
        ensure_eq!(store.cached(&key("new")).await?, Some(checksummed("2")));
        ensure_eq!(store.cached(&key("old")).await?, None);
        Ok(())
    });
    ended.await.into_iter().collect::<Checked>()?;
    Ok(())
}

/// Each caller claims four keys, and stores a value of one of them. The others differ in one part of the key.
async fn of_many_claims_each_has_its_holder_and_its_end<S: Store>(store: S) -> Checked {
    let keys = |holder: &str| {
        let ended = key(holder);
        let of_task = CacheKey { task: "other".to_owned(), ..ended.clone() };
        let of_version = CacheKey { version: "4".to_owned(), ..ended.clone() };
        let of_item = key(&format!("other item of {holder}"));
        (ended, [of_task, of_version, of_item])
    };
    let ended = at_once(&store, |store, holder| async move {
        let (ended, others) = keys(&holder);
        for key in others.iter().chain([&ended]) {
            ensure_eq!(store.claim(key, &holder, HOUR, false).await?, Claim::Granted);
        }
        ensure!(!store.renew_claim(&ended, "another", HOUR).await?, "another holder has renewed the claim");
        ensure!(store.renew_claim(&ended, &holder, HOUR).await?, "`{holder}` does not have its claim");
        store.put_cached(&ended, &checksummed("1"), None).await?;
        Ok(())
    });
    ended.await.into_iter().collect::<Checked>()?;
    for holder in (0..MANY).map(|number| format!("holder {number}")) {
        let (ended, others) = keys(&holder);
        ensure!(!store.renew_claim(&ended, &holder, HOUR).await?, "the claim outlives the value");
        for key in others {
            ensure!(store.renew_claim(&key, &holder, HOUR).await?, "the value of {ended:?} ended {key:?}");
        }
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
