//! Clients of a server, as a queue of events in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::limits::{Ended, Limits};
use super::random::Random;
use super::scenario::{Items, Scenario};

/// From the client to the server, or back.
const ONE_WAY: Duration = Duration::from_micros(500);
/// The answer of a server that is full takes this long.
const REFUSAL: Duration = Duration::from_millis(4);

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Event {
    Arrives(usize),
    Served(usize),
    /// The answer reaches the client. `true` if the item was refused.
    Answered(usize, bool),
    TimesOut(usize),
    /// The settings of the server, or what the clients want, may change.
    Second,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum State {
    Travels,
    Queued,
    Served,
    Ended,
}

struct Attempt {
    client: usize,
    began: Duration,
    weight: u32,
    in_use_at_start: usize,
    state: State,
}

struct Client {
    rule: Box<dyn Limits>,
    in_use: usize,
    next_weight: u32,
}

/// The end of an attempt, for the score.
pub(crate) struct Entry {
    pub(crate) client: usize,
    pub(crate) now: Duration,
    pub(crate) duration: Duration,
    pub(crate) weight: u32,
    pub(crate) is_overload: bool,
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    random: Random,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    number: u64,
    attempts: Vec<Attempt>,
    clients: Vec<Client>,
    busy: u32,
    queue: VecDeque<usize>,
    log: Vec<Entry>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, rules: Vec<Box<dyn Limits>>, seed: u64) -> Self {
        let clients = rules.into_iter().map(|rule| Client { rule, in_use: 0, next_weight: 1 });
        Self {
            scenario,
            random: Random::new(seed),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            number: 0,
            attempts: Vec::new(),
            clients: clients.collect(),
            busy: 0,
            queue: VecDeque::new(),
            log: Vec::new(),
        }
    }

    /// Runs to the end. Returns the ends of all attempts.
    pub(crate) fn run(&mut self) -> Vec<Entry> {
        self.at(Duration::ZERO, Event::Second);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > self.scenario.length {
                break;
            }
            self.now = now;
            self.handle(event);
        }
        std::mem::take(&mut self.log)
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Second => {
                self.at(self.now + Duration::from_secs(1), Event::Second);
                self.serve();
                (0..self.clients.len()).for_each(|client| self.begin(client));
            }
            Event::Arrives(attempt) => self.arrive(attempt),
            Event::Served(attempt) => {
                self.busy -= 1;
                self.at(self.now + ONE_WAY, Event::Answered(attempt, false));
                self.serve();
            }
            Event::Answered(attempt, is_refusal) => self.end(attempt, is_refusal),
            Event::TimesOut(attempt) => self.end(attempt, true),
        }
    }

    fn second(&self) -> f64 {
        self.now.as_secs_f64()
    }

    fn arrive(&mut self, attempt: usize) {
        if self.attempts[attempt].state == State::Ended {
            return;
        }
        let is_full = self.busy >= (self.scenario.workers)(self.second());
        if is_full && self.queue.len() >= self.scenario.queue {
            return self.at(self.now + REFUSAL + ONE_WAY, Event::Answered(attempt, true));
        }
        self.attempts[attempt].state = State::Queued;
        self.queue.push_back(attempt);
        self.serve();
    }

    fn serve(&mut self) {
        while self.busy < (self.scenario.workers)(self.second()) {
            let Some(attempt) = self.queue.pop_front() else { return };
            // The server does not begin with an item whose client has left.
            if self.attempts[attempt].state == State::Ended {
                continue;
            }
            self.attempts[attempt].state = State::Served;
            self.busy += 1;
            let weight = f64::from(self.attempts[attempt].weight);
            let time = self.time_of_item() * (self.scenario.slowness)(self.second());
            let time = if self.scenario.heaviest > 1 { time * weight } else { time };
            self.at(self.now + Duration::from_secs_f64(time), Event::Served(attempt));
        }
    }

    fn time_of_item(&mut self) -> f64 {
        match self.scenario.items {
            Items::Lognormal { mean, deviation } => self.random.lognormal(mean, deviation),
            Items::TwoKinds { mean, other, share } => {
                let mean = if self.random.unit() < share { other } else { mean };
                self.random.lognormal(mean, 0.2)
            }
            Items::SomeStall { mean, stall, share } => {
                if self.random.unit() < share {
                    stall
                } else {
                    self.random.lognormal(mean, 0.5)
                }
            }
        }
    }

    fn begin(&mut self, number: usize) {
        while (self.scenario.wants)(number, self.second()) && !self.is_full(number) {
            let client = &mut self.clients[number];
            client.in_use += client.next_weight as usize;
            let attempt = Attempt {
                client: number,
                began: self.now,
                weight: client.next_weight,
                in_use_at_start: client.in_use,
                state: State::Travels,
            };
            client.next_weight = self.random.up_to(self.scenario.heaviest);
            self.attempts.push(attempt);
            let attempt = self.attempts.len() - 1;
            self.at(self.now + ONE_WAY, Event::Arrives(attempt));
            if let Some(limit) = self.scenario.time_limit {
                self.at(self.now + limit, Event::TimesOut(attempt));
            }
        }
    }

    fn is_full(&self, number: usize) -> bool {
        let client = &self.clients[number];
        client.in_use > 0 && client.in_use + client.next_weight as usize > client.rule.limit()
    }

    fn end(&mut self, number: usize, is_overload: bool) {
        let attempt = &mut self.attempts[number];
        if attempt.state == State::Ended {
            return;
        }
        attempt.state = State::Ended;
        let Attempt { client, began, weight, in_use_at_start, .. } = *attempt;
        let is_full = (self.scenario.wants)(client, self.second()) && self.is_full(client);
        let now = self.now;
        let duration = now - began;
        self.log.push(Entry { client, now, duration, weight, is_overload });
        self.clients[client].rule.ended(&Ended { now, began, weight, in_use_at_start, is_full, is_overload });
        self.clients[client].in_use -= weight as usize;
        self.begin(client);
    }
}
