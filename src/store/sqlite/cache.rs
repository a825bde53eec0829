//! Cached values, and the claims to compute them.

use std::time::Duration;

use sqlx::{Executor, Sqlite};

use super::{SqliteStore, after, now};
use crate::store::fault::Fault;
use crate::store::rows;
use crate::store::{CacheKey, Claim, Sealed};

/// How many values that have expired are deleted whenever one is put in: more than one, so that they get fewer, and
/// few, so that nobody waits for it.
const EXPIRED_AT_ONCE: i64 = 100;

/// Takes the claim where there is none, where it is over, and where it is the holder's own.
const CLAIM: &str = "
    INSERT INTO map_task_claims (task, version, item_hash, holder, held_until_ms) VALUES (?1, ?2, ?3, ?4, ?6)
    ON CONFLICT (task, version, item_hash) DO UPDATE SET
        holder = excluded.holder, held_until_ms = excluded.held_until_ms
    WHERE holder = excluded.holder OR held_until_ms <= ?5";

pub(super) async fn value(
    executor: impl Executor<'_, Database = Sqlite>,
    key: &CacheKey,
) -> Result<Option<Sealed>, Fault> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT output, checksum FROM map_task_cache
         WHERE task = ?1 AND version = ?2 AND item_hash = ?3 AND (expires_ms IS NULL OR expires_ms > ?4)",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(now())
    .fetch_optional(executor)
    .await?;
    Ok(found.map(|(json, checksum)| Sealed { json, checksum }))
}

pub(super) async fn put(
    store: &SqliteStore,
    key: &CacheKey,
    value: &Sealed,
    expires_after: Option<Duration>,
) -> Result<(), Fault> {
    let mut transaction = store.write().await?;
    sqlx::query(
        "DELETE FROM map_task_cache WHERE rowid IN
             (SELECT rowid FROM map_task_cache WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
    )
    .bind(now())
    .bind(EXPIRED_AT_ONCE)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT OR REPLACE INTO map_task_cache
             (task, version, item_hash, output, checksum, written_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(&value.json)
    .bind(&value.checksum)
    .bind(now())
    .bind(expires_after.map(after))
    .execute(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM map_task_claims WHERE task = ?1 AND version = ?2 AND item_hash = ?3")
        .bind(&key.task)
        .bind(&key.version)
        .bind(&key.item_hash)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

pub(super) async fn claim(
    store: &SqliteStore,
    key: &CacheKey,
    holder: &str,
    lease: Duration,
    overwrite: bool,
) -> Result<Claim, Fault> {
    // Whoever finds the value at once does not wait for those who write.
    if !overwrite {
        if let Some(value) = value(&store.readers, key).await? {
            return Ok(Claim::Cached(value));
        }
    }
    let mut transaction = store.write().await?;
    if !overwrite {
        if let Some(value) = value(&mut *transaction, key).await? {
            return Ok(Claim::Cached(value));
        }
    }
    let now = now();
    let claimed = sqlx::query(CLAIM)
        .bind(&key.task)
        .bind(&key.version)
        .bind(&key.item_hash)
        .bind(holder)
        .bind(now)
        .bind(after(lease))
        .execute(&mut *transaction)
        .await?;
    if claimed.rows_affected() > 0 {
        transaction.commit().await?;
        return Ok(Claim::Granted);
    }
    let until: i64 = sqlx::query_scalar(
        "SELECT held_until_ms FROM map_task_claims WHERE task = ?1 AND version = ?2 AND item_hash = ?3",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .fetch_one(&mut *transaction)
    .await?;
    Ok(Claim::Held { remaining: Duration::from_millis(rows::number(until.saturating_sub(now))?) })
}

pub(super) async fn renew(
    store: &SqliteStore,
    key: &CacheKey,
    holder: &str,
    lease: Duration,
) -> Result<bool, Fault> {
    let renewed = sqlx::query(
        "UPDATE map_task_claims SET held_until_ms = ?5
         WHERE task = ?1 AND version = ?2 AND item_hash = ?3 AND holder = ?4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .bind(after(lease))
    .execute(&store.writer)
    .await?;
    Ok(renewed.rows_affected() > 0)
}

pub(super) async fn release(store: &SqliteStore, key: &CacheKey, holder: &str) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM map_task_claims
         WHERE task = ?1 AND version = ?2 AND item_hash = ?3 AND holder = ?4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .execute(&store.writer)
    .await?;
    Ok(())
}

pub(super) async fn evict(store: &SqliteStore, task: &str, version: Option<&str>) -> Result<u64, Fault> {
    let evicted = sqlx::query("DELETE FROM map_task_cache WHERE task = ?1 AND (?2 IS NULL OR version = ?2)")
        .bind(task)
        .bind(version)
        .execute(&store.writer)
        .await?;
    Ok(evicted.rows_affected())
}
