//! A rule that tries steps and keeps those that pay. A full server makes the median duration rise by the share by which the limit
//! rises. So a higher limit pays if the median rises by less than 3/4 of that share.
//!
//! A round is 50 attempts that began under the present limit, or twice the limit if that is more. Each round doubles the limit, until
//! a step does not pay. Before that, there are no steps down. After it, the limit goes up by a quarter and down by a fifth by turns,
//! 5 s apart. Each step is on trial until the next one. A round is bad if it speaks for the other of the two limits, and two bad
//! rounds in succession take the step back. The limit does not go up if most attempts of the round ended while it was not in use.
//! An overload takes 0.7 of the limit, once for all attempts that began before it.

use std::time::Duration;

use super::super::limits::{Ended, Limits};

const UP: f64 = 1.25;
const DOWN: f64 = 0.8;
const PAYS: f64 = 0.75;
const AFTER_OVERLOAD: f64 = 0.7;
const PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_ROUND: f64 = 50.0;

/// A limit, and the median duration of a round under it.
#[derive(Clone, Copy)]
struct Seen {
    limit: f64,
    median: f64,
}

impl Seen {
    /// Returns `true` if this limit is better than a lower one.
    fn pays_beside(self, lower: Self) -> bool {
        self.median / lower.median - 1.0 < PAYS * (self.limit / lower.limit - 1.0)
    }
}

pub(crate) struct Steps {
    limit: f64,
    most: f64,
    /// The limit is doubled.
    is_new: bool,
    /// The next step is one up.
    goes_up: bool,
    stepped_at: Duration,
    /// What was there before the step that is on trial.
    before: Option<Seen>,
    bad_rounds: u32,
    /// Attempts that began before do not count.
    since: Duration,
    durations: Vec<f64>,
    full: usize,
}

impl Steps {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self {
            limit: start as f64,
            most: most as f64,
            is_new: true,
            goes_up: true,
            stepped_at: Duration::ZERO,
            before: None,
            bad_rounds: 0,
            since: Duration::ZERO,
            durations: Vec::new(),
            full: 0,
        }
    }

    fn end_round(&mut self, now: Duration) {
        self.durations.sort_by(f64::total_cmp);
        let median = self.durations[self.durations.len() / 2];
        let was_full = self.full * 2 > self.durations.len();
        self.durations.clear();
        self.full = 0;
        let present = Seen { limit: self.limit, median };
        if let Some(before) = self.before {
            let is_good = if present.limit > before.limit {
                present.pays_beside(before)
            } else {
                !before.pays_beside(present)
            };
            self.bad_rounds = if is_good { 0 } else { self.bad_rounds + 1 };
            if self.bad_rounds == 2 {
                self.is_new = false;
                return self.set(before.limit, now);
            }
            if !is_good {
                return;
            }
        }
        if self.is_new || now - self.stepped_at >= PAUSE {
            self.step(present, was_full, now);
        }
    }

    fn step(&mut self, present: Seen, was_full: bool, now: Duration) {
        let Seen { limit, .. } = present;
        let wanted = match (self.is_new, self.goes_up) {
            (true, _) => limit * 2.0,
            (false, true) => (limit * UP).max(limit + 1.0),
            (false, false) => limit * DOWN,
        };
        if !self.is_new {
            self.goes_up = !self.goes_up;
            self.stepped_at = now;
        }
        if wanted > limit && (!was_full || limit >= self.most) {
            return;
        }
        self.set(wanted, now);
        self.before = Some(present);
    }

    fn set(&mut self, limit: f64, now: Duration) {
        self.limit = limit.clamp(1.0, self.most).floor();
        self.since = now;
        self.before = None;
        self.bad_rounds = 0;
        self.durations.clear();
        self.full = 0;
    }
}

impl Limits for Steps {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn ended(&mut self, attempt: &Ended) {
        if attempt.began < self.since {
            return;
        }
        if attempt.is_overload {
            self.is_new = false;
            return self.set(self.limit * AFTER_OVERLOAD, attempt.now);
        }
        self.durations.push(attempt.duration());
        self.full += usize::from(attempt.is_full);
        if self.durations.len() as f64 >= SHORTEST_ROUND.max(2.0 * self.limit) {
            self.end_round(attempt.now);
        }
    }
}
