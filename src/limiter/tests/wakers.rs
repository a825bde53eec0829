//! Wakers that use the limiter themselves, when they are woken and when they are dropped.

use std::fmt::Write;
use std::mem;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::rt::AtomicUsize;

/// How often code of the caller's ran, and how often the limiter was locked at that time.
#[derive(Default)]
struct Calls {
    all: AtomicUsize,
    locked: AtomicUsize,
}

/// Code of the caller's that uses the limiter, and drops a ticket of its own, if it has one.
struct Reentrant {
    limiter: Limiter,
    calls: Arc<Calls>,
    ticket: Mutex<Option<Ticket>>,
}

impl Reentrant {
    fn new(limiter: &Limiter, calls: &Arc<Calls>, ticket: Option<Ticket>) -> Self {
        Self { limiter: limiter.clone(), calls: Arc::clone(calls), ticket: Mutex::new(ticket) }
    }

    fn call(&self) {
        self.calls.all.fetch_add(1, SeqCst);
        if self.limiter.shared.state.try_lock().is_err() {
            // The calls below, and dropping the ticket, would deadlock.
            self.calls.locked.fetch_add(1, SeqCst);
            mem::forget(self.ticket.lock().unwrap().take());
            return;
        }
        let ticket = self.ticket.lock().unwrap().take();
        drop(ticket);
        drop(self.limiter.request(1, Waker::noop()));
        self.limiter.set_permits(self.limiter.permits());
        assert!(self.limiter.in_use() <= 4);
    }
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.call();
    }
}

impl Write for Reentrant {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        self.call();
        Ok(())
    }
}

/// Runs the steps with a limiter of one permit, which is in use, and a maker of wakers. Returns how often the caller's
/// code ran.
fn count_calls(steps: impl FnOnce(&Limiter, Permit, &dyn Fn(Option<Ticket>) -> Waker)) -> usize {
    let (limiter, calls) = (Limiter::new(1), Arc::new(Calls::default()));
    let running = at_once(&limiter, 1);
    steps(&limiter, running, &|ticket| Waker::from(Arc::new(Reentrant::new(&limiter, &calls, ticket))));
    assert_eq!(calls.locked.load(SeqCst), 0, "the limiter was locked while code of the caller's ran");
    assert_eq!((limiter.in_use(), limiter.lock().waiting.len()), (0, 0));
    calls.all.load(SeqCst)
}

fn ask_with(limiter: &Limiter, waker: Waker) -> Ticket {
    match limiter.request(1, &waker) {
        Ok(Acquired::Later(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waker_that_is_replaced_is_dropped_while_the_limiter_is_not_locked() {
    let calls = count_calls(|limiter, running, waker| {
        let ticket = ask_with(limiter, waker(Some(ask(limiter, 1))));
        // The first drop of a waker drops the ticket that it has.
        assert!(ticket.poll(&waker(None)).is_pending());
        assert_eq!(limiter.lock().waiting.len(), 1);
        assert!(ticket.poll(Waker::noop()).is_pending());
        drop(running);
        assert!(granted(&ticket).is_some());
    });
    assert_eq!(calls, 2);
}

#[test]
fn the_waker_of_a_ticket_is_dropped_while_the_limiter_is_not_locked() {
    let calls = count_calls(|limiter, running, waker| {
        let tickets = [(); 3].map(|()| ask_with(limiter, waker(Some(ask(limiter, 1)))));
        let [first, second, third] = tickets;
        drop(second);
        drop(first);
        // The ticket that the waker of the third one has is granted its permits.
        drop(running);
        drop(third);
    });
    assert_eq!(calls, 3);
}

#[test]
fn a_waker_is_woken_while_the_limiter_is_not_locked() {
    for resizes in [false, true] {
        let calls = count_calls(|limiter, running, waker| {
            if resizes {
                // The first of them is woken after the ticket that its waker has was granted its permits.
                let tickets = [Some(ask(limiter, 1)), None, None].map(|has| ask_with(limiter, waker(has)));
                limiter.set_permits(4);
                let permits = tickets.each_ref().map(|ticket| granted(ticket).unwrap());
                assert_eq!(limiter.in_use(), 4);
                drop((permits, running));
            } else {
                let tickets = [(); 3].map(|()| ask_with(limiter, waker(None)));
                drop(running);
                for ticket in tickets {
                    drop(granted(&ticket).unwrap());
                }
            }
        });
        assert_eq!(calls, 6, "each is woken and dropped");
    }
}

#[test]
fn a_limiter_is_printed_while_it_is_not_locked() {
    let calls = count_calls(|limiter, running, _| {
        let calls = Arc::new(Calls::default());
        write!(Reentrant::new(limiter, &calls, None), "{limiter:?}").unwrap();
        assert!(calls.all.load(SeqCst) > 1);
        assert_eq!(calls.locked.load(SeqCst), 0);
        drop(running);
    });
    assert_eq!(calls, 0);
}
