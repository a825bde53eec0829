//! A log of the events in processes, in their order.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use async_map_task::Origin;

use super::{LONGEST, Output};

/// The interval at which the log is read.
const PATIENCE: Duration = Duration::from_micros(200);

/// The end of a complete line. A process that is killed within a write may leave a part of its line behind.
const COMPLETE: &str = " .";

/// A file to which several processes append. The lines of a process stay even if it is killed immediately, and their
/// order is that of the writes. A line begins with a line break, so that it is whole even behind a part of another line.
pub(crate) struct Log {
    file: File,
    /// The part of a line that was read before the line was complete.
    rest: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) process: u32,
    pub(crate) event: Event,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The function was called for an item.
    Began(u64),
    /// The function has loaded the state of an item: the number of its completed steps.
    Loaded(u64, u64),
    /// The function has saved the state of an item.
    Saved(u64, u64),
    /// The run has given out the outcome of an item.
    Settled(u64, Origin, Output),
    /// The run has ended, for this reason if it did not succeed.
    Ended(Option<String>),
}

impl Log {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).unwrap();
        Self { file, rest: String::new() }
    }

    /// A line of this process.
    pub(crate) fn write(&self, event: &Event) {
        let process = process::id();
        let line = match event {
            Event::Began(item) => format!("{process} began {item}"),
            Event::Loaded(item, step) => format!("{process} loaded {item} {step}"),
            Event::Saved(item, step) => format!("{process} saved {item} {step}"),
            Event::Settled(item, origin, Output { value, by }) => {
                format!("{process} {} {item} {value} {by}", word(*origin))
            }
            Event::Ended(None) => format!("{process} ended"),
            Event::Ended(Some(reason)) => format!("{process} failed {reason}"),
        };
        // One write for all lines, so that no other process's lines come between.
        let line = format!("\n{line}{COMPLETE}");
        assert_eq!((&self.file).write(line.as_bytes()).unwrap(), line.len());
    }

    /// The lines that have been written since the last time.
    pub(crate) fn read(&mut self) -> Vec<Line> {
        self.file.read_to_string(&mut self.rest).unwrap();
        let is_complete = self.rest.ends_with(COMPLETE);
        let end = if is_complete { self.rest.len() } else { self.rest.rfind('\n').unwrap_or(0) };
        let complete = self.rest[..end].lines().filter_map(|line| line.strip_suffix(COMPLETE));
        let lines = complete.map(|line| line.parse().unwrap()).collect();
        self.rest.drain(..end);
        lines
    }

    /// Passes on the lines as they come, until the function returns `true`.
    pub(crate) fn follow(&mut self, mut is_enough: impl FnMut(Vec<Line>) -> bool) {
        let begun = Instant::now();
        while !is_enough(self.read()) {
            assert!(begun.elapsed() < LONGEST, "the processes do not get there");
            sleep(PATIENCE);
        }
    }
}

fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Ran => "ran",
        Origin::Recovered => "recovered",
        Origin::Cached => "cached",
        _ => panic!("there are no others"),
    }
}

impl FromStr for Line {
    type Err = std::num::ParseIntError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let (process, event) = line.split_once(' ').unwrap();
        let (word, rest) = event.split_once(' ').unwrap_or((event, ""));
        let numbers = || rest.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
        let settled = |origin| {
            let numbers = numbers()?;
            Ok(Event::Settled(numbers[0], origin, Output { value: numbers[1], by: numbers[2] as u32 }))
        };
        let event = match word {
            "began" => Event::Began(rest.parse()?),
            "loaded" => numbers().map(|numbers| Event::Loaded(numbers[0], numbers[1]))?,
            "saved" => numbers().map(|numbers| Event::Saved(numbers[0], numbers[1]))?,
            "ran" => settled(Origin::Ran)?,
            "recovered" => settled(Origin::Recovered)?,
            "cached" => settled(Origin::Cached)?,
            "ended" => Event::Ended(None),
            "failed" => Event::Ended(Some(rest.to_owned())),
            _ => panic!("no such line: {line}"),
        };
        Ok(Self { process: process.parse()?, event })
    }
}
