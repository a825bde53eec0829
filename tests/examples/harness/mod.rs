//! The parts that the tests of the examples share: a sandbox with an empty folder and a time limit, and the programs that
//! run in it.

mod pipes;
mod program;
mod time_limit;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use self::pipes::{has_reader, hold_fifo, open_and_close, without_reader};
pub(crate) use self::program::{Ended, Program, Running};
use self::time_limit::TimeLimit;
use crate::folder::Folder;

/// The environment of one test: its own empty folder, which is removed with the sandbox, and a time limit for everything
/// that the test waits for.
pub(crate) struct Sandbox {
    folder: Folder,
    time_limit: TimeLimit,
    programs: Cell<u32>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new(), time_limit: TimeLimit::start(), programs: Cell::new(0) }
    }

    /// Returns a path in the folder. It need not exist.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// Creates a folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Creates a symbolic link.
    pub(crate) fn link(&self, name: &str, target: &str) -> PathBuf {
        let path = self.path(name);
        symlink(target, &path).unwrap();
        path
    }

    /// Waits until the condition holds, and fails at the time limit of the test.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl FnMut() -> bool) {
        self.time_limit.until(what, is_so);
    }

    /// An example that has not started yet.
    pub(crate) fn example(&self, name: &str) -> Program<'_> {
        Program::new(self, Command::new(crate::binary::path(name)))
    }

    /// Another program that has not started yet.
    pub(crate) fn program(&self, program: impl AsRef<Path>) -> Program<'_> {
        Program::new(self, Command::new(program.as_ref()))
    }

    /// The output of `sha256sum` for these files, in this order, in a folder.
    pub(crate) fn sha256sum<P: AsRef<Path>>(
        &self,
        folder: &Path,
        files: impl IntoIterator<Item = P>,
    ) -> Vec<u8> {
        let files: Vec<_> = files.into_iter().map(|file| file.as_ref().as_os_str().to_owned()).collect();
        let sums = self.program("sha256sum").folder(folder).args(files).run();
        sums.exits(0);
        sums.out
    }
}

/// Returns the number of lines.
pub(crate) fn lines(text: impl AsRef<[u8]>) -> usize {
    text.as_ref().iter().filter(|byte| **byte == b'\n').count()
}
