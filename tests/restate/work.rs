//! The items, and the work of a worker on one item.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An item, which defines how it runs and ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) index: u64,
    /// The log that the worker writes to.
    pub(crate) log: PathBuf,
    /// The time that it takes.
    pub(crate) millis: u64,
    /// `true` if the handler waits in a way in which the engine can cancel it.
    pub(crate) heeds: bool,
    /// It waits until this file exists.
    pub(crate) gate: Option<PathBuf>,
    /// The number of its executions that end with a terminal error.
    pub(crate) fails: u64,
    /// The number of its executions that end with an error that the engine retries.
    pub(crate) stumbles: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) index: u64,
    pub(crate) square: u64,
}

pub(crate) fn output(index: u64) -> Output {
    Output { index, square: index * index }
}

/// The events in the workers, in a file that they all append to. A line is an event and an index.
#[derive(Debug, Clone)]
pub(crate) struct Log(PathBuf);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The handler was called.
    Began,
    /// It returned, with a success or an error.
    Ended,
    /// It was dropped before it returned.
    Dropped,
    /// A test has added a note, with this number.
    Noted,
}

impl Event {
    const ALL: [(Self, &str); 4] =
        [(Self::Began, "began"), (Self::Ended, "ended"), (Self::Dropped, "dropped"), (Self::Noted, "noted")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(event, _)| *event == self).unwrap().1
    }
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        File::create(path).unwrap();
        Self(path.to_owned())
    }

    pub(crate) fn of(item: &Item) -> Self {
        Self(item.log.clone())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// Writes once at the end of the file. So the line is complete even if others write, and remains if the process dies
    /// next.
    pub(crate) fn write(&self, event: Event, index: u64) {
        let mut file = OpenOptions::new().append(true).open(&self.0).unwrap();
        file.write_all(format!("{} {index}\n", event.name()).as_bytes()).unwrap();
    }

    pub(crate) fn events(&self) -> Vec<(Event, u64)> {
        let parse = |line: &str| {
            let (name, index) = line.split_once(' ')?;
            let (event, _) = Event::ALL.iter().find(|(_, known)| *known == name)?;
            Some((*event, index.parse().ok()?))
        };
        let text = fs::read_to_string(&self.0).unwrap();
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole]
            .lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("the log has `{line}`")))
            .collect()
    }

    /// Returns how often this event happened to each of the first items.
    pub(crate) fn counts(&self, event: Event, items: u64) -> Vec<u64> {
        let mut counts = vec![0; items as usize];
        for (_, index) in self.events().into_iter().filter(|(found, _)| *found == event) {
            counts[index as usize] += 1;
        }
        counts
    }
}
