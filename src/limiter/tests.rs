//! The limiter alone, without a run.

mod order;
mod several;
mod wakers;

use std::task::{Poll, Wake};

use super::*;

/// Returns numbers below a bound that look random and are the same in every test run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    }
}

/// The numbers of the requests that were granted their permits, in this order.
type Woken = Arc<Mutex<Vec<usize>>>;

struct WakeRecorder(usize, Woken);

impl Wake for WakeRecorder {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

fn granted(ticket: &Ticket) -> Option<Permit> {
    match ticket.poll(Waker::noop()) {
        Poll::Ready(permit) => Some(permit),
        _ => None,
    }
}

fn at_once(limiter: &Limiter, weight: u32) -> Permit {
    match limiter.request(weight, Waker::noop()) {
        Ok(Acquired::Now(permit)) => permit,
        other => panic!("{other:?}"),
    }
}

fn ask(limiter: &Limiter, weight: u32) -> Ticket {
    match limiter.request(weight, Waker::noop()) {
        Ok(Acquired::Later(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_served_in_order_and_light_ones_do_not_pass_a_heavy_one() {
    let limiter = Limiter::new(4);
    let first = at_once(&limiter, 3);
    let heavy = ask(&limiter, 4);
    let light = ask(&limiter, 1);
    assert!(granted(&heavy).is_none() && granted(&light).is_none());
    drop(first);
    let heavy = granted(&heavy).unwrap();
    assert!(granted(&light).is_none());
    assert_eq!(limiter.in_use(), 4);
    drop(heavy);
    assert!(granted(&light).is_some());
    assert_eq!(limiter.in_use(), 0);
}

#[test]
fn a_ticket_that_is_dropped_gives_back_its_turn_and_its_permits() {
    let limiter = Limiter::new(1);
    let running = at_once(&limiter, 1);
    let (gone, next) = (ask(&limiter, 1), ask(&limiter, 1));
    drop(gone);
    drop(running);
    // It was granted permits, and has not taken them.
    let last = ask(&limiter, 1);
    assert_eq!(limiter.in_use(), 1);
    drop(next);
    let permit = granted(&last).unwrap();
    drop((last, permit));
    assert_eq!(limiter.in_use(), 0);
}

#[test]
fn raising_the_limit_serves_the_requests_that_wait() {
    let limiter = Limiter::new(1);
    let running = at_once(&limiter, 1);
    let waiting: Vec<_> = (0..3).map(|_| ask(&limiter, 1)).collect();
    limiter.set_permits(3);
    let permits: Vec<_> = waiting.iter().filter_map(granted).collect();
    assert_eq!((permits.len(), limiter.in_use(), limiter.permits()), (2, 3, 3));
    assert_eq!(format!("{limiter:?}"), "Limiter { permits: 3, in_use: 3, waiting: 1, given_up: 0 }");
    drop(running);
}

#[test]
fn rule_47_a_weight_above_the_lowered_limit_starts_alone_and_in_its_turn() {
    let limiter = Limiter::new(4);
    let running = at_once(&limiter, 3);
    let (light, heavy, last) = (ask(&limiter, 2), ask(&limiter, 4), ask(&limiter, 1));
    limiter.set_permits(2);
    drop(running);
    // Two of two permits are in use, then none, then four by one that runs alone.
    let light = granted(&light).unwrap();
    assert!(granted(&heavy).is_none() && granted(&last).is_none());
    drop(light);
    let heavy = granted(&heavy).unwrap();
    assert!(granted(&last).is_none());
    assert_eq!((limiter.in_use(), limiter.permits()), (4, 2));
    drop(heavy);
    let last = granted(&last).unwrap();
    assert_eq!(limiter.in_use(), 1);
    // One that asks only now has to wait for all permits, too.
    let heavy = ask(&limiter, 3);
    drop(last);
    drop(granted(&heavy).unwrap());
    // It does not have to wait if nothing is in use.
    drop(at_once(&limiter, 4));
}

#[test]
fn rule_47_only_a_weight_above_the_most_permits_there_ever_were_is_refused() {
    let limiter = Limiter::new(4);
    let refused = |weight| limiter.request(weight, Waker::noop()).unwrap_err().to_string();
    let above = |most| format!("at most {most}, the largest number of permits that the limiter has had");
    assert_eq!(refused(5), format!("weight must be {}, got 5", above(4)));
    limiter.set_permits(6);
    limiter.set_permits(1);
    assert_eq!(refused(7), format!("weight must be {}, got 7", above(6)));
    drop(at_once(&limiter, 6));
    assert_eq!((limiter.in_use(), limiter.permits()), (0, 1));
    let limiter = Limiter::new(0);
    let error = limiter.request(1, Waker::noop()).unwrap_err();
    assert_eq!(error.to_string(), "limiter must be created with at least 1 permit, got Limiter::new(0)");
    limiter.set_permits(1);
    drop(at_once(&limiter, 1));
    let error = Limiter::per_second(0).request(1, Waker::noop()).unwrap_err();
    assert_eq!(error.found(), "Limiter::per_second(0)");
}

#[test]
fn rule_47_no_permits_hold_everything_back_until_there_are_some() {
    let limiter = Limiter::new(3);
    limiter.set_permits(0);
    let (heavy, light) = (ask(&limiter, 3), ask(&limiter, 1));
    assert!(granted(&heavy).is_none() && granted(&light).is_none());
    limiter.set_permits(1);
    drop(granted(&heavy).unwrap());
    limiter.set_permits(0);
    // It was granted before.
    drop(granted(&light).unwrap());
    assert_eq!(limiter.in_use(), 0);
    drop(ask(&limiter, 1));
}

#[test]
fn permits_are_renewed_unless_a_request_waits() {
    let (limiter, other) = (Limiter::new(2), Limiter::new(9));
    let mut permit = at_once(&limiter, 2);
    assert!(permit.renew());
    let waiting = ask(&limiter, 1);
    assert!(!permit.renew());
    drop(permit);
    let mut permit = granted(&waiting).unwrap();
    limiter.set_permits(0);
    assert!(!permit.renew());
    limiter.set_permits(1);
    assert!(permit.renew());
    drop(permit);
    let both = LimiterSet::from(other.clone()).and(&limiter);
    let Ok(Acquired::Now(mut permit)) = both.request(2, Waker::noop()) else { panic!("both are free") };
    assert!(permit.renew(), "it runs alone");
    let waiting = ask(&limiter, 1);
    assert!(!permit.renew());
    drop(waiting);
    limiter.hold_back(Duration::from_secs(100));
    assert!(!permit.renew());
    assert_eq!((limiter.in_use(), other.in_use()), (2, 2));
    drop(permit);
    assert_eq!((limiter.in_use(), other.in_use()), (0, 0));
}

#[test]
fn rule_38_a_renewed_permit_is_another_start() {
    let limiter = Limiter::builder().rate(1, Duration::from_secs(3_600)).burst(3).build().unwrap();
    let mut permit = at_once(&limiter, 1);
    assert!(permit.renew() && permit.renew() && !permit.renew());
    // Nothing has begun with it.
    drop(permit.unused());
    let mut permit = at_once(&limiter, 1);
    assert!(!permit.renew());
}

#[test]
fn permits_are_taken_once() {
    let limiter = Limiter::new(1);
    let running = at_once(&limiter, 1);
    let ticket = ask(&limiter, 1);
    drop(running);
    let permit = granted(&ticket).unwrap();
    assert!(ticket.poll(Waker::noop()).is_pending());
    drop(ticket);
    assert_eq!(limiter.in_use(), 1);
    drop(permit);
    assert_eq!(limiter.in_use(), 0);
}
