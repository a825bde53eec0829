//! What became of the items of a run, and their checkpoints.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{SqliteStore, now};
use crate::store::fault::Fault;
use crate::store::rows::{self, SuccessRow};
use crate::store::{Record, Recorded, Sealed, StoreError};

/// The most rows of one statement. It has eight parameters a row, and SQLite allows 32,766; more rows a statement
/// measured no faster.
const ROWS_AT_ONCE: usize = 256;

pub(super) async fn commit(
    store: &SqliteStore,
    run_id: &str,
    holder: &str,
    records: &[Record],
) -> Result<(), Fault> {
    let mut transaction = store.write().await?;
    touch(&mut transaction, run_id, holder).await?;
    let mut rest = records;
    while !rest.is_empty() {
        // Powers of two, so that there are nine different statements, which are all kept prepared.
        let rows = 1 << rest.len().min(ROWS_AT_ONCE).ilog2();
        let (now, later) = rest.split_at(rows);
        insert(&mut transaction, run_id, now).await?;
        delete_checkpoints(&mut transaction, run_id, now).await?;
        rest = later;
    }
    transaction.commit().await?;
    Ok(())
}

/// Notes that something is written of the run, if it is the holder's.
async fn touch(connection: &mut SqliteConnection, run_id: &str, holder: &str) -> Result<(), Fault> {
    let touched = sqlx::query("UPDATE map_task_runs SET updated_ms = ?3 WHERE run_id = ?1 AND holder = ?2")
        .bind(run_id)
        .bind(holder)
        .bind(now())
        .execute(connection)
        .await?;
    if touched.rows_affected() == 0 {
        return Err(StoreError::lease_lost(run_id, holder).into());
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, run_id: &str, records: &[Record]) -> Result<(), Fault> {
    let indices: Vec<i64> =
        records.iter().map(|record| rows::index_column(record.index)).collect::<Result<_, _>>()?;
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO map_task_items
             (run_id, item_index, item_hash, attempts, elapsed_ns, output, checksum, error) ",
    );
    query.push_values(records.iter().zip(indices), |mut row, (record, index)| {
        let (output, checksum, error) = rows::outcome_columns(&record.recorded);
        row.push_bind(run_id)
            .push_bind(index)
            .push_bind(record.item_hash.as_str())
            .push_bind(i64::from(record.attempts))
            .push_bind(rows::elapsed_column(record.elapsed))
            .push_bind(output)
            .push_bind(checksum)
            .push_bind(error);
    });
    query.push(
        " ON CONFLICT (run_id, item_index) DO UPDATE SET
              item_hash = excluded.item_hash, attempts = excluded.attempts, elapsed_ns = excluded.elapsed_ns,
              output = excluded.output, checksum = excluded.checksum, error = excluded.error",
    );
    query.build().execute(connection).await?;
    Ok(())
}

/// Deletes the checkpoints of those that succeeded.
async fn delete_checkpoints(
    connection: &mut SqliteConnection,
    run_id: &str,
    records: &[Record],
) -> Result<(), Fault> {
    let succeeded = records.iter().filter(|record| matches!(record.recorded, Recorded::Succeeded { .. }));
    let indices: Vec<String> = succeeded.map(|record| record.index.to_string()).collect();
    sqlx::query(
        "DELETE FROM map_task_checkpoints
         WHERE run_id = ?1 AND item_index IN (SELECT value FROM json_each(?2))",
    )
    .bind(run_id)
    .bind(format!("[{}]", indices.join(",")))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn successes(
    store: &SqliteStore,
    run_id: &str,
    from: u64,
    limit: u32,
) -> Result<Vec<Record>, Fault> {
    let found: Vec<SuccessRow> = sqlx::query_as(
        "SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM map_task_items
         WHERE run_id = ?1 AND item_index >= ?2 AND output IS NOT NULL ORDER BY item_index LIMIT ?3",
    )
    .bind(run_id)
    .bind(rows::index_column(from)?)
    .bind(limit)
    .fetch_all(&store.readers)
    .await?;
    Ok(found.into_iter().map(rows::record).collect::<Result<_, _>>()?)
}

pub(super) async fn checkpoint(
    store: &SqliteStore,
    run_id: &str,
    index: u64,
    item_hash: &str,
) -> Result<Option<Sealed>, Fault> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT state, checksum FROM map_task_checkpoints
         WHERE run_id = ?1 AND item_index = ?2 AND item_hash = ?3",
    )
    .bind(run_id)
    .bind(rows::index_column(index)?)
    .bind(item_hash)
    .fetch_optional(&store.readers)
    .await?;
    Ok(found.map(|(json, checksum)| Sealed { json, checksum }))
}

pub(super) async fn save_checkpoint(
    store: &SqliteStore,
    run_id: &str,
    holder: &str,
    index: u64,
    item_hash: &str,
    state: &Sealed,
) -> Result<(), Fault> {
    let mut transaction = store.write().await?;
    touch(&mut transaction, run_id, holder).await?;
    sqlx::query(
        "INSERT OR REPLACE INTO map_task_checkpoints
             (run_id, item_index, item_hash, state, checksum, saved_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(run_id)
    .bind(rows::index_column(index)?)
    .bind(item_hash)
    .bind(&state.json)
    .bind(&state.checksum)
    .bind(now())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
