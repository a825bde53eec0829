//! Text of every kind, which is returned unchanged.

use crate::store::{CacheKey, RunStatus, Store};

use super::{
    Case, Checked, HOUR, checksummed, ensure, ensure_eq, fail, failed, info, list_cases, some, succeeded,
    successes,
};

pub(super) fn cases<S: Store>() -> Vec<Case<S>> {
    list_cases![
        text_comes_back_as_it_was,
        json_comes_back_byte_for_byte,
        a_megabyte_comes_back,
        the_character_nul_is_kept_or_refused,
    ]
}

const UNUSUAL: [&str; 10] = [
    "",
    " ",
    "it's \"quoted\"",
    "'; DROP TABLE map_task_runs; --",
    "$1 ?1 :name @name %s {}",
    "back\\slash \\u0000 \\n",
    "line\nafter\r\nline\ttab",
    "größe 数 🦀 \u{1f468}\u{200d}\u{1f469}",
    "e\u{301} is not \u{e9}",
    "\u{feff}\u{202e}\u{1}\u{7f}\u{10ffff}",
];

async fn text_comes_back_as_it_was<S: Store>(store: S) -> Checked {
    for text in UNUSUAL {
        store.open_run(text, text, text, HOUR).await?;
        let mut record = succeeded(0, "1");
        record.item_hash = text.to_owned();
        store.commit(text, text, &[record.clone(), failed(1, text)]).await?;
        store.save_checkpoint(text, text, 1, text, &checksummed(text)).await?;
        let key = CacheKey { task: text.to_owned(), version: text.to_owned(), item_hash: text.to_owned() };
        store.put_cached(&key, &checksummed(text), None).await?;

        let run = info(&store, text).await?;
        ensure_eq!((run.run_id.as_str(), run.task.as_str()), (text, text));
        ensure_eq!(some(run.lease, "the lease")?.holder, text);
        ensure_eq!(run.failures, [(1, text.to_owned())]);
        ensure_eq!(successes(&store, text).await?, [record]);
        ensure_eq!(store.checkpoint(text, 1, text).await?, Some(checksummed(text)));
        ensure_eq!(store.cached(&key).await?, Some(checksummed(text)));
        let ended = RunStatus::Failed { reason: text.to_owned() };
        store.close_run(text, text, &ended).await?;
        ensure_eq!(info(&store, text).await?.status, ended);
    }
    ensure_eq!(store.runs().await?.len(), UNUSUAL.len(), "each text names another run");
    for text in UNUSUAL {
        ensure_eq!(store.evict(text, Some(text)).await?, 1);
        ensure!(store.forget(text).await?);
    }
    Ok(())
}

async fn json_comes_back_byte_for_byte<S: Store>(store: S) -> Checked {
    let texts = [
        "{\"b\": 1,   \"a\":2, \"b\":3}",
        "1.0",
        "1e400",
        "123456789012345678901234567890",
        "\"\\u0041\\u0000\\ud83e\\udd80\"",
        "[ ]\n",
    ];
    store.open_run("nightly", "resize", "a", HOUR).await?;
    let records: Vec<_> = (0..).zip(texts).map(|(index, json)| succeeded(index, json)).collect();
    store.commit("nightly", "a", &records).await?;
    ensure_eq!(successes(&store, "nightly").await?, records);
    Ok(())
}

async fn a_megabyte_comes_back<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", HOUR).await?;
    let megabyte = |index: u64| {
        let part = if index % 2 == 0 { "ab'\u{e9}" } else { "\\\\cd" };
        format!("\"{}\"", part.repeat(200_000))
    };
    let records: Vec<_> = (0..5).map(|index| succeeded(index, &megabyte(index))).collect();
    store.commit("nightly", "a", &records).await?;
    store.save_checkpoint("nightly", "a", 9, "hash", &checksummed(&megabyte(0))).await?;
    ensure!(successes(&store, "nightly").await? == records, "outputs of a megabyte have changed");
    ensure!(store.checkpoint("nightly", 9, "hash").await? == Some(checksummed(&megabyte(0))));
    Ok(())
}

/// A NUL in a message must not prevent the commit of the outcomes in the same call.
async fn the_character_nul_is_kept_or_refused<S: Store>(store: S) -> Checked {
    store.open_run("nightly", "resize", "a", HOUR).await?;
    store.commit("nightly", "a", &[succeeded(0, "0"), failed(1, "a\0b")]).await?;
    store.close_run("nightly", "a", &RunStatus::Failed { reason: "a\0b".to_owned() }).await?;
    let run = info(&store, "nightly").await?;
    let RunStatus::Failed { reason } = run.status else { fail!("the run has ended as {:?}", run.status) };
    let (_, failure) = some(run.failures.into_iter().next(), "the failure")?;
    for message in [reason, failure] {
        ensure!(["a\0b", "a\u{fffd}b"].contains(&message.as_str()), "{message:?}");
    }
    match store.open_run("a\0b", "resize", "a", HOUR).await {
        Ok(()) => ensure_eq!(info(&store, "a\0b").await?.run_id, "a\0b"),
        Err(_refused) => {}
    }
    ensure_eq!(store.run("a").await?, None, "the run id is not truncated");
    Ok(())
}
