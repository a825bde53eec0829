//! The outcomes of the items of a run, and their checkpoints.

use std::collections::HashMap;
use std::sync::Arc;

use super::calls::Call;
use super::group::{Answered, Operation};
use super::link::{Link, Scope};
use super::over_rows::OverRows;
use super::runs::lost;
use super::without_nul;
use crate::store::fault::Fault;
use crate::store::record::groups;
use crate::store::rows::{self, SuccessRow};
use crate::store::{Checksummed, MAX_BYTES, Record, StoreError};

/// Updates the time of the run if this holder has it, and only then writes. Returns a row if the holder has it. It is one
/// statement, and so one round trip to the server.
static COMMIT: OverRows = OverRows::new(
    "
    WITH held AS (
        UPDATE map_task_runs SET updated = clock_timestamp() WHERE run_id = $1 AND holder = $2 RETURNING run_id
    ), new AS (
        SELECT * FROM held, UNNEST($3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[])
            AS new (item_index, item_hash, attempts, elapsed_ns, output, checksum, error)
    ), written AS (
        INSERT INTO map_task_items
            (run_id, item_index, item_hash, attempts, elapsed_ns, output, checksum, error)
        SELECT * FROM new
        ON CONFLICT (run_id, item_index) DO UPDATE SET
            item_hash = excluded.item_hash, attempts = excluded.attempts, elapsed_ns = excluded.elapsed_ns,
            output = excluded.output, checksum = excluded.checksum, error = excluded.error
    ), deleted AS (
        DELETE FROM map_task_checkpoints AS checkpoint USING new
        WHERE checkpoint.run_id = new.run_id AND checkpoint.item_index = new.item_index
            AND new.output IS NOT NULL
    )
    SELECT run_id FROM held",
);

/// Does the same as [`COMMIT`] for states of several runs. Of several states of one item, the last one stays. Returns the
/// runs that belong to their holders.
static SAVE_CHECKPOINTS: OverRows = OverRows::new(
    "
    WITH new AS (
        SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[])
            AS new (place, run_id, holder, item_index, item_hash, state, checksum)
    ), held AS (
        UPDATE map_task_runs AS run SET updated = clock_timestamp()
        FROM (SELECT DISTINCT run_id, holder FROM new) AS wanted
        WHERE run.run_id = wanted.run_id AND run.holder = wanted.holder
        RETURNING run.run_id, run.holder
    ), written AS (
        INSERT INTO map_task_checkpoints (run_id, item_index, item_hash, state, checksum, saved)
        SELECT DISTINCT ON (new.run_id, item_index)
            new.run_id, item_index, item_hash, state, checksum, clock_timestamp()
        FROM new JOIN held ON new.run_id = held.run_id AND new.holder = held.holder
        ORDER BY new.run_id, item_index, place DESC
        ON CONFLICT (run_id, item_index) DO UPDATE SET
            item_hash = excluded.item_hash, state = excluded.state, checksum = excluded.checksum,
            saved = excluded.saved
    )
    SELECT run_id, holder FROM held",
);

/// A page ends when its outputs reach this many bytes. Their lengths are known without reading them.
const SUCCESSES: &str = "
    SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM (
        SELECT *, sum(octet_length(output)) OVER (ORDER BY item_index) - octet_length(output) AS before FROM (
            SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM map_task_items
            WHERE run_id = $1 AND item_index >= $2 AND output IS NOT NULL ORDER BY item_index LIMIT $3
        ) AS page
    ) AS page WHERE before < $4 ORDER BY item_index";

/// Returns a transaction if there is more than one group of records.
pub(super) fn commit_scope(records: &[Record]) -> Scope {
    if groups(records).nth(1).is_some() { Scope::Transaction } else { Scope::Statement }
}

pub(super) async fn commit(
    link: &mut Link,
    run_id: &str,
    holder: &str,
    records: &[Record],
) -> Result<(), Fault> {
    if records.is_empty() {
        return commit_group(link, run_id, holder, records).await;
    }
    for group in groups(records) {
        commit_group(link, run_id, holder, group).await?;
    }
    Ok(())
}

async fn commit_group(link: &mut Link, run_id: &str, holder: &str, records: &[Record]) -> Result<(), Fault> {
    let indexed = records.iter().map(|record| Ok((rows::index_column(record.index)?, record)));
    let indexed: Vec<(i64, &Record)> = indexed.collect::<Result<_, StoreError>>()?;
    let commit = COMMIT
        .of(&indexed)
        .value(run_id)
        .value(holder)
        .column(|(index, _)| *index)
        .column(|(_, record)| record.item_hash.as_str())
        .column(|(_, record)| i64::from(record.attempts))
        .column(|(_, record)| rows::elapsed_column(record.elapsed))
        .column(|(_, record)| rows::outcome_columns(&record.recorded).0)
        .column(|(_, record)| rows::outcome_columns(&record.recorded).1)
        .column(|(_, record)| rows::outcome_columns(&record.recorded).2.map(without_nul));
    if link.execute(commit.statement).await? == 0 {
        return Err(lost(link, run_id, holder).await?.into());
    }
    Ok(())
}

pub(super) async fn successes(
    link: &mut Link,
    run_id: &str,
    from: u64,
    limit: u32,
) -> Result<Vec<Record>, Fault> {
    let page = sqlx::query(SUCCESSES)
        .bind(run_id)
        .bind(rows::index_column(from)?)
        .bind(i64::from(limit))
        .bind(MAX_BYTES as i64);
    let found: Vec<SuccessRow> = link.rows(page).await?;
    Ok(found.into_iter().map(rows::record).collect::<Result<_, _>>()?)
}

pub(super) async fn checkpoint(
    link: &mut Link,
    run_id: &str,
    index: u64,
    item_hash: &str,
) -> Result<Option<Checksummed>, Fault> {
    let find = sqlx::query(
        "SELECT state, checksum FROM map_task_checkpoints
         WHERE run_id = $1 AND item_index = $2 AND item_hash = $3",
    );
    let found: Option<(String, String)> =
        link.row(find.bind(run_id).bind(rows::index_column(index)?).bind(item_hash)).await?;
    Ok(found.map(|(json, checksum)| Checksummed { json, checksum }))
}

/// A state to save.
#[derive(Debug)]
pub(super) struct Save {
    pub(super) run_id: String,
    pub(super) holder: String,
    pub(super) index: i64,
    pub(super) item_hash: String,
    pub(super) state: Checksummed,
}

impl Operation for Save {
    type Answer = ();

    const CALL: Call = Call::new("saving a checkpoint", Scope::Statement);

    /// The states of a run are written one after another in any case, because its row is locked.
    const GROUPS: usize = 1;

    const MAX_GROUP: usize = 1_024;

    fn bytes(&self) -> usize {
        self.state.json.len()
    }

    async fn execute(link: &mut Link, group: &[Arc<Self>]) -> Result<Vec<Answered<Self>>, Fault> {
        let save = SAVE_CHECKPOINTS
            .of(group)
            .places()
            .column(|save| save.run_id.as_str())
            .column(|save| save.holder.as_str())
            .column(|save| save.index)
            .column(|save| save.item_hash.as_str())
            .column(|save| save.state.json.as_str())
            .column(|save| save.state.checksum.as_str());
        let held: Vec<(String, String)> = link.rows(save.statement).await?;
        let held: HashMap<String, String> = held.into_iter().collect();
        let mut answers = Vec::with_capacity(group.len());
        for save in group {
            let is_held = held.get(&save.run_id) == Some(&save.holder);
            answers.push(if is_held { Ok(()) } else { Err(lost(link, &save.run_id, &save.holder).await?) });
        }
        Ok(answers)
    }
}
