//! The work on one file.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::sync::atomic::Ordering::Relaxed;

use async_map_task::Checkpoint;
use async_map_task::store::StoreError;
use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::manifest::Row;
use crate::report::Counts;

/// The number of bytes between two checkpoints. It makes the cost of a save negligible.
const SECTION: u64 = 64 * 1024 * 1024;

const BUFFER_SIZE: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("its SHA-256 must be {required}, got {found}")]
    Differs { found: String, required: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VerifyError {
    /// If an earlier run read part of the file, and the file was replaced since, its checksum is wrong once.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Differs { .. })
    }
}

/// Reads a file, from the checkpoint of an earlier attempt, and compares its checksum. Returns its size.
pub(crate) async fn verify(row: &Row, checkpoint: Checkpoint, counts: &Counts) -> Result<u64, VerifyError> {
    let (state, path) = (checkpoint.load().await?.unwrap_or_default(), row.path.clone());
    let mut reading = on_thread(move || Reading::begin(&path, state)).await?;
    loop {
        let before = reading.read;
        reading = on_thread(move || reading.section()).await?;
        if reading.read - before < SECTION {
            break;
        }
        checkpoint.save(&reading.state()).await?;
        counts.read.fetch_add(SECTION, Relaxed);
    }
    let size = reading.read;
    let found: String = reading.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != row.sum {
        // The state is kept after the failure, and the next attempt must begin at the start of the file.
        checkpoint.save(&State::default()).await?;
        return Err(VerifyError::Differs { found, required: row.sum.clone() });
    }
    Ok(size)
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await?
}

/// The position in a file, which a checkpoint keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    read: u64,
    sha256: Vec<u8>,
}

/// A file that is being read.
struct Reading {
    file: File,
    read: u64,
    sha256: Sha256,
}

impl Reading {
    fn begin(path: &str, State { read, sha256 }: State) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let state = SerializedState::<Sha256>::try_from(sha256.as_slice()).ok();
        let Some(sha256) = state.and_then(|state| Sha256::deserialize(&state).ok()) else {
            return Ok(Self { file, read: 0, sha256: Sha256::new() });
        };
        file.seek(SeekFrom::Start(read))?;
        Ok(Self { file, read, sha256 })
    }

    /// Reads a section, or the rest of the file.
    fn section(mut self) -> io::Result<Self> {
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut section = (&mut self.file).take(SECTION);
        loop {
            match section.read(&mut buffer) {
                Ok(0) => return Ok(self),
                Ok(length) => {
                    self.sha256.update(buffer.get(..length).unwrap_or_default());
                    self.read += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn state(&self) -> State {
        State { read: self.read, sha256: self.sha256.serialize().to_vec() }
    }
}
