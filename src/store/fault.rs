//! Errors of a database, and their conversion to store errors.

use super::StoreError;

/// The error codes of damaged files: SQLite's `CORRUPT` and `NOTADB` with their extended codes, and two SQLSTATEs of
/// PostgreSQL.
const DAMAGED: [&str; 7] = ["11", "26", "267", "523", "779", "XX001", "XX002"];

/// The error of an operation, before the name of the operation is added.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum Fault {
    Sql(#[from] sqlx::Error),
    Store(#[from] StoreError),
}

/// SQLite's error codes for a file that another process has locked: `BUSY` and its extended codes.
#[cfg(feature = "sqlite")]
const BUSY: [&str; 4] = ["5", "261", "517", "773"];

impl Fault {
    /// Returns `true` if another process has locked the file, so that a retry may succeed.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| BUSY.contains(&code.as_ref()))
            }
            _ => false,
        }
    }

    pub(super) fn into_store_error(self, doing: &'static str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sql(error) if is_damage(&error) => StoreError::Corrupt(format!("{doing}: {error}")),
            Self::Sql(error) => StoreError::Database { doing, error: error.into() },
        }
    }
}

/// Returns `true` if the error is due to damage. A value of a type that the schema does not allow is damage, too.
fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| DAMAGED.contains(&code.as_ref())),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}
