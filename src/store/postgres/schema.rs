//! The tables, and their migrations.

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::store::StoreError;
use crate::store::fault::Fault;

/// The migrations: the first one creates version 1, the second one migrates to version 2, and so on.
const MIGRATIONS: [&str; 2] = [include_str!("../sql/postgres_1.sql"), include_str!("../sql/postgres_2.sql")];

const SUPPORTED: i64 = MIGRATIONS.len() as i64;

/// The advisory lock of the migration: `map_task` in ASCII.
const LOCK: i64 = 0x6d61_705f_7461_736b;

/// Creates or migrates the tables. No statement is prepared by name, because a pooler may share the session.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), Fault> {
    let mut transaction = connection.begin().await?;
    // Without the lock, two stores that connect to an empty database at once would both create the tables.
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .persistent(false)
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let is_known = "SELECT to_regclass('map_task_schema') IS NOT NULL";
    if !sqlx::query_scalar::<_, bool>(is_known).persistent(false).fetch_one(&mut *transaction).await? {
        sqlx::raw_sql(
            "CREATE TABLE map_task_schema (version bigint NOT NULL);
             INSERT INTO map_task_schema VALUES (0);",
        )
        .execute(&mut *transaction)
        .await?;
    }
    let found: i64 = sqlx::query_scalar("SELECT version FROM map_task_schema")
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await?;
    if found > SUPPORTED {
        return Err(StoreError::TooNew { found, supported: SUPPORTED }.into());
    }
    for (migration, version) in MIGRATIONS.into_iter().zip(1_i64..).filter(|(_, version)| *version > found) {
        sqlx::raw_sql(migration).execute(&mut *transaction).await?;
        sqlx::query("UPDATE map_task_schema SET version = $1")
            .persistent(false)
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
