//! The bar on a terminal: the files, the bytes, the rate, and the time that is left. In a pipe there is none.

use std::fs;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use console::Term;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::arguments::Arguments;
use crate::files::{Found, walk};

/// What is shown from a number of columns on, once the totals are known.
const PARTS: [(u16, &str); 3] = [
    (
        72,
        "[{wide_bar}] {files} files, {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
    ),
    (48, "{percent}% {files} files, {eta} left"),
    (0, "{percent}% {eta} left"),
];

/// The position of the bar is in bytes, because a file may be empty or fill a disk.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    bytes: ProgressBar,
    files: Arc<AtomicU64>,
    /// Lines on stdout would be written over the bar.
    shares_terminal: bool,
}

impl Bar {
    /// Returns a bar without a total yet. It is invisible if stderr is no terminal.
    pub(crate) fn new() -> Self {
        let bytes = ProgressBar::no_length();
        let bar = Self {
            shares_terminal: !bytes.is_hidden() && io::stdout().is_terminal(),
            bytes,
            files: Arc::default(),
        };
        if !bar.bytes.is_hidden() {
            bar.show("{spinner} {files} files, {binary_bytes}", None);
            bar.bytes.enable_steady_tick(Duration::from_millis(100));
        }
        bar
    }

    /// Looks through the tree for the totals, in the background. They may be a little wrong: files can change meanwhile.
    pub(crate) fn count(&self, arguments: &Arguments) {
        if self.bytes.is_hidden() {
            return;
        }
        let (bar, dir) = (self.clone(), arguments.dir.clone());
        tokio::task::spawn_blocking(move || {
            let size = |file: &Found| fs::metadata(&file.path).map_or(0, |content| content.len());
            let (files, bytes) =
                walk(&dir).fold((0, 0), |(files, bytes), file| (files + 1, bytes + size(&file)));
            bar.bytes.set_length(bytes);
            let width = Term::stderr().size_checked().map_or(0, |(_, columns)| columns);
            if let Some((_, parts)) = PARTS.iter().find(|(columns, _)| width >= *columns) {
                bar.show(parts, Some(files));
            }
        });
    }

    fn show(&self, parts: &str, total: Option<u64>) {
        let files = Arc::clone(&self.files);
        let write = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let settled = HumanCount(files.load(Relaxed));
            // The bar is drawn without it if there is no memory for it.
            let _ = match total {
                Some(total) => write!(out, "{settled} of {}", HumanCount(total)),
                None => write!(out, "{settled}"),
            };
        };
        if let Ok(style) = ProgressStyle::with_template(parts) {
            self.bytes.set_style(style.progress_chars("=> ").with_key("files", write));
        }
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.inc(bytes);
    }

    /// Takes back the bytes of an attempt that failed.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.bytes.dec(bytes);
    }

    pub(crate) fn add_file(&self) {
        self.files.fetch_add(1, Relaxed);
    }

    /// Writes to stdout, above the bar.
    pub(crate) fn with_stdout<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.shares_terminal { self.bytes.suspend(write) } else { write() }
    }

    /// Writes to stderr, above the bar.
    pub(crate) fn with_stderr<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bytes.suspend(write)
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bytes.finish_and_clear();
    }
}
