//! The table, in SQLite or in PostgreSQL, and the statement that inserts a batch of rows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use sqlx::Connection;
use sqlx::error::ErrorKind;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::csv::{ParseError, Person, Row};

/// The primary key is the position of a row in its file, so the table itself states which rows are done. This is why the
/// program can be killed at any moment: a row and the record that it is done are one thing, and are committed at once.
///
/// `recover` with a store would not be enough. A kill between the commit of the table and the commit of the store runs the
/// statement again, so it has to be harmless anyway. It would only save the second look at the rows of earlier runs, at the
/// price of a second record of every row.
///
/// A server may still execute a statement of a process that was killed. The statement of the next process waits for it: the
/// primary key is checked before the other constraints, so the same row conflicts with itself by its key, not by its email.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS people (
        file BIGINT NOT NULL,
        line BIGINT NOT NULL,
        email TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL CHECK (name <> ''),
        age SMALLINT NOT NULL CHECK (age BETWEEN 0 AND 150),
        PRIMARY KEY (file, line)
    )";

/// The text of a statement is the same for any number of rows, so it is prepared once.
const INSERT_INTO_SQLITE: &str = "
    INSERT INTO people (file, line, email, name, age)
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?2) WHERE true
    ON CONFLICT (file, line) DO NOTHING RETURNING line";
const INSERT_INTO_POSTGRES: &str = "
    INSERT INTO people (file, line, email, name, age)
    SELECT $1, row.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::smallint[]) AS row
    ON CONFLICT (file, line) DO NOTHING RETURNING line";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// When a row that is in the table was inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    Now,
    /// By an earlier run, or by a statement whose answer was lost.
    Before,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum InsertError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{}", message(.0))]
    Database(#[from] sqlx::Error),
}

impl InsertError {
    /// Returns `true` if the row is bad, so that it is refused each time. Other errors are those of the database: it is down,
    /// busy or full.
    pub(crate) fn is_about_the_row(&self) -> bool {
        match self {
            Self::Parse(_) => true,
            Self::Database(sqlx::Error::Database(error)) => !matches!(error.kind(), ErrorKind::Other),
            Self::Database(_) => false,
        }
    }
}

fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}

/// Inserts rows with one statement. A row that cannot be parsed fails alone. A row that the table does not take fails the
/// statement, which is an error of the whole call, and the library makes smaller calls.
pub(crate) async fn insert(
    database: &Database,
    rows: Vec<Row>,
) -> Result<Vec<Result<Inserted, InsertError>>, InsertError> {
    let parsed: Vec<_> = rows.iter().map(Row::parse).collect();
    let inserted = database.insert(parsed.iter().flatten()).await?;
    let result = |row: Result<Person, ParseError>| {
        let is_new = inserted.contains(&row?.line);
        Ok(if is_new { Inserted::Now } else { Inserted::Before })
    };
    Ok(parsed.into_iter().map(result).collect())
}

pub(crate) struct Database {
    pool: Pool,
    file: i64,
    statements: AtomicUsize,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

pub(crate) fn is_postgres(database: &str) -> bool {
    database.starts_with("postgres://") || database.starts_with("postgresql://")
}

impl Database {
    /// Opens the database, and creates the table. `file` is the id of the file from which the rows come.
    pub(crate) async fn open(database: &str, connections: u16, file: i64) -> sqlx::Result<Self> {
        let pool = if is_postgres(database) {
            // A pool would try again for a while, and then not state why it has no connection.
            let mut connection = PgConnection::connect(database).await?;
            sqlx::query(TABLE).execute(&mut connection).await?;
            connection.close().await?;
            let pool =
                PgPoolOptions::new().max_connections(connections.into()).acquire_timeout(CONNECT_TIMEOUT);
            Pool::Postgres(pool.connect_lazy(database)?)
        } else {
            let options = SqliteConnectOptions::new()
                .filename(database)
                .create_if_missing(true)
                .busy_timeout(CONNECT_TIMEOUT)
                .journal_mode(SqliteJournalMode::Wal)
                // A loss of power may undo the last commits. The next run then inserts these rows again.
                .synchronous(SqliteSynchronous::Normal);
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
            sqlx::query(TABLE).execute(&pool).await?;
            Pool::Sqlite(pool)
        };
        Ok(Self { pool, file, statements: AtomicUsize::new(0) })
    }

    /// Inserts all of these rows or, if there is an error, none. Returns the lines of those that were not in the table.
    async fn insert(&self, people: impl Iterator<Item = &Person>) -> sqlx::Result<HashSet<i64>> {
        self.statements.fetch_add(1, Relaxed);
        let lines = match &self.pool {
            Pool::Sqlite(pool) => {
                let rows: Vec<_> = people.map(|p| (p.line, &p.email, &p.name, p.age)).collect();
                let rows = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
                sqlx::query_scalar(INSERT_INTO_SQLITE).bind(self.file).bind(rows).fetch_all(pool).await?
            }
            Pool::Postgres(pool) => {
                let (mut lines, mut emails, mut names, mut ages) = (vec![], vec![], vec![], vec![]);
                for person in people {
                    lines.push(person.line);
                    emails.push(person.email.as_str());
                    names.push(person.name.as_str());
                    ages.push(person.age);
                }
                let insert = sqlx::query_scalar(INSERT_INTO_POSTGRES).bind(self.file);
                insert.bind(lines).bind(emails).bind(names).bind(ages).fetch_all(pool).await?
            }
        };
        Ok(lines.into_iter().collect())
    }

    /// Closes all connections. Returns the number of statements.
    pub(crate) async fn close(self) -> usize {
        match self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
        self.statements.into_inner()
    }
}
