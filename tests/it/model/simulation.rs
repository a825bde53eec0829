//! The rules again, in the simplest form: one thread, one clock, one event at a time.

mod attempts;
mod delivery;
mod limit;
mod verdict;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use self::attempts::{Running, Waiting};
use self::limit::{Answer, Limit};
use super::plan::{Order, Plan, Run};
use super::script::Source;
use super::{Ended, Look, Millis, Observed, Status, TieBreak};

struct Simulation<'a> {
    run: &'a Run,
    ties: &'a TieBreak,
    /// The index of the run.
    id: usize,
    shared: Option<Rc<RefCell<Limit>>>,
    begun: bool,
    now: Millis,
    capacity: usize,
    /// The largest capacity so far.
    most: usize,
    paused: bool,
    /// The next attempt waits only for the shared limit.
    queues: bool,
    pulled: usize,
    started: usize,
    /// The source has ended.
    exhausted: bool,
    running: Vec<Running>,
    /// In the order in which they began to wait.
    waiting: Vec<Waiting>,
    /// The number of new items that had been admitted when the last retry without a delay was admitted.
    last_immediate: usize,
    first_start: HashMap<usize, Millis>,
    stop: Option<Ended>,
    stop_at: Millis,
    /// Running attempts that have not been notified yet that the run is stopping.
    untold: bool,
    /// The run is stopping, and running attempts may return.
    draining: bool,
    /// Nothing runs any more, or may run.
    over: bool,
    /// Settled items that the taker has not taken yet, in the order of settling.
    held: Vec<usize>,
    /// The time until which the taker is busy with the last outcome.
    busy: Option<Millis>,
    taker_failed: bool,
    /// The taker has received the end.
    closed: bool,
    seen: Observed,
}

pub(super) fn run(plan: &Plan, ties: &[TieBreak]) -> Vec<Observed> {
    let shared = plan.shared.as_ref();
    let limit = shared.map(|shared| Rc::new(RefCell::new(Limit::new(shared.permits, plan.runs.len()))));
    let runs = plan.runs.iter().zip(ties).enumerate();
    let mut runs: Vec<_> =
        runs.map(|(id, (run, ties))| Simulation::new(run, ties, id, limit.clone())).collect();
    let mut changes = shared.map_or(&[][..], |shared| &shared.changes).iter().peekable();
    // The runs begin, and each continues at its next event.
    let next = |runs: &[Simulation<'_>]| runs.iter().filter_map(Simulation::next_instant).min();
    // Without permits, a run may be able to wait only for a change of the limit.
    while let Some(now) = next(&runs).into_iter().chain(changes.peek().map(|(at, _)| *at)).min() {
        if let (Some((_, permits)), Some(limit)) = (changes.next_if(|(at, _)| *at == now), &limit) {
            limit.borrow_mut().set_permits(*permits);
        }
        for run in &mut runs {
            if run.next_instant() == Some(now) {
                run.happen(now);
            }
        }
        // Permits that one run returns are available to the other at the same instant.
        while let Some(next) = limit.as_ref().and_then(|limit| limit.borrow_mut().next_answered()) {
            runs[next].go_on(now);
        }
    }
    runs.into_iter().map(Simulation::finish).collect()
}

impl<'a> Simulation<'a> {
    fn new(run: &'a Run, ties: &'a TieBreak, id: usize, shared: Option<Rc<RefCell<Limit>>>) -> Self {
        Self {
            run,
            ties,
            id,
            shared,
            begun: false,
            now: 0,
            capacity: run.case.concurrency,
            most: run.case.concurrency,
            paused: false,
            queues: false,
            pulled: 0,
            started: 0,
            exhausted: false,
            running: Vec::new(),
            waiting: Vec::new(),
            last_immediate: 0,
            first_start: HashMap::new(),
            stop: None,
            stop_at: 0,
            untold: false,
            draining: false,
            over: false,
            held: Vec::new(),
            busy: None,
            taker_failed: false,
            closed: false,
            seen: Observed::new(run.case.items.len()),
        }
    }

    /// The time of the next event, by the common clock; `None` after the end.
    fn next_instant(&self) -> Option<Millis> {
        let next = match self.begun {
            false => Some(0),
            true if self.closed => None,
            true => self.next_of_run(),
        };
        next.map(|next| self.run.begin + next)
    }

    fn next_of_run(&self) -> Option<Millis> {
        let ahead = |at: &Millis| *at > self.now;
        let busy = self.busy.filter(ahead);
        if self.over {
            return busy;
        }
        let attempts = self.running.iter().filter_map(Running::next).map(|(at, _)| at);
        let orders = self.run.orders().iter().map(|(at, _)| *at);
        let outside = orders.chain(self.run.case.per_run).chain(self.run.case.cancel_at);
        let always = attempts.chain(outside).chain(busy);
        if self.stop.is_some() {
            let last = Some(self.stop_at).filter(|_| !self.draining);
            return always.chain(last).filter(ahead).min();
        }
        let waits = self.waiting.iter().filter_map(|waiting| {
            if waiting.due > self.now { Some(waiting.due) } else { self.item_deadline(waiting.index) }
        });
        let arrival = self.arrival().filter(|_| self.may_pull());
        always.chain(waits).chain(arrival).filter(ahead).min()
    }

    /// Handles everything that is due at one instant.
    fn happen(&mut self, now: Millis) {
        self.begun = true;
        self.now = now - self.run.begin;
        self.orders();
        self.timers();
        self.go_on(now);
    }

    /// Gives out outcomes and starts attempts, until nothing more can be done at this instant.
    fn go_on(&mut self, now: Millis) {
        self.now = now - self.run.begin;
        loop {
            let before = self.progress();
            self.attempts();
            // A taker in another task continues when the driver has started all attempts that can start.
            self.queues = false;
            self.fill();
            if !self.queues {
                self.leave_queue();
            }
            self.give();
            self.end_if_over();
            if self.closed || before == self.progress() {
                return;
            }
        }
    }

    /// Returns numbers of which some change with every event.
    fn progress(&self) -> (usize, usize, usize, bool, bool, bool) {
        let Observed { starts, settled, given, .. } = &self.seen;
        (starts.len(), settled.len(), given.len(), self.stop.is_some(), self.taker_failed, self.over)
    }

    /// Uses the free permits.
    fn fill(&mut self) {
        if !self.run.parallel {
            while self.use_permit() {}
            return;
        }
        // Each attempt must reach its task first. If the run is stopped meanwhile, the stop may come before or after
        // it.
        let mut called = Vec::new();
        while let Some(next) = self.next_start(&called, false) {
            called.push(next);
        }
        for (index, number) in called {
            let begins = self.stop.is_none() || self.ties.begun.contains(&(index, number));
            if begins {
                self.untold |= self.stop.is_some();
                self.begin(index, number);
                continue;
            }
            if number == 1 && self.ties.announced.contains(&index) {
                self.seen.items[index].0 = Status::Cancelled;
                self.started += 1;
            }
            self.give_back_permits(index);
        }
    }

    /// Uses one permit: begins retries that are due, then new items, until one of them is still running. Returns
    /// `true` if one is.
    fn use_permit(&mut self) -> bool {
        let running = self.running.len();
        while let Some((index, number)) = self.next_start(&[], self.run.parallel) {
            self.begin(index, number);
            if self.running.len() > running {
                return true;
            }
        }
        false
    }

    /// Returns the attempt that begins next, after those that were `called` to begin, with its permits. If a stop of the
    /// run may come before it, only if it `has_begun`.
    fn next_start(&mut self, called: &[(usize, u32)], has_begun: bool) -> Option<(usize, u32)> {
        if self.stop.is_some() {
            return None;
        }
        let Some((index, number)) = self.head(called, has_begun) else {
            // No item is left, so the run need not be resumed.
            self.exhausted |= self.paused && self.all_are_settled();
            return None;
        };
        let may_begin = !has_begun || self.ties.begun.contains(&(index, number));
        if !may_begin || self.stop.is_some() || !self.take_permits(index, called) {
            return None;
        }
        if self.waiting.iter().any(|waiting| waiting.index == index && waiting.immediate.is_some()) {
            self.last_immediate = self.admitted(called);
        }
        Some((index, number))
    }

    /// Returns the next attempt: a retry after its delay, then alternately a new item and a retry without a delay. An
    /// attempt in the queue of the shared limit keeps its position, while the run's own limit has permits for it. If
    /// `has_begun` is set, a task of the run may come before the task with the timer of the delays. A retry that is due at
    /// this instant then counts only if it began next.
    fn head(&mut self, called: &[(usize, u32)], has_begun: bool) -> Option<(usize, u32)> {
        if self.is_closed_to_all(called) || self.outcomes_are_in_the_way() {
            return None;
        }
        let is_called = |index: usize| called.iter().any(|(called, _)| *called == index);
        let retry = |waiting: &Waiting| (waiting.index, waiting.number + 1);
        let next_begun = self.ties.begun.get(self.seen.starts.len()).copied();
        let is_late =
            |waiting: &Waiting| has_begun && waiting.due == self.now && next_begun != Some(retry(waiting));
        let due = self.first_due(|waiting| {
            waiting.immediate.is_none() && !is_called(waiting.index) && !is_late(waiting)
        });
        let due = due.map(|at| retry(&self.waiting[at]));
        let immediate =
            self.waiting.iter().find(|waiting| waiting.immediate.is_some() && !is_called(waiting.index));
        let is_its_turn = immediate
            .and_then(|waiting| waiting.immediate)
            .is_some_and(|mark| self.admitted(called) > mark.max(self.last_immediate));
        let immediate = immediate.map(retry);
        let new = self.admitted(called);
        let pulled = (new < self.pulled).then_some((new, 1));
        let queued = self.shared.as_ref().and_then(|limit| limit.borrow().queued(self.id));
        let queued = queued.filter(|weight| self.has_room(*weight, called));
        let mut all = [due, immediate, pulled].into_iter().flatten();
        if let Some(first) = all.find(|(index, _)| Some(self.run.weight(*index) as usize) == queued) {
            return Some(first);
        }
        if due.is_some() {
            return due;
        }
        if is_its_turn || !self.admits_new(called) {
            return immediate;
        }
        pulled.or_else(|| self.pull()).or(immediate)
    }

    /// Pulls the next item from the source.
    fn pull(&mut self) -> Option<(usize, u32)> {
        match (self.arrival(), self.source_fails_here()) {
            (Some(arrival), _) if arrival > self.now => None,
            (Some(_), true) => {
                self.stop(Ended::Source);
                None
            }
            (Some(_), false) => {
                self.pulled += 1;
                Some((self.pulled - 1, 1))
            }
            (None, _) => {
                self.exhausted = true;
                None
            }
        }
    }

    /// Returns the number of new items that have been admitted, including those that were `called`.
    fn admitted(&self, called: &[(usize, u32)]) -> usize {
        self.started + called.iter().filter(|(_, number)| *number == 1).count()
    }

    fn begin(&mut self, index: usize, number: u32) {
        if number > 1 {
            self.waiting.retain(|waiting| waiting.index != index);
            self.seen.retries += 1;
        } else {
            self.first_start.insert(index, self.now);
            self.started += 1;
        }
        self.start(index, number);
    }

    /// Returns `true` if nothing may start, because the run is paused or has no free permit.
    fn is_closed_to_all(&self, called: &[(usize, u32)]) -> bool {
        self.paused || self.in_use(called) >= self.capacity
    }

    fn is_ordered(&self) -> bool {
        self.run.taker().is_some_and(|taker| taker.ordered)
    }

    /// Returns `true` if the number of outcomes that wait for their taker has reached the capacity. With `ordered`,
    /// outcomes prevent no start.
    fn outcomes_are_in_the_way(&self) -> bool {
        !self.is_ordered() && self.held.len() >= self.capacity
    }

    /// Returns `true` if so few items are held, besides those that were `called`, that a new one may be admitted.
    fn admits_new(&self, called: &[(usize, u32)]) -> bool {
        let outcomes = if self.is_ordered() { self.held.len() } else { 0 };
        let called = called.iter().filter(|(_, number)| *number > 1).count();
        self.waiting.len() - called + outcomes < self.run.case.look_ahead
    }

    fn may_pull(&self) -> bool {
        let due = self.first_due(|waiting| waiting.immediate.is_none()).is_some();
        let may_start = !self.is_closed_to_all(&[]) && !self.outcomes_are_in_the_way();
        self.pulled == self.started && !due && may_start && self.admits_new(&[])
    }

    fn in_use(&self, called: &[(usize, u32)]) -> usize {
        let running = self.running.iter().map(|running| running.index);
        let all = running.chain(called.iter().map(|(index, _)| *index));
        all.map(|index| self.run.weight(index) as usize).sum()
    }

    /// Takes the permits of an item, from the run's own limit and then from the shared one. If it needs more than a limit
    /// can ever grant, the run is stopped.
    fn take_permits(&mut self, index: usize, called: &[(usize, u32)]) -> bool {
        let needed = self.run.weight(index) as usize;
        if needed > self.most {
            self.stop(Ended::Config);
            return false;
        }
        if !self.has_room(needed, called) {
            return false;
        }
        let answer = self.shared.as_ref().map(|limit| limit.borrow_mut().ask(self.id, needed));
        if answer == Some(Answer::Never) {
            self.stop(Ended::Config);
        }
        self.queues = answer == Some(Answer::NotYet);
        answer.is_none_or(|answer| answer == Answer::Yes)
    }

    /// Returns `true` if the run's own limit has permits for this weight. An item that is heavier than a lowered
    /// limit runs alone.
    fn has_room(&self, weight: usize, called: &[(usize, u32)]) -> bool {
        let in_use = self.in_use(called);
        in_use + weight <= self.capacity || (weight > self.capacity && in_use == 0)
    }

    fn give_back_permits(&mut self, index: usize) {
        if let Some(limit) = &self.shared {
            limit.borrow_mut().give_back(self.run.weight(index) as usize);
        }
    }

    fn leave_queue(&mut self) {
        if let Some(limit) = &self.shared {
            limit.borrow_mut().leave(self.id);
        }
    }

    /// Returns the first of these items to become due for its retry.
    fn first_due(&self, of: impl Fn(&Waiting) -> bool) -> Option<usize> {
        let due = self.waiting.iter().enumerate();
        let due = due.filter(|(_, waiting)| waiting.due <= self.now && of(waiting));
        due.min_by_key(|(order, waiting)| (waiting.due, *order)).map(|(at, _)| at)
    }

    /// Returns the time at which the source yields its next item; `None` at its end.
    fn arrival(&self) -> Option<Millis> {
        let at_end = self.pulled == self.run.case.items.len();
        match &self.run.case.source {
            Source::List | Source::UnsizedList => (!at_end).then_some(0),
            Source::Stream { gaps } | Source::Failing { gaps, .. } if !at_end => {
                Some(gaps[..=self.pulled].iter().sum())
            }
            Source::Stream { .. } => None,
            Source::Failing { .. } => self.source_fails_here().then_some(0),
        }
    }

    fn source_fails_here(&self) -> bool {
        matches!(self.run.case.source, Source::Failing { at, .. } if at == self.pulled)
    }

    /// Applies the signals from outside.
    fn orders(&mut self) {
        if self.over {
            return;
        }
        let (run, now) = (self.run, self.now);
        for (_, order) in run.orders().iter().filter(|(at, _)| *at == now) {
            match *order {
                Order::Concurrency(concurrency) => {
                    self.capacity = concurrency;
                    self.most = self.most.max(concurrency);
                }
                Order::Pause => self.paused = true,
                Order::Resume => self.paused = false,
                Order::Drain => self.drain(),
                Order::Cancel => self.halt(Ended::Cancelled),
                Order::Look => self.seen.looks.push(Look {
                    at: self.now,
                    successes: self.count(true),
                    failures: self.count(false),
                    running: self.running.len(),
                    waiting: self.waiting.len(),
                    retries: self.seen.retries,
                }),
            }
        }
    }

    /// Applies the run's own timers.
    fn timers(&mut self) {
        if self.over {
            return;
        }
        if self.run.case.cancel_at == Some(self.now) {
            self.halt(Ended::Cancelled);
        }
        if self.run.case.per_run == Some(self.now) {
            // When the last item has settled, no limit applies any more; only the outcomes wait for their taker.
            if self.stop.is_none() && self.all_are_settled() {
                self.exhausted = true;
            } else {
                self.halt(Ended::TimedOut);
            }
        }
        while let Some(at) = self.first_to_give_up() {
            let index = self.waiting[at].index;
            let given_up = self.ties.given_up.iter().find(|(given_up, _)| *given_up == index);
            self.time_out_before(given_up.map_or(usize::MAX, |(_, ends)| *ends));
            // That may have stopped the run.
            if let Some(at) = self.first_to_give_up() {
                let Waiting { index, failure, .. } = self.waiting.remove(at);
                self.fail(index, failure);
            }
        }
    }

    /// Returns the first item that reaches its time limit while it waits for a retry.
    fn first_to_give_up(&self) -> Option<usize> {
        self.first_due(|waiting| self.item_deadline(waiting.index).is_some_and(|limit| limit <= self.now))
    }
}
