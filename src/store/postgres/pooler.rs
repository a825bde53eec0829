//! The detection of a pooler that shares the server's sessions.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::timeout;

use crate::random::random;
use crate::store::fault::Fault;

/// How long the check waits for a second session. A pooler with a single session does not provide it while a transaction has
/// it.
const SESSION_WAIT: Duration = Duration::from_secs(2);

/// How many times the sessions are checked: a pooler assigns the one used last, or each in turn.
const CHECKS: usize = 3;

/// Returns `true` if two connections may get each other's sessions, as with PgBouncer in transaction mode. Then a setting of
/// one connection's session is missing in the next transaction of that connection, or is present in a transaction of the
/// other.
///
/// No statement here is a prepared one, because such a pooler may mix them up. The mark stays in a shared session, and
/// nothing reads it there.
pub(super) async fn is_between(one: &mut PgConnection, options: &PgConnectOptions) -> Result<bool, Fault> {
    let mark = format!("{:016x}", random());
    sqlx::raw_sql("BEGIN").execute(&mut *one).await?;
    let marked = timeout(SESSION_WAIT, connect_and_mark(options, &mark)).await;
    sqlx::raw_sql("COMMIT").execute(&mut *one).await?;
    let Ok(other) = marked else { return Ok(true) };
    let mut other = other?;
    for _ in 0..CHECKS {
        if !has_mark(&mut other, &mark).await? || has_mark(one, &mark).await? {
            return Ok(true);
        }
        if !has_mark(&mut other, &mark).await? {
            return Ok(true);
        }
    }
    other.close().await?;
    Ok(false)
}

async fn connect_and_mark(options: &PgConnectOptions, mark: &str) -> Result<PgConnection, Fault> {
    let mut connection = PgConnection::connect_with(options).await?;
    let set = format!("SELECT set_config('async_map_task.session', '{mark}', false)");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
    Ok(connection)
}

async fn has_mark(connection: &mut PgConnection, mark: &str) -> Result<bool, Fault> {
    let ask =
        format!("SELECT coalesce(current_setting('async_map_task.session', true), '') = '{mark}' AS found");
    let row = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_one(connection).await?;
    Ok(row.try_get("found")?)
}
