//! The account of a run: the events that its workers have logged.

use std::fmt;
use std::ops::Range;

use crate::work::Event;

/// The number of times that each item began and ended.
#[derive(Debug)]
pub(super) struct Account {
    began: Vec<u64>,
    ended: Vec<u64>,
}

impl Account {
    pub(super) fn new(items: u64, events: impl Iterator<Item = (Event, u64)>) -> Self {
        let none = vec![0; items as usize];
        let mut account = Self { began: none.clone(), ended: none };
        for (event, index) in events {
            match event {
                Event::Began => account.began[index as usize] += 1,
                Event::Ended => account.ended[index as usize] += 1,
                Event::Dropped | Event::Noted => {}
            }
        }
        account
    }

    pub(super) fn executions(&self) -> &[u64] {
        &self.began
    }

    pub(super) fn have_begun(&self, mut items: Range<u64>) -> bool {
        items.all(|index| self.began[index as usize] > 0)
    }

    /// Returns the number of executions of items that had begun before.
    pub(super) fn reruns(&self) -> u64 {
        self.began.iter().map(|began| began.saturating_sub(1)).sum()
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended.iter().filter(|ended| **ended > 0).count() as u64
    }

    /// Returns the number of items that have begun, and of which no execution has ended.
    pub(super) fn unfinished(&self) -> u64 {
        self.began.iter().zip(&self.ended).filter(|(began, ended)| **began > 0 && **ended == 0).count() as u64
    }

    /// Returns `true` if some items have ended, and some have not begun.
    pub(super) fn is_in_the_middle(&self) -> bool {
        self.ended() > 0 && self.began.contains(&0)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executions: u64 = self.began.iter().sum();
        let (ended, items, unfinished, reruns) =
            (self.ended(), self.began.len(), self.unfinished(), self.reruns());
        write!(
            f,
            "{ended} of {items} items ended, {unfinished} unfinished; {executions} executions, {reruns} reruns"
        )
    }
}
