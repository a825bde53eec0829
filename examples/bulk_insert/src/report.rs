//! The file of the rejects, the progress on stderr, and the account on stdout.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_map_task::{ItemError, ItemOutcome};

use crate::csv::quote;
use crate::database::{InsertError, Inserted};

const TELL_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Report {
    rejects: BufWriter<File>,
    total: usize,
    inserted: usize,
    before: usize,
    rejected: usize,
    begun: Instant,
    told: Instant,
}

impl Report {
    /// A bad row is not in the table, so each run finds it again. This is why a new file has all of them, each once.
    pub(crate) fn create(rejects: &Path, total: usize) -> io::Result<Self> {
        let mut rejects = BufWriter::new(File::create(rejects)?);
        writeln!(rejects, "line,reason,row")?;
        let now = Instant::now();
        Ok(Self { rejects, total, inserted: 0, before: 0, rejected: 0, begun: now, told: now })
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Adds a row. An error that is not about the row stops the run: no other row would do better.
    pub(crate) fn add(&mut self, outcome: ItemOutcome<Inserted, InsertError>) -> Result<()> {
        match outcome.result {
            Ok(Inserted::Now) => self.inserted += 1,
            Ok(Inserted::Before) => self.before += 1,
            Err(ItemError::Failed { error, .. }) if error.is_about_the_row() => {
                // Line 1 is the header.
                let (line, row) = (outcome.index + 2, outcome.label.unwrap_or_default());
                writeln!(self.rejects, "{line},{},{}", quote(&error.to_string()), quote(&row))
                    .context("cannot write the rejects")?;
                self.rejected += 1;
            }
            Err(error) => bail!("the database does not insert rows: {error}"),
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tell(&format!("{} of {} rows, {} rejected", self.done(), self.total, self.rejected));
        }
        Ok(())
    }

    fn done(&self) -> usize {
        self.inserted + self.before + self.rejected
    }

    pub(crate) fn print(&mut self, statements: usize) -> io::Result<()> {
        self.rejects.flush()?;
        let (done, seconds) = (self.done(), self.begun.elapsed().as_secs_f64());
        let rate = done as f64 / seconds.max(0.001);
        let mut out = io::stdout().lock();
        writeln!(out, "{done} of {} rows in {seconds:.1} s, {rate:.0} rows/s", self.total)?;
        let counts = [
            (self.inserted, "inserted"),
            (self.before, "recovered: inserted by an earlier run"),
            (self.rejected, "rejected"),
            (self.total.saturating_sub(done), "left"),
            (statements, "statements"),
        ];
        for (count, what) in counts {
            writeln!(out, "{count:10}  {what}")?;
        }
        out.flush()
    }
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
