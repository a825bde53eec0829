//! Calls that share a statement of the server. The runtime has one thread, so that calls that are made at the same time are one
//! group.

use async_map_task::store::{CacheKey, Claim, PostgresStore, Store};
use futures::future::join_all;
use sqlx::{Connection, PgConnection};

use crate::cluster;
use crate::support::{HOUR, checksummed, key};

#[tokio::test]
async fn of_equal_items_in_one_group_the_last_one_stays() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let values = ["1", "3", "2", "4"].map(checksummed);
    let saves = values.iter().map(|state| store.save_checkpoint("nightly", "a", 7, "hash", state));
    for saved in join_all(saves).await {
        saved.unwrap();
    }
    assert_eq!(store.checkpoint("nightly", 7, "hash").await.unwrap(), Some(checksummed("4")));

    let key = key("a");
    for stored in join_all(values.iter().map(|value| store.put_cached(&key, value, None))).await {
        stored.unwrap();
    }
    assert_eq!(store.cached(&key).await.unwrap(), Some(checksummed("4")));
}

/// The former holder stores two values while a group waits for its claims. The group acquires them and finds the values.
#[tokio::test]
async fn claims_that_come_after_the_value_are_released_and_no_others() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let [first, second, held, free] = ["1", "2", "3", "4"].map(key);
    let others = [
        CacheKey { task: "other".to_owned(), ..first.clone() },
        CacheKey { version: "4".to_owned(), ..first.clone() },
        key("5"),
    ];
    for key in &others {
        assert_eq!(store.claim(key, "a", HOUR, false).await.unwrap(), Claim::Granted);
    }
    for key in [&first, &second, &held] {
        assert_eq!(store.claim(key, "former", HOUR, false).await.unwrap(), Claim::Granted);
    }
    let mut former = PgConnection::connect(&url).await.unwrap();
    let store_values = "BEGIN;
         DELETE FROM map_task_claims WHERE holder = 'former' AND item_hash IN ('1', '2');
         INSERT INTO map_task_cache (task, version, item_hash, output, checksum, written)
         SELECT 'embed', '3', item_hash, item_hash, '0123456789abcdef', now()
         FROM unnest(array['1', '2']) AS item_hash;";
    sqlx::raw_sql(store_values).execute(&mut former).await.unwrap();

    let group = [&first, &second, &held, &free].map(|key| store.claim(key, "a", HOUR, false));
    let commit = async {
        // The view does not change within a transaction.
        let mut observer = PgConnection::connect(&url).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut observer).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut former).await.unwrap();
    };
    let (claims, ()) = tokio::join!(join_all(group), commit);
    let claims: Vec<Claim> = claims.into_iter().map(Result::unwrap).collect();
    assert_eq!(claims[..2], ["1", "2"].map(|value| Claim::Cached(checksummed(value))));
    assert!(matches!(claims[2], Claim::Held { .. }), "{claims:?}");
    assert_eq!(claims[3], Claim::Granted);

    for key in [&first, &second] {
        assert!(!store.renew_claim(key, "a", HOUR).await.unwrap(), "{key:?}");
    }
    for key in others.iter().chain([&free]) {
        assert!(store.renew_claim(key, "a", HOUR).await.unwrap(), "{key:?}");
    }
}
