//! The outcomes of the items of a run, and their checkpoints.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::now;
use super::operation::{Commit, Holding, Outcome, Save, Text};
use super::runs;
use super::values::{MAX_ROWS, push_rows};
use crate::store::fault::Fault;
use crate::store::rows::{self, SuccessRow};
use crate::store::{Checksummed, LeaseLoss, MAX_BYTES, Record};

/// Reads outcomes with so many bytes of output as a page may have.
const WHOLE_PAGE: &str = "
    SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM map_task_items
    WHERE run_id = ?1 AND item_index >= ?2 AND output IS NOT NULL ORDER BY item_index LIMIT ?3";

/// Reads outcomes until their outputs have the bytes of a page. For small outputs, it takes three times as long as
/// [`WHOLE_PAGE`].
const SHORT_PAGE: &str = "
    SELECT item_index, item_hash, attempts, elapsed_ns, output, checksum FROM (
        SELECT item_index, sum(bytes) OVER (ORDER BY item_index) - bytes AS before FROM (
            SELECT item_index, octet_length(output) AS bytes FROM map_task_items
            WHERE run_id = ?1 AND item_index >= ?2 AND output IS NOT NULL ORDER BY item_index LIMIT ?3
        )
    ) AS page JOIN map_task_items USING (item_index)
    WHERE run_id = ?1 AND before < ?4 ORDER BY item_index";

/// The runs that the transaction writes to, and how their holders have lost them, if they have.
#[derive(Default)]
pub(super) struct Touched<'g>(HashMap<&'g Holding, Option<LeaseLoss>>);

impl<'g> Touched<'g> {
    /// Updates the time of the run, if this holder has it. Otherwise returns how the holder has lost it.
    pub(super) async fn touch(
        &mut self,
        connection: &mut SqliteConnection,
        run: &'g Holding,
    ) -> Result<Option<LeaseLoss>, Fault> {
        if let Some(known) = self.0.get(run) {
            return Ok(known.clone());
        }
        let touched =
            sqlx::query("UPDATE map_task_runs SET updated_ms = ?3 WHERE run_id = ?1 AND holder = ?2")
                .bind(&run.run_id)
                .bind(&run.holder)
                .bind(now())
                .execute(&mut *connection)
                .await?;
        let loss =
            if touched.rows_affected() > 0 { None } else { Some(runs::loss(connection, &run.run_id).await?) };
        self.0.insert(run, loss.clone());
        Ok(loss)
    }
}

/// Stores outcomes, and deletes the checkpoints of the items that succeeded.
pub(super) async fn commit(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Fault> {
    for outcomes in commit.outcomes.chunks(MAX_ROWS) {
        // One statement for SQLx: each statement is a round trip to the thread of the connection.
        let mut query = QueryBuilder::new("");
        push_insert(&mut query, &commit.run.run_id, outcomes);
        push_delete_checkpoints(&mut query, &commit.run.run_id, outcomes);
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn push_insert(query: &mut QueryBuilder<Sqlite>, run_id: &Text, outcomes: &[Outcome]) {
    query.push(
        "INSERT INTO map_task_items
             (run_id, item_index, item_hash, attempts, elapsed_ns, output, checksum, error)
         SELECT * FROM (",
    );
    push_rows(query, outcomes, 8, |row, outcome| {
        row.push_bind(Text::clone(run_id))
            .push_bind(outcome.index)
            .push_bind(Text::clone(&outcome.item_hash))
            .push_bind(outcome.attempts)
            .push_bind(outcome.elapsed)
            .push_bind(outcome.output.clone())
            .push_bind(outcome.checksum.clone())
            .push_bind(outcome.error.clone());
    });
    query.push(
        ") WHERE column1 IS NOT NULL
         ON CONFLICT (run_id, item_index) DO UPDATE SET
             item_hash = excluded.item_hash, attempts = excluded.attempts, elapsed_ns = excluded.elapsed_ns,
             output = excluded.output, checksum = excluded.checksum, error = excluded.error; ",
    );
}

fn push_delete_checkpoints(query: &mut QueryBuilder<Sqlite>, run_id: &Text, outcomes: &[Outcome]) {
    let succeeded = outcomes.iter().filter(|outcome| outcome.output.is_some());
    let indices: Vec<String> = succeeded.map(|outcome| outcome.index.to_string()).collect();
    query
        .push("DELETE FROM map_task_checkpoints WHERE run_id = ")
        .push_bind(Text::clone(run_id))
        .push(" AND item_index IN (SELECT value FROM json_each(")
        .push_bind(format!("[{}]", indices.join(",")))
        .push("))");
}

/// Stores states. If a group has several states of one item, the last one stays.
pub(super) async fn save(connection: &mut SqliteConnection, saves: &[&Save]) -> Result<(), Fault> {
    let now = now();
    for saves in saves.chunks(MAX_ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO map_task_checkpoints
                 (run_id, item_index, item_hash, state, checksum, saved_ms)
             SELECT * FROM (",
        );
        push_rows(&mut query, saves, 6, |row, save| {
            row.push_bind(Text::clone(&save.run.run_id))
                .push_bind(save.index)
                .push_bind(Text::clone(&save.item_hash))
                .push_bind(Text::clone(&save.state.json))
                .push_bind(Text::clone(&save.state.checksum))
                .push_bind(now);
        });
        query.push(") WHERE column1 IS NOT NULL").build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn successes(
    connection: &mut SqliteConnection,
    run_id: &str,
    from: i64,
    limit: u32,
) -> Result<Vec<Record>, Fault> {
    let max_bytes = MAX_BYTES as i64;
    let bytes: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(bytes), 0) FROM (
             SELECT octet_length(output) AS bytes FROM map_task_items
             WHERE run_id = ?1 AND item_index >= ?2 AND output IS NOT NULL ORDER BY item_index LIMIT ?3
         )",
    )
    .bind(run_id)
    .bind(from)
    .bind(limit)
    .fetch_one(&mut *connection)
    .await?;
    let page = if bytes <= max_bytes { WHOLE_PAGE } else { SHORT_PAGE };
    let found: Vec<SuccessRow> = sqlx::query_as(page)
        .bind(run_id)
        .bind(from)
        .bind(limit)
        .bind(max_bytes)
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().map(rows::record).collect::<Result<_, _>>()?)
}

/// Identifies the state of an item: its run, its index and its hash.
pub(super) type Place = (Text, i64, Text);

/// Returns the states of some items, in the order of the items.
pub(super) async fn checkpoints(
    connection: &mut SqliteConnection,
    places: &[&Place],
) -> Result<Vec<Option<Checksummed>>, Fault> {
    let mut states = vec![None; places.len()];
    let numbered: Vec<(i64, &Place)> = (0..).zip(places.iter().copied()).collect();
    let mut query = QueryBuilder::<Sqlite>::new("WITH wanted (place, run_id, item_index, item_hash) AS (");
    push_rows(&mut query, &numbered, 4, |row, (place, (run_id, index, item_hash))| {
        row.push_bind(*place)
            .push_bind(Text::clone(run_id))
            .push_bind(*index)
            .push_bind(Text::clone(item_hash));
    });
    query.push(
        ") SELECT place, state, checksum
         FROM wanted CROSS JOIN map_task_checkpoints USING (run_id, item_index, item_hash)",
    );
    let found: Vec<(i64, String, String)> = query.build_query_as().fetch_all(connection).await?;
    for (place, json, checksum) in found {
        if let Some(state) = states.get_mut(rows::number::<usize>(place)?) {
            *state = Some(Checksummed { json, checksum });
        }
    }
    Ok(states)
}
