//! The account of both tasks: the end of every file.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_map_task::{Event, ItemError, ItemOutcome, Observer};

use crate::readings::Readings;

/// The state of each file, by its index in the input. A file that is not in here was not parsed.
#[derive(Debug, Default)]
pub(crate) struct Account {
    files: BTreeMap<usize, State>,
    /// The second task counts its items from 0. This maps their indices to those of the input.
    handed_on: Vec<usize>,
    ahead: Arc<Ahead>,
}

#[derive(Debug)]
enum State {
    NotParsed(ItemError<anyhow::Error>),
    Parsed,
    NotReported(ItemError<anyhow::Error>),
    Reported { readings: usize },
}

impl Account {
    pub(crate) fn new(ahead: &Arc<Ahead>) -> Self {
        Self { ahead: Arc::clone(ahead), ..Self::default() }
    }

    /// Records an outcome of the first task. Returns the readings for the second task, or `None` for a failure.
    pub(crate) fn parsed(&mut self, outcome: ItemOutcome<Readings, anyhow::Error>) -> Option<Readings> {
        match outcome.result {
            Ok(readings) => {
                self.files.insert(outcome.index, State::Parsed);
                self.handed_on.push(outcome.index);
                Some(readings)
            }
            Err(error) => {
                self.end(outcome.index, State::NotParsed(error));
                None
            }
        }
    }

    /// Records an outcome of the second task.
    pub(crate) fn reported(&mut self, outcome: ItemOutcome<usize, anyhow::Error>) {
        if let Some(index) = self.handed_on.get(outcome.index) {
            let readings = outcome.result.map(|readings| State::Reported { readings });
            self.end(*index, readings.unwrap_or_else(State::NotReported));
        }
    }

    fn end(&mut self, index: usize, state: State) {
        self.files.insert(index, state);
        self.ahead.ended();
    }

    /// Returns one line per file, in the order of the input.
    pub(crate) fn print(&self, files: &[PathBuf]) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        for (index, file) in files.iter().enumerate() {
            write!(out, "{}: ", file.display())?;
            match self.files.get(&index) {
                None => writeln!(out, "not parsed"),
                Some(State::NotParsed(error)) => writeln!(out, "parse {error:#}"),
                Some(State::Parsed) => writeln!(out, "parsed, not reported"),
                Some(State::NotReported(error)) => writeln!(out, "report {error:#}"),
                Some(State::Reported { readings }) => writeln!(out, "done, {readings} readings"),
            }?;
        }
        out.flush()
    }
}

/// The number of files that the first task has started and that have not ended in either task.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Ahead {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    fn ended(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// Observes the first task.
impl Observer for Ahead {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::ItemStarted { .. } = event {
            let now = self.now.fetch_add(1, Relaxed) + 1;
            self.most.fetch_max(now, Relaxed);
        }
    }
}
