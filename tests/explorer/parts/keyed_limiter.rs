//! The keyed limiter.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};

use crate::attempts::again;
use crate::explore::describe;
use crate::keyed_limiter::KeyedLimiter;
use crate::limiter::Permit;
use crate::rt::{FAR, world};

/// What a task does with a key.
#[derive(Debug, Clone, Copy)]
enum Step {
    Acquire,
    /// Waits as a run does: it asks for the limiter of the key, and waits for room.
    Enter,
    /// Leaves the queue, or returns the permit at once.
    Leave,
    HoldBack,
    Count,
}

/// Several tasks use more keys than are remembered. A task that is never woken is a deadlock. The limit of each key holds also
/// while keys are forgotten and come back.
pub(crate) fn keys_are_forgotten() {
    let draw = |most: usize| thread_rng().gen_range(1..=most);
    let kinds =
        [Step::Acquire, Step::Acquire, Step::Acquire, Step::Enter, Step::Leave, Step::HoldBack, Step::Count];
    let asked: Vec<Vec<(Step, usize)>> =
        (0..4).map(|_| (0..draw(3)).map(|_| (kinds[draw(kinds.len()) - 1], draw(3))).collect()).collect();
    let (permits, max_keys, has_rate) = (draw(2), draw(2), draw(2) == 1);
    let tick = Duration::from_micros([0, 1, 30][draw(3) - 1]);
    describe(format!(
        "asked (step, key): {asked:?}; {permits} permits, {max_keys} keys, rate: {has_rate}, tick {tick:?}"
    ));
    world::begin(tick, 0);

    let mut builder = KeyedLimiter::builder().permits(permits).max_keys(max_keys);
    if has_rate {
        builder = builder.rate(1, Duration::from_micros(50));
    }
    let limiter = builder.build().unwrap();
    // The mutex is the standard library's, so that locking it is no step of the schedule.
    let used = Arc::new(Mutex::new(BTreeMap::<usize, usize>::new()));
    let tasks: Vec<_> = asked
        .into_iter()
        .map(|asked| {
            let (limiter, used) = (limiter.clone(), Arc::clone(&used));
            spawn(async move {
                for (step, key) in asked {
                    let Some(_permit) = take(&limiter, step, key).await else { continue };
                    let in_use = {
                        let mut used = used.lock().unwrap();
                        let in_use = used.entry(key).or_default();
                        *in_use += 1;
                        *in_use
                    };
                    assert!(in_use <= permits, "{in_use} permits of key {key} in use");
                    yield_now().await;
                    *used.lock().unwrap().get_mut(&key).unwrap() -= 1;
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| block_on(task).unwrap());
    world::advance_to(world::read_clock() + FAR);
    assert_eq!(limiter.keys(), 0);
}

async fn take(limiter: &KeyedLimiter<usize>, step: Step, key: usize) -> Option<Permit> {
    match step {
        Step::Acquire => Some(limiter.acquire(key).await.unwrap()),
        Step::Enter => loop {
            if let Some((limiter, wakers)) = limiter.limiter(&key) {
                drop(wakers);
                return Some(limiter.acquire().await.unwrap());
            }
            limiter.room().await;
        },
        Step::Leave => {
            let mut acquire = pin!(limiter.acquire(key));
            let polled = poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx))).await;
            again().await;
            drop(polled);
            None
        }
        Step::HoldBack => {
            limiter.hold_back(&key, Duration::from_micros(40));
            None
        }
        Step::Count => {
            assert!(limiter.keys() <= 4 && limiter.in_use(&key) <= 2);
            None
        }
    }
}
