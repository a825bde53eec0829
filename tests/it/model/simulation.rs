//! The rules once more, as plainly as they can be said: one thread, one clock, one thing at a time.

use std::collections::HashMap;

use super::script::{Case, End, Source};
use super::{Ended, Millis, Observed, Status, TieBreak};

/// An attempt under way.
struct Running {
    index: usize,
    number: u32,
    /// When it ends by itself, and how.
    by_itself: Option<(Millis, End)>,
    /// When it ends because it was told to, and how.
    told: Option<(Millis, End)>,
    /// When its limit ends it. A run that stops takes it away.
    limit: Option<(Millis, Status)>,
    /// Its limit has passed; it has until then to end.
    grace: Option<(Millis, Status)>,
}

/// What happens to an attempt next.
enum Next {
    Ends(End),
    OutOfTime(Status),
    OutOfGrace(Status),
}

/// An item between two attempts.
struct Waiting {
    index: usize,
    number: u32,
    due: Millis,
    failure: Status,
}

struct Simulation<'a> {
    case: &'a Case,
    ties: &'a TieBreak,
    now: Millis,
    pulled: usize,
    exhausted: bool,
    running: Vec<Running>,
    /// In the order in which they began to wait.
    waiting: Vec<Waiting>,
    first_start: HashMap<usize, Millis>,
    stop: Option<Ended>,
    stop_at: Millis,
    seen: Observed,
}

pub(super) fn run(case: &Case, ties: &TieBreak) -> Observed {
    let seen = Observed {
        ended: Ended::Succeeded,
        end: 0,
        items: vec![(Status::NotStarted, 0); case.items.len()],
        starts: Vec::new(),
        settled: Vec::new(),
        peak: 0,
        retries: 0,
        timeouts: 0,
        panics: 0,
        first_failure: None,
    };
    let mut simulation = Simulation {
        case,
        ties,
        now: 0,
        pulled: 0,
        exhausted: false,
        running: Vec::new(),
        waiting: Vec::new(),
        first_start: HashMap::new(),
        stop: None,
        stop_at: 0,
        seen,
    };
    simulation.fill();
    while let Some(next) = simulation.next_instant() {
        simulation.now = next;
        simulation.driver_timers();
        simulation.attempts();
        simulation.fill();
    }
    simulation.finish()
}

impl Simulation<'_> {
    /// Fills the free places.
    fn fill(&mut self) {
        while self.running.len() < self.case.concurrency && self.fill_place() {}
    }

    /// Fills one place: with those that are due for a retry, then with new items, until one has to wait
    /// there. Says whether one does.
    fn fill_place(&mut self) -> bool {
        let running = self.running.len();
        while self.stop.is_none() && self.running.len() == running {
            if let Some(at) = self.first_due(|_| true) {
                let Waiting { index, number, .. } = self.waiting.remove(at);
                self.seen.retries += 1;
                self.start(index, number + 1);
            } else if self.waiting.len() >= self.case.concurrency {
                return false;
            } else {
                match (self.arrival(), self.source_fails_here()) {
                    (Some(arrival), _) if arrival > self.now => return false,
                    (Some(_), true) => self.stop(Ended::Source),
                    (Some(_), false) => {
                        self.pulled += 1;
                        self.first_start.insert(self.pulled - 1, self.now);
                        self.start(self.pulled - 1, 1);
                    }
                    (None, _) => {
                        self.exhausted = true;
                        return false;
                    }
                }
            }
        }
        self.running.len() > running
    }

    /// Among those whose delay is over, the one whose delay was over first.
    fn first_due(&self, of: impl Fn(&Waiting) -> bool) -> Option<usize> {
        let due = self.waiting.iter().enumerate();
        let due = due.filter(|(_, waiting)| waiting.due <= self.now && of(waiting));
        due.min_by_key(|(order, waiting)| (waiting.due, *order)).map(|(at, _)| at)
    }

    /// When the source gives what comes next; `None` where it has come to its end.
    fn arrival(&self) -> Option<Millis> {
        let at_end = self.pulled == self.case.items.len();
        match &self.case.source {
            Source::List | Source::UnsizedList => (!at_end).then_some(0),
            Source::Stream { gaps } | Source::Failing { gaps, .. } if !at_end => {
                Some(gaps[..=self.pulled].iter().sum())
            }
            Source::Stream { .. } => None,
            Source::Failing { .. } => self.source_fails_here().then_some(0),
        }
    }

    fn source_fails_here(&self) -> bool {
        matches!(self.case.source, Source::Failing { at, .. } if at == self.pulled)
    }

    fn start(&mut self, index: usize, number: u32) {
        let script = self.case.attempt(index, number);
        self.seen.starts.push((index, number, self.now));
        self.seen.items[index] = (Status::Cancelled, number);
        if script.end == End::PanicWhileBuilding && script.sleep == 0 {
            return self.end(index, number, script.end, None);
        }
        self.seen.peak = self.seen.peak.max(self.running.len() + 1);
        if script.sleep == 0 && script.end != End::Never {
            return self.end(index, number, script.end, None);
        }
        let of_attempt = self.case.per_attempt.map(|limit| (self.now + limit, Status::TimedOutAttempt));
        let of_item = self.item_deadline(index).map(|deadline| (deadline, Status::TimedOutItem));
        self.running.push(Running {
            index,
            number,
            by_itself: (script.end != End::Never).then_some((self.now + script.sleep, script.end)),
            told: None,
            limit: of_attempt.into_iter().chain(of_item).min_by_key(|(deadline, _)| *deadline),
            grace: None,
        });
    }

    fn item_deadline(&self, index: usize) -> Option<Millis> {
        self.case.per_item.map(|limit| self.first_start[&index] + limit)
    }

    /// The next thing that happens to an attempt. Where several fall together, a result comes first.
    fn next_of(running: &Running) -> Option<(Millis, Next)> {
        let ends = [running.by_itself, running.told].into_iter().flatten();
        let ends = ends.map(|(at, end)| (at, Next::Ends(end)));
        let limit = running.limit.map(|(at, failure)| (at, Next::OutOfTime(failure)));
        let grace = running.grace.map(|(at, failure)| (at, Next::OutOfGrace(failure)));
        ends.chain(limit).chain(grace).min_by_key(|(at, _)| *at)
    }

    /// When something happens next; `None` at the end of the run.
    fn next_instant(&self) -> Option<Millis> {
        let grace = self.case.grace.unwrap_or(0);
        let attempts = self.running.iter().filter_map(Self::next_of).map(|(at, _)| at);
        if self.stop.is_some() {
            let over = self.running.is_empty() || grace == 0 || self.now >= self.stop_at;
            return if over { None } else { attempts.chain([self.stop_at]).min() };
        }
        if self.exhausted && self.running.is_empty() && self.waiting.is_empty() {
            return None;
        }
        let waits = self.waiting.iter().map(|waiting| {
            let give_up = self.item_deadline(waiting.index).unwrap_or(Millis::MAX);
            if waiting.due > self.now { waiting.due } else { give_up }
        });
        let place = self.running.len() < self.case.concurrency && self.waiting.len() < self.case.concurrency;
        let arrival = self.arrival().filter(|_| place);
        let timers = [self.case.per_run, self.case.cancel_at].into_iter().flatten();
        attempts.chain(waits).chain(arrival).chain(timers).filter(|at| *at > self.now).min()
    }

    /// What the run itself waits for.
    fn driver_timers(&mut self) {
        if self.stop.is_some() {
            return;
        }
        if self.case.cancel_at == Some(self.now) {
            self.stop(Ended::Cancelled);
        }
        if self.case.per_run == Some(self.now) {
            self.stop(Ended::TimedOut);
        }
        while let Some(at) = self
            .first_due(|waiting| self.item_deadline(waiting.index).is_some_and(|give_up| give_up <= self.now))
        {
            let Waiting { index, failure, .. } = self.waiting.remove(at);
            self.fail(index, failure);
        }
    }

    /// What happens to the attempts at this instant.
    fn attempts(&mut self) {
        loop {
            let over = self.stop.is_some() && self.case.grace.is_none();
            let due = self.running.iter().enumerate().filter_map(|(at, running)| {
                let (when, next) = Self::next_of(running)?;
                let attempt = (running.index, running.number);
                let rank = self.ties.ends.iter().position(|ended| *ended == attempt);
                // One that ended as timed out was told so before anything else stopped the run.
                let told_first = matches!(next, Next::OutOfTime(_))
                    && self.case.grace.is_some()
                    && self.ties.timed_out.contains(&attempt);
                let order = (!told_first, rank.unwrap_or(usize::MAX));
                (when <= self.now).then_some((order, at, next))
            });
            let Some((_, at, next)) = due.min_by_key(|(order, ..)| *order).filter(|_| !over) else { return };
            match next {
                Next::OutOfTime(failure) if self.case.grace.is_some() => {
                    let until = self.now + self.case.grace.unwrap_or(0);
                    let running = &mut self.running[at];
                    (running.limit, running.grace) = (None, Some((until, failure)));
                    Self::tell(self.case, self.now, running);
                }
                Next::OutOfTime(failure) | Next::OutOfGrace(failure) => {
                    let Running { index, number, .. } = self.running.remove(at);
                    self.attempt_failed(index, number, failure, None);
                    self.fill_place();
                }
                Next::Ends(end) => {
                    let Running { index, number, grace, .. } = self.running.remove(at);
                    self.end(index, number, end, grace.map(|(_, failure)| failure));
                    self.fill_place();
                }
            }
        }
    }

    fn tell(case: &Case, now: Millis, running: &mut Running) {
        let script = case.attempt(running.index, running.number);
        if let (Some((later, end)), None) = (script.when_told, running.told) {
            running.told = (end != End::Never).then_some((now + later, end));
        }
    }

    /// An attempt has ended, in the grace after its limit where `out_of_time` says so.
    fn end(&mut self, index: usize, number: u32, end: End, out_of_time: Option<Status>) {
        match (end, out_of_time) {
            (End::Ok, _) => self.succeed(index),
            (End::Err { .. }, Some(failure)) => self.attempt_failed(index, number, failure, None),
            (End::Err { .. }, None) => self.attempt_failed(index, number, Status::Failed, Some(end)),
            (End::Panic | End::PanicWhileBuilding, _) => {
                self.attempt_failed(index, number, Status::Panicked, None);
            }
            (End::Never, _) => unreachable!("it never ends"),
        }
    }

    fn attempt_failed(&mut self, index: usize, number: u32, failure: Status, error: Option<End>) {
        self.seen.panics += usize::from(failure == Status::Panicked);
        self.seen.timeouts += usize::from(matches!(failure, Status::TimedOutAttempt | Status::TimedOutItem));
        let backoff = (1..number)
            .fold(u128::from(self.case.delay), |delay, _| delay * u128::from(self.case.multiplier));
        let backoff = Millis::try_from(backoff.min(u128::from(self.case.max_delay))).unwrap();
        let wait = match (failure, error) {
            (Status::Failed, Some(End::Err { retryable: true, retry_after })) => {
                Some(retry_after.unwrap_or(backoff))
            }
            (Status::TimedOutAttempt, _) => Some(backoff),
            _ => None,
        };
        let due = wait.map(|wait| self.now + wait).filter(|due| {
            let in_time = |limit: Option<Millis>| limit.is_none_or(|limit| *due < limit);
            in_time(self.item_deadline(index)) && in_time(self.case.per_run)
        });
        match due {
            Some(due) if number <= self.case.retries && self.stop.is_none() => {
                self.waiting.push(Waiting { index, number, due, failure });
            }
            _ => self.fail(index, failure),
        }
    }

    fn total(&self) -> Option<usize> {
        matches!(self.case.source, Source::List).then_some(self.case.items.len())
    }

    /// The fewest successes and the most failures among `total` items.
    fn criteria(&self, total: usize) -> (usize, usize) {
        let none = self.case.min_successes.is_none() && self.case.max_failures.is_none();
        let hundredths = self.case.min_ratio.or(none.then_some(100)).unwrap_or(0) as usize;
        let least = (hundredths * total).div_ceil(100).max(self.case.min_successes.unwrap_or(0));
        (least, total.saturating_sub(least).min(self.case.max_failures.unwrap_or(usize::MAX)))
    }

    fn settle(&mut self, index: usize, status: Status) {
        self.seen.items[index].0 = status;
        self.seen.settled.push((index, self.now));
    }

    fn count(&self, succeeded: bool) -> usize {
        let settled = self.seen.settled.iter().map(|(index, _)| self.seen.items[*index].0);
        settled.filter(|status| (*status == Status::Succeeded) == succeeded).count()
    }

    fn succeed(&mut self, index: usize) {
        self.settle(index, Status::Succeeded);
        let certain = match self.total() {
            Some(total) => {
                let most = self.case.max_failures.map_or(0, |most| total.saturating_sub(most));
                Some(self.criteria(total).0.max(most))
            }
            None if self.case.min_ratio.is_none() && self.case.max_failures.is_none() => {
                self.case.min_successes
            }
            None => None,
        };
        if self.case.early_success && certain.is_some_and(|certain| self.count(true) >= certain) {
            self.stop(Ended::Succeeded);
        }
    }

    fn fail(&mut self, index: usize, failure: Status) {
        self.settle(index, failure);
        self.seen.first_failure.get_or_insert(index);
        let failures = self.count(false);
        let allowed = match self.total() {
            Some(total) => self.criteria(total).1,
            None => self.case.max_failures.unwrap_or(usize::MAX),
        };
        if self.case.fail_fast {
            self.stop(Ended::FailFast { index });
        }
        if failures > allowed {
            self.stop(Ended::TooManyFailures { failures, allowed });
        }
    }

    /// The first cause counts. What waits is given up, what runs is told.
    fn stop(&mut self, cause: Ended) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(cause);
        self.stop_at = self.now + self.case.grace.unwrap_or(0);
        self.waiting.clear();
        for running in &mut self.running {
            running.limit = None;
            Self::tell(self.case, self.now, running);
        }
    }

    fn finish(mut self) -> Observed {
        let (successes, failures) = (self.count(true), self.count(false));
        let (least, allowed) = self.criteria(successes + failures);
        self.seen.ended = match self.stop {
            Some(cause) => cause,
            None if successes >= least && failures <= allowed => Ended::Succeeded,
            None => Ended::TooManyFailures { failures, allowed },
        };
        self.seen.end = self.now;
        self.seen
    }
}
