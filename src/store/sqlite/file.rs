//! The file of a store: its path, its identity and the connections to it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};

use super::schema;
use crate::store::StoreError;
use crate::store::fault::Fault;

/// The number of connections that read runs and pages of outcomes. One more reads cached values and checkpoints.
const READERS: usize = 3;

/// The number of prepared statements that a connection caches. It is larger than the number of all statements, in all their
/// numbers of rows.
const STATEMENTS: usize = 256;

/// How many rows a connection may read ahead.
const ROWS_AHEAD: usize = 1_024;

/// The path that means a database in memory to SQLite.
const IN_MEMORY: &str = ":memory:";

/// A file, identified by its path and its inode.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    identity: Identity,
}

/// Distinguishes files that had the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// All connections of a store. None is ever reopened, so all of them stay with one file and need no further file
/// descriptors.
pub(super) struct Connections {
    pub(super) writer: SqliteConnection,
    pub(super) look_ups: SqliteConnection,
    pub(super) readers: Vec<SqliteConnection>,
}

impl StoreFile {
    /// Creates the file if it does not exist, and connects to it.
    pub(super) async fn open(path: &Path, busy_timeout: Duration) -> Result<(Self, Connections), Fault> {
        let path = absolute(path)?;
        create(&path);
        let before = Identity::of(&path);
        let connections = connect(&path, busy_timeout).await?;
        let file = Self { identity: before.map_err(sqlx::Error::Io)?, path };
        file.check()?;
        Ok((file, connections))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns an error if the path leads to another file, or to none.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Database { doing: "looking for the file of the store", error: error.into() })
            }
            _ => Err(StoreError::Replaced { path: self.path.clone() }),
        }
    }
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;

        let found = fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// Other systems do not allow an open file to be replaced.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self { device: 0, inode: 0 })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    if path == Path::new(IN_MEMORY) {
        let error = "the journal mode must be `wal`, in a file on a local disk, got `memory` for `:memory:`";
        return Err(StoreError::Database { doing: "opening the SQLite store", error: error.into() }.into());
    }
    Ok(std::path::absolute(path).map_err(sqlx::Error::Io)?)
}

/// Creates an empty file that only its owner can read and write. SQLite gives the files next to it the same permissions. If
/// the creation fails, SQLite reports the reason when it opens the file.
fn create(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(path);
}

async fn connect(path: &Path, busy_timeout: Duration) -> Result<Connections, Fault> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout)
        .statement_cache_capacity(STATEMENTS)
        .row_buffer_size(ROWS_AHEAD)
        .thread_name(|number| format!("map-task-db-{number}"))
        // Checks each page when it is read, so that damage is found before it is followed.
        .pragma("cell_size_check", "ON")
        .disable_statement_logging();
    let mut writer = options.clone().journal_mode(SqliteJournalMode::Wal).connect().await?;
    schema::check(&mut writer).await?;
    schema::migrate(&mut writer).await?;
    // From here on, the store itself waits for other processes and takes turns with them.
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut writer).await?;
    let options = options.read_only(true);
    let look_ups = reader(&options).await?;
    let mut readers = Vec::with_capacity(READERS);
    while readers.len() < READERS {
        readers.push(reader(&options).await?);
    }
    Ok(Connections { writer, look_ups, readers })
}

/// Opens a connection and reads once, so that all its files are open.
async fn reader(options: &SqliteConnectOptions) -> Result<SqliteConnection, Fault> {
    let mut reader = options.connect().await?;
    sqlx::query("SELECT version FROM map_task_schema").execute(&mut reader).await?;
    Ok(reader)
}
