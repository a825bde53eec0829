//! Cached values, and the claims to compute them.

use std::time::Duration;

use crate::store::{CacheKey, Claim, Store};

use super::{Broken, Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, fail, key, list_cases};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        a_value_is_found_by_its_whole_key,
        a_value_replaces_the_one_before,
        a_value_expires,
        expired_values_make_room,
        a_claim_is_granted_to_one,
        a_claim_finds_the_value,
        overwriting_claims_in_spite_of_a_value,
        putting_a_value_ends_every_claim,
        a_claim_lasts_while_it_is_renewed,
        a_claim_that_is_released_is_free_at_once,
        evicting_deletes_a_version_or_all,
    ]
}

async fn a_value_is_found_by_its_whole_key<S: Store>(store: S) -> Checked {
    let whole = key("a");
    ensure_eq!(store.cached(&whole).await?, None);
    store.put_cached(&whole, &checksummed("[1,  2]"), None).await?;
    ensure_eq!(store.cached(&whole).await?, Some(checksummed("[1,  2]")));
    for other in [
        CacheKey { task: "other".to_owned(), ..whole.clone() },
        CacheKey { version: "4".to_owned(), ..whole.clone() },
        key("b"),
    ] {
        ensure_eq!(store.cached(&other).await?, None, "{other:?}");
    }
    Ok(())
}

async fn a_value_replaces_the_one_before<S: Store>(store: S) -> Checked {
    store.put_cached(&key("a"), &checksummed("1"), Some(HOUR)).await?;
    store.put_cached(&key("a"), &checksummed("2"), None).await?;
    store.put_cached(&key("a"), &checksummed("2"), None).await?;
    ensure_eq!(store.cached(&key("a")).await?, Some(checksummed("2")));
    ensure_eq!(store.evict("embed", None).await?, 1);
    Ok(())
}

async fn a_value_expires<S: Store>(store: S) -> Checked {
    store.put_cached(&key("a"), &checksummed("1"), Some(EXPIRED)).await?;
    store.put_cached(&key("b"), &checksummed("1"), Some(HOUR)).await?;
    store.put_cached(&key("c"), &checksummed("1"), Some(Duration::MAX)).await?;
    ensure_eq!(store.cached(&key("a")).await?, None);
    ensure_eq!(store.cached(&key("b")).await?, Some(checksummed("1")));
    ensure_eq!(store.cached(&key("c")).await?, Some(checksummed("1")));
    // A claim ignores an expired value. The value can be stored again, with a longer expiry.
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Granted);
    store.put_cached(&key("a"), &checksummed("2"), Some(HOUR)).await?;
    ensure_eq!(store.cached(&key("a")).await?, Some(checksummed("2")));
    // Also with a shorter expiry.
    store.put_cached(&key("b"), &checksummed("2"), Some(EXPIRED)).await?;
    ensure_eq!(store.cached(&key("b")).await?, None);
    Ok(())
}

async fn expired_values_make_room<S: Store>(store: S) -> Checked {
    for item in 0..150 {
        store.put_cached(&key(&format!("old {item}")), &checksummed("1"), Some(EXPIRED)).await?;
    }
    for item in 0..5 {
        store.put_cached(&key(&format!("new {item}")), &checksummed("1"), Some(HOUR)).await?;
    }
    // A deletion of expired values in the meantime affects no others.
    for item in 0..5 {
        ensure!(store.cached(&key(&format!("new {item}"))).await?.is_some());
    }
    ensure!(store.evict("embed", None).await? >= 5);
    Ok(())
}

async fn a_claim_is_granted_to_one<S: Store>(store: S) -> Checked {
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Granted);
    for overwrite in [false, true] {
        match store.claim(&key("a"), "b", HOUR, overwrite).await? {
            Claim::Held { remaining } => ensure!(remaining <= HOUR && remaining > HOUR / 2, "{remaining:?}"),
            other => fail!("found {other:?} while another holder has the claim, expected Claim::Held"),
        }
    }
    // A claim of the same holder is granted again, and another key is independent.
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Granted);
    ensure_eq!(store.claim(&key("b"), "b", HOUR, false).await?, Claim::Granted);
    ensure_eq!(store.cached(&key("a")).await?, None, "a claim is not a value");
    Ok(())
}

async fn a_claim_finds_the_value<S: Store>(store: S) -> Checked {
    store.put_cached(&key("a"), &checksummed("1"), None).await?;
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Cached(checksummed("1")));
    // Nothing was claimed by that.
    ensure_eq!(store.claim(&key("a"), "b", HOUR, true).await?, Claim::Granted);
    Ok(())
}

async fn overwriting_claims_in_spite_of_a_value<S: Store>(store: S) -> Checked {
    store.put_cached(&key("a"), &checksummed("old"), None).await?;
    ensure_eq!(store.claim(&key("a"), "a", HOUR, true).await?, Claim::Granted);
    // In the meantime, others read the old value and do not wait.
    ensure_eq!(store.cached(&key("a")).await?, Some(checksummed("old")));
    ensure_eq!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Cached(checksummed("old")));
    ensure!(matches!(store.claim(&key("a"), "b", HOUR, true).await?, Claim::Held { .. }));
    store.put_cached(&key("a"), &checksummed("new"), None).await?;
    ensure_eq!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Cached(checksummed("new")));
    Ok(())
}

async fn putting_a_value_ends_every_claim<S: Store>(store: S) -> Checked {
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Granted);
    store.put_cached(&key("a"), &checksummed("1"), None).await?;
    ensure!(!store.renew_claim(&key("a"), "a", HOUR).await?);
    ensure_eq!(store.claim(&key("a"), "b", HOUR, true).await?, Claim::Granted);
    Ok(())
}

async fn a_claim_lasts_while_it_is_renewed<S: Store>(store: S) -> Checked {
    ensure!(!store.renew_claim(&key("a"), "a", HOUR).await?, "the claim does not exist");
    ensure_eq!(store.claim(&key("a"), "a", EXPIRED, false).await?, Claim::Granted);
    // The claim has expired, but no other holder has it.
    ensure!(store.renew_claim(&key("a"), "a", HOUR).await?);
    ensure!(matches!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Held { .. }));
    ensure!(store.renew_claim(&key("a"), "a", EXPIRED).await?);
    ensure_eq!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Granted);
    ensure!(!store.renew_claim(&key("a"), "a", HOUR).await?, "another holder has the claim");
    ensure!(matches!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Held { .. }));
    Ok(())
}

async fn a_claim_that_is_released_is_free_at_once<S: Store>(store: S) -> Checked {
    store.release_claim(&key("a"), "a").await?;
    ensure_eq!(store.claim(&key("a"), "a", HOUR, false).await?, Claim::Granted);
    store.release_claim(&key("a"), "b").await?;
    ensure!(matches!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Held { .. }));
    store.release_claim(&key("a"), "a").await?;
    store.release_claim(&key("a"), "a").await?;
    ensure_eq!(store.claim(&key("a"), "b", HOUR, false).await?, Claim::Granted);
    Ok(())
}

async fn evicting_deletes_a_version_or_all<S: Store>(store: S) -> Checked {
    let of = |task: &str, version: &str, item: &str| CacheKey {
        task: task.to_owned(),
        version: version.to_owned(),
        item_hash: item.to_owned(),
    };
    let keys = [
        of("embed", "1", "a"),
        of("embed", "1", "b"),
        of("embed", "2", "a"),
        of("embed", "3", "a"),
        of("other", "1", "a"),
    ];
    for key in &keys {
        store.put_cached(key, &checksummed("1"), None).await?;
    }
    ensure_eq!(store.evict("embed", Some("1")).await?, 2);
    ensure_eq!(which(&store, &keys).await?, [false, false, true, true, true]);
    ensure_eq!(store.evict("embed", Some("1")).await?, 0);
    ensure_eq!(store.evict("embed", None).await?, 2);
    ensure_eq!(which(&store, &keys).await?, [false, false, false, false, true]);
    Ok(())
}

/// Returns for each key if it has a value.
async fn which<S: Store>(store: &S, keys: &[CacheKey]) -> Result<Vec<bool>, Broken> {
    let mut found = Vec::new();
    for key in keys {
        found.push(store.cached(key).await?.is_some());
    }
    Ok(found)
}
