//! Cached values, and their deletion.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::calls::Call;
use super::group::{Answered, Operation};
use super::link::{Link, Scope};
use super::microseconds;
use crate::store::fault::Fault;
use crate::store::{CacheKey, Checksummed, rows};

/// How many expired values are deleted with each group of puts, and for each value of a large group. More than are put in,
/// so that their number falls; few, so that no call waits long for the deletion.
const EXPIRED_PER_PUT: usize = 100;
const EXPIRED_FOR_EACH: usize = 2;

/// Stores the values, ends the claims, and deletes expired values, all or nothing. Every statement locks rows in the order of
/// the keys, so that no two groups wait for each other. The deletion skips the rows that another transaction has locked.
const PUT: &str = "
    WITH new AS (
        SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
            AS new (task, version, item_hash, output, checksum, expires_us)
    ), ended AS (
        DELETE FROM map_task_claims WHERE ctid = ANY (ARRAY (
            SELECT claim.ctid FROM map_task_claims AS claim JOIN new USING (task, version, item_hash)
            ORDER BY task, version, item_hash FOR UPDATE OF claim
        ))
    ), expired AS (
        DELETE FROM map_task_cache WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM map_task_cache
            WHERE expires <= now()
                AND (task, version, item_hash) NOT IN (SELECT task, version, item_hash FROM new)
            ORDER BY expires LIMIT $7 FOR UPDATE SKIP LOCKED
        ))
    )
    INSERT INTO map_task_cache (task, version, item_hash, output, checksum, written, expires)
    SELECT task, version, item_hash, output, checksum, clock_timestamp(),
        clock_timestamp() + expires_us * interval '1 microsecond'
    FROM new ORDER BY task COLLATE \"C\", version COLLATE \"C\", item_hash COLLATE \"C\"
    ON CONFLICT (task, version, item_hash) DO UPDATE SET
        output = excluded.output, checksum = excluded.checksum, written = excluded.written,
        expires = excluded.expires";

const VALUES: &str = "
    SELECT place, output, checksum
    FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[]) AS wanted (place, task, version, item_hash)
    JOIN map_task_cache AS cached ON cached.task = wanted.task AND cached.version = wanted.version
        AND cached.item_hash = wanted.item_hash
    WHERE expires IS NULL OR expires > clock_timestamp()";

/// Returns the columns of keys.
pub(super) fn key_columns<'k>(keys: &[&'k CacheKey]) -> [Vec<&'k str>; 3] {
    let column = |of: fn(&CacheKey) -> &str| keys.iter().map(|key| of(key)).collect();
    [column(|key| &key.task), column(|key| &key.version), column(|key| &key.item_hash)]
}

/// Returns the values of these keys, in the order of the keys.
pub(super) async fn values(link: &mut Link, keys: &[&CacheKey]) -> Result<Vec<Option<Checksummed>>, Fault> {
    let [tasks, versions, hashes] = key_columns(keys);
    let places: Vec<i64> = (0..).take(keys.len()).collect();
    let find = sqlx::query(VALUES).bind(places).bind(tasks).bind(versions).bind(hashes);
    let found: Vec<(i64, String, String)> = link.rows(find).await?;
    let mut values = vec![None; keys.len()];
    for (place, json, checksum) in found {
        if let Some(value) = values.get_mut(rows::number::<usize>(place)?) {
            *value = Some(Checksummed { json, checksum });
        }
    }
    Ok(values)
}

/// The look-up of a key.
#[derive(Debug)]
pub(super) struct LookUp(pub(super) CacheKey);

impl Operation for LookUp {
    type Answer = Option<Checksummed>;

    const CALL: Call = Call::new("reading a cached value", Scope::Statement);
    const GROUPS: usize = 2;
    const MAX_GROUP: usize = 64;

    fn bytes(&self) -> usize {
        0
    }

    async fn execute(link: &mut Link, group: &[Arc<Self>]) -> Result<Vec<Answered<Self>>, Fault> {
        let keys: Vec<&CacheKey> = group.iter().map(|look_up| &look_up.0).collect();
        Ok(values(link, &keys).await?.into_iter().map(Ok).collect())
    }
}

/// A value to store.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: CacheKey,
    pub(super) value: Checksummed,
    pub(super) expires_after: Option<Duration>,
}

impl Operation for Put {
    type Answer = ();

    const CALL: Call = Call::new("caching a value", Scope::Statement);
    const GROUPS: usize = 2;
    const MAX_GROUP: usize = 1_024;

    fn bytes(&self) -> usize {
        self.value.json.len()
    }

    async fn execute(link: &mut Link, group: &[Arc<Self>]) -> Result<Vec<Answered<Self>>, Fault> {
        let expired = EXPIRED_PER_PUT.max(EXPIRED_FOR_EACH * group.len());
        // Of several values of one key, the last one stays.
        let last: HashMap<&CacheKey, &Self> = group.iter().map(|put| (&put.key, &**put)).collect();
        let puts: Vec<&Self> = last.into_values().collect();
        let keys: Vec<&CacheKey> = puts.iter().map(|put| &put.key).collect();
        let [tasks, versions, hashes] = key_columns(&keys);
        let put = sqlx::query(PUT)
            .bind(tasks)
            .bind(versions)
            .bind(hashes)
            .bind(puts.iter().map(|put| put.value.json.as_str()).collect::<Vec<_>>())
            .bind(puts.iter().map(|put| put.value.checksum.as_str()).collect::<Vec<_>>())
            .bind(puts.iter().map(|put| put.expires_after.map(microseconds)).collect::<Vec<_>>())
            .bind(expired as i64);
        link.execute(put).await?;
        Ok(group.iter().map(|_| Ok(())).collect())
    }
}

pub(super) async fn evict(link: &mut Link, task: &str, version: Option<&str>) -> Result<u64, Fault> {
    let evict =
        sqlx::query("DELETE FROM map_task_cache WHERE task = $1 AND ($2::text IS NULL OR version = $2)");
    link.execute(evict.bind(task).bind(version)).await
}
