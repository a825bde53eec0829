//! The ways to lose a lease, and its release by an operator.

use crate::store::{LeaseLoss, RunStatus, Store, StoreError};

use super::{
    Broken, Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, fail, info, list_cases, lost, open,
    succeeded, successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        a_lease_that_is_lost_tells_how,
        a_released_run_is_free_at_once_with_all_that_was_kept,
        a_run_that_nobody_has_cannot_be_released,
    ]
}

/// Returns the loss that each call of a holder reports.
async fn losses<S: Store>(store: &S, holder: &str) -> Result<Vec<LeaseLoss>, Broken> {
    let calls = [
        store.renew_run("nightly", holder, HOUR).await,
        store.commit("nightly", holder, &[succeeded(0, "0")]).await,
        store.save_checkpoint("nightly", holder, 0, "hash", &checksummed("1")).await,
    ];
    let loss = |call| match call {
        Err(StoreError::LeaseLost { loss, .. }) => Ok(loss),
        other => fail!("found {other:?}, expected StoreError::LeaseLost"),
    };
    calls.into_iter().map(loss).collect()
}

async fn a_lease_that_is_lost_tells_how<S: Store>(store: S) -> Checked {
    ensure_eq!(losses(&store, "a").await?, [const { LeaseLoss::Forgotten }; 3], "the run does not exist");
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    open(&store, "b").await?;
    ensure_eq!(losses(&store, "a").await?, vec![LeaseLoss::Taken { by: "b".to_owned() }; 3]);
    store.close_run("nightly", "b", &RunStatus::Succeeded).await?;
    ensure_eq!(losses(&store, "b").await?, [const { LeaseLoss::Ended }; 3]);
    store.forget("nightly").await?;
    ensure_eq!(losses(&store, "b").await?, [const { LeaseLoss::Forgotten }; 3]);
    Ok(())
}

async fn a_released_run_is_free_at_once_with_all_that_was_kept<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.commit("nightly", "a", &[succeeded(0, "0")]).await?;
    ensure!(store.release("nightly").await?);
    let run = info(&store, "nightly").await?;
    ensure_eq!((&run.status, &run.lease), (&RunStatus::Running, &None));
    ensure!(run.is_interrupted());
    lost(store.renew_run("nightly", "a", HOUR).await, "nightly", "a")?;
    open(&store, "b").await?;
    ensure_eq!(successes(&store, "nightly").await?, [succeeded(0, "0")]);
    Ok(())
}

async fn a_run_that_nobody_has_cannot_be_released<S: Store>(store: S) -> Checked {
    ensure!(!store.release("nightly").await?);
    open(&store, "a").await?;
    store.close_run("nightly", "a", &RunStatus::Succeeded).await?;
    ensure!(!store.release("nightly").await?);
    ensure_eq!(info(&store, "nightly").await?.status, RunStatus::Succeeded);
    Ok(())
}
