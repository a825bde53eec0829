//! Counts of the cases that the model has tried, so that a model without cases fails.

use super::plan::{End, Order, Plan, Run};
use super::script::Case;
use super::{Ended, Observed, Status};

/// The number of times that each relevant case has occurred in awaited runs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    succeeded: u32,
    fail_fast: u32,
    too_many_failures: u32,
    cancelled: u32,
    timed_out: u32,
    source_errors: u32,
    early_successes: u32,
    retries: usize,
    timed_out_attempts: usize,
    timed_out_items: usize,
    panics: usize,
    cancelled_items: usize,
    saved_in_grace: usize,
    full_windows: usize,
}

impl Seen {
    pub(super) fn count(&mut self, case: &Case, observed: &Observed) {
        let of = |status| observed.items.iter().filter(|(s, _)| *s == status).count();
        match observed.ended {
            Ended::Succeeded => self.succeeded += 1,
            Ended::FailFast { .. } => self.fail_fast += 1,
            Ended::TooManyFailures { .. } => self.too_many_failures += 1,
            Ended::Cancelled => self.cancelled += 1,
            Ended::TimedOut => self.timed_out += 1,
            Ended::Source => self.source_errors += 1,
            Ended::Sink | Ended::Config => unreachable!("there is neither a sink nor a weight"),
        }
        let left = of(Status::Cancelled) + of(Status::NotStarted);
        self.early_successes += u32::from(observed.ended == Ended::Succeeded && left > 0);
        self.retries += observed.retries;
        self.timed_out_attempts += of(Status::TimedOutAttempt);
        self.timed_out_items += of(Status::TimedOutItem);
        self.panics += observed.panics;
        self.cancelled_items += of(Status::Cancelled);
        self.saved_in_grace += usize::from(case.grace.is_some_and(|grace| {
            observed.settled.iter().any(|(_, at)| *at > observed.end.saturating_sub(grace) && left > 0)
        }));
        self.full_windows += usize::from(observed.retries > case.look_ahead);
    }

    pub(super) fn assert_nothing_was_left_out(&self, cases: u32) {
        let Self {
            succeeded,
            fail_fast,
            too_many_failures,
            cancelled,
            timed_out,
            source_errors,
            early_successes,
            ..
        } = *self;
        let ends =
            [succeeded, fail_fast, too_many_failures, cancelled, timed_out, source_errors, early_successes];
        for end in ends {
            assert!(end * 200 >= cases, "an end was tried in fewer than one of 200 cases: {self:?}");
        }
        let happenings = [
            self.retries,
            self.timed_out_attempts,
            self.timed_out_items,
            self.panics,
            self.cancelled_items,
            self.saved_in_grace,
            self.full_windows,
        ];
        for happened in happenings {
            assert!(happened * 50 >= cases as usize, "something has hardly happened: {self:?}");
        }
    }
}

/// The number of times that each relevant case has occurred in runs of every end.
#[derive(Debug, Default)]
pub(super) struct SeenOfPlans {
    awaited: u32,
    for_each: u32,
    streams: u32,
    handles: u32,
    parallel: u32,
    ordered: u32,
    weighted: u32,
    pairs: u32,
    failed_sinks: u32,
    too_heavy: u32,
    full_outboxes: u32,
    held_after_the_end: u32,
    out_of_order: u32,
    raised: u32,
    lowered: u32,
    paused: u32,
    drained: u32,
    cancelled_by_handle: u32,
    looks: u32,
    resized: u32,
    waits_for_the_other: u32,
    above_the_limit: u32,
}

impl SeenOfPlans {
    pub(super) fn count(&mut self, plan: &Plan, observed: &[Observed]) {
        self.pairs += u32::from(plan.runs.len() > 1);
        for (run, observed) in plan.runs.iter().zip(observed) {
            self.count_run(run, observed);
        }
        let end = plan.runs.iter().zip(observed).map(|(run, seen)| run.begin + seen.end).max().unwrap_or(0);
        let shared = plan.shared.as_ref();
        self.resized +=
            u32::from(shared.is_some_and(|shared| shared.changes.iter().any(|(at, _)| *at < end)));
        if let Some(shared) = shared {
            // An item that weighs more than there are permits has started, alone.
            let permits_at = |now: u64| {
                let changes = shared.changes.iter().take_while(|(at, _)| *at <= now);
                changes.last().map_or(shared.permits, |(_, permits)| *permits)
            };
            let above = plan.runs.iter().zip(observed).any(|(run, seen)| {
                let mut starts = seen.starts.iter();
                starts.any(|(index, _, at)| run.weight(*index) as usize > permits_at(run.begin + at))
            });
            self.above_the_limit += u32::from(above);
        }
        // At one instant one run has ended an attempt and the other has begun one.
        let starts = |of: usize| {
            let begin = plan.runs[of].begin;
            observed[of].starts.iter().map(move |(.., at)| begin + at)
        };
        let settled = |of: usize| {
            let begin = plan.runs[of].begin;
            observed[of].settled.iter().map(move |(_, at)| begin + at).collect::<Vec<_>>()
        };
        if plan.runs.len() > 1 {
            let (first, second) = (settled(0), settled(1));
            let handed = starts(0).any(|at| second.contains(&at)) || starts(1).any(|at| first.contains(&at));
            self.waits_for_the_other += u32::from(handed);
        }
    }

    fn count_run(&mut self, run: &Run, observed: &Observed) {
        match &run.end {
            End::Await => self.awaited += 1,
            End::ForEach(_) => self.for_each += 1,
            End::Stream(_) => self.streams += 1,
            End::Spawn(_) => self.handles += 1,
        }
        self.parallel += u32::from(run.parallel);
        self.weighted += u32::from(observed.starts.iter().any(|(index, ..)| run.weight(*index) > 1));
        self.failed_sinks += u32::from(observed.ended == Ended::Sink);
        self.too_heavy += u32::from(observed.ended == Ended::Config);
        self.looks += observed.looks.iter().filter(|look| look.running > 0).count() as u32;
        if let Some(taker) = run.taker() {
            let ordered = taker.ordered && observed.given.len() > 1;
            self.ordered += u32::from(ordered);
            let order = |of: &[(usize, u64)]| of.iter().map(|(index, _)| *index).collect::<Vec<_>>();
            self.out_of_order += u32::from(ordered && order(&observed.settled) != order(&observed.given));
            self.held_after_the_end += u32::from(observed.given.iter().any(|(_, at)| *at > observed.end));
            let held_at = |now: u64| {
                let before = |of: &[(usize, u64)]| of.iter().filter(|(_, at)| *at <= now).count();
                before(&observed.settled) - before(&observed.given)
            };
            let full = observed.settled.iter().any(|(_, at)| held_at(*at) >= run.case.concurrency);
            self.full_outboxes += u32::from(full);
        }
        let mut concurrency = run.case.concurrency;
        for (_, order) in run.orders().iter().filter(|(at, _)| *at < observed.end) {
            match order {
                Order::Concurrency(more) => {
                    self.raised += u32::from(*more > concurrency);
                    self.lowered += u32::from(*more < concurrency);
                    concurrency = *more;
                }
                Order::Pause => self.paused += 1,
                Order::Drain => self.drained += u32::from(observed.ended == Ended::Cancelled),
                Order::Cancel => self.cancelled_by_handle += 1,
                Order::Resume | Order::Look => {}
            }
        }
    }

    pub(super) fn assert_nothing_was_left_out(&self, cases: u32, parallel: bool) {
        let Self { awaited, for_each, streams, handles, .. } = *self;
        assert_eq!(self.parallel >= cases, parallel, "{self:?}");
        // With `parallel()` hardly any item is too heavy; `plan.rs` gives the reason.
        assert!(parallel || self.too_heavy * 200 >= cases, "too few items are too heavy: {self:?}");
        for end in [awaited, for_each, streams, handles, self.ordered, self.weighted, self.pairs] {
            assert!(end * 20 >= cases, "one of 20 plans has to try it: {self:?}");
        }
        let happenings = [
            self.failed_sinks,
            self.full_outboxes,
            self.held_after_the_end,
            self.out_of_order,
            self.raised,
            self.lowered,
            self.paused,
            self.drained,
            self.cancelled_by_handle,
            self.looks,
            self.resized,
            self.waits_for_the_other,
        ];
        for happened in happenings {
            assert!(happened * 200 >= cases, "something has hardly happened: {self:?}");
        }
        assert!(self.above_the_limit * 5_000 >= cases, "hardly an item ran alone above the limit: {self:?}");
    }
}
