//! Text of every kind, which comes back as it was.

use async_map_task::store::{CacheKey, RunStatus, Store, StoreError};

use super::{HOUR, failed, sealed, succeeded, successes};

for_every_store![
    text_comes_back_as_it_was,
    json_comes_back_byte_for_byte,
    a_megabyte_comes_back,
    the_character_nul_is_kept_or_refused,
];

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

async fn text_comes_back_as_it_was<S: Store>(store: S) {
    for text in UNUSUAL {
        store.open_run(text, text, text, HOUR).await.unwrap();
        let mut record = succeeded(0, "1");
        record.item_hash = text.to_owned();
        store.commit(text, text, &[record.clone(), failed(1, text)]).await.unwrap();
        store.save_checkpoint(text, text, 1, text, &sealed(text)).await.unwrap();
        let key = CacheKey { task: text.to_owned(), version: text.to_owned(), item_hash: text.to_owned() };
        store.put_cached(&key, &sealed(text), None).await.unwrap();

        let run = store.run(text).await.unwrap().unwrap();
        assert_eq!((run.run_id.as_str(), run.task.as_str()), (text, text));
        assert_eq!(run.lease.unwrap().holder, text);
        assert_eq!(run.failures, [(1, text.to_owned())]);
        assert_eq!(successes(&store, text).await, [record]);
        assert_eq!(store.checkpoint(text, 1, text).await.unwrap(), Some(sealed(text)));
        assert_eq!(store.cached(&key).await.unwrap(), Some(sealed(text)));
        let ended = RunStatus::Failed { reason: text.to_owned() };
        store.close_run(text, text, &ended).await.unwrap();
        assert_eq!(store.run(text).await.unwrap().unwrap().status, ended);
    }
    assert_eq!(store.runs().await.unwrap().len(), UNUSUAL.len(), "none is taken for another");
    for text in UNUSUAL {
        assert_eq!(store.evict(text, Some(text)).await.unwrap(), 1);
        assert!(store.forget(text).await.unwrap());
    }
}

async fn json_comes_back_byte_for_byte<S: Store>(store: S) {
    let texts = [
        "{\"b\": 1,   \"a\":2, \"b\":3}",
        "1.0",
        "1e400",
        "123456789012345678901234567890",
        "\"\\u0041\\u0000\\ud83e\\udd80\"",
        "[ ]\n",
    ];
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let records: Vec<_> = (0..).zip(texts).map(|(index, json)| succeeded(index, json)).collect();
    store.commit("nightly", "a", &records).await.unwrap();
    assert_eq!(successes(&store, "nightly").await, records);
}

async fn a_megabyte_comes_back<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let megabyte =
        |index: u64| format!("\"{}\"", ["ab'\u{e9}", "\\\\cd"][index as usize % 2].repeat(200_000));
    let records: Vec<_> = (0..5).map(|index| succeeded(index, &megabyte(index))).collect();
    store.commit("nightly", "a", &records).await.unwrap();
    store.save_checkpoint("nightly", "a", 9, "hash", &sealed(&megabyte(0))).await.unwrap();
    assert!(successes(&store, "nightly").await == records, "outputs of a megabyte have changed");
    assert!(store.checkpoint("nightly", 9, "hash").await.unwrap() == Some(sealed(&megabyte(0))));
}

/// In a message it must not cost the outcomes that are committed with it.
async fn the_character_nul_is_kept_or_refused<S: Store>(store: S) {
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    store.commit("nightly", "a", &[succeeded(0, "0"), failed(1, "a\0b")]).await.unwrap();
    store.close_run("nightly", "a", &RunStatus::Failed { reason: "a\0b".to_owned() }).await.unwrap();
    let run = store.run("nightly").await.unwrap().unwrap();
    let RunStatus::Failed { reason } = run.status else { panic!("{:?}", run.status) };
    for message in [reason, run.failures[0].1.clone()] {
        assert!(["a\0b", "a\u{fffd}b"].contains(&message.as_str()), "{message:?}");
    }
    match store.open_run("a\0b", "resize", "a", HOUR).await {
        Ok(()) => assert_eq!(store.run("a\0b").await.unwrap().unwrap().run_id, "a\0b"),
        Err(error) => assert!(matches!(error, StoreError::Database { .. }), "{error}"),
    }
    assert_eq!(store.run("a").await.unwrap(), None, "it is not cut short");
}
