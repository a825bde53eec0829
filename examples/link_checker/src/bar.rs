//! One line of progress, which is redrawn in place. It is shown only on a terminal.

use std::io::{self, IsTerminal, Write};

use crate::report::Report;

const WIDTH: usize = 30;

#[derive(Debug)]
pub(crate) struct Bar {
    is_shown: bool,
}

impl Default for Bar {
    fn default() -> Self {
        Self { is_shown: io::stderr().is_terminal() }
    }
}

impl Bar {
    /// The total grows while pages are checked, so the bar can become shorter.
    pub(crate) fn show(&self, report: &Report, found: usize) {
        let (checked, broken) = (report.checked(), report.broken());
        let full = WIDTH * checked / found.max(1);
        let bar = "#".repeat(full) + &".".repeat(WIDTH - full.min(WIDTH));
        self.draw(&format!("[{bar}] {checked} of {found} pages checked, {broken} broken"));
    }

    pub(crate) fn clear(&self) {
        self.draw("");
    }

    /// Replaces the line. An error is ignored: stderr may be closed.
    fn draw(&self, line: &str) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }
}
