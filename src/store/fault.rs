//! What can go wrong on the way to a database, and what it means to the caller.

use super::StoreError;

/// The codes by which a database says that its files are damaged: SQLite's `CORRUPT` and `NOTADB` with their extended
/// codes, and the two SQLSTATEs of PostgreSQL.
const DAMAGED: [&str; 7] = ["11", "26", "267", "523", "779", "XX001", "XX002"];

/// A failed operation, before it is known what the store was doing.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum Fault {
    Sql(#[from] sqlx::Error),
    Store(#[from] StoreError),
}

/// The codes by which SQLite says that another has the file: `BUSY` and its extended codes.
#[cfg(feature = "sqlite")]
const BUSY: [&str; 4] = ["5", "261", "517", "773"];

impl Fault {
    /// Whether another process has the file, so that it may go well a little later.
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

/// A value of a type that the schema does not allow is damage, too.
fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| DAMAGED.contains(&code.as_ref())),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}
