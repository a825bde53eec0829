//! Cached values, and the claims to compute them.

use std::time::Duration;

use async_map_task::store::{CacheKey, Claim, Store};

use super::{HOUR, OVER_AT_ONCE, key, sealed};

for_every_store![
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
];

async fn a_value_is_found_by_its_whole_key<S: Store>(store: S) {
    let whole = key("a");
    assert_eq!(store.cached(&whole).await.unwrap(), None);
    store.put_cached(&whole, &sealed("[1,  2]"), None).await.unwrap();
    assert_eq!(store.cached(&whole).await.unwrap(), Some(sealed("[1,  2]")));
    for other in [
        CacheKey { task: "other".to_owned(), ..whole.clone() },
        CacheKey { version: "4".to_owned(), ..whole.clone() },
        key("b"),
    ] {
        assert_eq!(store.cached(&other).await.unwrap(), None, "{other:?}");
    }
}

async fn a_value_replaces_the_one_before<S: Store>(store: S) {
    store.put_cached(&key("a"), &sealed("1"), Some(HOUR)).await.unwrap();
    store.put_cached(&key("a"), &sealed("2"), None).await.unwrap();
    store.put_cached(&key("a"), &sealed("2"), None).await.unwrap();
    assert_eq!(store.cached(&key("a")).await.unwrap(), Some(sealed("2")));
    assert_eq!(store.evict("embed", None).await.unwrap(), 1);
}

async fn a_value_expires<S: Store>(store: S) {
    store.put_cached(&key("a"), &sealed("1"), Some(OVER_AT_ONCE)).await.unwrap();
    store.put_cached(&key("b"), &sealed("1"), Some(HOUR)).await.unwrap();
    store.put_cached(&key("c"), &sealed("1"), Some(Duration::MAX)).await.unwrap();
    assert_eq!(store.cached(&key("a")).await.unwrap(), None);
    assert_eq!(store.cached(&key("b")).await.unwrap(), Some(sealed("1")));
    assert_eq!(store.cached(&key("c")).await.unwrap(), Some(sealed("1")));
    // One that has expired is none to a claim, and can be put in again, for longer.
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Granted);
    store.put_cached(&key("a"), &sealed("2"), Some(HOUR)).await.unwrap();
    assert_eq!(store.cached(&key("a")).await.unwrap(), Some(sealed("2")));
    // And for shorter.
    store.put_cached(&key("b"), &sealed("2"), Some(OVER_AT_ONCE)).await.unwrap();
    assert_eq!(store.cached(&key("b")).await.unwrap(), None);
}

async fn expired_values_make_room<S: Store>(store: S) {
    for item in 0..150 {
        store.put_cached(&key(&format!("old {item}")), &sealed("1"), Some(OVER_AT_ONCE)).await.unwrap();
    }
    for item in 0..5 {
        store.put_cached(&key(&format!("new {item}")), &sealed("1"), Some(HOUR)).await.unwrap();
    }
    // Whatever is deleted meanwhile, it is none of those that have not expired.
    for item in 0..5 {
        assert!(store.cached(&key(&format!("new {item}"))).await.unwrap().is_some());
    }
    assert!(store.evict("embed", None).await.unwrap() >= 5);
}

async fn a_claim_is_granted_to_one<S: Store>(store: S) {
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Granted);
    for overwrite in [false, true] {
        match store.claim(&key("a"), "b", HOUR, overwrite).await.unwrap() {
            Claim::Held { remaining } => assert!(remaining <= HOUR && remaining > HOUR / 2, "{remaining:?}"),
            other => panic!("{other:?} where another computes"),
        }
    }
    // The holder's own is granted again, and another key is another matter.
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Granted);
    assert_eq!(store.claim(&key("b"), "b", HOUR, false).await.unwrap(), Claim::Granted);
    assert_eq!(store.cached(&key("a")).await.unwrap(), None, "a claim is no value");
}

async fn a_claim_finds_the_value<S: Store>(store: S) {
    store.put_cached(&key("a"), &sealed("1"), None).await.unwrap();
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Cached(sealed("1")));
    // Nothing was claimed by that.
    assert_eq!(store.claim(&key("a"), "b", HOUR, true).await.unwrap(), Claim::Granted);
}

async fn overwriting_claims_in_spite_of_a_value<S: Store>(store: S) {
    store.put_cached(&key("a"), &sealed("old"), None).await.unwrap();
    assert_eq!(store.claim(&key("a"), "a", HOUR, true).await.unwrap(), Claim::Granted);
    // Meanwhile the others have the old one, and do not wait.
    assert_eq!(store.cached(&key("a")).await.unwrap(), Some(sealed("old")));
    assert_eq!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Cached(sealed("old")));
    assert!(matches!(store.claim(&key("a"), "b", HOUR, true).await.unwrap(), Claim::Held { .. }));
    store.put_cached(&key("a"), &sealed("new"), None).await.unwrap();
    assert_eq!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Cached(sealed("new")));
}

async fn putting_a_value_ends_every_claim<S: Store>(store: S) {
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Granted);
    store.put_cached(&key("a"), &sealed("1"), None).await.unwrap();
    assert!(!store.renew_claim(&key("a"), "a", HOUR).await.unwrap());
    assert_eq!(store.claim(&key("a"), "b", HOUR, true).await.unwrap(), Claim::Granted);
}

async fn a_claim_lasts_while_it_is_renewed<S: Store>(store: S) {
    assert!(!store.renew_claim(&key("a"), "a", HOUR).await.unwrap(), "there is none");
    assert_eq!(store.claim(&key("a"), "a", OVER_AT_ONCE, false).await.unwrap(), Claim::Granted);
    // It is over, but nobody has taken it.
    assert!(store.renew_claim(&key("a"), "a", HOUR).await.unwrap());
    assert!(matches!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Held { .. }));
    assert!(store.renew_claim(&key("a"), "a", OVER_AT_ONCE).await.unwrap());
    assert_eq!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Granted);
    assert!(!store.renew_claim(&key("a"), "a", HOUR).await.unwrap(), "another has taken it");
    assert!(matches!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Held { .. }));
}

async fn a_claim_that_is_released_is_free_at_once<S: Store>(store: S) {
    store.release_claim(&key("a"), "a").await.unwrap();
    assert_eq!(store.claim(&key("a"), "a", HOUR, false).await.unwrap(), Claim::Granted);
    store.release_claim(&key("a"), "b").await.unwrap();
    assert!(matches!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Held { .. }));
    store.release_claim(&key("a"), "a").await.unwrap();
    store.release_claim(&key("a"), "a").await.unwrap();
    assert_eq!(store.claim(&key("a"), "b", HOUR, false).await.unwrap(), Claim::Granted);
}

async fn evicting_deletes_a_version_or_all<S: Store>(store: S) {
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
        store.put_cached(key, &sealed("1"), None).await.unwrap();
    }
    let found = async || {
        let mut found = Vec::new();
        for key in &keys {
            found.push(store.cached(key).await.unwrap().is_some());
        }
        found
    };
    assert_eq!(store.evict("embed", Some("1")).await.unwrap(), 2);
    assert_eq!(found().await, [false, false, true, true, true]);
    assert_eq!(store.evict("embed", Some("1")).await.unwrap(), 0);
    assert_eq!(store.evict("embed", None).await.unwrap(), 2);
    assert_eq!(found().await, [false, false, false, false, true]);
}
