//! Runs: their holders, and their descriptions for an operator.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};

use super::operation::{Holding, Text};
use super::{after, length, max_lease_end, now};
use crate::store::fault::Fault;
use crate::store::rows::{self, FailureRow, LISTED_FAILURES, RunRow};
use crate::store::{LeaseLoss, RunInfo, RunStatus, StoreError};

/// Acquires the run if it is new, free or the holder's own.
const TAKE: &str = "
    INSERT INTO map_task_runs
        (run_id, task, status, holder, held_since_ms, held_until_ms, started_ms, updated_ms, lease_ms)
    VALUES (?1, ?2, 'running', ?3, ?4, ?5, ?4, ?4, ?6)
    ON CONFLICT (run_id) DO UPDATE SET
        status = 'running', reason = NULL, holder = excluded.holder,
        held_since_ms = iif(holder = excluded.holder, held_since_ms, excluded.held_since_ms),
        held_until_ms = excluded.held_until_ms, lease_ms = excluded.lease_ms, updated_ms = excluded.updated_ms
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

/// The row of a run that cannot be acquired: its task, its holder, since when, until when, and the length of the lease.
type HeldRow = (String, String, i64, i64, Option<i64>);

/// Acquires a run. Otherwise returns an error with the reason.
pub(super) async fn open(
    connection: &mut SqliteConnection,
    run: &Holding,
    task: &Text,
    lease: Duration,
) -> Result<Result<(), StoreError>, Fault> {
    let now = now();
    let taken = sqlx::query(TAKE)
        .bind(&run.run_id)
        .bind(task)
        .bind(&run.holder)
        .bind(now)
        .bind(after(lease))
        .bind(length(lease))
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() > 0 {
        return Ok(Ok(()));
    }
    let (found, holder, since, until, lease): HeldRow = sqlx::query_as(
        "SELECT task, coalesce(holder, ''), coalesce(held_since_ms, 0), coalesce(held_until_ms, 0), lease_ms
         FROM map_task_runs WHERE run_id = ?",
    )
    .bind(&run.run_id)
    .fetch_one(&mut *connection)
    .await?;
    let until = shorten(connection, &run.run_id, now, until, lease).await?;
    Ok(Err(rows::refusal(&run.run_id, task, (found, holder, since, until))?))
}

/// Shortens a lease that ends later than its length allows, because a clock was ahead, to its length from now.
async fn shorten(
    connection: &mut SqliteConnection,
    run_id: &Text,
    now: i64,
    until: i64,
    lease: Option<i64>,
) -> Result<i64, Fault> {
    let Some(longest) = max_lease_end(now, until, lease) else { return Ok(until) };
    sqlx::query("UPDATE map_task_runs SET held_until_ms = ?2 WHERE run_id = ?1")
        .bind(run_id)
        .bind(longest)
        .execute(connection)
        .await?;
    Ok(longest)
}

/// Renews a lease. Otherwise returns how it was lost.
pub(super) async fn renew(
    connection: &mut SqliteConnection,
    run: &Holding,
    lease: Duration,
) -> Result<Option<LeaseLoss>, Fault> {
    let renewed = sqlx::query(
        "UPDATE map_task_runs SET held_until_ms = ?3, lease_ms = ?4 WHERE run_id = ?1 AND holder = ?2",
    )
    .bind(&run.run_id)
    .bind(&run.holder)
    .bind(after(lease))
    .bind(length(lease))
    .execute(&mut *connection)
    .await?;
    if renewed.rows_affected() > 0 { Ok(None) } else { loss(connection, &run.run_id).await.map(Some) }
}

/// Returns how a run was lost that no longer belongs to its holder.
pub(super) async fn loss(connection: &mut SqliteConnection, run_id: &Text) -> Result<LeaseLoss, Fault> {
    let row = sqlx::query_scalar("SELECT holder FROM map_task_runs WHERE run_id = ?")
        .bind(run_id)
        .fetch_optional(connection)
        .await?;
    Ok(LeaseLoss::of_row(row))
}

pub(super) async fn close(
    connection: &mut SqliteConnection,
    run: &Holding,
    status: &RunStatus,
) -> Result<(), Fault> {
    let (status, reason) = rows::status_columns(status);
    sqlx::query(
        "UPDATE map_task_runs SET status = ?3, reason = ?4, updated_ms = ?5,
             holder = NULL, held_since_ms = NULL, held_until_ms = NULL, lease_ms = NULL
         WHERE run_id = ?1 AND holder = ?2",
    )
    .bind(&run.run_id)
    .bind(&run.holder)
    .bind(status)
    .bind(reason)
    .bind(now())
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns one run or all of them, as of one moment.
pub(super) async fn infos(
    connection: &mut SqliteConnection,
    run_id: Option<&str>,
) -> Result<Vec<RunInfo>, Fault> {
    let mut transaction = connection.begin().await?;
    let runs: Vec<RunRow> = sqlx::query_as(INFOS).bind(run_id).fetch_all(&mut *transaction).await?;
    let failures: Vec<FailureRow> =
        sqlx::query_as(FAILURES).bind(run_id).bind(LISTED_FAILURES).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows::run_infos(runs, &failures)?)
}

/// Deletes a run. The foreign keys delete its items and checkpoints.
pub(super) async fn forget(connection: &mut SqliteConnection, run_id: &Text) -> Result<u64, Fault> {
    let forgotten =
        sqlx::query("DELETE FROM map_task_runs WHERE run_id = ?").bind(run_id).execute(connection).await?;
    Ok(forgotten.rows_affected())
}
