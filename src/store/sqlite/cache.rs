//! Cached values, and the claims to compute them.

use std::time::Duration;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::operation::{Key, NewClaim, Put, Text};
use super::values::{ROWS_AT_ONCE, push_rows};
use super::{after, length, now};
use crate::store::fault::Fault;
use crate::store::rows;
use crate::store::{Claim, Sealed};

/// How many values that have expired are deleted with each group of values that are put in, for each of them: more than
/// one, so that they get fewer, and few, so that nobody waits for it.
const EXPIRED_AT_ONCE: usize = 100;

/// The most that are deleted at once.
const MOST_EXPIRED: usize = 1_000;

/// A claim that was looked for: its place among the keys, its holder, and until when and for how long it is held.
type ClaimRow = (i64, String, i64, Option<i64>);

/// The values of some keys, in their order.
pub(super) async fn values(
    connection: &mut SqliteConnection,
    keys: &[&Key],
) -> Result<Vec<Option<Sealed>>, Fault> {
    let mut values: Vec<Option<Sealed>> = Vec::with_capacity(keys.len());
    for keys in keys.chunks(ROWS_AT_ONCE) {
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
                *value = Some(Sealed { json, checksum });
            }
        }
    }
    Ok(values)
}

/// Pushes a table `wanted` of these keys, each with its place. A CROSS JOIN takes its rows first.
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

/// Puts values in, and ends the claims on their keys.
pub(super) async fn put(connection: &mut SqliteConnection, puts: &[&Put]) -> Result<(), Fault> {
    delete_expired(connection, puts.len()).await?;
    for puts in puts.chunks(ROWS_AT_ONCE) {
        insert(connection, puts).await?;
        let keys: Vec<&Key> = puts.iter().map(|put| &put.key).collect();
        end_claims(connection, &keys).await?;
    }
    Ok(())
}

async fn delete_expired(connection: &mut SqliteConnection, puts: usize) -> Result<(), Fault> {
    let most = puts.saturating_mul(EXPIRED_AT_ONCE).min(MOST_EXPIRED) as i64;
    sqlx::query(
        "DELETE FROM map_task_cache WHERE rowid IN
             (SELECT rowid FROM map_task_cache WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
    )
    .bind(now())
    .bind(most)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, puts: &[&Put]) -> Result<(), Fault> {
    let now = now();
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO map_task_cache
             (task, version, item_hash, output, checksum, written_ms, expires_ms)
         SELECT * FROM (",
    );
    push_rows(&mut query, puts, 7, |row, put| {
        row.push_bind(Text::clone(&put.key.task))
            .push_bind(Text::clone(&put.key.version))
            .push_bind(Text::clone(&put.key.item_hash))
            .push_bind(Text::clone(&put.value.json))
            .push_bind(Text::clone(&put.value.checksum))
            .push_bind(now)
            .push_bind(put.expires_after.map(after));
    });
    query.push(") WHERE column1 IS NOT NULL").build().execute(connection).await?;
    Ok(())
}

async fn end_claims(connection: &mut SqliteConnection, keys: &[&Key]) -> Result<(), Fault> {
    // The rows are looked for by key, one after another; a row value that is IN a list is looked for in all rows.
    let mut query = QueryBuilder::new("DELETE FROM map_task_claims WHERE rowid IN (");
    push_wanted(&mut query, keys);
    query.push(
        "SELECT claim.rowid FROM wanted CROSS JOIN map_task_claims AS claim USING (task, version, item_hash))",
    );
    query.build().execute(connection).await?;
    Ok(())
}

/// Takes claims: where there is no value, and no claim or one that is over or the holder's own. What comes first has it.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claims: &[&NewClaim],
) -> Result<Vec<Claim>, Fault> {
    let mut made = Vec::with_capacity(claims.len());
    for claims in claims.chunks(ROWS_AT_ONCE) {
        let keys: Vec<&Key> = claims.iter().map(|claim| &claim.key).collect();
        let values = values(connection, &keys).await?;
        let is_open = |(claim, value): &(&&NewClaim, &Option<Sealed>)| claim.overwrite || value.is_none();
        let open: Vec<&NewClaim> =
            claims.iter().zip(&values).filter(is_open).map(|(claim, _)| *claim).collect();
        let mut taken = take(connection, &open).await?.into_iter();
        for (claim, value) in claims.iter().zip(values) {
            made.extend(match value {
                Some(value) if !claim.overwrite => Some(Claim::Cached(value)),
                _ => taken.next(),
            });
        }
    }
    Ok(made)
}

async fn take(connection: &mut SqliteConnection, claims: &[&NewClaim]) -> Result<Vec<Claim>, Fault> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let now = now();
    let mut query = QueryBuilder::new(
        "INSERT INTO map_task_claims (task, version, item_hash, holder, held_until_ms, lease_ms)
         SELECT * FROM (",
    );
    push_rows(&mut query, claims, 6, |row, claim| {
        row.push_bind(Text::clone(&claim.key.task))
            .push_bind(Text::clone(&claim.key.version))
            .push_bind(Text::clone(&claim.key.item_hash))
            .push_bind(Text::clone(&claim.holder))
            .push_bind(after(claim.lease))
            .push_bind(length(claim.lease));
    });
    query.push(
        ") WHERE column1 IS NOT NULL
         ON CONFLICT (task, version, item_hash) DO UPDATE SET
             holder = excluded.holder, held_until_ms = excluded.held_until_ms, lease_ms = excluded.lease_ms
         WHERE holder = excluded.holder OR held_until_ms <= ",
    );
    query.push_bind(now).build().execute(&mut *connection).await?;

    let keys: Vec<&Key> = claims.iter().map(|claim| &claim.key).collect();
    let mut query = QueryBuilder::new("");
    push_wanted(&mut query, &keys);
    query.push(
        "SELECT place, holder, held_until_ms, lease_ms
         FROM wanted CROSS JOIN map_task_claims USING (task, version, item_hash) ORDER BY place",
    );
    let found: Vec<ClaimRow> = query.build_query_as().fetch_all(&mut *connection).await?;
    let mut made = Vec::with_capacity(claims.len());
    for (claim, (_, holder, until, lease)) in claims.iter().zip(found) {
        made.push(if *holder == *claim.holder {
            Claim::Granted
        } else {
            let until = shorten(connection, &claim.key, now, until, lease).await?;
            Claim::Held { remaining: Duration::from_millis(rows::number(until.saturating_sub(now))?) }
        });
    }
    Ok(made)
}

/// Gives a claim that ends later than its lease, because a clock was ahead, no more than its lease from now.
async fn shorten(
    connection: &mut SqliteConnection,
    key: &Key,
    now: i64,
    until: i64,
    lease: Option<i64>,
) -> Result<i64, Fault> {
    let Some(longest) = lease.map(|lease| now.saturating_add(lease)).filter(|longest| *longest < until)
    else {
        return Ok(until);
    };
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
