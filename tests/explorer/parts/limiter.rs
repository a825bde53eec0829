//! The shared limiter.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::attempts::again;
use crate::explore::describe;
use crate::limiter::Limiter;
use crate::rt::world;

/// The most permits that the limiter ever has.
const MOST: usize = 5;

/// The heaviest request. The limiter begins with this many permits, and has fewer at times, so that such a request runs
/// alone.
const HEAVIEST: usize = 3;

/// Several tasks acquire permits, release them and leave the queue, while the permits and the rate change, and holds begin.
pub(crate) fn permits_come_back() {
    let draw = |most: usize| thread_rng().gen_range(1..=most);
    // The requests of each task: a weight, and a flag that makes the task leave the queue instead of waiting.
    let asked: Vec<Vec<(u32, bool)>> =
        (0..4).map(|_| (0..draw(3)).map(|_| (draw(HEAVIEST) as u32, draw(5) == 1)).collect()).collect();
    let orders: Vec<(usize, usize)> = (0..draw(4)).map(|_| (draw(MOST), draw(4))).collect();
    let tick = Duration::from_micros([0, 1, 30][draw(3) - 1]);
    describe(format!(
        "asked (weight, leaves): {asked:?}; orders (permits or time, kind): {orders:?}; tick {tick:?}"
    ));
    world::begin(tick, 0);

    let (limiter, used) = (Limiter::new(HEAVIEST), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = asked
        .into_iter()
        .map(|asked| {
            let (limiter, used) = (limiter.clone(), Arc::clone(&used));
            spawn(async move {
                for (weight, leaves) in asked {
                    if leaves {
                        leave(&limiter, weight).await;
                        continue;
                    }
                    let _permit = limiter.acquire_many(weight).await.unwrap();
                    let in_use = used.fetch_add(weight as usize, SeqCst) + weight as usize;
                    assert!(in_use <= MOST, "{in_use} permits in use");
                    yield_now().await;
                    used.fetch_sub(weight as usize, SeqCst);
                }
            })
        })
        .collect();
    let resized = limiter.clone();
    let resizing = thread::spawn(move || {
        for (size, kind) in orders {
            let time = Duration::from_micros(20 * size as u64);
            match kind {
                1 | 2 => resized.set_permits(size),
                3 => resized.set_rate(1, time).unwrap(),
                _ => resized.hold_back(time),
            }
            thread::yield_now();
        }
    });
    tasks.into_iter().for_each(|task| block_on(task).unwrap());
    resizing.join().unwrap();
    let limiter = format!("{limiter:?}");
    assert!(limiter.contains("in_use: 0") && limiter.contains("waiting: 0"), "{limiter}");
}

/// Joins the queue and leaves it later, even if the permits were granted meanwhile.
async fn leave(limiter: &Limiter, weight: u32) {
    let acquired = poll_fn(|cx| Poll::Ready(limiter.request(weight, cx.waker()))).await;
    again().await;
    drop(acquired);
}
