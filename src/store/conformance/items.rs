//! The outcomes of items, and their checkpoints.

use crate::store::Store;

use super::{
    Case, Checked, EXPIRED, HOUR, checksummed, ensure, ensure_eq, failed, info, list_cases, lost, open,
    succeeded, successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
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
    ]
}

async fn outcomes_come_back_as_they_were<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.commit("nightly", "a", &[]).await?;
    ensure_eq!(successes(&store, "nightly").await?, []);
    // Numbers of records for one, several and many statements, in any order.
    let mut all = Vec::new();
    for (batch, count) in [1, 2, 3, 255, 256, 257, 1000].into_iter().enumerate() {
        let first = 10_000 * batch as u64;
        let records: Vec<_> =
            (first..first + count).map(|index| succeeded(index, &format!("[{index}]"))).collect();
        let backwards: Vec<_> = records.iter().rev().cloned().collect();
        store.commit("nightly", "a", &backwards).await?;
        all.extend(records);
    }
    ensure_eq!(successes(&store, "nightly").await?, all);
    ensure_eq!(successes(&store.clone(), "nightly").await?, all, "a clone is the same store");
    ensure_eq!(successes(&store, "weekly").await?, []);
    Ok(())
}

async fn a_commit_replaces_what_was_kept_of_an_index<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let first = [succeeded(0, "0"), succeeded(1, "1"), failed(2, "no"), failed(3, "no")];
    store.commit("nightly", "a", &first).await?;
    let mut changed = succeeded(0, "\"new\"");
    (changed.item_hash, changed.attempts) = ("other".to_owned(), u32::MAX);
    let second = [changed.clone(), failed(1, "not any more"), succeeded(2, "2")];
    store.commit("nightly", "a", &second).await?;
    ensure_eq!(successes(&store, "nightly").await?, [changed, succeeded(2, "2")]);
    let run = info(&store, "nightly").await?;
    ensure_eq!((run.succeeded, run.failed), (2, 2));
    ensure_eq!(run.failures, [(1, "not any more".to_owned()), (3, "no".to_owned())]);
    // A commit of one record is the same.
    for record in first {
        store.commit("nightly", "a", &[record]).await?;
    }
    ensure_eq!(successes(&store, "nightly").await?, [succeeded(0, "0"), succeeded(1, "1")]);
    let run = info(&store, "nightly").await?;
    ensure_eq!(run.failures, [(2, "no".to_owned()), (3, "no".to_owned())]);
    Ok(())
}

async fn a_commit_takes_effect_as_a_whole_or_not_at_all<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.save_checkpoint("nightly", "a", 3, "hash", &checksummed("1")).await?;
    let mut records: Vec<_> = (0..600).map(|index| succeeded(index, "1")).collect();
    // An index that a database cannot store, after others that it can.
    records.push(succeeded(u64::MAX, "1"));
    match store.commit("nightly", "a", &records).await {
        Ok(()) => ensure_eq!(successes(&store, "nightly").await?, records),
        Err(_) => {
            ensure_eq!(successes(&store, "nightly").await?, []);
            ensure_eq!(store.checkpoint("nightly", 3, "hash").await?, Some(checksummed("1")));
        }
    }
    Ok(())
}

async fn a_commit_that_is_made_again_has_the_effect_of_one<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let records: Vec<_> = (0..300).map(|index| succeeded(index, "1")).collect();
    store.commit("nightly", "a", &records).await?;
    store.commit("nightly", "a", &records).await?;
    ensure_eq!(successes(&store, "nightly").await?, records);
    ensure_eq!(info(&store, "nightly").await?.succeeded, 300);
    Ok(())
}

async fn only_the_holder_commits<S: Store>(store: S) -> Checked {
    lost(store.commit("nightly", "a", &[succeeded(0, "0")]).await, "nightly", "a")?;
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    // The lease has expired, but no other holder has acquired the run.
    store.commit("nightly", "a", &[succeeded(0, "0")]).await?;
    open(&store, "b").await?;
    store.save_checkpoint("nightly", "b", 2, "hash", &checksummed("1")).await?;
    lost(store.commit("nightly", "a", &[succeeded(1, "1"), succeeded(2, "2")]).await, "nightly", "a")?;
    lost(store.commit("nightly", "a", &[]).await, "nightly", "a")?;
    ensure_eq!(successes(&store, "nightly").await?, [succeeded(0, "0")]);
    ensure_eq!(store.checkpoint("nightly", 2, "hash").await?, Some(checksummed("1")));
    Ok(())
}

async fn successes_come_in_pages<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    let records: Vec<_> = (0..2500)
        .map(|index| if index % 5 == 0 { failed(index, "no") } else { succeeded(index, "1") })
        .collect();
    for part in records.chunks(1000) {
        store.commit("nightly", "a", part).await?;
    }
    let mut read = Vec::new();
    let mut from = 0;
    loop {
        let page = store.successes("nightly", from, 700).await?;
        let Some(last) = page.last() else { break };
        ensure!(page.len() <= 700, "a page has {} records, expected at most 700", page.len());
        ensure!(last.index >= from, "a page from index {from} on ends at index {}", last.index);
        from = last.index + 1;
        read.extend(page);
    }
    let expected: Vec<_> = records.into_iter().filter(|record| record.index % 5 != 0).collect();
    ensure_eq!(read, expected);
    ensure_eq!(store.successes("nightly", 0, 0).await?, []);
    ensure_eq!(store.successes("nightly", 2499, 10).await?, [succeeded(2499, "1")]);
    ensure_eq!(store.successes("nightly", 2500, 10).await?, []);
    Ok(())
}

async fn a_checkpoint_is_the_state_that_was_saved_last<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    ensure_eq!(store.checkpoint("nightly", 0, "hash").await?, None);
    for state in ["1", "{\"row\":  2}", "3"] {
        store.save_checkpoint("nightly", "a", 0, "hash", &checksummed(state)).await?;
        ensure_eq!(store.checkpoint("nightly", 0, "hash").await?, Some(checksummed(state)));
    }
    store.save_checkpoint("nightly", "a", 1, "hash", &checksummed("of another item")).await?;
    ensure_eq!(store.checkpoint("nightly", 2, "hash").await?, None);
    ensure_eq!(store.checkpoint("weekly", 0, "hash").await?, None);
    // The next holder finds the checkpoint.
    open(&store, "b").await?;
    ensure_eq!(store.checkpoint("nightly", 0, "hash").await?, Some(checksummed("3")));
    Ok(())
}

async fn a_checkpoint_is_one_of_the_content<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.save_checkpoint("nightly", "a", 0, "old", &checksummed("1")).await?;
    ensure_eq!(store.checkpoint("nightly", 0, "new").await?, None);
    store.save_checkpoint("nightly", "a", 0, "new", &checksummed("2")).await?;
    ensure_eq!(store.checkpoint("nightly", 0, "new").await?, Some(checksummed("2")));
    ensure_eq!(store.checkpoint("nightly", 0, "old").await?, None, "it was replaced");
    Ok(())
}

async fn a_success_deletes_its_checkpoint_and_no_other<S: Store>(store: S) -> Checked {
    open(&store, "a").await?;
    store.open_run("weekly", "resize", "a", HOUR).await?;
    for index in 0..4 {
        store.save_checkpoint("nightly", "a", index, "hash", &checksummed("1")).await?;
    }
    store.save_checkpoint("weekly", "a", 0, "hash", &checksummed("1")).await?;
    store.commit("nightly", "a", &[succeeded(0, "0"), failed(1, "no"), succeeded(3, "3")]).await?;
    for (index, is_kept) in [false, true, true, false].into_iter().enumerate() {
        let state = store.checkpoint("nightly", index as u64, "hash").await?;
        ensure_eq!(state.is_some(), is_kept, "item {index}");
    }
    ensure!(store.checkpoint("weekly", 0, "hash").await?.is_some());
    // The content of item 0 has changed. Its new state is independent of the old success, and commits of other items do not
    // affect it.
    store.save_checkpoint("nightly", "a", 0, "new", &checksummed("2")).await?;
    store.commit("nightly", "a", &[succeeded(2, "2")]).await?;
    ensure_eq!(store.checkpoint("nightly", 0, "new").await?, Some(checksummed("2")));
    store.commit("nightly", "a", &[failed(0, "no")]).await?;
    ensure_eq!(store.checkpoint("nightly", 0, "new").await?, Some(checksummed("2")), "after a failure");
    Ok(())
}

async fn only_the_holder_saves_checkpoints<S: Store>(store: S) -> Checked {
    let [first, second, third] = &["1", "2", "3"].map(checksummed);
    let save = |holder, state| store.save_checkpoint("nightly", holder, 0, "hash", state);
    lost(save("a", first).await, "nightly", "a")?;
    store.open_run("nightly", "resize", "a", EXPIRED).await?;
    save("a", second).await?;
    open(&store, "b").await?;
    lost(save("a", third).await, "nightly", "a")?;
    ensure_eq!(store.checkpoint("nightly", 0, "hash").await?, Some(checksummed("2")));
    Ok(())
}
