//! An account of the processes of one run, and the checks of it.

use async_map_task::Origin;

use super::ITEMS;
use crate::process::{Event, Line, STEPS, output};

/// The number of outcomes that may wait for their commit, besides those of the running items: a limit documented for
/// `recover`.
const MOST_UNCOMMITTED: u64 = 1_024;

pub(super) struct Account {
    /// The number of executions of each item, by any process.
    executions: Vec<u32>,
    /// The items with a reported, and so committed, outcome.
    is_reported: Vec<bool>,
    /// The reported items that ran again.
    again_after_report: Vec<u64>,
    /// The number of saved steps of each item.
    saved: Vec<u64>,
    /// The number of times that an item has continued from a saved state.
    resumed: u64,
    /// The outcomes of each item from the latest process.
    outputs: Vec<Option<u64>>,
    has_ended: bool,
}

impl Account {
    pub(super) fn new() -> Self {
        let items = ITEMS as usize;
        Self {
            executions: vec![0; items],
            is_reported: vec![false; items],
            again_after_report: Vec::new(),
            saved: vec![0; items],
            resumed: 0,
            outputs: vec![None; items],
            has_ended: false,
        }
    }

    pub(super) fn add(&mut self, lines: &[Line]) {
        for line in lines {
            match &line.event {
                Event::Began(item) => {
                    self.executions[*item as usize] += 1;
                    if self.is_reported[*item as usize] {
                        self.again_after_report.push(*item);
                    }
                }
                Event::Loaded(item, step) => {
                    let saved = self.saved[*item as usize];
                    // The last save may have reached the store although its process was killed before it logged this.
                    assert!(
                        (saved..=saved + 1).contains(step),
                        "item {item}: loaded {step}, saved was {saved}"
                    );
                    self.resumed += u64::from(*step > 0);
                }
                Event::Saved(item, step) => {
                    assert!(*step > self.saved[*item as usize] && *step <= STEPS, "{line:?} was done before");
                    self.saved[*item as usize] = *step;
                }
                Event::Settled(item, origin, given) => {
                    assert_eq!(given.value, output(*item).value, "item {item} has the output of another");
                    assert!(
                        *origin != Origin::Ran || given.by == line.process,
                        "{line:?} was run by another"
                    );
                    let before = self.outputs[*item as usize].replace(given.value);
                    assert_eq!(before, None, "item {item} was given twice to one process");
                    self.is_reported[*item as usize] = true;
                }
                Event::Ended(reason) => {
                    assert_eq!(*reason, None);
                    self.has_ended = true;
                }
            }
        }
    }

    /// Forgets the outcomes of a killed process: the next process must give out all of them again.
    pub(super) fn process_is_over(&mut self, was_killed: bool) {
        if was_killed && !self.has_ended {
            self.outputs.fill(None);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn executions(&self) -> &[u32] {
        &self.executions
    }

    /// Returns the number of times that an item has continued from a saved state.
    pub(super) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Returns the outputs of the process that has ended the run.
    pub(super) fn outputs(&self) -> Vec<u64> {
        assert!(self.has_ended, "no process has ended the run");
        self.outputs.iter().map(|output| output.expect("every item has an output")).collect()
    }

    /// Checks the rules for a run after this number of kills, with at most this number of running items at each.
    pub(super) fn check(&self, kills: u32, running: u64) {
        assert_eq!(self.again_after_report, [0; 0], "run again after their commit was reported");
        assert!(self.executions.iter().all(|executions| (1..=1 + kills).contains(executions)));
        let again = self.executions.iter().map(|executions| u64::from(executions - 1)).sum::<u64>();
        let most = u64::from(kills) * (MOST_UNCOMMITTED + running);
        assert!(again <= most, "{again} items ran again, {most} may after {kills} kills");
    }
}
