//! What became of the items of a run, and their checkpoints.

use sqlx::postgres::PgPool;

use super::runs::lost;
use super::without_nul;
use crate::store::fault::Fault;
use crate::store::rows::{self, SuccessRow};
use crate::store::{Record, Sealed};

/// One statement, and so one transaction and one way to the server and back: notes that something is written of the
/// run, if it is the holder's, and only then writes. Gives a row if it was.
const COMMIT: &str = "
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
    SELECT run_id FROM held";

/// As [`COMMIT`] does, for one state.
const SAVE_CHECKPOINT: &str = "
    WITH held AS (
        UPDATE map_task_runs SET updated = clock_timestamp() WHERE run_id = $1 AND holder = $2 RETURNING run_id
    ), written AS (
        INSERT INTO map_task_checkpoints (run_id, item_index, item_hash, state, checksum, saved)
        SELECT run_id, $3, $4, $5, $6, clock_timestamp() FROM held
        ON CONFLICT (run_id, item_index) DO UPDATE SET
            item_hash = excluded.item_hash, state = excluded.state, checksum = excluded.checksum,
            saved = excluded.saved
    )
    SELECT run_id FROM held";

pub(super) async fn commit(
    pool: &PgPool,
    run_id: &str,
    holder: &str,
    records: &[Record],
) -> Result<(), Fault> {
    let indices: Vec<i64> =
        records.iter().map(|record| rows::index_column(record.index)).collect::<Result<_, _>>()?;
    let hashes: Vec<&str> = records.iter().map(|record| record.item_hash.as_str()).collect();
    let attempts: Vec<i64> = records.iter().map(|record| i64::from(record.attempts)).collect();
    let elapsed: Vec<i64> = records.iter().map(|record| rows::elapsed_column(record.elapsed)).collect();
    let outcomes = || records.iter().map(|record| rows::outcome_columns(&record.recorded));
    let outputs: Vec<Option<&str>> = outcomes().map(|(output, ..)| output).collect();
    let checksums: Vec<Option<&str>> = outcomes().map(|(_, checksum, _)| checksum).collect();
    let errors: Vec<Option<String>> = outcomes().map(|(.., error)| error.map(without_nul)).collect();
    let held = sqlx::query(COMMIT)
        .bind(run_id)
        .bind(holder)
        .bind(indices)
        .bind(hashes)
        .bind(attempts)
        .bind(elapsed)
        .bind(outputs)
        .bind(checksums)
        .bind(errors)
        .execute(pool)
        .await?;
    if held.rows_affected() == 0 {
        return Err(lost(pool, run_id, holder).await);
    }
    Ok(())
}

pub(super) async fn successes(
    pool: &PgPool,
    run_id: &str,
    from: u64,
    limit: u32,
) -> Result<Vec<Record>, Fault> {
    let found: Vec<SuccessRow> = sqlx::query_as(
        "SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM map_task_items
         WHERE run_id = $1 AND item_index >= $2 AND output IS NOT NULL ORDER BY item_index LIMIT $3",
    )
    .bind(run_id)
    .bind(rows::index_column(from)?)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(rows::record).collect::<Result<_, _>>()?)
}

pub(super) async fn checkpoint(
    pool: &PgPool,
    run_id: &str,
    index: u64,
    item_hash: &str,
) -> Result<Option<Sealed>, Fault> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT state, checksum FROM map_task_checkpoints
         WHERE run_id = $1 AND item_index = $2 AND item_hash = $3",
    )
    .bind(run_id)
    .bind(rows::index_column(index)?)
    .bind(item_hash)
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|(json, checksum)| Sealed { json, checksum }))
}

pub(super) async fn save_checkpoint(
    pool: &PgPool,
    run_id: &str,
    holder: &str,
    index: u64,
    item_hash: &str,
    state: &Sealed,
) -> Result<(), Fault> {
    let held = sqlx::query(SAVE_CHECKPOINT)
        .bind(run_id)
        .bind(holder)
        .bind(rows::index_column(index)?)
        .bind(item_hash)
        .bind(&state.json)
        .bind(&state.checksum)
        .execute(pool)
        .await?;
    if held.rows_affected() == 0 {
        return Err(lost(pool, run_id, holder).await);
    }
    Ok(())
}
