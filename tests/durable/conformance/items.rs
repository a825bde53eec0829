//! What became of items, and their checkpoints.

use async_map_task::store::Store;

use super::{HOUR, OVER_AT_ONCE, assert_lost, failed, open, sealed, succeeded, successes};

for_every_store![
    outcomes_come_back_as_they_were,
    a_commit_replaces_what_was_kept_of_an_index,
    a_commit_takes_effect_as_a_whole_or_not_at_all,
    a_commit_that_is_made_again_has_the_effect_of_one,
    only_the_holder_commits,
    successes_come_in_pages,
    a_checkpoint_is_the_state_that_was_saved_last,
    a_checkpoint_is_one_of_the_content,
    a_success_deletes_its_checkpoint_and_no_other,
    only_the_holder_saves_checkpoints,
];

async fn outcomes_come_back_as_they_were<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.commit("nightly", "a", &[]).await.unwrap();
    assert_eq!(successes(&store, "nightly").await, []);
    // Numbers that make one, several and many statements of it, in whatever order.
    let mut all = Vec::new();
    for (batch, count) in [1, 2, 3, 255, 256, 257, 1000].into_iter().enumerate() {
        let first = 10_000 * batch as u64;
        let records: Vec<_> =
            (first..first + count).map(|index| succeeded(index, &format!("[{index}]"))).collect();
        let backwards: Vec<_> = records.iter().rev().cloned().collect();
        store.commit("nightly", "a", &backwards).await.unwrap();
        all.extend(records);
    }
    assert_eq!(successes(&store, "nightly").await, all);
    assert_eq!(successes(&store.clone(), "nightly").await, all, "a clone is the same store");
    assert_eq!(successes(&store, "weekly").await, []);
}

async fn a_commit_replaces_what_was_kept_of_an_index<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let first = [succeeded(0, "0"), succeeded(1, "1"), failed(2, "no"), failed(3, "no")];
    store.commit("nightly", "a", &first).await.unwrap();
    let mut changed = succeeded(0, "\"new\"");
    (changed.item_hash, changed.attempts) = ("other".to_owned(), u32::MAX);
    let second = [changed.clone(), failed(1, "not any more"), succeeded(2, "2")];
    store.commit("nightly", "a", &second).await.unwrap();
    assert_eq!(successes(&store, "nightly").await, [changed, succeeded(2, "2")]);
    let run = store.run("nightly").await.unwrap().unwrap();
    assert_eq!((run.succeeded, run.failed), (2, 2));
    assert_eq!(run.failures, [(1, "not any more".to_owned()), (3, "no".to_owned())]);
}

async fn a_commit_takes_effect_as_a_whole_or_not_at_all<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.save_checkpoint("nightly", "a", 3, "hash", &sealed("1")).await.unwrap();
    let mut records: Vec<_> = (0..600).map(|index| succeeded(index, "1")).collect();
    // An index that a database cannot keep, behind others that it can.
    records.push(succeeded(u64::MAX, "1"));
    match store.commit("nightly", "a", &records).await {
        Ok(()) => assert_eq!(successes(&store, "nightly").await, records),
        Err(_) => {
            assert_eq!(successes(&store, "nightly").await, []);
            assert_eq!(store.checkpoint("nightly", 3, "hash").await.unwrap(), Some(sealed("1")));
        }
    }
}

async fn a_commit_that_is_made_again_has_the_effect_of_one<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let records: Vec<_> = (0..300).map(|index| succeeded(index, "1")).collect();
    store.commit("nightly", "a", &records).await.unwrap();
    store.commit("nightly", "a", &records).await.unwrap();
    assert_eq!(successes(&store, "nightly").await, records);
    assert_eq!(store.run("nightly").await.unwrap().unwrap().succeeded, 300);
}

async fn only_the_holder_commits<S: Store>(store: S) {
    assert_lost(store.commit("nightly", "a", &[succeeded(0, "0")]).await, "nightly", "a");
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    // The lease is over, but nobody has taken the run.
    store.commit("nightly", "a", &[succeeded(0, "0")]).await.unwrap();
    open(&store, "b").await.unwrap();
    store.save_checkpoint("nightly", "b", 2, "hash", &sealed("1")).await.unwrap();
    assert_lost(store.commit("nightly", "a", &[succeeded(1, "1"), succeeded(2, "2")]).await, "nightly", "a");
    assert_lost(store.commit("nightly", "a", &[]).await, "nightly", "a");
    assert_eq!(successes(&store, "nightly").await, [succeeded(0, "0")]);
    assert_eq!(store.checkpoint("nightly", 2, "hash").await.unwrap(), Some(sealed("1")));
}

async fn successes_come_in_pages<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    let records: Vec<_> = (0..2500)
        .map(|index| if index % 5 == 0 { failed(index, "no") } else { succeeded(index, "1") })
        .collect();
    for part in records.chunks(1000) {
        store.commit("nightly", "a", part).await.unwrap();
    }
    let mut pages = Vec::new();
    let mut from = 0;
    loop {
        let page = store.successes("nightly", from, 700).await.unwrap();
        let Some(last) = page.last() else { break };
        from = last.index + 1;
        pages.push(page);
    }
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [700, 700, 600]);
    let expected: Vec<_> = records.into_iter().filter(|record| record.index % 5 != 0).collect();
    assert_eq!(pages.concat(), expected);
    assert_eq!(store.successes("nightly", 0, 0).await.unwrap(), []);
    assert_eq!(store.successes("nightly", 2499, 10).await.unwrap(), [succeeded(2499, "1")]);
    assert_eq!(store.successes("nightly", 2500, 10).await.unwrap(), []);
}

async fn a_checkpoint_is_the_state_that_was_saved_last<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    assert_eq!(store.checkpoint("nightly", 0, "hash").await.unwrap(), None);
    for state in ["1", "{\"row\":  2}", "3"] {
        store.save_checkpoint("nightly", "a", 0, "hash", &sealed(state)).await.unwrap();
        assert_eq!(store.checkpoint("nightly", 0, "hash").await.unwrap(), Some(sealed(state)));
    }
    store.save_checkpoint("nightly", "a", 1, "hash", &sealed("of another item")).await.unwrap();
    assert_eq!(store.checkpoint("nightly", 2, "hash").await.unwrap(), None);
    assert_eq!(store.checkpoint("weekly", 0, "hash").await.unwrap(), None);
    // Whoever comes next finds it.
    open(&store, "b").await.unwrap();
    assert_eq!(store.checkpoint("nightly", 0, "hash").await.unwrap(), Some(sealed("3")));
}

async fn a_checkpoint_is_one_of_the_content<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.save_checkpoint("nightly", "a", 0, "old", &sealed("1")).await.unwrap();
    assert_eq!(store.checkpoint("nightly", 0, "new").await.unwrap(), None);
    store.save_checkpoint("nightly", "a", 0, "new", &sealed("2")).await.unwrap();
    assert_eq!(store.checkpoint("nightly", 0, "new").await.unwrap(), Some(sealed("2")));
    assert_eq!(store.checkpoint("nightly", 0, "old").await.unwrap(), None, "it was replaced");
}

async fn a_success_deletes_its_checkpoint_and_no_other<S: Store>(store: S) {
    open(&store, "a").await.unwrap();
    store.open_run("weekly", "resize", "a", HOUR).await.unwrap();
    for index in 0..4 {
        store.save_checkpoint("nightly", "a", index, "hash", &sealed("1")).await.unwrap();
    }
    store.save_checkpoint("weekly", "a", 0, "hash", &sealed("1")).await.unwrap();
    store.commit("nightly", "a", &[succeeded(0, "0"), failed(1, "no"), succeeded(3, "3")]).await.unwrap();
    for (index, is_kept) in [false, true, true, false].into_iter().enumerate() {
        let state = store.checkpoint("nightly", index as u64, "hash").await.unwrap();
        assert_eq!(state.is_some(), is_kept, "item {index}");
    }
    assert!(store.checkpoint("weekly", 0, "hash").await.unwrap().is_some());
    // The content of item 0 has changed: its new state is no matter of the old success, which others' commits pass by.
    store.save_checkpoint("nightly", "a", 0, "new", &sealed("2")).await.unwrap();
    store.commit("nightly", "a", &[succeeded(2, "2")]).await.unwrap();
    assert_eq!(store.checkpoint("nightly", 0, "new").await.unwrap(), Some(sealed("2")));
}

async fn only_the_holder_saves_checkpoints<S: Store>(store: S) {
    let save =
        async |holder, state| store.save_checkpoint("nightly", holder, 0, "hash", &sealed(state)).await;
    assert_lost(save("a", "1").await, "nightly", "a");
    store.open_run("nightly", "resize", "a", OVER_AT_ONCE).await.unwrap();
    save("a", "2").await.unwrap();
    open(&store, "b").await.unwrap();
    assert_lost(save("a", "3").await, "nightly", "a");
    assert_eq!(store.checkpoint("nightly", 0, "hash").await.unwrap(), Some(sealed("2")));
}
