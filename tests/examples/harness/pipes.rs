//! Pipes between a test and a program. The test never blocks in them: it stops at its time limit.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Sandbox;

impl Sandbox {
    /// Creates a named pipe.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    /// Opens all of these pipes, which lets their writers continue, and reads each until its writer is done.
    #[track_caller]
    pub(crate) fn read_fifos(&self, paths: &[PathBuf]) -> Vec<Vec<u8>> {
        let open = |path: &PathBuf| (nonblocking().read(true).open(path).unwrap(), Vec::new(), false);
        let mut pipes: Vec<_> = paths.iter().map(open).collect();
        self.until("all pipes are read", || {
            for (pipe, content, is_done) in pipes.iter_mut().filter(|(.., is_done)| !is_done) {
                *is_done = read_available(pipe, content);
            }
            pipes.iter().all(|(.., is_done)| *is_done)
        });
        pipes.into_iter().map(|(_, content, _)| content).collect()
    }

    #[track_caller]
    pub(crate) fn read_fifo(&self, path: &Path) -> Vec<u8> {
        self.read_fifos(&[path.to_owned()]).remove(0)
    }

    /// Writes these bytes, this many times, to a named pipe that [`hold_fifo`] has opened.
    #[track_caller]
    pub(crate) fn feed(&self, pipe: &mut File, bytes: &[u8], times: usize) {
        let mut left = bytes.len() * times;
        self.until("the pipe takes all bytes", || {
            while left > 0 {
                let start = (bytes.len() - left % bytes.len()) % bytes.len();
                let end = bytes.len().min(start + left);
                match pipe.write(&bytes[start..end]) {
                    Ok(length) => left -= length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            left == 0
        });
    }
}

/// Reads the available bytes, and returns `true` if a writer came and went.
fn read_available(pipe: &mut File, content: &mut Vec<u8>) -> bool {
    match pipe.read_to_end(content) {
        // Without a writer, a pipe is at its end.
        Ok(_) => !content.is_empty(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

fn nonblocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    options
}

/// Opens both ends of a named pipe, so that it has a writer until the file is dropped.
pub(crate) fn hold_fifo(path: &Path) -> File {
    nonblocking().read(true).write(true).open(path).unwrap()
}

/// Opens a named pipe as a reader that goes away immediately. A writer that waits in `open` continues, and fails.
pub(crate) fn open_and_close(path: &Path) {
    drop(nonblocking().read(true).open(path).unwrap());
}

/// Returns `true` if a program has opened the named pipe to read, or waits in `open`.
pub(crate) fn has_reader(path: &Path) -> bool {
    nonblocking().write(true).open(path).is_ok()
}

/// Returns a pipe without a reader.
pub(crate) fn without_reader() -> Stdio {
    let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    writer.into()
}
