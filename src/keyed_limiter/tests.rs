//! What the rules do not show: what runs use, and the caller's code.

use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::rt::{AtomicUsize, Instant, Mutex, sleep_until, spawn};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(wakes));
    pin!(future).poll(&mut Context::from_waker(&waker))
}

async fn sleep(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

fn of_keys(max_keys: usize) -> KeyedLimiter<u32> {
    KeyedLimiter::builder().permits(1).max_keys(max_keys).build().unwrap()
}

#[test]
fn a_key_with_a_clone_of_its_limiter_is_remembered() {
    let limiter = of_keys(2);
    let of_key = limiter.limiter(&1).unwrap().0;
    let clone = of_key.clone();
    drop(of_key);
    let permit = limiter.try_acquire(1).unwrap();
    assert_eq!((clone.in_use(), limiter.keys()), (1, 1), "it is the same limiter");
    drop(clone);
    assert_eq!(limiter.keys(), 1, "the permit has a clone");
    let other = limiter.limiter(&2).unwrap().0;
    assert!(limiter.limiter(&3).is_none() && limiter.limiter(&1).is_some());
    drop(permit);
    let third = limiter.limiter(&3).unwrap().0;
    // It was reported as unused, and is used again before anybody looks at it.
    drop(third);
    let third = limiter.limiter(&3).unwrap().0;
    let permit = limiter.try_acquire(3).unwrap();
    assert_eq!((third.in_use(), limiter.keys()), (1, 2), "it is the same limiter");
    drop((other, third, permit));
    assert_eq!(limiter.keys(), 0);
}

/// A run asks for a key that is remembered in this way, and forgets none.
#[test]
fn a_key_that_is_found_again_and_again_is_reported_once() {
    let limiter = of_keys(2);
    for _ in 0..3 {
        drop(limiter.try_acquire(1));
        for _ in 0..1_000 {
            drop(limiter.known(&1));
        }
        assert_eq!((limiter.shared.reports(), limiter.keys(), limiter.shared.reports()), (1, 0, 0));
    }
    let used = limiter.limiter(&1).unwrap().0;
    let other = limiter.limiter(&2).unwrap().0;
    drop(other);
    drop(limiter.try_acquire(2));
    // A key that was looked at while it was used is reported again.
    assert_eq!((limiter.keys(), limiter.shared.reports()), (1, 0));
    drop(used);
    assert_eq!((limiter.shared.reports(), limiter.keys()), (1, 0));
}

#[test]
fn room_is_a_queue_and_each_change_wakes_its_first() {
    let limiter = of_keys(1);
    let permit = limiter.try_acquire(1).unwrap();
    let wakes: [Arc<Wakes>; 3] = Default::default();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(limiter.room())).collect();
    for (waiting, wakes) in waiting.iter_mut().zip(&wakes) {
        assert!(poll(waiting, wakes).is_pending());
    }
    let counts = || [0, 1, 2].map(|at: usize| wakes[at].count());
    drop(permit);
    assert_eq!(counts(), [1, 0, 0]);
    // It leaves without its turn, then one that is not the first.
    let third = waiting.pop().unwrap();
    drop(waiting.remove(0));
    assert_eq!(counts(), [1, 1, 0]);
    // A key that is added first takes the room.
    let of_key = limiter.limiter(&2).unwrap().0;
    assert!(poll(&mut waiting[0], &wakes[1]).is_pending());
    drop(of_key);
    assert_eq!(counts(), [1, 2, 0]);
    assert!(poll(&mut waiting[0], &wakes[1]).is_ready());
    assert_eq!(counts(), [1, 2, 1], "there may be room for more");
    let mut third = third;
    assert!(poll(&mut third, &wakes[2]).is_ready());
    assert!(limiter.limiter(&3).is_some());
    // A future that has not been polled is not in the queue.
    drop(limiter.room());
    assert!(limiter.shared.waiter(None).poll(&mut Context::from_waker(Waker::noop()), &mut Ok).is_ready());
}

#[tokio::test(start_paused = true)]
async fn room_comes_with_time_and_with_what_other_calls_forget() {
    let limiter = KeyedLimiter::builder().rate(1, SECOND).max_keys(1).build().unwrap();
    drop(limiter.try_acquire(1).unwrap());
    let begun = Instant::now();
    limiter.room().await;
    assert_eq!(begun.elapsed(), SECOND);
    drop(limiter.try_acquire(2).unwrap());
    let waiting = spawn(limiter.room());
    sleep(SECOND / 2).await;
    assert_eq!(limiter.keys(), 1);
    sleep(SECOND).await;
    assert_eq!(limiter.keys(), 0);
    waiting.await.unwrap();
    assert!(limiter.limiter(&3).is_some());
}

/// A request for a key that another task has added does not wait for its turn in the queue for room.
#[test]
fn a_key_that_is_added_wakes_all_that_wait_for_it() {
    let limiter = of_keys(1);
    let permit = limiter.try_acquire(1).unwrap();
    let wakes: [Arc<Wakes>; 3] = Default::default();
    let mut waiting: Vec<_> = [2, 3, 2].map(|key| Box::pin(limiter.acquire(key))).into();
    for (waiting, wakes) in waiting.iter_mut().zip(&wakes) {
        assert!(poll(waiting, wakes).is_pending());
    }
    drop(permit);
    let permit = poll(&mut waiting[0], &wakes[0]);
    assert!(permit.is_ready());
    let counts = [0, 1, 2].map(|at: usize| wakes[at].count());
    assert_eq!(counts, [1, 1, 1]);
    assert!(poll(&mut waiting[2], &wakes[2]).is_pending() && poll(&mut waiting[1], &wakes[1]).is_pending());
    assert_eq!((limiter.waiting(&2), limiter.waiting(&3)), (1, 0));
    drop(permit);
    assert!(poll(&mut waiting[2], &wakes[2]).is_ready());
    assert!(poll(&mut waiting[1], &wakes[1]).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_used_again_and_again_leaves_no_traces() {
    let limiter = KeyedLimiter::builder().rate(1_000, SECOND).build().unwrap();
    let kept = limiter.limiter(&0).unwrap().0;
    for step in 0..10_000_u64 {
        drop(limiter.try_acquire(1));
        limiter.hold_back(&2, Duration::from_millis(if step % 3 == 0 { 20 } else { 3 }));
        sleep(Duration::from_millis(step % 3)).await;
        let (keys, times) = limiter.shared.sizes();
        assert!(keys <= 3 && times <= 4, "{keys} keys, {times} times");
    }
    drop(kept);
    sleep(SECOND).await;
    assert_eq!((limiter.keys(), limiter.shared.sizes()), (0, (0, 0)));
}

/// Panics in one of its methods, or checks that the keys are not locked.
struct Rude {
    number: u32,
    panics_in: &'static str,
    limiter: Arc<Mutex<Option<KeyedLimiter<Rude>>>>,
    calls: Arc<AtomicUsize>,
}

impl Rude {
    fn call(&self, method: &str) {
        self.calls.fetch_add(1, SeqCst);
        let limiter = self.limiter.lock().unwrap().clone();
        if let Some(limiter) = limiter {
            assert!(!limiter.shared.is_locked(), "{method} runs under the lock");
        }
        assert!(self.panics_in != method, "{method}");
    }

    fn with(&self, number: u32, panics_in: &'static str) -> Self {
        Self { number, panics_in, limiter: Arc::clone(&self.limiter), calls: Arc::clone(&self.calls) }
    }
}

impl Hash for Rude {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call("hash");
        // All odd numbers have the same hash.
        (self.number % 2).hash(state);
    }
}

impl PartialEq for Rude {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.panics_in != "eq" && other.panics_in != "eq", "eq");
        self.number == other.number
    }
}

impl Eq for Rude {}

impl Clone for Rude {
    fn clone(&self) -> Self {
        self.call("clone");
        self.with(self.number, self.panics_in)
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.call("drop");
    }
}

#[test]
fn a_key_that_panics_does_no_harm_and_runs_without_the_lock() {
    let limiter = KeyedLimiter::builder().permits(1).max_keys(3).build().unwrap();
    let good = Rude { number: 1, panics_in: "", limiter: Arc::default(), calls: Arc::default() };
    *good.limiter.lock().unwrap() = Some(limiter.clone());
    let permit = limiter.try_acquire(good.with(1, "")).unwrap();
    for method in ["hash", "eq", "clone", "drop"] {
        for number in [1, 3, 5] {
            let tried =
                catch_unwind(AssertUnwindSafe(|| limiter.try_acquire(good.with(number, method)).is_some()));
            // A clone is needed only for a new key.
            assert_eq!(tried.is_err(), method != "clone" || number != 1, "{method} of {number}");
            let counted = catch_unwind(AssertUnwindSafe(|| limiter.keys()));
            // The key that panics when it is dropped was in the map, as a clone.
            assert_eq!(counted.is_err(), method == "drop" && number != 1, "{method} of {number}");
            assert_eq!((limiter.keys(), limiter.in_use(&good)), (1, 1), "{method} of {number}");
        }
    }
    let others = [2, 3].map(|number| limiter.try_acquire(good.with(number, "")).unwrap());
    assert!(limiter.try_acquire(good.with(4, "")).is_none());
    drop((permit, others));
    assert_eq!(limiter.keys(), 0);
    assert!(good.calls.load(SeqCst) > 20);
    // The key has the limiter, so this breaks the cycle.
    *good.limiter.lock().unwrap() = None;
}

/// Uses the limiter when it is woken and when it is dropped.
struct Reentrant(KeyedLimiter<u32>, Arc<AtomicUsize>);

impl Reentrant {
    fn call(&self) {
        self.1.fetch_add(1, SeqCst);
        assert!(!self.0.shared.is_locked());
        drop(self.0.try_acquire(7));
        assert!(self.0.keys() <= 2 && self.0.hold_back(&8, Duration::ZERO));
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

#[test]
fn wakers_may_use_the_limiter() {
    let limiter = of_keys(1);
    let calls = Arc::new(AtomicUsize::new(0));
    for drops_first in [false, true] {
        let permit = limiter.try_acquire(1).unwrap();
        let mut waiting: Vec<_> = [2, 3, 2, 4].map(|key| Box::pin(limiter.acquire(key))).into();
        for _ in 0..2 {
            for waiting in &mut waiting {
                let waker = Waker::from(Arc::new(Reentrant(limiter.clone(), Arc::clone(&calls))));
                assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        if drops_first {
            drop(waiting.remove(0));
        }
        drop(permit);
        for mut waiting in waiting {
            let waker = Waker::from(Arc::new(Reentrant(limiter.clone(), Arc::clone(&calls))));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        }
        assert_eq!(limiter.keys(), 0);
    }
    assert!(calls.load(SeqCst) > 20);
}
