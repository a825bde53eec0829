//! Requests for permits of several limiters: by hand, and at random, compared with their definition.

use super::*;

fn set(limiters: &[&Limiter]) -> LimiterSet {
    let (first, others) = limiters.split_first().unwrap();
    others.iter().fold(LimiterSet::from((*first).clone()), |set, limiter| set.and(limiter))
}

fn ask_all(limiters: &[&Limiter]) -> Ticket {
    match set(limiters).request(1, Waker::noop()) {
        Ok(Acquired::Later(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_holds_nothing_until_all_limiters_can_grant_it() {
    let (one, other) = (Limiter::new(1), Limiter::new(1));
    let running = at_once(&other, 1);
    let both = ask_all(&[&one, &other]);
    assert!(granted(&both).is_none());
    assert_eq!((one.in_use(), one.waiting(), other.waiting()), (0, 1, 1));
    // It waits only for the other limiter, so this one serves the next request.
    let passing = at_once(&one, 1);
    drop(running);
    assert!(granted(&both).is_none(), "now it waits for this one");
    drop(at_once(&other, 1));
    drop(passing);
    let permit = granted(&both).unwrap();
    assert_eq!((one.in_use(), other.in_use()), (1, 1));
    drop(permit);
    assert_eq!((one.in_use(), other.in_use(), one.waiting(), other.waiting()), (0, 0, 0, 0));
}

#[test]
fn permits_of_several_limiters_are_returned_at_the_same_time() {
    let (one, other) = (Limiter::new(1), Limiter::new(1));
    for (first, second) in [(&one, &other), (&other, &one)] {
        let Ok(Acquired::Now(running)) = set(&[&one, &other]).request(1, Waker::noop()) else {
            panic!("both are free")
        };
        let both = ask_all(&[first, second]);
        let single = [ask(&one, 1), ask(&other, 1)];
        drop(running);
        let permit = granted(&both).expect("those behind it come later");
        assert!(single.iter().all(|ticket| granted(ticket).is_none()));
        drop(permit);
        assert!(single.iter().all(|ticket| granted(ticket).is_some()));
    }
}

#[test]
fn a_limiter_that_is_named_twice_counts_once() {
    let (one, other) = (Limiter::new(1), Limiter::new(1));
    for limiters in [vec![&one, &one], vec![&one, &other, &one]] {
        let Ok(Acquired::Now(permit)) = set(&limiters).request(1, Waker::noop()) else {
            panic!("one permit is enough")
        };
        assert_eq!((one.in_use(), set(&limiters).first().is(&one)), (1, true));
        drop(permit);
    }
    assert!(set(&[&other, &one]).first().is(&other));
}

#[test]
fn a_ticket_that_is_dropped_leaves_all_queues() {
    let (one, other) = (Limiter::new(1), Limiter::new(1));
    let running = [at_once(&one, 1), at_once(&other, 1)];
    let (both, next) = (ask_all(&[&one, &other]), [ask(&one, 1), ask(&other, 1)]);
    drop(both);
    drop(running);
    assert!(next.iter().all(|ticket| granted(ticket).is_some()));
    let running = at_once(&one, 1);
    let both = ask_all(&[&one, &other]);
    drop(running);
    // Its permits were granted and are not taken.
    assert_eq!((one.in_use(), other.in_use()), (1, 1));
    drop(both);
    assert_eq!((one.in_use(), other.in_use()), (0, 0));
}

/// A request that waits.
#[derive(Debug)]
struct Asked {
    number: usize,
    limiters: Vec<usize>,
    weight: usize,
}

/// The limiters as their rules define them.
#[derive(Debug)]
struct Plain {
    permits: Vec<usize>,
    in_use: Vec<usize>,
    waiting: Vec<Asked>,
}

impl Plain {
    fn is_free(&self, limiter: usize, weight: usize) -> bool {
        let (permits, in_use) = (self.permits[limiter], self.in_use[limiter]);
        permits > 0 && (in_use == 0 || in_use + weight <= permits)
    }

    /// Returns `true` if a limiter could grant the request at this position.
    fn can_grant_in(&self, limiter: usize, at: usize) -> bool {
        let mut before = (0..at).filter(|before| self.waiting[*before].limiters.contains(&limiter));
        self.is_free(limiter, self.waiting[at].weight) && before.all(|before| self.is_passed(limiter, before))
    }

    /// Returns `true` if only other limiters keep the request at this position waiting.
    fn is_passed(&self, limiter: usize, at: usize) -> bool {
        let asked = &self.waiting[at];
        let mut others = asked.limiters.iter().filter(|other| **other != limiter);
        self.is_free(limiter, asked.weight) && others.any(|other| !self.can_grant_in(*other, at))
    }

    fn can_grant(&self, at: usize) -> bool {
        self.waiting[at].limiters.iter().all(|limiter| self.can_grant_in(*limiter, at))
    }

    fn grant(&mut self, at: usize) {
        let Asked { limiters, weight, .. } = self.waiting.remove(at);
        limiters.iter().for_each(|limiter| self.in_use[*limiter] += weight);
    }

    fn give_back(&mut self, limiters: &[usize], weight: usize) {
        limiters.iter().for_each(|limiter| self.in_use[*limiter] -= weight);
    }
}

/// How often each event happened in all plans together.
#[derive(Debug, Default)]
struct Happened {
    joint_grants: usize,
    passed: usize,
    left: usize,
}

fn try_at_random(seed: u64, happened: &mut Happened) {
    let mut roll = dice(seed);
    let woken = Woken::default();
    let permits: Vec<usize> = (0..3).map(|_| 1 + roll(4) as usize).collect();
    let heaviest = *permits.iter().min().unwrap() as u64;
    let limiters: Vec<_> = permits.iter().map(|permits| Limiter::new(*permits)).collect();
    let mut plain = Plain { permits, in_use: vec![0; 3], waiting: Vec::new() };
    let (mut tickets, mut running) = (Vec::new(), Vec::new());
    for number in 0..150 {
        match roll(10) {
            0..=4 if plain.waiting.len() < 9 => {
                let weight = 1 + roll(heaviest) as usize;
                let mut named: Vec<usize> = (0..=roll(3)).map(|_| roll(3) as usize).collect();
                named.dedup();
                let chosen: Vec<_> = named.iter().map(|at| &limiters[*at]).collect();
                let waker = Waker::from(Arc::new(WakeRecorder(number, Arc::clone(&woken))));
                let acquired = set(&chosen).request(weight as u32, &waker).unwrap();
                named.sort_unstable();
                named.dedup();
                let at = plain.waiting.len();
                plain.waiting.push(Asked { number, limiters: named.clone(), weight });
                let at_once = plain.can_grant(at);
                match acquired {
                    Acquired::Now(permit) => {
                        assert!(at_once, "seed {seed}, {number}");
                        happened.passed += usize::from(at > 0);
                        plain.grant(at);
                        running.push((named, weight, permit));
                    }
                    Acquired::Later(ticket) => {
                        assert!(!at_once, "seed {seed}, {number}");
                        tickets.push((number, named, weight, ticket));
                    }
                }
            }
            5..=6 if !tickets.is_empty() => {
                let (number, named, weight, ticket) =
                    tickets.swap_remove(roll(tickets.len() as u64) as usize);
                let is_granted = plain.waiting.iter().all(|asked| asked.number != number);
                match ticket.poll(&Waker::from(Arc::new(WakeRecorder(number, Arc::clone(&woken))))) {
                    Poll::Ready(permit) => {
                        assert!(is_granted, "seed {seed}, {number}");
                        happened.joint_grants += usize::from(named.len() > 1);
                        running.push((named, weight, permit));
                    }
                    Poll::Pending => {
                        assert!(!is_granted, "seed {seed}, {number}");
                        drop(ticket.turn());
                        tickets.push((number, named, weight, ticket));
                    }
                }
            }
            7 if !tickets.is_empty() && roll(2) == 0 => {
                let (number, named, weight, ticket) =
                    tickets.swap_remove(roll(tickets.len() as u64) as usize);
                match plain.waiting.iter().position(|asked| asked.number == number) {
                    Some(at) => drop(plain.waiting.remove(at)),
                    None => plain.give_back(&named, weight),
                }
                drop(ticket);
                happened.left += 1;
            }
            8 if roll(2) == 0 => {
                let (at, permits) = (roll(3) as usize, roll(5) as usize);
                plain.permits[at] = permits;
                limiters[at].set_permits(permits);
            }
            _ if !running.is_empty() => {
                let (named, weight, permit) = running.swap_remove(roll(running.len() as u64) as usize);
                plain.give_back(&named, weight);
                drop(permit);
            }
            _ => {}
        }
        let all_woken = std::mem::take(&mut *woken.lock().unwrap());
        for woken in all_woken {
            let at = plain.waiting.iter().position(|asked| asked.number == woken).unwrap();
            assert!(plain.can_grant(at), "seed {seed}, {number}: {woken} was granted too early: {plain:?}");
            plain.grant(at);
        }
        if let Some(at) = (0..plain.waiting.len()).find(|at| plain.can_grant(*at)) {
            panic!("seed {seed}, {number}: {} was not granted", plain.waiting[at].number);
        }
        let in_use: Vec<_> = limiters.iter().map(Limiter::in_use).collect();
        assert_eq!(in_use, plain.in_use, "seed {seed}, {number}");
    }
    drop((tickets, running));
    for limiter in &limiters {
        assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0), "seed {seed}");
    }
}

#[test]
fn random_requests_agree_with_the_definition() {
    let mut happened = Happened::default();
    (0..400).for_each(|seed| try_at_random(seed, &mut happened));
    let Happened { joint_grants, passed, left } = happened;
    assert!(joint_grants > 1_000 && passed > 200 && left > 200, "{happened:?}");
}
