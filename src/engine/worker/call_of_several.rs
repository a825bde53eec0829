//! The begin of a call for several items.

use super::super::items::Items;
use super::super::job::{Job, Other};
use super::super::scheduler::{Pulled, Scheduler, Start};
use super::super::state::State;
use super::attempt::AttemptDeadline;
use super::attempt_control::AttemptControl;
use crate::rt::Instant;

impl State<dyn Items + '_> {
    /// Begins a call for the items of `start`. They share its permits and its limits.
    #[cold]
    pub(in super::super) fn begin_call(&mut self, control: &mut AttemptControl, start: &Start) {
        self.scheduler.tally.calls += 1;
        let job = self.items.take_job(start.first.slot());
        let parallel = self.scheduler.is_parallel();
        let group = start.first.group();
        control.is_part = group.is_some_and(|group| group.is_part);
        control.others.clear();
        if let (Some(group), true) = (group, control.is_part) {
            // The jobs continue their last attempts.
            control.job = job;
            control.begin_part(&mut self.scheduler, group.others.len() + 1, parallel);
            for slot in &group.others {
                control.others.push(Other { slot: *slot, job: self.items.take_job(*slot) });
            }
            return control.work_out_limit(&self.scheduler.config);
        }
        control.job.resume(job);
        if control.job.attempt == 1 {
            self.scheduler.count_first_attempt();
        }
        let observer = if self.scheduler.observed { self.items.observer() } else { None };
        control.begin(&mut self.scheduler, observer, false, parallel);
        let started = control.started();
        control.others.reserve(start.retries.len() + start.new.len());
        let again = group.into_iter().flat_map(|group| &group.others).copied();
        for slot in again.chain(start.retries.iter().map(|ticket| ticket.slot)) {
            let mut job = Job::none();
            job.resume(self.items.take_job(slot));
            self.scheduler.tally.retries += 1;
            control.others.push(Other { slot, job });
        }
        for &Pulled { index, slot, .. } in &start.new {
            control.others.push(Other { slot, job: Job::first(index, self.weight(slot), started) });
        }
        if self.scheduler.observed {
            let observer = self.items.observer();
            let at = started.unwrap_or_else(|| self.scheduler.clock.read());
            for Other { job, .. } in &mut control.others {
                self.scheduler.emit_started_at(observer, job, at, true);
                job.attempt_since = started;
            }
        }
    }

    /// Returns the weight of a waiting item, if the items of the run have weights.
    fn weight(&mut self, slot: usize) -> u32 {
        let options = self.scheduler.batches.as_ref().map(|batches| &batches.options);
        options.and_then(|options| options.most_weight).map_or(1, |_| self.items.weight(slot))
    }
}

impl AttemptControl {
    /// Returns the start of the attempt, if it was recorded.
    fn started(&self) -> Option<Instant> {
        match self.deadline {
            AttemptDeadline::Begun(now) => Some(now),
            _ => self.job.attempt_since,
        }
    }

    /// Begins a call that continues the last attempts of its items.
    fn begin_part(&mut self, scheduler: &mut Scheduler, items: usize, parallel: bool) {
        scheduler.tally.parts += items;
        self.deadline = AttemptDeadline::Unlimited;
        // A parallel worker reads the clock itself.
        if !parallel {
            scheduler.budget.spend();
            if scheduler.config.first_limit.is_some() {
                self.deadline = AttemptDeadline::Begun(scheduler.clock.read());
            }
        }
    }
}
