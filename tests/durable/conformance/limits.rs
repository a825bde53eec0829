//! What is too long or too much.

use async_map_task::store::{CacheKey, Claim, MAX_NAME_BYTES, Store, StoreError};

use super::{HOUR, key, open, sealed, succeeded, successes};

for_every_store![
    names_of_the_longest_length_are_kept_apart,
    names_that_are_longer_are_refused_by_name,
    a_page_ends_once_it_has_some_megabytes,
    a_commit_of_many_megabytes_is_one,
];

/// Text without repetition, so that no database keeps it shorter.
fn name(length: usize, last: char) -> String {
    let mut random = crate::random::Random(7);
    let mut name: String = (1..length).map(|_| char::from(b'0' + random.below(75) as u8)).collect();
    name.push(last);
    name
}

async fn names_of_the_longest_length_are_kept_apart<S: Store>(store: S) {
    let names = ['a', 'b'].map(|last| name(MAX_NAME_BYTES, last));
    for name in &names {
        store.open_run(name, name, name, HOUR).await.unwrap();
        store.commit(name, name, &[succeeded(0, "1")]).await.unwrap();
        store.save_checkpoint(name, name, 1, name, &sealed(name)).await.unwrap();
        let key = CacheKey { task: name.clone(), version: name.clone(), item_hash: name.clone() };
        assert_eq!(store.claim(&key, name, HOUR, false).await.unwrap(), Claim::Granted);
        store.put_cached(&key, &sealed(name), None).await.unwrap();
        assert_eq!(store.cached(&key).await.unwrap(), Some(sealed(name)));
        assert_eq!(successes(&store, name).await.len(), 1);
    }
    assert_eq!(store.runs().await.unwrap().len(), 2);
}

async fn names_that_are_longer_are_refused_by_name<S: Store>(store: S) {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::NameTooLong { found: 6_000, allowed: 512, .. }), "{error}");
        assert_eq!(error.to_string(), format!("{what} has 6000 bytes, allowed are 512"));
    }
    let long = name(6_000, 'a');
    refused(store.open_run(&long, "resize", "a", HOUR).await, "the run id");
    refused(store.open_run("nightly", &long, "a", HOUR).await, "the name of the task");
    refused(store.open_run("nightly", "resize", &long, HOUR).await, "the name of the holder");
    for (key, what) in [
        (CacheKey { task: long.clone(), ..key("1") }, "the name of the task"),
        (CacheKey { version: long.clone(), ..key("1") }, "the version"),
        (key(&long), "the hash of the item"),
    ] {
        refused(store.put_cached(&key, &sealed("1"), None).await, what);
        refused(store.claim(&key, "a", HOUR, false).await, what);
        assert_eq!(store.cached(&key).await.unwrap(), None);
    }
    refused(store.claim(&key("1"), &long, HOUR, false).await, "the name of the holder");
    assert_eq!(store.runs().await.unwrap(), []);
    assert_eq!(store.run(&long).await.unwrap(), None);
}

/// A JSON text of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

async fn a_page_ends_once_it_has_some_megabytes<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let records: Vec<_> = (0..7).map(|index| succeeded(index, &text(1_500_000))).collect();
    store.commit("nightly", "a", &records).await.unwrap();
    let (mut read, mut pages) = (Vec::new(), Vec::new());
    loop {
        let from = read.last().map_or(0, |index| index + 1);
        let page = store.successes("nightly", from, 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.len());
        read.extend(page.iter().map(|record| record.index));
    }
    assert_eq!(read, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(pages, [3, 3, 1]);
    let large = succeeded(9, &text(9_000_000));
    store.commit("nightly", "a", std::slice::from_ref(&large)).await.unwrap();
    assert_eq!(store.successes("nightly", 7, 100).await.unwrap(), [large], "one is always returned");
}

async fn a_commit_of_many_megabytes_is_one<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let records: Vec<_> = (0..40).map(|index| succeeded(index, &text(1_100_000))).collect();
    assert!(store.commit("nightly", "b", &records).await.is_err(), "it is another's");
    assert_eq!(successes(&store, "nightly").await, []);
    store.commit("nightly", "a", &records).await.unwrap();
    assert_eq!(store.run("nightly").await.unwrap().unwrap().succeeded, 40);
}
