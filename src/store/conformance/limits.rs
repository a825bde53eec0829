//! Names and outputs that are too large.

use crate::store::{CacheKey, Claim, MAX_NAME_BYTES, Store};

use super::{
    Case, Checked, HOUR, checksummed, ensure, ensure_eq, info, key, lease, list_cases, open, succeeded,
    successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        names_of_the_longest_length_are_kept_apart,
        longer_names_are_refused_or_kept_as_they_are,
        large_outputs_come_in_pages,
        a_commit_of_many_megabytes_is_one,
    ]
}

/// Returns text without repetition, so that no database can compress it.
fn name(length: usize, last: char) -> String {
    let mut random = 7_u64;
    let mut name = String::with_capacity(length);
    for _ in 1..length {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        name.push(char::from(b'0' + (random % 75) as u8));
    }
    name.push(last);
    name
}

async fn names_of_the_longest_length_are_kept_apart<S: Store>(store: S) -> Checked {
    let names = ['a', 'b'].map(|last| name(MAX_NAME_BYTES, last));
    for name in &names {
        store.open_run(name, name, name, HOUR).await?;
        store.commit(name, name, &[succeeded(0, "1")]).await?;
        store.save_checkpoint(name, name, 1, name, &checksummed(name)).await?;
        let key = CacheKey { task: name.clone(), version: name.clone(), item_hash: name.clone() };
        ensure_eq!(store.claim(&key, name, HOUR, false).await?, Claim::Granted);
        store.put_cached(&key, &checksummed(name), None).await?;
        ensure_eq!(store.cached(&key).await?, Some(checksummed(name)));
        ensure_eq!(successes(&store, name).await?.len(), 1);
    }
    ensure_eq!(store.runs().await?.len(), 2);
    Ok(())
}

async fn longer_names_are_refused_or_kept_as_they_are<S: Store>(store: S) -> Checked {
    let long = name(6_000, 'a');
    if store.open_run(&long, &long, &long, HOUR).await.is_ok() {
        let run = info(&store, &long).await?;
        ensure_eq!((&run.run_id, &run.task), (&long, &long));
        ensure_eq!(lease(&store, &long).await?.holder, long);
    } else {
        ensure_eq!(store.runs().await?, [], "a refused run is not stored");
    }
    for key in [
        CacheKey { task: long.clone(), ..key("1") },
        CacheKey { version: long.clone(), ..key("1") },
        key(&long),
    ] {
        let is_kept = store.put_cached(&key, &checksummed("1"), None).await.is_ok();
        ensure_eq!(store.cached(&key).await?, is_kept.then(|| checksummed("1")));
    }
    Ok(())
}

/// Returns a JSON text of this length.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

async fn large_outputs_come_in_pages<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let mut records: Vec<_> = (0..7).map(|index| succeeded(index, &text(1_500_000))).collect();
    store.commit("nightly", "a", &records).await?;
    let large = succeeded(9, &text(9_000_000));
    store.commit("nightly", "a", std::slice::from_ref(&large)).await?;
    records.push(large);
    ensure_eq!(successes(&store, "nightly").await?, records);
    Ok(())
}

async fn a_commit_of_many_megabytes_is_one<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let records: Vec<_> = (0..40).map(|index| succeeded(index, &text(1_100_000))).collect();
    ensure!(store.commit("nightly", "b", &records).await.is_err(), "another holder has the run");
    ensure_eq!(successes(&store, "nightly").await?, []);
    store.commit("nightly", "a", &records).await?;
    ensure_eq!(info(&store, "nightly").await?.succeeded, 40);
    Ok(())
}
