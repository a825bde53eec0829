//! The table into which the calls of a run of batches insert rows.

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use super::{LONGEST, Output, Place};

/// The table, in the database of the store.
pub(crate) enum Rows {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A row of the table: its item, and the output of the call that has inserted it.
pub(crate) type Row = (u64, Output);

/// A key of the job's own makes a call repeatable.
const TABLE: &str = "CREATE TABLE inserted (
    run TEXT, item BIGINT, value BIGINT NOT NULL, process BIGINT NOT NULL, PRIMARY KEY (run, item)
)";

const OF_RUN: &str = "SELECT item, value, process FROM inserted WHERE run = $1 ORDER BY item";

impl Rows {
    pub(crate) async fn create(place: &Place) -> Self {
        let rows = Self::open(place).await;
        rows.execute(TABLE.to_owned()).await.unwrap();
        rows
    }

    pub(super) async fn open(place: &Place) -> Self {
        match place {
            Place::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).busy_timeout(LONGEST);
                Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap())
            }
            Place::Postgres(url) => Self::Postgres(PgPoolOptions::new().connect(url).await.unwrap()),
        }
    }

    /// Inserts rows with one statement, except those that the table has.
    pub(super) async fn insert(&self, run_id: &str, rows: &[Row]) -> sqlx::Result<()> {
        let values = rows.iter().map(|(item, Output { value, by })| {
            let value = *value as i64;
            format!("('{run_id}', {item}, {value}, {by})")
        });
        let values: Vec<_> = values.collect();
        self.execute(format!("INSERT INTO inserted VALUES {} ON CONFLICT DO NOTHING", values.join(", ")))
            .await
    }

    /// Returns the rows of a run, in the order of their items.
    pub(crate) async fn of_run(&self, run_id: &str) -> Vec<Row> {
        let rows: Vec<(i64, i64, i64)> = match self {
            Self::Sqlite(pool) => sqlx::query_as(OF_RUN).bind(run_id).fetch_all(pool).await.unwrap(),
            Self::Postgres(pool) => sqlx::query_as(OF_RUN).bind(run_id).fetch_all(pool).await.unwrap(),
        };
        let row = |(item, value, by)| (item as u64, Output { value: value as u64, by: by as u32 });
        rows.into_iter().map(row).collect()
    }

    async fn execute(&self, sql: String) -> sqlx::Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Sqlite(pool) => sql.execute(pool).await.map(drop),
            Self::Postgres(pool) => sql.execute(pool).await.map(drop),
        }
    }
}
