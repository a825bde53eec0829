//! The order of the queue at random, compared with a plain model, and the cost of a long queue.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;

/// A plain model of the limiter, written from its rules.
#[derive(Default)]
struct Plain {
    permits: usize,
    most: usize,
    in_use: usize,
    /// The number and the weight of each request, in the order in which they were made.
    waiting: Vec<(usize, usize)>,
    granted: BTreeMap<usize, usize>,
    woken: Vec<usize>,
}

impl Plain {
    fn fits(&self, weight: usize) -> bool {
        let alone = weight > self.permits && self.in_use == 0;
        self.permits > 0 && (alone || self.in_use + weight <= self.permits)
    }

    fn resize(&mut self, permits: usize) {
        self.permits = permits;
        self.most = self.most.max(permits);
        self.serve();
    }

    fn leave(&mut self, number: usize) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
        self.in_use -= self.granted.remove(&number).unwrap_or(0);
        self.serve();
    }

    fn give_back(&mut self, weight: usize) {
        self.in_use -= weight;
        self.serve();
    }

    fn serve(&mut self) {
        while let Some((number, weight)) = self.waiting.first().copied() {
            if !self.fits(weight) {
                return;
            }
            self.waiting.remove(0);
            self.in_use += weight;
            self.granted.insert(number, weight);
            self.woken.push(number);
        }
    }
}

/// How often each event happened in all plans together.
#[derive(Debug, Default)]
struct Happened {
    granted: usize,
    left: usize,
    refused: usize,
    alone: usize,
}

fn try_at_random(seed: u64, happened: &mut Happened) {
    let mut roll = dice(seed);
    let woken = Woken::default();
    let permits = roll(5) as usize;
    let limiter = Limiter::new(permits);
    let mut plain = Plain { permits, most: permits, ..Plain::default() };
    let (mut tickets, mut running) = (Vec::new(), Vec::new());
    for number in 0..200 {
        match roll(10) {
            0..=3 => {
                let weight = 1 + roll(6) as usize;
                let waker = Waker::from(Arc::new(WakeRecorder(number, Arc::clone(&woken))));
                match limiter.request(weight as u32, &waker) {
                    Err(error) => {
                        assert!(weight > plain.most, "seed {seed}");
                        let most = format!("at most {}, the", plain.most);
                        assert!(plain.most == 0 || error.allowed().starts_with(&most), "seed {seed}");
                        happened.refused += 1;
                    }
                    Ok(acquired) => {
                        assert!(weight <= plain.most, "seed {seed}");
                        let at_once = plain.waiting.is_empty() && plain.fits(weight);
                        match acquired {
                            Acquired::Now(permit) => {
                                assert!(at_once, "seed {seed}");
                                plain.in_use += weight;
                                running.push(permit);
                            }
                            Acquired::Later(ticket) => {
                                assert!(!at_once, "seed {seed}");
                                plain.waiting.push((number, weight));
                                tickets.push((number, ticket));
                            }
                        }
                    }
                }
            }
            4..=6 if !tickets.is_empty() => {
                let (number, ticket) = tickets.swap_remove(roll(tickets.len() as u64) as usize);
                let waker = Waker::from(Arc::new(WakeRecorder(number, Arc::clone(&woken))));
                let is_granted = plain.granted.remove(&number).is_some();
                match ticket.poll(&waker) {
                    Poll::Ready(permit) => {
                        assert!(is_granted, "seed {seed}");
                        running.push(permit);
                        happened.granted += 1;
                    }
                    Poll::Pending => {
                        assert!(!is_granted, "seed {seed}");
                        tickets.push((number, ticket));
                    }
                }
            }
            7 if !tickets.is_empty() && roll(2) == 0 => {
                let (number, ticket) = tickets.swap_remove(roll(tickets.len() as u64) as usize);
                drop(ticket);
                plain.leave(number);
                happened.left += 1;
            }
            8 if roll(2) == 0 => {
                let permits = roll(7) as usize;
                limiter.set_permits(permits);
                plain.resize(permits);
            }
            _ if !running.is_empty() => {
                let permit = running.swap_remove(roll(running.len() as u64) as usize);
                let weight = permit.weight() as usize;
                drop(permit);
                plain.give_back(weight);
            }
            _ => {}
        }
        happened.alone +=
            usize::from(running.iter().any(|permit| permit.weight() as usize > limiter.permits()));
        assert_eq!(*woken.lock().unwrap(), plain.woken, "seed {seed}: the order of the grants");
        let state = (plain.permits, plain.in_use, plain.waiting.len());
        assert_eq!((limiter.permits(), limiter.in_use(), limiter.lock().waiting.len()), state, "seed {seed}");
    }
    drop((tickets, running));
    assert_eq!((limiter.in_use(), limiter.lock().granted.len()), (0, 0), "seed {seed}");
}

#[test]
fn rule_04_first_come_first_served_whatever_joins_leaves_and_resizes() {
    let mut happened = Happened::default();
    (0..1_000).for_each(|seed| try_at_random(seed, &mut happened));
    eprintln!("{happened:?}");
    let Happened { granted, left, refused, alone } = happened;
    assert!([granted, left, refused, alone].iter().all(|count| *count > 1_000), "{happened:?}");
}

/// Enough that a queue which moves its entries at each removal takes seconds.
const LONG: usize = 100_000;

/// Returns a limiter with its only permit in use, and many tickets that wait for it, in random order.
fn long_queue() -> (Limiter, Permit, Vec<Ticket>) {
    let limiter = Limiter::new(1);
    let running = at_once(&limiter, 1);
    let mut tickets: Vec<_> = (0..LONG).map(|_| ask(&limiter, 1)).collect();
    let mut roll = dice(1);
    for last in (1..LONG).rev() {
        tickets.swap(last, roll(last as u64 + 1) as usize);
    }
    (limiter, running, tickets)
}

/// Measures up to five times, because other processes may take the processor meanwhile.
fn assert_short(what: &str, measure: impl Fn() -> Duration) {
    let is_short = (0..5).any(|_| {
        let elapsed = measure();
        eprintln!("{LONG} tickets in random order, {what}: {elapsed:?}");
        elapsed < Duration::from_secs(1)
    });
    assert!(is_short, "{what}: a second or more in each of five attempts");
}

/// One test, so that its parts do not take the processor from one another.
#[test]
fn a_long_queue_is_left_and_taken_in_random_order_in_a_short_time() {
    assert_short("dropped while they wait", || {
        let (limiter, running, tickets) = long_queue();
        let begun = Instant::now();
        drop(tickets);
        let elapsed = begun.elapsed();
        drop(running);
        assert_eq!(limiter.in_use(), 0);
        elapsed
    });
    let all_granted = || {
        let (limiter, running, tickets) = long_queue();
        limiter.set_permits(LONG);
        drop(running);
        (limiter, tickets)
    };
    assert_short("taken", || {
        let (limiter, tickets) = all_granted();
        let begun = Instant::now();
        let permits: Vec<_> = tickets.iter().filter_map(granted).collect();
        let elapsed = begun.elapsed();
        assert_eq!((permits.len(), limiter.in_use()), (LONG, LONG));
        elapsed
    });
    assert_short("dropped after they were granted", || {
        let (limiter, tickets) = all_granted();
        let begun = Instant::now();
        drop(tickets);
        let elapsed = begun.elapsed();
        assert_eq!(limiter.in_use(), 0);
        elapsed
    });
}
