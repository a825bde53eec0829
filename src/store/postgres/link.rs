//! A connection for the duration of one call.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, Postgres};

use super::connections::{Connections, Loan};
use crate::store::fault::Fault;

pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Begins a transaction that is durable even if the server is configured otherwise, in any session.
const BEGIN_DURABLY: &str = "BEGIN; SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off'";

/// The visibility of a call's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Each statement takes effect on its own.
    Statement,
    /// All statements take effect, or none.
    Transaction,
    /// All statements read the state of one moment.
    Snapshot,
}

/// Turns a function of a connection into a call, which also ends the connection's use.
macro_rules! with_link {
    ($link:ident => $operation:expr) => {
        |mut $link: $crate::store::postgres::link::Link| async move {
            let done = $operation.await;
            $link.end(done).await
        }
    };
}
pub(super) use with_link;

/// A connection that is given back when the call has ended. It is closed if the call failed or was dropped.
pub(super) struct Link {
    loan: Loan,
    connections: Arc<Connections>,
    /// `true` if the server's sessions are shared with other connections, so that nothing may stay in a session.
    is_pooled: bool,
    is_in_transaction: bool,
}

impl Link {
    pub(super) async fn acquire(connections: &Arc<Connections>, is_pooled: bool) -> Result<Self, Fault> {
        let loan = connections.acquire().await?;
        Ok(Self { loan, connections: Arc::clone(connections), is_pooled, is_in_transaction: false })
    }

    /// Begins the scope of the call. Single statements need a transaction if a pooler would send each message to another
    /// session.
    pub(super) async fn begin(&mut self, scope: Scope) -> Result<(), Fault> {
        let begin = match scope {
            Scope::Statement if !self.is_pooled => return Ok(()),
            Scope::Transaction if !self.is_pooled => "BEGIN",
            Scope::Statement | Scope::Transaction => BEGIN_DURABLY,
            Scope::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        sqlx::raw_sql(begin).execute(self.connection()?).await?;
        self.is_in_transaction = true;
        Ok(())
    }

    /// Ends the call, and gives the connection back. The effects are durable, or undone if the store has refused
    /// the call.
    pub(super) async fn end<T>(mut self, done: Result<T, Fault>) -> Result<T, Fault> {
        let end = match &done {
            Ok(_) => "COMMIT",
            Err(Fault::Store(_)) => "ROLLBACK",
            Err(Fault::Sql(_)) => return done,
        };
        if self.is_in_transaction {
            sqlx::raw_sql(end).execute(self.connection()?).await?;
        }
        self.connections.give_back(self.loan);
        done
    }

    /// Executes a statement, and returns how many rows were written.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Fault> {
        let done = statement.persistent(!self.is_pooled).execute(self.connection()?).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn rows<T>(&mut self, statement: Statement<'_>) -> Result<Vec<T>, Fault>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let rows = statement.persistent(!self.is_pooled).fetch_all(self.connection()?).await?;
        Ok(rows.iter().map(T::from_row).collect::<Result<_, _>>()?)
    }

    pub(super) async fn row<T>(&mut self, statement: Statement<'_>) -> Result<Option<T>, Fault>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        Ok(self.rows(statement).await?.pop())
    }

    fn connection(&mut self) -> Result<&mut PgConnection, Fault> {
        self.loan.connection().ok_or(Fault::Sql(sqlx::Error::PoolClosed))
    }
}
