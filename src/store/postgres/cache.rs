//! Cached values, and the claims to compute them.

use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{Executor, Postgres};

use super::microseconds;
use crate::store::fault::Fault;
use crate::store::rows;
use crate::store::{CacheKey, Claim, Sealed};

/// How many values that have expired are deleted whenever one is put in: more than one, so that they get fewer, and
/// few, so that nobody waits for it.
const EXPIRED_AT_ONCE: i64 = 100;

/// Those that another deletes already are left to it.
const DELETE_EXPIRED: &str = "
    DELETE FROM map_task_cache WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM map_task_cache WHERE expires <= now() ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED
    ))";

/// Puts in the value and ends the claim, both or neither.
const PUT: &str = "
    WITH ended AS (
        DELETE FROM map_task_claims WHERE task = $1 AND version = $2 AND item_hash = $3
    )
    INSERT INTO map_task_cache (task, version, item_hash, output, checksum, written, expires)
    VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp() + $6::bigint * interval '1 microsecond')
    ON CONFLICT (task, version, item_hash) DO UPDATE SET
        output = excluded.output, checksum = excluded.checksum, written = excluded.written,
        expires = excluded.expires";

/// Takes the claim where there is none, where it is over, and where it is the holder's own. Otherwise its row is
/// locked until the transaction ends.
const CLAIM: &str = "
    INSERT INTO map_task_claims AS claim (task, version, item_hash, holder, held_until)
    VALUES ($1, $2, $3, $4, clock_timestamp() + $5::bigint * interval '1 microsecond')
    ON CONFLICT (task, version, item_hash) DO UPDATE SET
        holder = excluded.holder, held_until = clock_timestamp() + $5::bigint * interval '1 microsecond'
    WHERE claim.holder = excluded.holder OR claim.held_until <= clock_timestamp()";

const REMAINING: &str = "
    SELECT greatest((extract(epoch FROM held_until - clock_timestamp()) * 1000)::bigint, 0)
    FROM map_task_claims WHERE task = $1 AND version = $2 AND item_hash = $3";

pub(super) async fn value(
    executor: impl Executor<'_, Database = Postgres>,
    key: &CacheKey,
) -> Result<Option<Sealed>, Fault> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT output, checksum FROM map_task_cache
         WHERE task = $1 AND version = $2 AND item_hash = $3
             AND (expires IS NULL OR expires > clock_timestamp())",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .fetch_optional(executor)
    .await?;
    Ok(found.map(|(json, checksum)| Sealed { json, checksum }))
}

pub(super) async fn put(
    pool: &PgPool,
    key: &CacheKey,
    value: &Sealed,
    expires_after: Option<Duration>,
) -> Result<(), Fault> {
    sqlx::query(DELETE_EXPIRED).bind(EXPIRED_AT_ONCE).execute(pool).await?;
    sqlx::query(PUT)
        .bind(&key.task)
        .bind(&key.version)
        .bind(&key.item_hash)
        .bind(&value.json)
        .bind(&value.checksum)
        .bind(expires_after.map(microseconds))
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn claim(
    pool: &PgPool,
    key: &CacheKey,
    holder: &str,
    lease: Duration,
    overwrite: bool,
) -> Result<Claim, Fault> {
    if !overwrite {
        if let Some(value) = value(pool, key).await? {
            return Ok(Claim::Cached(value));
        }
    }
    let mut transaction = pool.begin().await?;
    let claimed = sqlx::query(CLAIM)
        .bind(&key.task)
        .bind(&key.version)
        .bind(&key.item_hash)
        .bind(holder)
        .bind(microseconds(lease))
        .execute(&mut *transaction)
        .await?;
    if claimed.rows_affected() == 0 {
        let remaining: i64 = sqlx::query_scalar(REMAINING)
            .bind(&key.task)
            .bind(&key.version)
            .bind(&key.item_hash)
            .fetch_one(&mut *transaction)
            .await?;
        return Ok(Claim::Held { remaining: Duration::from_millis(rows::number(remaining)?) });
    }
    // Whoever had the claim until now may have put the value in since it was looked for; the claim then goes back
    // with the transaction.
    if !overwrite {
        if let Some(value) = value(&mut *transaction, key).await? {
            return Ok(Claim::Cached(value));
        }
    }
    transaction.commit().await?;
    Ok(Claim::Granted)
}

pub(super) async fn renew(
    pool: &PgPool,
    key: &CacheKey,
    holder: &str,
    lease: Duration,
) -> Result<bool, Fault> {
    let renewed = sqlx::query(
        "UPDATE map_task_claims SET held_until = clock_timestamp() + $5::bigint * interval '1 microsecond'
         WHERE task = $1 AND version = $2 AND item_hash = $3 AND holder = $4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .bind(microseconds(lease))
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() > 0)
}

pub(super) async fn release(pool: &PgPool, key: &CacheKey, holder: &str) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM map_task_claims
         WHERE task = $1 AND version = $2 AND item_hash = $3 AND holder = $4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn evict(pool: &PgPool, task: &str, version: Option<&str>) -> Result<u64, Fault> {
    let evicted =
        sqlx::query("DELETE FROM map_task_cache WHERE task = $1 AND ($2::text IS NULL OR version = $2)")
            .bind(task)
            .bind(version)
            .execute(pool)
            .await?;
    Ok(evicted.rows_affected())
}
