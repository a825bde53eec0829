//! Cached values, and the claims to compute them.

use std::time::Duration;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::operation::{Key, NewClaim, Put, Text};
use super::values::{MAX_ROWS, push_rows};
use super::{after, length, max_lease_end, now};
use crate::store::fault::Fault;
use crate::store::rows;
use crate::store::{Checksummed, Claim};

/// How many expired values are deleted for each value of a group of puts. More than one, so that their number falls; few, so
/// that no caller waits for the deletion.
const EXPIRED_PER_PUT: usize = 100;

/// The maximum number of values deleted at once.
const MAX_EXPIRED: usize = 1_000;

/// The row of a requested claim. First its position in the group. Then, if there is one, the holder of the key, the end and
/// the length of its lease. Then, if there is one, the value with its checksum.
type ClaimRow = (i64, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<String>);

/// Returns the values of some keys, in the order of the keys.
pub(super) async fn values(
    connection: &mut SqliteConnection,
    keys: &[&Key],
) -> Result<Vec<Option<Checksummed>>, Fault> {
    let mut values: Vec<Option<Checksummed>> = Vec::with_capacity(keys.len());
    for keys in keys.chunks(MAX_ROWS) {
        let first = values.len();
        values.resize(first + keys.len(), None);
        let mut query = QueryBuilder::new("");
        push_wanted(&mut query, keys);
        query.push(
            "SELECT place, output, checksum FROM wanted CROSS JOIN map_task_cache USING (task, version, item_hash)
             WHERE expires_ms IS NULL OR expires_ms > ",
        );
        let found: Vec<(i64, String, String)> =
            query.push_bind(now()).build_query_as().fetch_all(&mut *connection).await?;
        for (place, json, checksum) in found {
            let place: usize = rows::number(place)?;
            if let Some(value) = values.get_mut(first + place) {
                *value = Some(Checksummed { json, checksum });
            }
        }
    }
    Ok(values)
}

/// Pushes a table `wanted` of these keys with their positions. A CROSS JOIN reads its rows first.
fn push_wanted(query: &mut QueryBuilder<Sqlite>, keys: &[&Key]) {
    let numbered: Vec<(i64, &Key)> = (0..).zip(keys.iter().copied()).collect();
    query.push("WITH wanted (place, task, version, item_hash) AS (");
    push_rows(query, &numbered, 4, |row, (place, key)| {
        row.push_bind(*place)
            .push_bind(Text::clone(&key.task))
            .push_bind(Text::clone(&key.version))
            .push_bind(Text::clone(&key.item_hash));
    });
    query.push(") ");
}

/// Stores values, and ends the claims on their keys.
pub(super) async fn put(connection: &mut SqliteConnection, puts: &[&Put]) -> Result<(), Fault> {
    for puts in puts.chunks(MAX_ROWS) {
        // One statement for SQLx: each statement is a round trip to the thread of the connection.
        let mut query = QueryBuilder::new("");
        push_delete_expired(&mut query, puts.len());
        push_insert(&mut query, puts);
        push_end_claims(&mut query, puts);
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn push_delete_expired(query: &mut QueryBuilder<Sqlite>, puts: usize) {
    let most = puts.saturating_mul(EXPIRED_PER_PUT).min(MAX_EXPIRED) as i64;
    query
        .push(
            "DELETE FROM map_task_cache WHERE rowid IN
                 (SELECT rowid FROM map_task_cache WHERE expires_ms <= ",
        )
        .push_bind(now())
        .push(" ORDER BY expires_ms LIMIT ")
        .push_bind(most)
        .push("); ");
}

fn push_insert(query: &mut QueryBuilder<Sqlite>, puts: &[&Put]) {
    let now = now();
    query.push(
        "INSERT OR REPLACE INTO map_task_cache
             (task, version, item_hash, output, checksum, written_ms, expires_ms)
         SELECT * FROM (",
    );
    push_rows(query, puts, 7, |row, put| {
        row.push_bind(Text::clone(&put.key.task))
            .push_bind(Text::clone(&put.key.version))
            .push_bind(Text::clone(&put.key.item_hash))
            .push_bind(Text::clone(&put.value.json))
            .push_bind(Text::clone(&put.value.checksum))
            .push_bind(now)
            .push_bind(put.expires_after.map(after));
    });
    query.push(") WHERE column1 IS NOT NULL; ");
}

fn push_end_claims(query: &mut QueryBuilder<Sqlite>, puts: &[&Put]) {
    let keys: Vec<&Key> = puts.iter().map(|put| &put.key).collect();
    // This form looks up the rows by key, one after another. For a row value that is IN a list, SQLite would search all
    // rows.
    query.push("DELETE FROM map_task_claims WHERE rowid IN (");
    push_wanted(query, &keys);
    query.push(
        "SELECT claim.rowid FROM wanted CROSS JOIN map_task_claims AS claim USING (task, version, item_hash))",
    );
}

/// Grants claims on keys with no claim, an expired one, or one of the same holder. A key with a value is claimed only to
/// overwrite it. The first claim on a key wins.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claims: &[&NewClaim],
) -> Result<Vec<Claim>, Fault> {
    let mut made = Vec::with_capacity(claims.len());
    for claims in claims.chunks(MAX_ROWS) {
        let now = now();
        let mut query = QueryBuilder::new("");
        push_take(&mut query, claims, now);
        push_claims(&mut query, claims, now);
        let found: Vec<ClaimRow> = query.build_query_as().fetch_all(&mut *connection).await?;
        for (claim, (_, holder, until, lease, output, checksum)) in claims.iter().zip(found) {
            made.push(match (output, checksum) {
                (Some(json), Some(checksum)) => Claim::Cached(Checksummed { json, checksum }),
                _ if holder.as_deref() == Some(&*claim.holder) => Claim::Granted,
                _ => {
                    let until = shorten(connection, &claim.key, now, until.unwrap_or(now), lease).await?;
                    Claim::Held { remaining: Duration::from_millis(rows::number(until.saturating_sub(now))?) }
                }
            });
        }
    }
    Ok(made)
}

/// Pushes the statement that acquires all available claims.
fn push_take(query: &mut QueryBuilder<Sqlite>, claims: &[&NewClaim], now: i64) {
    query.push(
        "INSERT INTO map_task_claims (task, version, item_hash, holder, held_until_ms, lease_ms)
         SELECT column1, column2, column3, column4, column5, column6 FROM (",
    );
    push_rows(query, claims, 7, |row, claim| {
        row.push_bind(Text::clone(&claim.key.task))
            .push_bind(Text::clone(&claim.key.version))
            .push_bind(Text::clone(&claim.key.item_hash))
            .push_bind(Text::clone(&claim.holder))
            .push_bind(after(claim.lease))
            .push_bind(length(claim.lease))
            .push_bind(claim.overwrite);
    });
    query
        .push(
            ") WHERE column1 IS NOT NULL AND (column7 OR NOT EXISTS (
                 SELECT 1 FROM map_task_cache
                 WHERE task = column1 AND version = column2 AND item_hash = column3
                     AND (expires_ms IS NULL OR expires_ms > ",
        )
        .push_bind(now)
        .push(
            ")))
             ON CONFLICT (task, version, item_hash) DO UPDATE SET
                 holder = excluded.holder, held_until_ms = excluded.held_until_ms, lease_ms = excluded.lease_ms
             WHERE holder = excluded.holder OR held_until_ms <= ",
        )
        .push_bind(now)
        .push("; ");
}

/// Pushes the statement that returns a row for each claim, in their order: the claim on its key, and the value unless it
/// will be overwritten.
fn push_claims(query: &mut QueryBuilder<Sqlite>, claims: &[&NewClaim], now: i64) {
    let numbered: Vec<(i64, &NewClaim)> = (0..).zip(claims.iter().copied()).collect();
    query.push("WITH wanted (place, task, version, item_hash, overwrite) AS (");
    push_rows(query, &numbered, 5, |row, (place, claim)| {
        row.push_bind(*place)
            .push_bind(Text::clone(&claim.key.task))
            .push_bind(Text::clone(&claim.key.version))
            .push_bind(Text::clone(&claim.key.item_hash))
            .push_bind(claim.overwrite);
    });
    query
        .push(
            ") SELECT place, claim.holder, claim.held_until_ms, claim.lease_ms, kept.output, kept.checksum
             FROM wanted
             LEFT JOIN map_task_claims AS claim USING (task, version, item_hash)
             LEFT JOIN map_task_cache AS kept
                 ON NOT wanted.overwrite AND kept.task = wanted.task AND kept.version = wanted.version
                     AND kept.item_hash = wanted.item_hash AND (kept.expires_ms IS NULL OR kept.expires_ms > ",
        )
        .push_bind(now)
        .push(") WHERE place IS NOT NULL ORDER BY place");
}

/// Shortens a claim that ends later than its lease allows, because a clock was ahead, to its lease from now.
async fn shorten(
    connection: &mut SqliteConnection,
    key: &Key,
    now: i64,
    until: i64,
    lease: Option<i64>,
) -> Result<i64, Fault> {
    let Some(longest) = max_lease_end(now, until, lease) else { return Ok(until) };
    sqlx::query(
        "UPDATE map_task_claims SET held_until_ms = ?4 WHERE task = ?1 AND version = ?2 AND item_hash = ?3",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(longest)
    .execute(connection)
    .await?;
    Ok(longest)
}

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    key: &Key,
    holder: &Text,
    lease: Duration,
) -> Result<u64, Fault> {
    let renewed = sqlx::query(
        "UPDATE map_task_claims SET held_until_ms = ?5, lease_ms = ?6
         WHERE task = ?1 AND version = ?2 AND item_hash = ?3 AND holder = ?4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .bind(after(lease))
    .bind(length(lease))
    .execute(connection)
    .await?;
    Ok(renewed.rows_affected())
}

pub(super) async fn release(
    connection: &mut SqliteConnection,
    key: &Key,
    holder: &Text,
) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM map_task_claims
         WHERE task = ?1 AND version = ?2 AND item_hash = ?3 AND holder = ?4",
    )
    .bind(&key.task)
    .bind(&key.version)
    .bind(&key.item_hash)
    .bind(holder)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn evict(
    connection: &mut SqliteConnection,
    task: &Text,
    version: Option<&Text>,
) -> Result<u64, Fault> {
    let evicted = sqlx::query("DELETE FROM map_task_cache WHERE task = ?1 AND (?2 IS NULL OR version = ?2)")
        .bind(task)
        .bind(version)
        .execute(connection)
        .await?;
    Ok(evicted.rows_affected())
}
