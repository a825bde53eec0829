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

/// How many connections read runs and pages of outcomes. One more reads cached values and checkpoints.
const READERS: usize = 3;

/// How many prepared statements a connection keeps: more than there are, in all their numbers of rows.
const STATEMENTS: usize = 256;

/// How many rows a connection may be ahead of its reader.
const ROWS_AHEAD: usize = 1_024;

/// The path that SQLite takes for a database in memory.
const IN_MEMORY: &str = ":memory:";

/// A file, known by its path and its inode.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    identity: Identity,
}

/// What tells one file from another of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// All connections of a store. None is ever made anew, so that all of them stay with one file and need no further file
/// descriptors.
pub(super) struct Connections {
    pub(super) writer: SqliteConnection,
    pub(super) look_ups: SqliteConnection,
    pub(super) readers: Vec<SqliteConnection>,
}

impl StoreFile {
    /// Makes the file if there is none, and connects to it.
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

    /// Refuses to go on if another file, or none, has the path.
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

    /// Other systems do not let an open file be replaced.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|_| Self { device: 0, inode: 0 })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    if path == Path::new(IN_MEMORY) {
        let error =
            "the journal mode of `:memory:` is `memory`, required is `wal`, in a file on a local disk";
        return Err(StoreError::Database { doing: "opening the SQLite store", error: error.into() }.into());
    }
    Ok(std::path::absolute(path).map_err(sqlx::Error::Io)?)
}

/// Makes an empty file that only its owner can read and write. SQLite gives the files beside it the same permissions. If
/// it cannot be made, SQLite says why when it opens it.
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
        // A page is looked over as it is read, so that damage is found before it is followed.
        .pragma("cell_size_check", "ON")
        .disable_statement_logging();
    let mut writer = options.clone().journal_mode(SqliteJournalMode::Wal).connect().await?;
    schema::check(&mut writer).await?;
    schema::migrate(&mut writer).await?;
    // From here on the store waits for other processes itself, and takes turns with them.
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut writer).await?;
    let options = options.read_only(true);
    let look_ups = reader(&options).await?;
    let mut readers = Vec::with_capacity(READERS);
    while readers.len() < READERS {
        readers.push(reader(&options).await?);
    }
    Ok(Connections { writer, look_ups, readers })
}

/// A connection that has read once and so has all its files open.
async fn reader(options: &SqliteConnectOptions) -> Result<SqliteConnection, Fault> {
    let mut reader = options.connect().await?;
    sqlx::query("SELECT version FROM map_task_schema").execute(&mut reader).await?;
    Ok(reader)
}
