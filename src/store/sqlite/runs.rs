//! Runs: who holds them, and what an operator asks about them.

use std::time::Duration;

use super::{SqliteStore, after, now};
use crate::store::fault::Fault;
use crate::store::rows::{self, FAILURES_TOLD, FailureRow, RefusalRow, RunRow};
use crate::store::{RunInfo, RunStatus, StoreError};

/// Takes the run where it is new, free or the holder's own.
const TAKE: &str = "
    INSERT INTO map_task_runs
        (run_id, task, status, holder, held_since_ms, held_until_ms, started_ms, updated_ms)
    VALUES (?1, ?2, 'running', ?3, ?4, ?5, ?4, ?4)
    ON CONFLICT (run_id) DO UPDATE SET
        status = 'running', reason = NULL, holder = excluded.holder,
        held_since_ms = iif(holder = excluded.holder, held_since_ms, excluded.held_since_ms),
        held_until_ms = excluded.held_until_ms, updated_ms = excluded.updated_ms
    WHERE task = excluded.task
        AND (holder IS NULL OR holder = excluded.holder OR held_until_ms <= excluded.updated_ms)";

const INFOS: &str = "
    SELECT run_id, task, status, reason, holder, held_since_ms, held_until_ms, started_ms, updated_ms,
        (SELECT count(*) FROM map_task_items AS item WHERE item.run_id = run.run_id),
        (SELECT count(*) FROM map_task_items AS item WHERE item.run_id = run.run_id AND error IS NOT NULL)
    FROM map_task_runs AS run WHERE ?1 IS NULL OR run_id = ?1
    ORDER BY started_ms DESC, rowid DESC";

const FAILURES: &str = "
    SELECT run_id, item_index, error FROM (
        SELECT run_id, item_index, error,
            row_number() OVER (PARTITION BY run_id ORDER BY item_index) AS place
        FROM map_task_items WHERE error IS NOT NULL AND (?1 IS NULL OR run_id = ?1)
    ) WHERE place <= ?2 ORDER BY run_id, item_index";

pub(super) async fn open(
    store: &SqliteStore,
    run_id: &str,
    task: &str,
    holder: &str,
    lease: Duration,
) -> Result<(), Fault> {
    let mut transaction = store.write().await?;
    let taken = sqlx::query(TAKE)
        .bind(run_id)
        .bind(task)
        .bind(holder)
        .bind(now())
        .bind(after(lease))
        .execute(&mut *transaction)
        .await?;
    if taken.rows_affected() > 0 {
        transaction.commit().await?;
        return Ok(());
    }
    let found: RefusalRow = sqlx::query_as(
        "SELECT task, coalesce(holder, ''), coalesce(held_since_ms, 0), coalesce(held_until_ms, 0)
         FROM map_task_runs WHERE run_id = ?",
    )
    .bind(run_id)
    .fetch_one(&mut *transaction)
    .await?;
    Err(rows::refusal(run_id, task, found)?.into())
}

pub(super) async fn renew(
    store: &SqliteStore,
    run_id: &str,
    holder: &str,
    lease: Duration,
) -> Result<(), Fault> {
    let renewed =
        sqlx::query("UPDATE map_task_runs SET held_until_ms = ?3 WHERE run_id = ?1 AND holder = ?2")
            .bind(run_id)
            .bind(holder)
            .bind(after(lease))
            .execute(&store.writer)
            .await?;
    if renewed.rows_affected() == 0 {
        return Err(StoreError::lease_lost(run_id, holder).into());
    }
    Ok(())
}

pub(super) async fn close(
    store: &SqliteStore,
    run_id: &str,
    holder: &str,
    status: &RunStatus,
) -> Result<(), Fault> {
    let (status, reason) = rows::status_columns(status);
    sqlx::query(
        "UPDATE map_task_runs SET status = ?3, reason = ?4, updated_ms = ?5,
             holder = NULL, held_since_ms = NULL, held_until_ms = NULL
         WHERE run_id = ?1 AND holder = ?2",
    )
    .bind(run_id)
    .bind(holder)
    .bind(status)
    .bind(reason)
    .bind(now())
    .execute(&store.writer)
    .await?;
    Ok(())
}

/// One run or all of them, as they are at one moment.
pub(super) async fn infos(store: &SqliteStore, run_id: Option<&str>) -> Result<Vec<RunInfo>, Fault> {
    let mut transaction = store.readers.begin().await?;
    let runs: Vec<RunRow> = sqlx::query_as(INFOS).bind(run_id).fetch_all(&mut *transaction).await?;
    let failures: Vec<FailureRow> =
        sqlx::query_as(FAILURES).bind(run_id).bind(FAILURES_TOLD).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows::run_infos(runs, &failures)?)
}

/// The items and the checkpoints go with the run: their foreign keys say so.
pub(super) async fn forget(store: &SqliteStore, run_id: &str) -> Result<bool, Fault> {
    let forgotten =
        sqlx::query("DELETE FROM map_task_runs WHERE run_id = ?").bind(run_id).execute(&store.writer).await?;
    Ok(forgotten.rows_affected() > 0)
}
