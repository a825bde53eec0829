//! Values: the identity of an item, and outputs and states that come back unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use async_map_task::store::{
    CacheKey, Checksummed, MemoryStore, PostgresStore, Record, Recorded, RunStatus, SqliteStore, Store,
    StoreError,
};
use async_map_task::{AsyncMapTask, BoxError, Cache, FailureReason, MapTaskError, MapTaskResult};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::cluster;
use crate::folder::Folder;
use crate::rigged::{Call, Rigged};
use crate::support::{Calls, HOUR, at_once, ended_by_store, in_time, store_error};
use crate::warnings::Warnings;

fn v1() -> Cache {
    Cache::version("1")
}

/// Two closures of one function have one type name, so a task without a name could find the outputs of the other.
#[tokio::test]
async fn a_durable_run_needs_a_name() {
    let (store, calls) = (Rigged::willing(), Calls::default());
    let task = AsyncMapTask::builder().build().unwrap();
    let empty = AsyncMapTask::builder().name("").build().unwrap();
    let run_of = |task: &AsyncMapTask| {
        let calls = calls.clone();
        task.over([1, 2, 3]).map(move |n| {
            calls.note(n);
            async move { Ok::<_, String>(n + 1) }
        })
    };
    let run = || run_of(&task);
    let check = |error: MapTaskError<u64, String>| {
        let FailureReason::Config(config) = error.reason() else { panic!("{error}") };
        assert_eq!((config.field(), config.found()), ("name", "no name"));
        assert!(error.to_string().contains(".name(..)"), "{error}");
        assert_eq!(error.summary().not_started, 3);
    };
    check(in_time(run().cache(&store, v1())).await.unwrap_err());
    check(in_time(run().cache(&store, v1().serialized()).parallel()).await.unwrap_err());
    check(in_time(run().recover(&store, "r")).await.unwrap_err());
    check(in_time(run().recover(&store, "r").cache(&store, v1())).await.unwrap_err());
    check(in_time(run().recover(&store, "r").spawn()).await.unwrap_err());
    check(in_time(run_of(&empty).cache(&store, v1())).await.unwrap_err());
    let error = in_time(run().recover(&store, "r").for_each(|_| async {})).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Config(_)), "{error}");
    assert_eq!(calls.take(), [0_u64; 0], "no item has started");
    for call in [Call::OpenRun, Call::Cached, Call::Claim] {
        assert_eq!(store.count(call), 0, "the store was not touched: {call:?}");
    }
}

/// Runs items through `cache`, and through `recover` with one after the other at the same index: each must run,
/// because it differs from those before it.
async fn each_is_another<I: Serialize + Clone + Debug>(items: Vec<I>) {
    let (store, count) = (MemoryStore::new(), items.len());
    let task = at_once(1).build().unwrap();
    let keep = || task.over(items.clone()).map(|item| async move { Ok::<_, String>(format!("{item:?}")) });
    for cached in [0, count] {
        let result = keep().cache(&store, v1()).await.unwrap();
        let expected: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
        assert_eq!((result.summary.cached, result.into_successful_results()), (cached, expected));
    }
    for (at, item) in items.iter().enumerate() {
        let run = task.over([item.clone()]).map(|item| async move { Ok::<_, String>(format!("{item:?}")) });
        let result = run.recover(&store, "r").await.unwrap();
        assert_eq!(result.results, [Some(format!("{item:?}"))]);
        assert_eq!((result.summary.recovered, result.summary.changed), (0, usize::from(at > 0)), "{item:?}");
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    a: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
}

fn flat(a: u32, rest: &[(&str, u32)]) -> Flat {
    Flat { a, rest: rest.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect() }
}

#[tokio::test]
async fn different_items_have_different_hashes() {
    each_is_another(vec![f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0, -0.0]).await;
    each_is_another(vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN]).await;
    each_is_another(vec![None, Some(f64::NAN), Some(f64::INFINITY)]).await;
    each_is_another(vec![None, Some(None), Some(Some(1))]).await;
    each_is_another(vec![flat(1, &[("a", 2)]), flat(2, &[("a", 1)]), flat(1, &[]), flat(2, &[])]).await;
    each_is_another(vec![u128::MAX, u128::from(u64::MAX) + 1, 1 << 70]).await;
    each_is_another(vec![i128::MIN, i128::MIN + 1, -1]).await;
    each_is_another(vec![BTreeMap::from([(vec![1], 1)]), BTreeMap::from([(vec![2], 1)])]).await;
}

/// The items of the second run are created anew: another order of the keys, and other widths.
#[tokio::test]
async fn the_order_of_keys_does_not_change_the_hash() {
    let store = MemoryStore::new();
    let task = at_once(4).build().unwrap();
    for recovered in [0, 20] {
        let maps: Vec<HashMap<String, u64>> =
            (0..20).map(|n| (0..n).map(|key| (format!("key {key}"), key)).collect()).collect();
        let run = task.over(maps).map(|map| async move { Ok::<_, String>(map.len()) });
        let result = run.recover(&store, "r").await.unwrap();
        assert_eq!((result.summary.recovered, result.summary.changed), (recovered, 0));
    }
    let text: serde_json::Value = serde_json::from_str(r#"{"x": 1, "y": [2, -3]}"#).unwrap();
    let turned: serde_json::Value = serde_json::from_str(r#"{"y": [2, -3], "x": 1}"#).unwrap();
    for (item, cached) in [(text, 0), (turned, 1)] {
        let run = task.over([item]).map(|item| async move { Ok::<_, String>(item.to_string()) });
        assert_eq!(run.cache(&store, v1()).await.unwrap().summary.cached, cached);
    }
}

/// JSON changes its value, or it cannot be read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Nothing,
    Sum { total: u128 },
}

/// The first variant that fits is taken: an integer is a float, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Float(f64),
    Integer(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Wide {
    Nothing(()),
    Sum(u128),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Read {
    size: u32,
    #[serde(skip_deserializing)]
    unread: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Numbered {
    #[serde(flatten)]
    names: BTreeMap<u32, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Weighed {
    weight: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tree {
    kids: Vec<Tree>,
}

/// A tree of `2 * depth` levels of JSON.
fn tree(depth: usize) -> Tree {
    (1..depth).fold(Tree { kids: Vec::new() }, |kid, _| Tree { kids: vec![kid] })
}

/// Read through a buffer, once more at each level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Bush {
    Leaf(u32),
    Kids { kids: Vec<Bush> },
}

fn bush(depth: usize) -> Bush {
    (1..depth).fold(Bush::Leaf(7), |kid, _| Bush::Kids { kids: vec![kid] })
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Shrub {
    Kids { kids: Vec<Shrub> },
}

fn shrub(depth: usize) -> Shrub {
    (1..depth).fold(Shrub::Kids { kids: Vec::new() }, |kid, _| Shrub::Kids { kids: vec![kid] })
}

/// An output that cannot come back ends the run like one that is not JSON: it is in the partial result, is not
/// durable, and the error names its item and the cause. `cache` keeps the others, with a warning.
async fn is_refused<T>(output: T, good: T, what: &str)
where
    T: Serialize + DeserializeOwned + Clone + Debug,
{
    let store = Rigged::willing();
    let task = at_once(1).build().unwrap();
    let run = || {
        let (output, good) = (output.clone(), good.clone());
        task.over([0, 1]).map(move |n: u64| {
            let output = if n == 1 { output.clone() } else { good.clone() };
            async move { Ok::<_, String>(output) }
        })
    };
    for recovered in [0, 1] {
        let (partial, why) = ended_by_store(in_time(run().recover(&store, "r")).await);
        assert!(why.starts_with("item 1: the output cannot be stored as JSON: "), "{why}");
        assert!(why.contains(what), "{why} does not say {what}");
        assert_eq!((partial.successes(), partial.summary.recovered), (2, recovered), "{output:?}");
    }
    assert_eq!(store.durable(), [0], "{output:?}");

    let (warnings, _listening) = Warnings::listen();
    for cached in [0, 1] {
        let result = in_time(run().cache(&store, v1().serialized())).await.unwrap();
        assert_eq!((result.successes(), result.summary.cached), (2, cached), "{output:?}");
        assert_eq!(warnings.count(what), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_cannot_be_read_back_is_refused() {
    is_refused(f64::NAN, 1.0, "NaN, which JSON writes as null").await;
    is_refused(f32::INFINITY, 1.0, "inf, which JSON writes as null").await;
    is_refused(Some(f64::NAN), None, "NaN, which JSON writes as null").await;
    is_refused(Some(f64::NEG_INFINITY), Some(1.0), "-inf, which JSON writes as null").await;
    is_refused(
        Weighed { weight: Some(f64::NAN) },
        Weighed { weight: None },
        "the field `weight` contains NaN",
    )
    .await;
    is_refused(Some(None), Some(Some(1)), "a Some(..) that JSON writes as null").await;
    is_refused(Some(serde_json::Value::Null), None, "a Some(..) that JSON writes as null").await;
    is_refused(flat(1, &[("a", 2)]), flat(1, &[("b", 2)]), "the key `a` more than once").await;
    is_refused(Untagged::Integer(7), Untagged::Float(7.5), "`7` is read back as `7.0`").await;
    is_refused(Tagged::Sum { total: 5 }, Tagged::Nothing, "u128 is not supported").await;
    let names = BTreeMap::from([(7, "seven".to_owned())]);
    is_refused(Numbered { names }, Numbered { names: BTreeMap::new() }, "expected u32").await;
    is_refused(Wide::Sum(u128::MAX), Wide::Nothing(()), "data did not match any variant").await;
    is_refused(
        Read { size: 1, unread: 1 },
        Read { size: 1, unread: 0 },
        "`{\"size\":1,\"unread\":1}` is read back as",
    )
    .await;
    is_refused(tree(129), tree(128), "nested at most 256 levels deep, got 258").await;
}

/// A value that can be read back is never refused, and every written value is found again.
#[tokio::test(start_paused = true)]
async fn an_output_that_can_be_read_back_is_kept() {
    async fn is_kept<T>(output: T)
    where
        T: Serialize + DeserializeOwned + Clone + PartialEq + Debug,
    {
        let (store, calls) = (MemoryStore::new(), Calls::default());
        let task = at_once(1).build().unwrap();
        for recovered in [0, 1] {
            let run = task.over([7]).map(|n| {
                calls.note(n);
                let output = output.clone();
                async move { Ok::<_, String>(output) }
            });
            let result = in_time(run.recover(&store, "r")).await.unwrap();
            assert_eq!((result.results, result.summary.recovered), (vec![Some(output.clone())], recovered));
        }
        assert_eq!(calls.take(), [7], "{output:?}");
    }
    is_kept((u128::MAX, i128::MIN, u64::MAX, i64::MIN)).await;
    is_kept((f64::MIN_POSITIVE, f64::MAX, -0.0, 0.1_f32, 1.0 / 3.0, f32::MAX)).await;
    is_kept((0..500).map(|n| format!("name {n}")).collect::<HashSet<_>>()).await;
    is_kept((0..50).map(|n| (n, (0..n).collect())).collect::<HashMap<u32, HashSet<u32>>>()).await;
    is_kept(BTreeSet::from(["a\0b".to_owned(), "\u{1f600}\"\\".to_owned(), String::new()])).await;
    is_kept((None::<()>, Some(1), (), 'x', serde_json::json!({"a": [1, null, -2.5, "x"]}))).await;
    is_kept((Untagged::Float(7.0), Untagged::Float(0.5))).await;
    is_kept((Tagged::Nothing, flat(1, &[("b", 2)]))).await;
    is_kept(tree(70)).await;
    is_kept(tree(128)).await;
    is_kept(bush(128)).await;
    is_kept(shrub(128)).await;
    is_kept(vec![[[0.1_f64; 3]; 3]; 100]).await;
}

/// A state that could not be loaded is refused when it is saved, and the one before it stays.
#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_loaded_is_not_saved() {
    async fn is_refused<S>(state: &S, what: &str)
    where
        S: Serialize + DeserializeOwned + Debug,
    {
        let store = MemoryStore::new();
        let run = at_once(1).build().unwrap().over([0, 1]).map_with_context(|cx, n: u64| async move {
            if n == 1 {
                cx.checkpoint().save(&"the one before".to_owned()).await?;
                let error = cx.checkpoint().save(state).await.unwrap_err();
                assert!(matches!(error, StoreError::Json { .. }), "{error}");
                let text = error.to_string();
                assert!(text.starts_with("the state of item 1 cannot be stored as JSON: "), "{text}");
                assert!(text.contains(what), "{text}");
                assert_eq!(cx.checkpoint().load::<String>().await?.as_deref(), Some("the one before"));
            }
            Ok::<_, BoxError>(n)
        });
        assert_eq!(in_time(run.recover(&store, "r")).await.unwrap().successes(), 2, "{state:?}");
    }
    is_refused(&f64::NAN, "NaN, which JSON writes as null").await;
    is_refused(&Weighed { weight: Some(f64::INFINITY) }, "the field `weight` contains inf").await;
    is_refused(&[Some(None::<u8>)], "a Some(..) that JSON writes as null").await;
    is_refused(&flat(1, &[("a", 2)]), "the key `a` more than once").await;
    is_refused(&tree(129), "nested at most 256 levels deep, got 258").await;
    // JSON can represent all of it, but serde cannot read it back.
    is_refused(&TaggedState::Large { number: 7 }, "u128").await;
    is_refused(&FlatState { by_number: BTreeMap::from([(7, 1)]) }, "invalid type").await;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum TaggedState {
    Large { number: u128 },
}

#[derive(Debug, Serialize, Deserialize)]
struct FlatState {
    #[serde(flatten)]
    by_number: BTreeMap<u32, u32>,
}

#[tokio::test(start_paused = true)]
async fn a_deep_state_is_loaded() {
    let run = at_once(1).build().unwrap().over([128, 70]).map_with_context(|cx, depth| async move {
        cx.checkpoint().save(&tree(depth)).await?;
        assert_eq!(cx.checkpoint().load::<Tree>().await?, Some(tree(depth)));
        Ok::<_, BoxError>(())
    });
    assert_eq!(in_time(run.recover(&MemoryStore::new(), "r")).await.unwrap().successes(), 2);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of an item in version 1 of the tables: that of its JSON.
fn first_hash(json: &str) -> String {
    hexadecimal(&Sha256::digest(json))
}

fn seal(json: &str, belongs_to: &[&str]) -> Checksummed {
    let mut hash = Sha256::new();
    for part in belongs_to.iter().copied().chain([json]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Checksummed { json: json.to_owned(), checksum: hexadecimal(&hash.finalize()[..8]) }
}

/// Writes the records of a program for version 1 of the tables: the items are 0, 1 and 2, and the outputs 100
/// and so on.
async fn keep_with_first_hashes(store: &impl Store) {
    let record = |index: u64, recorded| Record {
        index,
        item_hash: first_hash(&index.to_string()),
        attempts: 1,
        elapsed: HOUR,
        recorded,
    };
    for run_id in ["done", "failed"] {
        store.open_run(run_id, "test", "earlier", HOUR).await.unwrap();
    }
    for index in 0..3 {
        let (place, hash, json) =
            (index.to_string(), first_hash(&index.to_string()), (100 + index).to_string());
        let output = seal(&json, &["done", &place, &hash]);
        let succeeded = record(index, Recorded::Succeeded { output });
        store.commit("done", "earlier", &[succeeded]).await.unwrap();
        let failed = record(index, Recorded::Failed { message: "no".to_owned() });
        store.commit("failed", "earlier", &[failed]).await.unwrap();
        let state = seal(&json, &["failed", &place, &hash]);
        store.save_checkpoint("failed", "earlier", index, &hash, &state).await.unwrap();
        let key = CacheKey { task: "test".to_owned(), version: "1".to_owned(), item_hash: hash.clone() };
        store.put_cached(&key, &seal(&json, &["test", "1", &hash]), None).await.unwrap();
    }
    for run_id in ["done", "failed"] {
        store.close_run(run_id, "earlier", &RunStatus::Running).await.unwrap();
    }
}

/// An outcome of an earlier version is never given out, and no item runs again unless its run is forgotten.
async fn first_hashes_give_nothing(store: &impl Store) {
    let (calls, task) = (Calls::default(), at_once(1).build().unwrap());
    let run = || {
        let calls = calls.clone();
        task.over(0..3_u64).map_with_context(move |cx, n| {
            calls.note(n);
            async move {
                Ok::<_, StoreError>(cx.checkpoint().load::<u64>().await.unwrap_or_default().unwrap_or(n))
            }
        })
    };
    let outputs = |result: MapTaskResult<u64, StoreError>| result.into_successful_results();
    let before = store.successes("done", 0, 9).await.unwrap();
    let error = in_time(run().recover(store, "done")).await.unwrap_err();
    assert!(
        matches!(store_error(error.reason()), StoreError::OtherFormat { run_id } if run_id == "done"),
        "{error}"
    );
    assert_eq!((error.summary().not_started, calls.take()), (3, vec![]));
    assert_eq!((store.successes("done", 0, 9).await.unwrap(), before.len()), (before, 3));

    for called in [vec![0, 1, 2], vec![]] {
        let cached = in_time(run().cache(store, v1())).await.unwrap();
        assert_eq!((calls.take(), outputs(cached)), (called, vec![0, 1, 2]));
    }
    for called in [vec![0, 1, 2], vec![]] {
        let again = in_time(run().recover(store, "failed")).await.unwrap();
        assert_eq!((calls.take(), outputs(again)), (called, vec![0, 1, 2]), "the states are not loaded");
    }
    assert!(store.forget("done").await.unwrap());
    let anew = in_time(run().recover(store, "done")).await.unwrap();
    assert_eq!((calls.take(), outputs(anew)), (vec![0, 1, 2], vec![0, 1, 2]));
}

/// The tables of PostgreSQL are the same in both versions.
const POSTGRES_AS_VERSION_1: &str = "UPDATE map_task_schema SET version = 1";

/// Version 3 of a SQLite file has columns that version 1 does not have.
const SQLITE_AS_VERSION_1: &str = "
    ALTER TABLE map_task_runs DROP COLUMN lease_ms;
    ALTER TABLE map_task_claims DROP COLUMN lease_ms;
    UPDATE map_task_schema SET version = 1";

#[tokio::test]
async fn outputs_with_old_hashes_are_ignored() {
    let memory = MemoryStore::new();
    keep_with_first_hashes(&memory).await;
    first_hashes_give_nothing(&memory).await;

    let folder = Folder::new();
    let path = folder.file("runs.db");
    keep_with_first_hashes(&SqliteStore::open(&path).await.unwrap()).await;
    let mut file = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql(SQLITE_AS_VERSION_1).execute(&mut file).await.unwrap();
    first_hashes_give_nothing(&SqliteStore::open(&path).await.unwrap()).await;
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM map_task_schema").fetch_one(&mut file).await.unwrap();
    assert_eq!(version, 3);
    file.close().await.unwrap();

    let url = cluster::shared().database().await;
    keep_with_first_hashes(&PostgresStore::connect(&url).await.unwrap()).await;
    let mut server = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(POSTGRES_AS_VERSION_1).execute(&mut server).await.unwrap();
    first_hashes_give_nothing(&PostgresStore::connect(&url).await.unwrap()).await;
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM map_task_schema").fetch_one(&mut server).await.unwrap();
    assert_eq!(version, 2);
}
