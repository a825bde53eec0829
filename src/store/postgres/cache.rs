//! Cached values, and their deletion.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::calls::Call;
use super::group::{Answered, Operation};
use super::link::{Link, Scope};
use super::microseconds;
use super::over_rows::OverRows;
use crate::store::fault::Fault;
use crate::store::{CacheKey, Checksummed, rows};

/// Stores the values, ends the claims, and deletes expired values, all or nothing. Every statement locks rows in the order of
/// the keys, so that no two groups wait for each other. The deletion skips the rows that another transaction has locked. It
/// deletes more values than are stored, so that their number falls, and few, so that no call waits long for it.
static PUT: OverRows = OverRows::new(
    "
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
            ORDER BY expires LIMIT (SELECT greatest(100, 2 * count(*)) FROM new) FOR UPDATE SKIP LOCKED
        ))
    )
    INSERT INTO map_task_cache (task, version, item_hash, output, checksum, written, expires)
    SELECT task, version, item_hash, output, checksum, clock_timestamp(),
        clock_timestamp() + expires_us * interval '1 microsecond'
    FROM new ORDER BY task COLLATE \"C\", version COLLATE \"C\", item_hash COLLATE \"C\"
    ON CONFLICT (task, version, item_hash) DO UPDATE SET
        output = excluded.output, checksum = excluded.checksum, written = excluded.written,
        expires = excluded.expires",
);

static VALUES: OverRows = OverRows::new(
    "
    SELECT place, output, checksum
    FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::text[]) AS wanted (place, task, version, item_hash)
    JOIN map_task_cache AS cached ON cached.task = wanted.task AND cached.version = wanted.version
        AND cached.item_hash = wanted.item_hash
    WHERE expires IS NULL OR expires > clock_timestamp()",
);

/// Returns the values of these keys, in the order of the keys.
pub(super) async fn values(link: &mut Link, keys: &[&CacheKey]) -> Result<Vec<Option<Checksummed>>, Fault> {
    let find = VALUES.of(keys).places().keys(|key| *key);
    let found: Vec<(i64, String, String)> = link.rows(find.statement).await?;
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
        // Of several values of one key, the last one stays.
        let last: HashMap<&CacheKey, &Self> = group.iter().map(|put| (&put.key, &**put)).collect();
        let puts: Vec<&Self> = last.into_values().collect();
        let put = PUT
            .of(&puts)
            .keys(|put| &put.key)
            .column(|put| put.value.json.as_str())
            .column(|put| put.value.checksum.as_str())
            .column(|put| put.expires_after.map(microseconds));
        link.execute(put.statement).await?;
        Ok(group.iter().map(|_| Ok(())).collect())
    }
}

pub(super) async fn evict(link: &mut Link, task: &str, version: Option<&str>) -> Result<u64, Fault> {
    let evict =
        sqlx::query("DELETE FROM map_task_cache WHERE task = $1 AND ($2::text IS NULL OR version = $2)");
    link.execute(evict.bind(task).bind(version)).await
}
