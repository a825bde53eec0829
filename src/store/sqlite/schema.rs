//! The tables: their integrity check, and their migrations.

use sqlx::{Connection, SqliteConnection};

use crate::store::StoreError;
use crate::store::fault::Fault;

/// The migrations: the first one creates version 1, the second one migrates to version 2, and so on.
const MIGRATIONS: [&str; 3] = [
    include_str!("../sql/sqlite_1.sql"),
    include_str!("../sql/sqlite_2.sql"),
    include_str!("../sql/sqlite_3.sql"),
];

const SUPPORTED: i64 = MIGRATIONS.len() as i64;

/// Refuses a damaged file, and a file without a write-ahead log: its readers would see incomplete writes.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    if mode != "wal" {
        let error = format!("the journal mode must be `wal`, in a file on a local disk, got `{mode}`");
        return Err(StoreError::Database { doing: "opening the SQLite store", error: error.into() }.into());
    }
    // One finding is enough to refuse the file.
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?;
    if found != "ok" {
        return Err(StoreError::Corrupt(found).into());
    }
    Ok(())
}

pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let is_known = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'map_task_schema'";
    if sqlx::query_scalar::<_, i64>(is_known).fetch_one(&mut *transaction).await? == 0 {
        sqlx::raw_sql(
            "CREATE TABLE map_task_schema (version INTEGER NOT NULL) STRICT;
             INSERT INTO map_task_schema VALUES (0);",
        )
        .execute(&mut *transaction)
        .await?;
    }
    let found: i64 =
        sqlx::query_scalar("SELECT version FROM map_task_schema").fetch_one(&mut *transaction).await?;
    if found > SUPPORTED {
        return Err(StoreError::TooNew { found, supported: SUPPORTED }.into());
    }
    for (migration, version) in MIGRATIONS.into_iter().zip(1_i64..).filter(|(_, version)| *version > found) {
        sqlx::raw_sql(migration).execute(&mut *transaction).await?;
        sqlx::query("UPDATE map_task_schema SET version = ?")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
