//! The work on a folder and on one file. It does not depend on tasks and runs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use walkdir::{DirEntry, WalkDir};

use crate::bar::Bar;

pub(crate) type Sum = [u8; 32];

const BUFFER_SIZE: usize = 256 * 1024;

/// A file to hash, or an entry that could not be read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    unreadable: Option<io::Error>,
}

/// Returns every regular file, every link to one, and every broken link. Sorted, one directory at a time.
pub(crate) fn walk(dir: &Path) -> impl Iterator<Item = Arc<Found>> {
    let entries = WalkDir::new(dir).sort_by_file_name().into_iter();
    let found = entries.filter_map(move |entry| match entry {
        Ok(entry) => is_listed(&entry).then(|| Found { path: entry.into_path(), unreadable: None }),
        Err(error) => {
            let path = error.path().unwrap_or(dir).to_owned();
            let error = error
                .into_io_error()
                .unwrap_or_else(|| io::Error::other("a symbolic link leads back to a parent folder"));
            Some(Found { path, unreadable: Some(error) })
        }
    });
    found.map(Arc::new)
}

/// Links to directories are not followed, because they may lead into a cycle or out of the tree. Pipes, sockets and
/// devices have no content that ends.
fn is_listed(entry: &DirEntry) -> bool {
    if entry.file_type().is_symlink() {
        // A broken link is listed, so that its failure is visible.
        fs::metadata(entry.path()).map_or(true, |target| target.is_file())
    } else {
        entry.file_type().is_file()
    }
}

/// Reads a file in pieces, so that its size does not matter. Stops between two pieces after the attempt was
/// cancelled.
pub(crate) fn hash(file: &Found, stop: &CancellationToken, bar: &Bar) -> io::Result<Sum> {
    let mut bytes = 0;
    let count = |length| {
        bytes += length;
        bar.add_bytes(length);
    };
    hash_pieces(file, stop, count).inspect_err(|_| bar.take_back(bytes))
}

fn hash_pieces(file: &Found, stop: &CancellationToken, mut count: impl FnMut(u64)) -> io::Result<Sum> {
    if let Some(error) = &file.unreadable {
        return Err(io::Error::new(error.kind(), error.to_string()));
    }
    let mut hasher = Sha256::new();
    let mut content = File::open(&file.path)?;
    let mut buffer = vec![0; BUFFER_SIZE];
    while !stop.is_cancelled() {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(length) => {
                hasher.update(buffer.get(..length).unwrap_or_default());
                count(length as u64);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("stopped"))
}

/// Writes a line in the format of `sha256sum`. A name that does not fit on a line is escaped, and a backslash before
/// the sum marks the line.
pub(crate) fn write_sum(out: &mut impl Write, sum: &Sum, path: &Path) -> io::Result<()> {
    if path.as_os_str().as_encoded_bytes().iter().any(|byte| escape(*byte).is_some()) {
        out.write_all(b"\\")?;
    }
    for byte in sum {
        write!(out, "{byte:02x}")?;
    }
    out.write_all(b"  ")?;
    write_name(out, path)?;
    out.write_all(b"\n")
}

/// Writes the name byte by byte, because it need not be UTF-8.
pub(crate) fn write_name(out: &mut impl Write, path: &Path) -> io::Result<()> {
    for byte in path.as_os_str().as_encoded_bytes() {
        match escape(*byte) {
            Some(escaped) => out.write_all(escaped)?,
            None => out.write_all(&[*byte])?,
        }
    }
    Ok(())
}

fn escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'\\' => Some(b"\\\\"),
        b'\n' => Some(b"\\n"),
        b'\r' => Some(b"\\r"),
        _ => None,
    }
}
