//! How a lease is lost, and how an operator ends it.

use async_map_task::store::{LeaseLoss, RunStatus, Store, StoreError};

use super::{HOUR, OVER_AT_ONCE, assert_lost, open, sealed, succeeded, successes};

for_every_store![
    a_lease_that_is_lost_tells_how,
    a_released_run_is_free_at_once_with_all_that_was_kept,
    a_run_that_nobody_has_cannot_be_released,
];

/// How each call that a holder makes says that it has lost its run.
async fn losses<S: Store>(store: &S, holder: &str) -> Vec<LeaseLoss> {
    let calls = [
        store.renew_run("nightly", holder, HOUR).await,
        store.commit("nightly", holder, &[succeeded(0, "0")]).await,
        store.save_checkpoint("nightly", holder, 0, "hash", &sealed("1")).await,
    ];
    let loss = |call| match call {
        Err(StoreError::LeaseLost { loss, .. }) => loss,
        other => panic!("{other:?} where the lease is lost"),
    };
    calls.into_iter().map(loss).collect()
}

async fn a_lease_that_is_lost_tells_how<S: Store>(store: S) {
    assert_eq!(losses(&store, "a").await, [const { LeaseLoss::Forgotten }; 3], "there is no such run");
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    open(&store, "b").await.unwrap();
    assert_eq!(losses(&store, "a").await, vec![LeaseLoss::Taken { by: "b".to_owned() }; 3]);
    store.close_run("nightly", "b", &RunStatus::Succeeded).await.unwrap();
    assert_eq!(losses(&store, "b").await, [const { LeaseLoss::Ended }; 3]);
    store.forget("nightly").await.unwrap();
    assert_eq!(losses(&store, "b").await, [const { LeaseLoss::Forgotten }; 3]);
}

async fn a_released_run_is_free_at_once_with_all_that_was_kept<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.commit("nightly", "a", &[succeeded(0, "0")]).await.unwrap();
    assert!(store.release("nightly").await.unwrap());
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!((&run.status, &run.lease), (&RunStatus::Running, &None));
    assert!(run.is_interrupted());
    assert_lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a");
    open(&store, "b").await.unwrap();
    assert_eq!(successes(&store, "nightly").await, [succeeded(0, "0")]);
}

async fn a_run_that_nobody_has_cannot_be_released<S: Store>(store: S) {
    assert!(!store.release("nightly").await.unwrap());
    open(&store, "a").await.unwrap();
    store.close_run("nightly", "a", &RunStatus::Succeeded).await.unwrap();
    assert!(!store.release("nightly").await.unwrap());
    assert_eq!(store.run("nightly").await.unwrap().unwrap().status, RunStatus::Succeeded);
}
