//! Runs: their holders, and their descriptions for an operator.

use std::time::Duration;

use super::link::Link;
use super::{microseconds, without_nul};
use crate::store::fault::Fault;
use crate::store::rows::{self, FailureRow, LISTED_FAILURES, RefusalRow, RunRow};
use crate::store::{LeaseLoss, RunInfo, RunStatus, StoreError};

/// Acquires the run if it is new, free or the holder's own. Otherwise its row is locked until the transaction ends.
const TAKE: &str = "
    INSERT INTO map_task_runs AS run
        (run_id, task, status, holder, held_since, held_until, started, updated)
    SELECT $1, $2, 'running', $3, clock, clock + $4::bigint * interval '1 microsecond', clock, clock
    FROM clock_timestamp() AS clock
    ON CONFLICT (run_id) DO UPDATE SET
        status = 'running', reason = NULL, holder = excluded.holder,
        held_since = CASE WHEN run.holder = excluded.holder THEN run.held_since ELSE clock_timestamp() END,
        held_until = clock_timestamp() + $4::bigint * interval '1 microsecond', updated = clock_timestamp()
    WHERE run.task = excluded.task
        AND (run.holder IS NULL OR run.holder = excluded.holder OR run.held_until <= clock_timestamp())";

const REFUSED: &str = "
    SELECT task, coalesce(holder, ''),
        coalesce((extract(epoch FROM held_since) * 1000)::bigint, 0),
        coalesce((extract(epoch FROM held_until) * 1000)::bigint, 0)
    FROM map_task_runs WHERE run_id = $1";

const INFOS: &str = "
    SELECT run_id, task, status, reason, holder,
        (extract(epoch FROM held_since) * 1000)::bigint, (extract(epoch FROM held_until) * 1000)::bigint,
        (extract(epoch FROM started) * 1000)::bigint, (extract(epoch FROM updated) * 1000)::bigint,
        (SELECT count(*) FROM map_task_items AS item WHERE item.run_id = run.run_id),
        (SELECT count(*) FROM map_task_items AS item WHERE item.run_id = run.run_id AND error IS NOT NULL)
    FROM map_task_runs AS run WHERE $1::text IS NULL OR run_id = $1
    ORDER BY started DESC, run_id";

const FAILURES: &str = "
    SELECT run_id, item_index, error FROM (
        SELECT run_id, item_index, error,
            row_number() OVER (PARTITION BY run_id ORDER BY item_index) AS place
        FROM map_task_items WHERE error IS NOT NULL AND ($1::text IS NULL OR run_id = $1)
    ) AS failed WHERE place <= $2 ORDER BY run_id, item_index";

/// Acquires a run. Needs a transaction.
pub(super) async fn open(
    link: &mut Link,
    run_id: &str,
    task: &str,
    holder: &str,
    lease: Duration,
) -> Result<(), Fault> {
    let take = sqlx::query(TAKE).bind(run_id).bind(task).bind(holder).bind(microseconds(lease));
    if link.execute(take).await? > 0 {
        return Ok(());
    }
    let found: Option<RefusalRow> = link.row(sqlx::query(REFUSED).bind(run_id)).await?;
    let found = found.ok_or(sqlx::Error::RowNotFound)?;
    Err(rows::refusal(run_id, task, found)?.into())
}

pub(super) async fn renew(link: &mut Link, run_id: &str, holder: &str, lease: Duration) -> Result<(), Fault> {
    let renew = sqlx::query(
        "UPDATE map_task_runs SET held_until = clock_timestamp() + $3::bigint * interval '1 microsecond'
         WHERE run_id = $1 AND holder = $2",
    );
    if link.execute(renew.bind(run_id).bind(holder).bind(microseconds(lease))).await? == 0 {
        return Err(lost(link, run_id, holder).await?.into());
    }
    Ok(())
}

/// Returns how the holder has lost the run.
pub(super) async fn lost(link: &mut Link, run_id: &str, holder: &str) -> Result<StoreError, Fault> {
    let find = sqlx::query("SELECT holder FROM map_task_runs WHERE run_id = $1").bind(run_id);
    let found: Option<(Option<String>,)> = link.row(find).await?;
    Ok(StoreError::lease_lost(run_id, holder, LeaseLoss::of_row(found.map(|(holder,)| holder))))
}

pub(super) async fn close(
    link: &mut Link,
    run_id: &str,
    holder: &str,
    status: &RunStatus,
) -> Result<(), Fault> {
    let (status, reason) = rows::status_columns(status);
    let close = sqlx::query(
        "UPDATE map_task_runs SET status = $3, reason = $4, updated = clock_timestamp(),
             holder = NULL, held_since = NULL, held_until = NULL
         WHERE run_id = $1 AND holder = $2",
    );
    link.execute(close.bind(run_id).bind(holder).bind(status).bind(reason.map(without_nul))).await?;
    Ok(())
}

/// Returns one run or all of them, as of one moment. Needs a snapshot.
pub(super) async fn infos(link: &mut Link, run_id: Option<&str>) -> Result<Vec<RunInfo>, Fault> {
    let runs: Vec<RunRow> = link.rows(sqlx::query(INFOS).bind(run_id)).await?;
    let failures: Vec<FailureRow> =
        link.rows(sqlx::query(FAILURES).bind(run_id).bind(LISTED_FAILURES)).await?;
    Ok(rows::run_infos(runs, &failures)?)
}

/// Deletes a run. The foreign keys delete its items and checkpoints. A commit in progress locks the run's row, so this
/// statement waits for it. A later commit finds no run.
pub(super) async fn forget(link: &mut Link, run_id: &str) -> Result<bool, Fault> {
    let forget = sqlx::query("DELETE FROM map_task_runs WHERE run_id = $1").bind(run_id);
    Ok(link.execute(forget).await? > 0)
}
