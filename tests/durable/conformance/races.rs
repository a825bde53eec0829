//! Many who want the same at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_map_task::store::{Claim, Store, StoreError};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{HOUR, OVER_AT_ONCE, key, open, sealed, succeeded, successes};

for_every_store![
    of_many_who_open_a_run_one_has_it,
    of_many_who_take_a_run_over_one_has_it,
    of_many_claims_one_is_granted,
    a_value_is_computed_once,
    readers_never_find_nothing_while_a_value_is_overwritten,
    nothing_comes_back_of_a_run_forgotten_amid_commits,
];

const MANY: usize = 64;

/// What `MANY` tasks get who all begin at once, each a holder of its own.
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

async fn one_opens<S: Store>(store: &S) {
    let opened = at_once(store, |store, holder| async move { (open(&store, &holder).await, holder) }).await;
    let winners: Vec<_> =
        opened.iter().filter(|(opened, _)| opened.is_ok()).map(|(_, holder)| holder).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for (opened, _) in &opened {
        match opened {
            Ok(()) => {}
            Err(StoreError::Held { holder, .. }) => assert_eq!(holder, winners[0]),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn of_many_who_open_a_run_one_has_it<S: Store>(store: S) {
    one_opens(&store).await;
}

async fn of_many_who_take_a_run_over_one_has_it<S: Store>(store: S) {
    store.open_run("nightly", "resize", "dead", OVER_AT_ONCE).await.unwrap();
    one_opens(&store).await;
}

async fn of_many_claims_one_is_granted<S: Store>(store: S) {
    for before in ["nobody", "one that died"] {
        let key = key(before);
        if before != "nobody" {
            store.claim(&key, before, OVER_AT_ONCE, false).await.unwrap();
        }
        let claims = at_once(&store, |store, holder| {
            let key = key.clone();
            async move { store.claim(&key, &holder, HOUR, false).await.unwrap() }
        })
        .await;
        let granted = claims.iter().filter(|claim| **claim == Claim::Granted).count();
        let held = claims.iter().filter(|claim| matches!(claim, Claim::Held { .. })).count();
        assert_eq!((granted, held), (1, MANY - 1), "after {before}");
    }
}

/// Whoever is granted the claim computes; nobody is granted one between the value's coming and its being seen.
async fn a_value_is_computed_once<S: Store>(store: S) {
    for round in 0..10 {
        let computed = Arc::new(AtomicU32::new(0));
        let key = key(&format!("item {round}"));
        at_once(&store, |store, holder| {
            let (computed, key) = (Arc::clone(&computed), key.clone());
            async move {
                loop {
                    match store.claim(&key, &holder, HOUR, false).await.unwrap() {
                        Claim::Granted => {
                            computed.fetch_add(1, Ordering::Relaxed);
                            store.put_cached(&key, &sealed("1"), None).await.unwrap();
                        }
                        Claim::Cached(value) => return assert_eq!(value, sealed("1")),
                        Claim::Held { .. } => tokio::task::yield_now().await,
                    }
                }
            }
        })
        .await;
        assert_eq!(computed.load(Ordering::Relaxed), 1, "round {round}");
    }
}

async fn readers_never_find_nothing_while_a_value_is_overwritten<S: Store>(store: S) {
    store.put_cached(&key("a"), &sealed("0"), None).await.unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        readers.spawn(async move {
            let mut last = 0;
            while last < 50 {
                let value = store.cached(&key("a")).await.unwrap().expect("there is always a value");
                let value: u32 = value.json.parse().unwrap();
                assert!(value >= last, "{value} after {last}");
                last = value;
            }
        });
    }
    for value in 1..=50 {
        assert_eq!(store.claim(&key("a"), "a", HOUR, true).await.unwrap(), Claim::Granted);
        store.put_cached(&key("a"), &sealed(&value.to_string()), None).await.unwrap();
    }
    readers.join_all().await;
}

async fn nothing_comes_back_of_a_run_forgotten_amid_commits<S: Store>(store: S) {
    for round in 0..5 {
        open(&store, "a").await.unwrap();
        let committed = Arc::new(Barrier::new(5));
        let mut tasks = JoinSet::new();
        for number in 0..4_u64 {
            let (store, committed) = (store.clone(), Arc::clone(&committed));
            tasks.spawn(async move {
                // Until it is forgotten, which it is for sure.
                for batch in 0.. {
                    let first = 1_000_000 * number + 10 * batch;
                    let records: Vec<_> = (first..first + 10).map(|index| succeeded(index, "1")).collect();
                    match store.commit("nightly", "a", &records).await {
                        Ok(()) => {}
                        Err(StoreError::LeaseLost { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                    if batch == 2 {
                        committed.wait().await;
                    }
                }
            });
        }
        committed.wait().await;
        assert!(store.forget("nightly").await.unwrap());
        tasks.join_all().await;
        open(&store, "b").await.unwrap();
        assert_eq!(successes(&store, "nightly").await, [], "round {round}");
        assert!(store.forget("nightly").await.unwrap());
    }
}
