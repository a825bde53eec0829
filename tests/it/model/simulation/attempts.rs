//! The events of the attempts of a run.

use super::Simulation;
use crate::model::script::{Case, End};
use crate::model::{Millis, Status};

/// A running attempt.
pub(super) struct Running {
    pub(super) index: usize,
    number: u32,
    /// The time at which it returns, and its result.
    by_itself: Option<(Millis, End)>,
    /// The time at which it ends because its token was cancelled, and its result.
    told: Option<(Millis, End)>,
    /// The time of its limit. A run that stops removes the limit.
    limit: Option<(Millis, Status)>,
    /// Its limit has passed; this is the end of its grace.
    grace: Option<(Millis, Status)>,
}

/// The next event of an attempt.
pub(super) enum Next {
    Ends(End),
    OutOfTime(Status),
    OutOfGrace(Status),
}

/// An item between two attempts.
pub(super) struct Waiting {
    pub(super) index: usize,
    pub(super) number: u32,
    pub(super) due: Millis,
    /// For a wait without a delay: the number of new items that had been admitted when it began.
    pub(super) immediate: Option<usize>,
    pub(super) failure: Status,
}

impl Running {
    /// Returns its next event. If several are at one instant, a result comes first.
    pub(super) fn next(&self) -> Option<(Millis, Next)> {
        let ends = [self.by_itself, self.told].into_iter().flatten();
        let ends = ends.map(|(at, end)| (at, Next::Ends(end)));
        let limit = self.limit.map(|(at, failure)| (at, Next::OutOfTime(failure)));
        let grace = self.grace.map(|(at, failure)| (at, Next::OutOfGrace(failure)));
        ends.chain(limit).chain(grace).min_by_key(|(at, _)| *at)
    }

    fn tell(&mut self, case: &Case, now: Millis) {
        let script = case.attempt(self.index, self.number);
        if let (Some((later, end)), None) = (script.when_told, self.told) {
            self.told = (end != End::Never).then_some((now + later, end));
        }
    }
}

impl Simulation<'_> {
    pub(super) fn start(&mut self, index: usize, number: u32) {
        let case = &self.run.case;
        let script = case.attempt(index, number);
        self.seen.starts.push((index, number, self.now));
        self.seen.items[index] = (Status::Cancelled, number);
        if script.end == End::PanicWhileBuilding && script.sleep == 0 {
            return self.end(index, number, script.end, None);
        }
        self.seen.peak = self.seen.peak.max(self.running.len() + 1);
        if script.sleep == 0 && script.end != End::Never {
            return self.end(index, number, script.end, None);
        }
        let of_attempt = case.per_attempt.map(|limit| (self.now + limit, Status::TimedOutAttempt));
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

    pub(super) fn item_deadline(&self, index: usize) -> Option<Millis> {
        self.run.case.per_item.map(|limit| self.first_start[&index] + limit)
    }

    /// Applies the events of the attempts at this instant.
    pub(super) fn attempts(&mut self) {
        let grace = self.run.case.grace;
        loop {
            let over = self.stop.is_some() && grace.is_none() && !self.draining && !self.untold;
            let due = self.running.iter().enumerate().filter_map(|(at, running)| {
                let (when, next) = running.next()?;
                let attempt = (running.index, running.number);
                let rank = self.ties.ends.iter().position(|ended| *ended == attempt);
                let is_out_of_time = matches!(next, Next::OutOfTime(_));
                let ended_so = self.ties.timed_out.contains(&attempt);
                // If its limit and the end of the run are at one instant, it did not end as timed out if the run cancelled
                // its token first.
                if is_out_of_time && self.untold && !ended_so {
                    return None;
                }
                // The token of an attempt that ended as timed out was cancelled before anything else stopped the run.
                let told_first = is_out_of_time && grace.is_some() && ended_so;
                let order = (!told_first, rank.unwrap_or(usize::MAX));
                (when <= self.now).then_some((order, at, next))
            });
            let Some((_, at, next)) = due.min_by_key(|(order, ..)| *order).filter(|_| !over) else {
                if !self.untold {
                    return;
                }
                self.tell_all();
                continue;
            };
            match next {
                Next::OutOfTime(failure) if grace.is_some() => {
                    let until = self.now + grace.unwrap_or(0);
                    let running = &mut self.running[at];
                    (running.limit, running.grace) = (None, Some((until, failure)));
                    running.tell(&self.run.case, self.now);
                }
                Next::OutOfTime(failure) | Next::OutOfGrace(failure) => {
                    let Running { index, number, .. } = self.running.remove(at);
                    self.attempt_failed(index, number, failure, None);
                    self.give_back_permits(index);
                    self.use_permit();
                }
                Next::Ends(end) => {
                    let Running { index, number, grace, .. } = self.running.remove(at);
                    self.end(index, number, end, grace.map(|(_, failure)| failure));
                    self.use_permit();
                }
            }
        }
    }

    /// Ends the attempts that reach their limit, if they are among the first `ends` that have ended.
    pub(super) fn time_out_before(&mut self, ends: usize) {
        let has_grace = self.run.case.grace.is_some();
        let failure = |running: &Running| {
            let attempt = (running.index, running.number);
            let (at, next) = running.next()?;
            let is_first = self.ties.ends.iter().take(ends).any(|ended| *ended == attempt);
            match next {
                _ if at > self.now || !is_first => None,
                Next::OutOfTime(_) if has_grace => None,
                Next::OutOfTime(failure) | Next::OutOfGrace(failure) => Some(failure),
                Next::Ends(_) => None,
            }
        };
        let all = self.running.iter().enumerate();
        let first: Vec<_> = all.filter_map(|(at, running)| Some((at, failure(running)?))).collect();
        for (at, failure) in first.into_iter().rev() {
            let Running { index, number, .. } = self.running.remove(at);
            self.attempt_failed(index, number, failure, None);
            self.give_back_permits(index);
        }
    }

    /// Cancels the tokens of the running attempts. They have until the end of the grace.
    pub(super) fn tell_all(&mut self) {
        self.untold = false;
        self.stop_at = self.now + self.run.case.grace.unwrap_or(0);
        for running in &mut self.running {
            running.limit = None;
            running.tell(&self.run.case, self.now);
        }
    }

    /// Ends an attempt. `out_of_time` is set in the grace after its limit.
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
        self.give_back_permits(index);
    }

    fn attempt_failed(&mut self, index: usize, number: u32, failure: Status, error: Option<End>) {
        let case = &self.run.case;
        self.seen.panics += usize::from(failure == Status::Panicked);
        self.seen.timeouts += usize::from(matches!(failure, Status::TimedOutAttempt | Status::TimedOutItem));
        let backoff =
            (1..number).fold(u128::from(case.delay), |delay, _| delay * u128::from(case.multiplier));
        let backoff = Millis::try_from(backoff.min(u128::from(case.max_delay))).unwrap();
        let wait = match (failure, error) {
            (Status::Failed, Some(End::Err { retryable: true, retry_after })) => {
                Some(retry_after.map_or(backoff, |asked| asked.min(case.max_delay)))
            }
            (Status::TimedOutAttempt, _) => Some(backoff),
            _ => None,
        };
        let due = wait.map(|wait| self.now + wait).filter(|due| {
            let in_time = |limit: Option<Millis>| limit.is_none_or(|limit| *due < limit);
            in_time(self.item_deadline(index)) && in_time(case.per_run)
        });
        match due {
            Some(due) if number <= case.retries && self.stop.is_none() => {
                let immediate = (due == self.now).then_some(self.started);
                self.waiting.push(Waiting { index, number, due, immediate, failure });
            }
            _ => self.fail(index, failure),
        }
    }
}
