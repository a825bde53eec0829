//! The page about the run that `--report` writes, with the feature `report`.

use std::io;
use std::path::PathBuf;

use async_map_task::{AsyncMapTaskBuilder, RunReport};

/// The report of a run, and the file that it is written to.
#[derive(Debug)]
pub(crate) struct Report {
    run: RunReport,
    file: PathBuf,
}

impl Report {
    /// Returns `None` if the program was built without reports.
    pub(crate) fn new(file: PathBuf) -> Option<Self> {
        Some(Self { run: RunReport::new(), file })
    }

    /// Makes the task report its run.
    pub(crate) fn observe(&self, builder: AsyncMapTaskBuilder) -> AsyncMapTaskBuilder {
        builder.observer(self.run.observer())
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        self.run.write_html(&self.file)
    }
}
