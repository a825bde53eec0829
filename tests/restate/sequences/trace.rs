//! The events of a sequence, in order, and the check for events that must not happen.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use crate::work::{Event, Log};

/// The notes of a sequence, between the lines of the handlers. A coordinator has a number.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// A step changes the parts.
    Step(String),
    /// A coordinator makes an attempt at an item.
    Calls(usize, u64),
    /// The attempt has succeeded.
    IsTold(usize, u64),
    /// The attempt has failed.
    Fails(usize, u64, String),
    /// The coordinator is dead, and has sent no message to the engine.
    Dies(usize),
    /// `settled` has returned this.
    Settled(usize, usize),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(text) => write!(f, "-- {text}"),
            Self::Calls(side, item) => write!(f, "coordinator {side} calls item {item}"),
            Self::IsTold(side, item) => write!(f, "coordinator {side} has item {item}"),
            Self::Fails(side, item, error) => write!(f, "coordinator {side} fails with item {item}: {error}"),
            Self::Dies(side) => write!(f, "coordinator {side} is dead"),
            Self::Settled(side, left) => write!(f, "coordinator {side} is settled, {left} uncancelled"),
        }
    }
}

/// The log of the handlers, with notes in it.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) log: Log,
    items: usize,
    notes: Mutex<Vec<Note>>,
}

impl Trace {
    pub(super) fn new(path: &Path, items: usize) -> Self {
        Self { log: Log::new(path), items, notes: Mutex::default() }
    }

    pub(super) fn note(&self, note: Note) {
        let mut notes = self.notes.lock().unwrap();
        notes.push(note);
        // Under the lock, so that the notes and the log have the same order.
        self.log.write(Event::Noted, notes.len() as u64 - 1);
    }

    /// Returns all events, one per line.
    pub(super) fn text(&self) -> String {
        let notes = self.notes.lock().unwrap();
        self.log.events().into_iter().fold(String::new(), |mut text, (event, number)| {
            match event {
                Event::Noted => writeln!(text, "    {}", notes[number as usize]).unwrap(),
                event => writeln!(text, "    item {number} {event:?}").unwrap(),
            }
            text
        })
    }

    /// Returns the events of the log so far.
    pub(super) fn history(&self) -> History {
        let mut history = History::new(self.items);
        let notes = self.notes.lock().unwrap();
        for (event, number) in self.log.events() {
            history.now += 1;
            match event {
                Event::Began => history.begins(number as usize),
                Event::Noted => history.goes_on(&notes[number as usize]),
                Event::Ended | Event::Dropped => {}
            }
        }
        history
    }
}

/// The actions of a coordinator on an item.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    attempts: u32,
    /// The time at which the last attempt began.
    called_at: usize,
    /// The last attempt has neither succeeded nor failed.
    is_pending: bool,
    /// Another coordinator has attached to its only attempt, and has cancelled it.
    is_ended_by_another: bool,
}

#[derive(Debug)]
struct Side {
    parts: Vec<Part>,
    is_settled: bool,
    died_at: Option<usize>,
}

/// The state of the items.
#[derive(Debug)]
pub(super) struct History {
    /// The number of lines.
    now: usize,
    is_told: Vec<bool>,
    sides: Vec<Side>,
    pub(super) starts: Vec<usize>,
    pub(super) faults: Vec<String>,
}

impl History {
    fn new(items: usize) -> Self {
        let (is_told, starts) = (vec![false; items], vec![0; items]);
        Self { now: 0, is_told, sides: Vec::new(), starts, faults: Vec::new() }
    }

    fn begins(&mut self, item: usize) {
        self.starts[item] += 1;
        if self.is_told[item] {
            self.faults.push(format!("item {item} begins after it was told as a success"));
        } else if !self.may_go_on(item) {
            self.faults.push(format!("item {item} begins after all that called it are settled"));
        }
    }

    /// Returns `true` if some coordinator has called the item, and may not have ended it.
    pub(super) fn may_go_on(&self, item: usize) -> bool {
        self.sides.iter().any(|side| {
            let part = side.parts[item];
            part.attempts > 0 && !side.is_settled && !part.is_ended_by_another
        })
    }

    pub(super) fn is_told(&self, item: usize) -> bool {
        self.is_told[item]
    }

    fn goes_on(&mut self, note: &Note) {
        match note {
            Note::Step(_) => {}
            Note::Calls(side, item) => {
                let now = self.now;
                let part = self.part(*side, *item);
                part.attempts += 1;
                part.called_at = now;
                part.is_pending = true;
            }
            Note::IsTold(side, item) => {
                self.part(*side, *item).is_pending = false;
                self.is_told[*item as usize] = true;
            }
            Note::Fails(side, item, _) => self.part(*side, *item).is_pending = false,
            Note::Dies(side) => {
                let now = self.now;
                self.side(*side).died_at = Some(now);
            }
            Note::Settled(side, 0) => self.settled(*side),
            Note::Settled(side, left) => {
                self.faults.push(format!("coordinator {side} has left {left} uncancelled"));
            }
        }
    }

    fn settled(&mut self, side: usize) {
        self.side(side).is_settled = true;
        let cancelled = self.sides[side].parts.clone();
        for dead in &mut self.sides {
            let Some(died_at) = dead.died_at else { continue };
            for (part, other) in dead.parts.iter_mut().zip(&cancelled) {
                // The other coordinator attaches to the call of the first attempt that a dead coordinator has left.
                let is_same_call = part.attempts == 1 && died_at < other.called_at;
                part.is_ended_by_another |= is_same_call && other.is_pending;
            }
        }
    }

    fn side(&mut self, side: usize) -> &mut Side {
        let items = self.starts.len();
        while self.sides.len() <= side {
            let parts = vec![Part::default(); items];
            self.sides.push(Side { parts, is_settled: false, died_at: None });
        }
        &mut self.sides[side]
    }

    fn part(&mut self, side: usize, item: u64) -> &mut Part {
        &mut self.side(side).parts[item as usize]
    }
}
